//! The exact derivatives of matrix products: contractions of three operands.
//!
//! Both are `out[i, j] = Σ_r mul_grad(own[i, j], right[r, j], delta[i, r])`, the derivative by the
//! right operand with rows and columns exchanged. `own` is fixed for an output element and gives a
//! mantissa, `right` and `delta` are packed like the operands of a product.

use super::columns::{Columns, Strided};
use super::facts::{Facts, Form};
use super::pack::{Extras, LeftPanel, RightPanel, narrow};
use super::serial::{BLOCK_COLUMNS, BLOCK_ROWS};
use super::stand_in::StandIn;
#[cfg(target_arch = "x86_64")]
use super::stand_in::settle;
#[cfg(target_arch = "x86_64")]
use super::tile::Raises;
use super::tile::{TILE_COLUMNS, TILE_ROWS, Tile};
use super::{GRAIN, K_CHUNK, Matrices, cut};
use crate::Pool;
use crate::isa::{Isa, isa};
use crate::pa::{self, Offset};
use crate::simd::multiversion;
use std::cell::RefCell;
use std::ops::Range;

const MIN: i64 = 0x0080_0000;
const INF: i64 = 0x7F80_0000;
const BIAS: i64 = 0x3F80_0000;
const MANTISSA: i64 = 0x007F_FFFF;

/// `grad[m, k] = Σ_n mul_grad(a[m, k], b[k, n], delta[m, n])`, n in the order of all contractions.
///
/// # Panics
/// Where the operands are too short for their shapes.
pub fn matmul_grad_a(
    pool: &Pool,
    numbers: (Offset, u32),
    [m, n, k]: [usize; 3],
    a: Matrices<'_>,
    b: Matrices<'_>,
    delta: Matrices<'_>,
    out: &mut [f32],
) {
    grad(pool, numbers, [m, k, n], [a, transposed(b), delta], [k, 1], out);
}

/// `grad[k, n] = Σ_m mul_grad(b[k, n], a[m, k], delta[m, n])`, m in the order of all contractions.
///
/// # Panics
/// Where the operands are too short for their shapes.
pub fn matmul_grad_b(
    pool: &Pool,
    numbers: (Offset, u32),
    [m, n, k]: [usize; 3],
    a: Matrices<'_>,
    b: Matrices<'_>,
    delta: Matrices<'_>,
    out: &mut [f32],
) {
    grad(pool, numbers, [n, k, m], [transposed(b), a, transposed(delta)], [1, n], out);
}

fn transposed(x: Matrices<'_>) -> Matrices<'_> {
    Matrices { row: x.col, col: x.row, ..x }
}

/// The output of one matrix of the batch, at its strides.
#[derive(Clone, Copy)]
struct Target {
    base: *mut f32,
    row: usize,
    col: usize,
}

// SAFETY: the threads of a contraction write different elements.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// The same from a later element on.
    ///
    /// # Safety
    /// The element must belong to the output.
    unsafe fn skip(self, elements: usize) -> Target {
        // SAFETY: the caller promises that the element exists.
        Target { base: unsafe { self.base.add(elements) }, ..self }
    }
}

