//! The exact derivatives of matrix products: contractions of three operands.
//!
//! Both are `out[i, j] = Σ_r product(own[i, j], left[i, r], right[r, j])`, where `left` and `right` are packed like
//! the operands of a product: one of them is the gradient, the other one is what the derivative's slopes come
//! from, whose exponents a mantissa of `own` may raise by one. `own` is fixed for an output element.

use super::columns::{Columns, Strided};
use super::facts::{Facts, Form};
use super::out::Out;
use super::pack::{Extras, LeftPanel, RightPanel, narrow};
use super::serial::{BLOCK_COLUMNS, BLOCK_ROWS};
use super::stand_in::StandIn;
#[cfg(target_arch = "x86_64")]
use super::stand_in::settle;
#[cfg(target_arch = "x86_64")]
use super::tile::Raises;
use super::tile::{Slopes, TILE_COLUMNS, TILE_ROWS, Tile};
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
    grad(pool, numbers, [m, k, n], a, [delta, transposed(b)], Slopes::Right, out);
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
    grad(pool, numbers, [k, n, m], b, [transposed(a), delta], Slopes::Left, out);
}

fn transposed(x: Matrices<'_>) -> Matrices<'_> {
    Matrices { row: x.col, col: x.row, ..x }
}

/// The contraction over `n`.
fn grad(
    pool: &Pool,
    numbers: (Offset, u32),
    [rows, columns, n]: [usize; 3],
    own: Matrices<'_>,
    [left, right]: [Matrices<'_>; 2],
    slopes: Slopes,
    out: &mut [f32],
) {
    let batch = own.offsets.len();
    let size = rows * columns;
    assert_eq!(out.len(), batch * size, "the output is dense");
    assert!(right.offsets.len() == batch && left.offsets.len() == batch, "one batch for all");
    if out.is_empty() || n == 0 {
        return out.fill(0.0);
    }
    own.check("the operand", rows, columns);
    left.check("what is left of the others", rows, n);
    right.check("what is right of them", n, columns);
    let work = size.saturating_mul(n.max(1));
    let parts = if batch >= pool.threads() { 1 } else { pool.threads().min(work / GRAIN + 1) };
    let by_rows = rows >= 2 * TILE_ROWS * parts || rows >= columns;
    let base = Out::dense(out, columns);
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
                own.at(matrix),
                (left.at(matrix), right.at(matrix), slopes),
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
/// The rows and columns must belong to the output, and no other thread may use them.
unsafe fn block(
    numbers: (Offset, u32),
    (rows, columns, n): (Range<usize>, Range<usize>, usize),
    own: Strided<'_>,
    (left, right, slopes): (Strided<'_>, Strided<'_>, Slopes),
    out: Out,
) {
    let mut sums: Tile = [0.0; TILE_ROWS * TILE_COLUMNS];
    let mut tile_of_own = Own::default();
    let (offset, mantissa) = numbers;
    // The gradient keeps its mantissas.
    let mantissas = match slopes {
        Slopes::Left => [mantissa, 23],
        Slopes::Right => [23, mantissa],
    };
    // Asked once, since panels are prepared for what reads them.
    let kind = Kind { slopes, offset, isa: isa() };
    WORKSPACE.with_borrow_mut(|w| {
        for from in columns.clone().step_by(BLOCK_COLUMNS) {
            let to = (from + BLOCK_COLUMNS).min(columns.end);
            for start in (0..n).step_by(K_CHUNK) {
                let chunk = start..(start + K_CHUNK).min(n);
                w.right.pack(&right, chunk.clone(), from..to, mantissas[1]);
                let all = w.right.all();
                for first in rows.clone().step_by(BLOCK_ROWS) {
                    let block = first..(first + BLOCK_ROWS).min(rows.end);
                    w.left.pack(left, block.clone(), chunk.clone(), (0, mantissas[0]), |facts| {
                        kind.extras(facts, all)
                    });
                    #[cfg(target_arch = "x86_64")]
                    if kind.isa >= Isa::Avx2 {
                        let left = w.left.all();
                        w.right.prepare(false, |right| kind.right(left, right));
                    }
                    for (p, j) in (from..to).step_by(TILE_COLUMNS).enumerate() {
                        let j = j..(j + TILE_COLUMNS).min(to);
                        for (q, i) in block.clone().step_by(TILE_ROWS).enumerate() {
                            let i = i..(i + TILE_ROWS).min(block.end);
                            let shape = [i.len(), j.len()];
                            tile_of_own.read(&own, i.clone(), j.clone(), numbers);
                            if start > 0 {
                                out.fetch(i.clone(), j.start);
                            }
                            let operands = ((&w.left, q), (&w.right, p));
                            tile(&tile_of_own, operands, shape, kind, &mut sums);
                            let (first, width) = (j.start, j.len());
                            // SAFETY: the caller hands over these rows and columns.
                            unsafe {
                                out.store_rows(i, first, &sums, TILE_COLUMNS, width, start > 0);
                            }
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

/// What the slopes are like that come from a panel. A slope may be out of range, and is then no number.
fn slopes_of(panel: Facts, offset: Offset) -> Facts {
    let [smallest, largest] = [panel.smallest, panel.largest].map(i64::from);
    let lowest = (smallest + i64::from(offset.min(0))) & !MANTISSA;
    let highest = (largest + MANTISSA + i64::from(offset.max(0))) & !MANTISSA;
    // What is not finite stays so.
    let highest = if largest >= INF { INF } else { highest };
    Facts { smallest: lowest as u32, largest: highest as u32, zero: panel.zero }
}

/// What the bits of powers of two are multiples of.
const POWER: u32 = 1 << 23;

/// What is the same for all tiles.
#[derive(Clone, Copy)]
struct Kind {
    slopes: Slopes,
    offset: Offset,
    isa: Isa,
}

impl Kind {
    /// What is multiplied, from what the panels hold.
    fn factors(self, left: Facts, right: Facts) -> (Facts, Facts) {
        match self.slopes {
            Slopes::Left => (slopes_of(left, self.offset), right),
            Slopes::Right => (left, slopes_of(right, self.offset)),
        }
    }

    /// What the micro-kernels for products need that are exact here.
    fn form(self, left: Facts, right: Facts) -> Form {
        let (left, right) = self.factors(left, right);
        let slopes = if self.slopes == Slopes::Left { left } else { right };
        match Form::of(left, right, 0) {
            form if form < Form::Full && i64::from(slopes.smallest) < MIN => Form::Compare,
            form => form,
        }
    }

    /// What is read of a panel of the left operand.
    fn extras(self, left: Facts, right: Facts) -> Extras {
        let stand_in = self.left(left, right);
        let compare = self.form(left, right) >= Form::Compare || left.zero && stand_in.is_none();
        Extras {
            floors: (compare && self.slopes == Slopes::Right).then_some(POWER),
            parts: compare && self.slopes == Slopes::Left,
            peaks: false,
            masks: false,
            stand_in,
        }
    }

    /// What is in the place of zeros of the left operand.
    fn left(self, left: Facts, right: Facts) -> Option<StandIn> {
        let (left, right) = self.usual(left, right)?;
        StandIn::left(left, right, 0, self.step(Slopes::Left)?)
    }

    /// What is in the place of zeros of the right operand.
    #[cfg(target_arch = "x86_64")]
    fn right(self, left: Facts, right: Facts) -> Option<StandIn> {
        let (left, right) = self.usual(left, right)?;
        StandIn::right(left, right, 0, self.step(Slopes::Right)?)
    }

    /// The factors for micro-kernels, where nothing is out of range.
    fn usual(self, left: Facts, right: Facts) -> Option<(Facts, Facts)> {
        let usual = self.isa >= Isa::Avx2 && self.form(left, right) < Form::Compare;
        usual.then(|| self.factors(left, right))
    }

    /// What something in the place of this operand's zeros is a multiple of. A slope is a power of two, which a
    /// mantissa leaves as it is, and an offset would not.
    fn step(self, operand: Slopes) -> Option<u32> {
        if self.slopes == operand { (self.offset == 0).then_some(POWER) } else { Some(1) }
    }
}

fn tile(
    own: &Own,
    ((left, q), (right, p)): ((&LeftPanel, usize), (&RightPanel, usize)),
    shape: [usize; 2],
    kind: Kind,
    out: &mut Tile,
) {
    #[cfg(target_arch = "x86_64")]
    if kind.isa >= Isa::Avx2 {
        let stand_ins = [left.stand_in(q), right.stand_in(p)];
        let form = kind.form(left.facts[q], right.facts[p]).filled(stand_ins);
        if form < Form::Full {
            let numbers = (form, kind.slopes, kind.isa);
            crate::x86::grad_tile(&own.raises, (left, q), right.panel(p), (shape, numbers), out);
            if let [Some(StandIn { least, .. }), _] | [_, Some(StandIn { least, .. })] = stand_ins {
                settle(out, least);
            }
            // A derivative by NaN is NaN, whatever the micro-kernel made of it.
            if own.nan {
                let nan = own.values.iter().zip(out).filter(|(a, _)| a.is_nan());
                nan.for_each(|(_, o)| *o = f32::NAN);
            }
            return;
        }
    }
    special(&own.values, left.sums(q), right.panel(p), kind.slopes, kind.offset, out);
}

multiversion! { pam
    /// The specification itself.
    fn special(
        own: &Tile,
        sums: &[i32],
        right: &[f32],
        slopes: Slopes,
        offset: Offset,
        out: &mut Tile,
    ) {
        out.fill(0.0);
        for (sums, right) in sums.chunks_exact(TILE_ROWS).zip(right.chunks_exact(TILE_COLUMNS)) {
            let rows = out.chunks_exact_mut(TILE_COLUMNS).zip(own.chunks_exact(TILE_COLUMNS));
            for ((out, own), &sum) in rows.zip(sums) {
                let x = f32::from_bits((sum as u32).wrapping_add(BIAS as u32));
                for ((o, &a), &y) in out.iter_mut().zip(own).zip(right) {
                    let (b, delta) = if slopes == Slopes::Left { (x, y) } else { (y, x) };
                    *o += pa::mul_grad(a, b, delta, offset);
                }
            }
        }
    }
}
