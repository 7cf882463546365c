//! The timed part: contractions of many shapes and data, against their bound and the literature's
//! kernel.

use pam_runtime::cuda::contract::{Contraction, Kind};
use pam_runtime::cuda::machine::{Arg, download, upload};
use pam_runtime::cuda::{CudaError, Device, Machine};
use serde_json::{Value, json};

use crate::spec::{Data, Random, same};
use crate::{Case, element, shape};

/// Multiply-accumulates per clock and multiprocessor that the instruction mix of a form allows.
const RAW: f64 = 61.0;
const COMPARE: f64 = 30.0;
const EXACT: f64 = 32.0;

const REPEATS: usize = 21;

/// Median milliseconds of `work` by device events, after two warm-up runs.
fn median(
    device: &Device,
    mut work: impl FnMut() -> Result<(), CudaError>,
) -> Result<f64, CudaError> {
    work()?;
    work()?;
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let begin = device.event()?;
        work()?;
        let end = device.event()?;
        device.synchronize()?;
        times.push(f64::from(begin.elapsed_ms(&end)?));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPEATS / 2])
}

/// The multiprocessors' clock in GHz, taken while the device is still busy.
fn clock(device: &Device) -> Result<f64, CudaError> {
    let out = device.alloc(16, "the clock")?;
    // SAFETY: the kernel writes two 64-bit words.
    unsafe { device.launch("bench_clock", (1, 1, 1), 1, &[Arg::U64(out.address())]) }?;
    let mut pair = [0u64; 2];
    download(device, &out, &mut pair)?;
    Ok(pair[0] as f64 / pair[1].max(1) as f64)
}

struct Run {
    case: Case,
    kind: Kind,
    data: Data,
    form: &'static str,
    bound: Option<f64>,
}

fn runs() -> Vec<Run> {
    let mut runs = Vec::new();
    let big = Case { batch: 1, rows: 4096, cols: 4096, depth: 4096, turned: [false; 3] };
    for (data, form, bound) in [
        (Data::Normal, "raw", Some(RAW)),
        (Data::ZerosLeft, "masked left", None),
        (Data::ZerosRight, "masked right", None),
        (Data::ZerosBoth, "compare", Some(COMPARE)),
        (Data::Underflow, "compare", Some(COMPARE)),
        (Data::Overflow, "full", None),
    ] {
        runs.push(Run { case: big, kind: Kind::Product, data, form, bound });
    }
    for (data, form, bound) in [
        (Data::Normal, "exact derivative", Some(EXACT)),
        (Data::ZerosLeft, "exact derivative, masked", None),
        (Data::Underflow, "exact derivative, compare", None),
    ] {
        runs.push(Run { case: big, kind: Kind::ExactGradient, data, form, bound });
    }
    // Linear layers of a transformer, DeiT-Tiny at batch 256 (forward, weight gradient, attention),
    // and a skinny product.
    for (batch, rows, cols, depth, turned) in [
        (1, 2048, 768, 768, [false, true, false]),
        (1, 2048, 3072, 768, [false, true, false]),
        (1, 50432, 576, 192, [false, true, false]),
        (1, 50432, 192, 768, [false, true, false]),
        (1, 768, 192, 50432, [true, false, false]),
        (768, 197, 197, 64, [false, true, false]),
        (768, 197, 64, 197, [false, false, false]),
        (1, 4096, 16, 4096, [false, false, false]),
        (1, 512, 512, 512, [false, false, false]),
    ] {
        let case = Case { batch, rows, cols, depth, turned };
        let (data, kind) = (Data::Normal, Kind::Product);
        runs.push(Run { case, kind, data, form: "raw", bound: Some(RAW) });
    }
    runs
}

/// Times the raw form of the loaded contraction kernel, a variant with `columns` columns on the
/// integer pipe.
///
/// # Errors
///
/// As for [`report`].
pub fn tuning(device: &Device, columns: u32) -> Result<Value, CudaError> {
    let run = runs().swap_remove(0);
    let (mut row, _) = time(device, &run, f64::from(device.multiprocessors()))?;
    row["alu_columns"] = json!(columns);
    eprintln!("{row}");
    Ok(row)
}