fn grad(
    pool: &Pool,
    numbers: (Offset, u32),
    [rows, columns, n]: [usize; 3],
    operands: [Matrices<'_>; 3],
    [row, col]: [usize; 2],
    out: &mut [f32],
) {
    let [own, right, delta] = operands;
    let batch = own.offsets.len();
    let size = rows * columns;
    assert_eq!(out.len(), batch * size, "the output is dense");
    assert!(right.offsets.len() == batch && delta.offsets.len() == batch, "one batch for all");
    if out.is_empty() || n == 0 {
        return out.fill(0.0);
    }
    own.check("the operand", rows, columns);
    right.check("the other operand", n, columns);
    delta.check("the gradient", rows, n);
    let work = size.saturating_mul(n.max(1));
    let parts = if batch >= pool.threads() { 1 } else { pool.threads().min(work / GRAIN + 1) };
    let by_rows = rows >= 2 * TILE_ROWS * parts || rows >= columns;
    let base = Target { base: out.as_mut_ptr(), row, col };
    pool.each(batch * parts, &|task| {
        let (matrix, part) = (task / parts, task % parts);
        let whole = (0..rows, 0..columns);
        let (rows, columns) = if by_rows {
            (cut(rows, TILE_ROWS, part, parts)..cut(rows, TILE_ROWS, part + 1, parts), whole.1)
        } else {
            let columns = |i| cut(columns, TILE_COLUMNS, i, parts);
            (whole.0, columns(part)..columns(part + 1))
        };
        // SAFETY: the output holds a matrix for each of the batch, and the tasks write different
        // elements.
        unsafe {
            block(
                numbers,
                (rows, columns, n),
                operands.map(|x| x.at(matrix)),
                base.skip(matrix * size),
            );
        }
    });
}

#[derive(Default)]
struct Workspace {
    right: RightPanel,
    left: LeftPanel,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// A block of one matrix on one thread.
///
/// # Safety
/// The rows and columns must belong to the target, and no other thread may use them.
unsafe fn block(
    (offset, mantissa): (Offset, u32),
    (rows, columns, n): (Range<usize>, Range<usize>, usize),
    [own, right, delta]: [Strided<'_>; 3],
    target: Target,
) {
    let mut sums: Tile = [0.0; TILE_ROWS * TILE_COLUMNS];
    let store = |i: Range<usize>, j: Range<usize>, sums: &Tile, add: bool| {
        // Along the memory: lines of the output are rows or columns of the tile.
        let rows = target.col == 1;
        let (lines, line) = if rows { (i.clone(), j.clone()) } else { (j.clone(), i.clone()) };
        let [far, near] = if rows { [TILE_COLUMNS, 1] } else { [1, TILE_COLUMNS] };
        for (place, at) in lines.enumerate() {
            let first = at * target.row.max(target.col) + line.start;
            // SAFETY: the caller hands over these rows and columns, one of which lie side by side.
            let out = unsafe { std::slice::from_raw_parts_mut(target.base.add(first), line.len()) };
            let sums = sums[place * far..].iter().step_by(near);
            out.iter_mut().zip(sums).for_each(|(o, x)| *o = if add { *o + x } else { *x });
        }
    };
    // Asked once, since panels are prepared for what reads them.
    let isa = isa();
    WORKSPACE.with_borrow_mut(|w| {
        for from in columns.clone().step_by(BLOCK_COLUMNS) {
            let to = (from + BLOCK_COLUMNS).min(columns.end);
            for start in (0..n).step_by(K_CHUNK) {
                let chunk = start..(start + K_CHUNK).min(n);
                w.right.pack(&right, chunk.clone(), from..to, mantissa);
                let all = w.right.all();
                for first in rows.clone().step_by(BLOCK_ROWS) {
                    let block = first..(first + BLOCK_ROWS).min(rows.end);
                    w.left.pack(delta, block.clone(), chunk.clone(), (0, 23), |facts| {
                        extras(facts, all, offset, isa)
                    });
                    #[cfg(target_arch = "x86_64")]
                    if isa >= Isa::Avx2 && offset == 0 {
                        let delta = w.left.all();
                        w.right.prepare(false, |right| StandIn::slope(delta, slopes(right, 0)));
                    }
                    for (p, j) in (from..to).step_by(TILE_COLUMNS).enumerate() {
                        let j = j..(j + TILE_COLUMNS).min(to);
                        for (q, i) in block.clone().step_by(TILE_ROWS).enumerate() {
                            let i = i..(i + TILE_ROWS).min(block.end);
                            let own = read(&own, i.clone(), j.clone(), mantissa);
                            let shape = [i.len(), j.len()];
                            tile(
                                &own,
                                (&w.left, q),
                                (&w.right, p),
                                shape,
                                (offset, isa),
                                &mut sums,
                            );
                            store(i, j.clone(), &sums, start > 0);
                        }
                    }
                }
            }
        }
    });
}

/// The operand by which the derivative is taken, for a tile.
fn read(own: &Strided<'_>, i: Range<usize>, j: Range<usize>, mantissa: u32) -> Tile {
    let mut values = [1.0; TILE_ROWS * TILE_COLUMNS];
    own.copy(i, j, TILE_COLUMNS, &mut values);
    if mantissa < 23 {
        narrow(&mut values, mantissa);
    }
    values
}

#[cfg(target_arch = "x86_64")]
multiversion! { pam
    /// The mantissas with the offset added; zeros and subnormals have none.
    fn raise(own: &Tile, offset: Offset, raises: &mut [i32; TILE_ROWS * TILE_COLUMNS]) {
        for (x, raise) in own.iter().zip(raises) {
            let m = x.to_bits() & 0x7FFF_FFFF;
            let normal = (m >= MIN as u32) & (m < INF as u32);
            *raise = if normal { (m & MANTISSA as u32) as i32 } else { 0 } + offset;
        }
    }
}

/// What the slopes are like that derivatives by a panel's partners have. A slope may be out of range, and is
/// then no number.
fn slopes(right: Facts, offset: Offset) -> Facts {
    let [smallest, largest] = [right.smallest, right.largest].map(i64::from);
    let lowest = (smallest + i64::from(offset.min(0))) & !MANTISSA;
    let highest = (largest + MANTISSA + i64::from(offset.max(0))) & !MANTISSA;
    // What is not finite stays so.
    let highest = if largest >= INF { INF } else { highest };
    Facts { smallest: lowest as u32, largest: highest as u32, zero: right.zero }
}

/// What the micro-kernels for products need that are exact here.
fn form(delta: Facts, slopes: Facts) -> Form {
    match Form::of(delta, slopes, 0) {
        form if form < Form::Full && i64::from(slopes.smallest) < MIN => Form::Compare,
        form => form,
    }
}

/// What is read of a panel of the gradient.
fn extras(delta: Facts, right: Facts, offset: Offset, isa: Isa) -> Extras {
    let slopes = slopes(right, offset);
    let form = form(delta, slopes);
    let tiles = isa >= Isa::Avx2 && form < Form::Compare;
    let stand_in = StandIn::left(delta, slopes, 0).filter(|_| tiles);
    let zeros = right.zero || delta.zero && stand_in.is_none();
    Extras { floors: zeros || form >= Form::Compare, parts: false, masks: false, stand_in }
}

fn tile(
    own: &Tile,
    (left, q): (&LeftPanel, usize),
    (right, p): (&RightPanel, usize),
    shape: [usize; 2],
    (offset, isa): (Offset, Isa),
    out: &mut Tile,
) {
    let b = right.panel(p);
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        let (delta, slopes) = (left.facts[q], slopes(right.facts[p], offset));
        let (stand_in, slope) = (left.stand_in(q), right.stand_in(p));
        let floors = match form(delta, slopes) {
            Form::Full | Form::Special => {
                return special(own, left.sums(q), b, offset, out);
            }
            Form::Compare => true,
            _ => delta.zero && stand_in.is_none() || slopes.zero && slope.is_none(),
        };
        let mut raises = Raises([0; TILE_ROWS * TILE_COLUMNS]);
        raise(own, offset, &mut raises.0);
        let floors = floors.then(|| left.floors(q));
        crate::x86::grad_tile(&raises, (left.sums(q), floors), b, (shape, isa), out);
        if let Some(StandIn { least, .. }) = stand_in.or(slope) {
            settle(out, least);
        }
        // A derivative by NaN is NaN, whatever the micro-kernel made of it.
        if own.iter().fold(false, |nan, a| nan | a.is_nan()) {
            let nan = own.iter().zip(out).filter(|(a, _)| a.is_nan());
            nan.for_each(|(_, o)| *o = f32::NAN);
        }
        return;
    }
    special(own, left.sums(q), b, offset, out);
}

multiversion! { pam
    /// The specification itself.
    fn special(own: &Tile, sums: &[i32], right: &[f32], offset: Offset, out: &mut Tile) {
        out.fill(0.0);
        for (sums, b) in sums.chunks_exact(TILE_ROWS).zip(right.chunks_exact(TILE_COLUMNS)) {
            let rows = out.chunks_exact_mut(TILE_COLUMNS).zip(own.chunks_exact(TILE_COLUMNS));
            for ((out, own), &sum) in rows.zip(sums) {
                let delta = f32::from_bits((sum as u32).wrapping_add(BIAS as u32));
                for ((o, &a), &b) in out.iter_mut().zip(own).zip(b) {
                    *o += pa::mul_grad(a, b, delta, offset);
                }
            }
        }
    }
}
