//! Checks the reductions against the documented order of additions.

use pam_runtime::cuda::machine::{Arg, download, upload};
use pam_runtime::cuda::{CudaError, Device, Machine};

use crate::spec::{Data, Random, same};

/// One line by the documentation; `what` is 0 sum, 1 sum of magnitudes, 2 maximum, 3 minimum.
fn expected(what: u32, line: &[f32]) -> f32 {
    if what >= 2 {
        let start = if what == 2 { f32::NEG_INFINITY } else { f32::INFINITY };
        return line.iter().fold(start, |best, &x| {
            let keep = best.is_nan() || if what == 2 { best > x } else { best < x };
            if keep { best } else { x }
        });
    }
    let mut total = 0.0;
    for (c, chunk) in line.chunks(4096).enumerate() {
        let mut lanes = [0f32; 16];
        for (r, x) in chunk.iter().enumerate() {
            lanes[r % 16] += if what == 1 { x.abs() } else { *x };
        }
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        total = if c == 0 { lanes[0] } else { total + lanes[0] };
    }
    total
}

/// Runs every shape, reduction and kind of data; returns the numbers passed and failed.
///
/// # Errors
///
/// The driver's.
pub fn check(device: &Device) -> Result<(u32, u32), CudaError> {
    let (mut passed, mut failed) = (0, 0);
    let shapes: [[usize; 3]; 7] = [
        [5, 7, 1],
        [4000, 192, 1],
        [2, 9000, 1],
        [1, 200_001, 1],
        [2, 5, 33],
        [1, 9001, 70],
        [3, 17, 2],
    ];
    for [outer, reduced, inner] in shapes {
        for what in 0..4 {
            for data in [Data::Normal, Data::ZerosBoth, Data::Specials, Data::Bits] {
                let mut random = Random(0x5EED_0001 + (reduced * 31 + inner) as u64);
                let x = random.values(data, true, outer * reduced * inner);
                let got = run(device, &x, [outer, reduced, inner], what)?;
                let wrong = (0..outer * inner).any(|n| {
                    let (o, i) = (n / inner, n % inner);
                    let line: Vec<f32> = (0..reduced)
                        .map(|r| f32::from_bits(x[(o * reduced + r) * inner + i]))
                        .collect();
                    !same(expected(what, &line).to_bits(), got[n])
                });
                if wrong {
                    failed += 1;
                    println!("FAILED reduction {what} of {outer}x{reduced}x{inner}, {data:?}");
                } else {
                    passed += 1;
                }
            }
        }
    }
    Ok((passed, failed))
}

fn run(
    device: &Device,
    x: &[u32],
    [outer, reduced, inner]: [usize; 3],
    what: u32,
) -> Result<Vec<u32>, CudaError> {
    let (left, chunks) = (outer * inner, reduced.div_ceil(4096));
    let source = upload(device, x, "x")?;
    let partial = device.alloc(left * chunks * 4, "chunk values")?;
    let out = device.alloc(left * 4, "out")?;
    let target = if chunks == 1 { out.address() } else { partial.address() };
    let (o, r, i, c) = (outer as u32, reduced as u32, inner as u32, chunks as u32);
    // SAFETY: the arguments follow the kernels' parameter lists, and the buffers have the sizes that
    // they write.
    unsafe {
        if inner == 1 {
            let grid = if chunks == 1 { (o.div_ceil(16), 1, 1) } else { (c.div_ceil(16), o, 1) };
            let args = [
                Arg::U64(source.address()),
                Arg::U32(o),
                Arg::U32(r),
                Arg::U32(what),
                Arg::U32(c),
                Arg::U64(target),
            ];
            device.launch("pam_reduce_rows", grid, 256, &args)?;
        } else {
            let args = [
                Arg::U64(source.address()),
                Arg::U32(o),
                Arg::U32(r),
                Arg::U32(i),
                Arg::U32(what),
                Arg::U64(target),
            ];
            device.launch("pam_reduce_columns", (i.div_ceil(32), c, o), 256, &args)?;
        }
        if chunks > 1 {
            let args = [
                Arg::U64(partial.address()),
                Arg::U64(out.address()),
                Arg::U64(left as u64),
                Arg::U32(c),
                Arg::U32(what),
            ];
            device.launch("pam_reduce_chunks", ((left as u32).div_ceil(256), 1, 1), 256, &args)?;
        }
    }
    let mut got = vec![0; left];
    download(device, &out, &mut got)?;
    Ok(got)
}