/// Times everything; returns the JSON report.
///
/// # Errors
///
/// The driver's, or a result that differs from the specification.
pub fn report(device: &Device, commit: &str, tuning: Vec<Value>) -> Result<Value, CudaError> {
    let processors = f64::from(device.multiprocessors());
    let mut list = Vec::new();
    let mut raw = 0.0;
    for run in runs() {
        let (row, gmacs) = time(device, &run, processors)?;
        eprintln!("{row}");
        if list.is_empty() {
            raw = gmacs;
        }
        list.push(row);
    }
    let (paper, paper_gmacs) = literature(device)?;
    eprintln!("{paper}");
    Ok(json!({
        "device": device.name()?,
        "multiprocessors": processors,
        "arch": device.arch(),
        "driver": std::fs::read_to_string("/proc/driver/nvidia/version")
            .map(|text| text.lines().next().unwrap_or("").to_owned()).unwrap_or_default(),
        "nvrtc": device.nvrtc().map(|path| path.display().to_string()),
        "commit": commit,
        "command": std::env::args().collect::<Vec<_>>().join(" "),
        "repeats": REPEATS,
        "tuning": tuning,
        "runs": list,
        "literature": paper,
        "raw_over_literature": raw / paper_gmacs,
    }))
}

fn time(device: &Device, run: &Run, processors: f64) -> Result<(Value, f64), CudaError> {
    let Case { batch, rows, cols, depth, .. } = run.case;
    let mut random = Random(0xDEC0_DE5E_ED00_0001);
    let left = random.values(run.data, true, batch * rows * depth);
    let right = random.values(run.data, false, batch * depth * cols);
    let own = random.values(run.data, true, batch * rows * cols);
    let (l, r, o) = (
        upload(device, &left, "left")?,
        upload(device, &right, "right")?,
        upload(device, &own, "own")?,
    );
    let out = device.alloc(own.len() * 4, "out")?;
    let shape = shape(&run.case, run.kind);
    let contraction = Contraction::new(device, shape.clone())?;
    let space = device.alloc(contraction.workspace(), "the workspace")?;
    let (at, operands) = (space.address(), [&l, &r, &o, &out].map(|buffer| buffer.address()));
    // SAFETY: the buffers hold the shape's dense matrices.
    let whole = median(device, || unsafe { contraction.launch(device, at, operands) })?;
    // SAFETY: the operands were packed by the runs before.
    let kernel =
        median(device, || unsafe { contraction.contract(device, at, operands[2], operands[3]) })?;
    let ghz = clock(device)?;

    let mut got = vec![0u32; own.len()];
    download(device, &out, &mut got)?;
    for n in 0..200 {
        let (b, i, j) = (n * 31 % batch, n * 1009 % rows, n * 4099 % cols);
        let want = element(&shape, &left, &right, &own, b, i, j);
        if !same(want, got[(b * rows + i) * cols + j]) {
            return Err(CudaError::Driver(format!("a wrong result in {:?}", run.case)));
        }
    }

    let macs = contraction.macs() as f64;
    let gmacs = macs / kernel / 1e6;
    let bound = run.bound.map(|b| b * processors * ghz);
    let row = json!({
        "form": run.form,
        "data": format!("{:?}", run.data),
        "batch": batch, "rows": rows, "cols": cols, "depth": depth,
        "ms_with_packing": whole,
        "ms": kernel,
        "gmacs": gmacs,
        "gmacs_with_packing": macs / whole / 1e6,
        "clock_ghz": ghz,
        "mac_per_clock_per_sm": gmacs / ghz / processors,
        "bound_gmacs": bound,
        "share_of_bound": bound.map(|b| gmacs / b),
    });
    Ok((row, gmacs))
}

/// The literature's formulation at the size of the first run.
fn literature(device: &Device) -> Result<(Value, f64), CudaError> {
    let n = 4096u32;
    let mut random = Random(0xDEC0_DE5E_ED00_0001);
    let count = n as usize * n as usize;
    let left = upload(device, &random.values(Data::Normal, true, count), "left")?;
    let right = upload(device, &random.values(Data::Normal, false, count), "right")?;
    let out = device.alloc(count * 4, "out")?;
    let args = [
        Arg::U64(left.address()),
        Arg::U64(right.address()),
        Arg::U64(out.address()),
        Arg::U32(n),
        Arg::U32(n),
        Arg::U32(n),
    ];
    let grid = (n / 32, n / 32, 1);
    // SAFETY: three dense n × n matrices, and n is a multiple of 32.
    let ms = median(device, || unsafe { device.launch("paper_matmul", grid, 256, &args) })?;
    let ghz = clock(device)?;
    let gmacs = f64::from(n).powi(3) / ms / 1e6;
    Ok((
        json!({"rows": n, "cols": n, "depth": n, "ms": ms, "gmacs": gmacs, "clock_ghz": ghz}),
        gmacs,
    ))
}
