//! The exact derivatives of matrix products: contractions of three operands.
//!
//! Both are `out[i, j] = Σ_r mul_grad(own[i, j], right[r, j], delta[i, r])`, the derivative by the
//! right operand with rows and columns exchanged. `own` is fixed for an output element and gives a
//! mantissa, `right` and `delta` are packed like the operands of a product.

use super::columns::{Columns, Strided, interleave};
use super::facts::{Facts, Form};
use super::out::Out;
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
    grad(pool, numbers, [m, k, n], [a, transposed(b), delta], false, out);
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
    grad(pool, numbers, [n, k, m], [transposed(b), a, transposed(delta)], true, out);
}

fn transposed(x: Matrices<'_>) -> Matrices<'_> {
    Matrices { row: x.col, col: x.row, ..x }
}

/// The contraction, its output with rows and columns exchanged where `across` says so.
fn grad(
    pool: &Pool,
    numbers: (Offset, u32),
    [rows, columns, n]: [usize; 3],
    operands: [Matrices<'_>; 3],
    across: bool,
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
    let base = Out::dense(out, if across { rows } else { columns });
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
                (base.skip(matrix * size), across),
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
/// The rows and columns must belong to the output, and no other thread may use them.
unsafe fn block(
    (offset, mantissa): (Offset, u32),
    (rows, columns, n): (Range<usize>, Range<usize>, usize),
    [own, right, delta]: [Strided<'_>; 3],
    (out, across): (Out, bool),
) {
    let [mut sums, mut turned]: [Tile; 2] = [[0.0; TILE_ROWS * TILE_COLUMNS]; 2];
    let place = |i: &Range<usize>, j: &Range<usize>| {
        let (i, j) = (i.clone(), j.clone());
        if across { (j, i) } else { (i, j) }
    };
    let fetch = |i: &Range<usize>, j: &Range<usize>| {
        let (lines, line) = place(i, j);
        out.fetch(lines, line.start);
    };
    let mut store = |i: &Range<usize>, j: &Range<usize>, sums: &Tile, add: bool| {
        let (lines, line) = place(i, j);
        let (values, stride) = if across {
            interleave(sums, [TILE_COLUMNS, 1], [i.len(), j.len()], TILE_ROWS, &mut turned);
            (&turned, TILE_ROWS)
        } else {
            (sums, TILE_COLUMNS)
        };
        // SAFETY: the caller hands over these rows and columns.
        unsafe { out.store_rows(lines, line.start, values, stride, line.len(), add) };
    };
    let mut tile_of_own = Own::default();
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
                            let shape = [i.len(), j.len()];
                            tile_of_own.read(&own, i.clone(), j.clone(), (offset, mantissa));
                            if start > 0 {
                                fetch(&i, &j);
                            }
                            tile(
                                &tile_of_own,
                                (&w.left, q),
                                (&w.right, p),
                                shape,
                                (offset, isa),
                                &mut sums,
                            );
                            store(&i, &j, &sums, start > 0);
                        }
                    }
                }
            }
        }
    });
}

/// The operand by which the derivative is taken, for a tile.
struct Own {
    /// Where the tile is not whole, what an earlier one had there, which nobody reads.
    values: Tile,
    #[cfg(target_arch = "x86_64")]
    raises: Raises,
    /// Whether some are NaN.
    #[cfg(target_arch = "x86_64")]
    nan: bool,
}

impl Default for Own {
    fn default() -> Own {
        Own {
            values: [1.0; TILE_ROWS * TILE_COLUMNS],
            #[cfg(target_arch = "x86_64")]
            raises: Raises([0; TILE_ROWS * TILE_COLUMNS]),
            #[cfg(target_arch = "x86_64")]
            nan: false,
        }
    }
}

impl Own {
    fn read(
        &mut self,
        own: &Strided<'_>,
        i: Range<usize>,
        j: Range<usize>,
        (offset, mantissa): (Offset, u32),
    ) {
        own.copy(i, j, TILE_COLUMNS, &mut self.values);
        if mantissa < 23 {
            narrow(&mut self.values, mantissa);
        }
        #[cfg(target_arch = "x86_64")]
        raise(&self.values, offset, &mut self.raises.0, &mut self.nan);
    }
}

#[cfg(target_arch = "x86_64")]
multiversion! { pam
    /// The mantissas with the offset added; zeros and subnormals have none. Also whether there are NaNs.
    fn raise(
        own: &Tile,
        offset: Offset,
        raises: &mut [i32; TILE_ROWS * TILE_COLUMNS],
        nan: &mut bool
    ) {
        let mut most = 0;
        for (x, raise) in own.iter().zip(raises) {
            let m = x.to_bits() & 0x7FFF_FFFF;
            most = most.max(m);
            let normal = (m >= MIN as u32) & (m < INF as u32);
            *raise = if normal { (m & MANTISSA as u32) as i32 } else { 0 } + offset;
        }
        *nan = most > INF as u32;
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
    own: &Own,
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
                return special(&own.values, left.sums(q), b, offset, out);
            }
            Form::Compare => true,
            _ => delta.zero && stand_in.is_none() || slopes.zero && slope.is_none(),
        };
        let floors = floors.then(|| left.floors(q));
        crate::x86::grad_tile(&own.raises, (left.sums(q), floors), b, (shape, isa), out);
        if let Some(StandIn { least, .. }) = stand_in.or(slope) {
            settle(out, least);
        }
        // A derivative by NaN is NaN, whatever the micro-kernel made of it.
        if own.nan {
            let nan = own.values.iter().zip(out).filter(|(a, _)| a.is_nan());
            nan.for_each(|(_, o)| *o = f32::NAN);
        }
        return;
    }
    special(&own.values, left.sums(q), b, offset, out);
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
