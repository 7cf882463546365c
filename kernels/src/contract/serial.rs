//! One block of a product on one thread.

use super::columns::{Columns, Strided};
#[cfg(target_arch = "x86_64")]
use super::facts::Form;
use super::out::Out;
use super::pack::{Extras, LeftPanel, RightPanel};
#[cfg(target_arch = "x86_64")]
use super::stand_in::StandIn;
use super::tile::{TILE_COLUMNS, TILE_ROWS};
use super::{Arithmetic, K_CHUNK, rows};
#[cfg(target_arch = "x86_64")]
use crate::isa::{Isa, isa};
use crate::pa::Offset;
use std::cell::RefCell;
use std::ops::Range;

/// Columns that are packed at a time: enough that packing the left operand once for each of these
/// blocks costs little.
pub(crate) const BLOCK_COLUMNS: usize = 2048;
/// Rows that are packed at a time: a chunk of them fits the second-level cache.
pub(crate) const BLOCK_ROWS: usize = 20 * TILE_ROWS;
/// Rows below which tiles waste more than they gain.
const FEW_ROWS: usize = 4;

#[derive(Default)]
struct Workspace {
    right: RightPanel,
    left: LeftPanel,
    block: Vec<f32>,
}

thread_local! {
    // Packed panels are reused from call to call, so that a step allocates nothing once warm.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Rows `0..m` and the columns of a product.
pub(crate) fn serial(
    arithmetic: Arithmetic,
    m: usize,
    columns: Range<usize>,
    k: usize,
    left: Strided<'_>,
    right: &impl Columns,
    out: Out,
) {
    if m == 0 || columns.is_empty() {
        return;
    }
    WORKSPACE.with_borrow_mut(|w| match arithmetic {
        Arithmetic::Native => native(w, m, columns, k, left, right, out),
        Arithmetic::Pa { offset, mantissa } => {
            if k == 0 {
                return zero(m, columns, out);
            }
            #[cfg(target_arch = "x86_64")]
            {
                // Asked once, since panels are prepared for what reads them.
                let isa = isa();
                if m >= FEW_ROWS && isa >= Isa::Avx2 {
                    return tiled(w, m, columns, k, left, right, out, (offset, mantissa), isa);
                }
            }
            rows::product(&mut w.block, m, columns, k, left, right, out, (offset, mantissa));
        }
    });
}

fn zero(m: usize, columns: Range<usize>, out: Out) {
    let zeros = vec![0.0; columns.len()];
    for i in 0..m {
        // SAFETY: the caller hands over these rows and columns.
        unsafe { out.store(i, columns.start, &zeros, false) };
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::too_many_arguments, reason = "a product has two operands, a place and a kind")]
fn tiled(
    w: &mut Workspace,
    m: usize,
    columns: Range<usize>,
    k: usize,
    left: Strided<'_>,
    right: &impl Columns,
    out: Out,
    numbers: (Offset, u32),
    isa: Isa,
) {
    let (offset, mantissa) = numbers;
    let mut tile = [0.0; TILE_ROWS * TILE_COLUMNS];
    let mut from = columns.start;
    while from < columns.end {
        let to = (from + BLOCK_COLUMNS).min(columns.end);
        for start in (0..k).step_by(K_CHUNK) {
            let chunk = start..(start + K_CHUNK).min(k);
            w.right.pack(right, chunk.clone(), from..to, mantissa);
            let all = w.right.all();
            for row in (0..m).step_by(BLOCK_ROWS) {
                let rows = row..(row + BLOCK_ROWS).min(m);
                w.left.pack(left, rows.clone(), chunk.clone(), numbers, |facts| {
                    Extras::of(facts, all, offset)
                });
                if Form::of(w.left.all(), all, offset) >= Form::Full {
                    w.right.find_peaks();
                }
                // AVX-512 masks by registers, which costs nothing.
                if isa == Isa::Avx2 {
                    let left = w.left.all();
                    w.right.prepare(true, |right| StandIn::right(left, right, offset, 1));
                }
                for (p, j) in (from..to).step_by(TILE_COLUMNS).enumerate() {
                    let width = TILE_COLUMNS.min(to - j);
                    for (q, i) in rows.clone().step_by(TILE_ROWS).enumerate() {
                        let rows = i..(i + TILE_ROWS).min(rows.end);
                        if start > 0 {
                            out.fetch(rows.clone(), j);
                        }
                        let shape = [rows.len(), width];
                        crate::x86::tile(
                            (&w.left, q),
                            (&w.right, p),
                            shape,
                            (offset, isa),
                            &mut tile,
                        );
                        // SAFETY: the caller hands over these rows and columns.
                        unsafe { out.store_rows(rows, j, &tile, TILE_COLUMNS, width, start > 0) };
                    }
                }
            }
        }
        from = to;
    }
}

/// The block of the right operand is copied out, and multiplied by the `gemm` crate.
fn native(
    w: &mut Workspace,
    m: usize,
    columns: Range<usize>,
    k: usize,
    left: Strided<'_>,
    right: &impl Columns,
    out: Out,
) {
    if k == 0 {
        return zero(m, columns, out);
    }
    // Enough columns to keep the product busy, few enough to keep the copy in the cache.
    let width = ((1 << 18) / k).clamp(TILE_COLUMNS, 4096).min(columns.len());
    w.block.resize(width * (k + m), 0.0);
    let (block, result) = w.block.split_at_mut(width * k);
    let mut from = columns.start;
    while from < columns.end {
        let n = width.min(columns.end - from);
        right.copy(0..k, from..from + n, n, block);
        let a = &left.data[left.offset..];
        // SAFETY: `a` holds m rows of k elements at its strides, `block` k rows of n and `result`
        // m rows of n elements; the caller of `matmul` has checked the operands' lengths.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                result.as_mut_ptr(),
                1,
                n as isize,
                false,
                a.as_ptr(),
                left.col as isize,
                left.row as isize,
                block.as_ptr(),
                1,
                n as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
        for i in 0..m {
            // SAFETY: the caller hands over these rows and columns.
            unsafe { out.store(i, from, &result[i * n..(i + 1) * n], false) };
        }
        from += n;
    }
}
