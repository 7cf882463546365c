//! Contractions: matrix products, convolutions and their exact derivatives.
//!
//! # Order of additions
//!
//! An output element is a sum of products over an index k. Its accumulator starts at +0 and takes the
//! products with k ascending inside chunks of [`K_CHUNK`]; the sums of the chunks are added in
//! ascending order. Additions are ordinary float additions and never fused. A product of zero adds
//! nothing, so that its sign need not be known. This order is the same for every form, tile size,
//! number of threads and device. Native contractions come from the `gemm` crate and promise none.
//!
//! # Rooms
//!
//! [`columns`] says where the operands come from: a strided matrix, or for the right one the windows of an
//! image, for convolutions; [`out`] says where the sums go. `serial` computes one block on one thread: it
//! packs the operands into panels ([`pack`]), finds out what they hold ([`facts`]), puts numbers in the place of
//! zeros that need no care ([`stand_in`]) and calls the micro-kernel of a [`tile`] that is exact, or goes row by row where there is none ([`rows`]). `grad` holds the
//! three-operand contractions.

mod columns;
mod conv;
pub(crate) mod facts;
mod grad;
mod out;
pub(crate) mod pack;
mod rows;
mod serial;
pub(crate) mod stand_in;
pub(crate) mod tile;

pub use conv::{ConvShape, Spatial, conv};
pub use grad::{matmul_grad_a, matmul_grad_b};

use crate::Pool;
use crate::pa::Offset;
use columns::{Columns, Strided};
use out::Out;
use serial::serial;
use tile::{TILE_COLUMNS, TILE_ROWS};

/// The length of the chunks of a sum, part of the numerics.
pub const K_CHUNK: usize = 256;

/// How a contraction multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Piecewise affine.
    Pa {
        /// Error compensation.
        offset: Offset,
        /// Mantissa bits to which operands are rounded first; 23 keeps all.
        mantissa: u32,
    },
    /// Native, in any order of additions.
    Native,
}

/// A batch of strided matrices.
#[derive(Clone, Copy, Debug)]
pub struct Matrices<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Where each matrix of the batch begins; equal offsets broadcast.
    pub offsets: &'a [usize],
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl<'a> Matrices<'a> {
    /// Panics where the elements do not suffice for matrices of this shape.
    fn check(&self, name: &str, rows: usize, columns: usize) {
        if rows > 0 && columns > 0 {
            let last = (rows - 1) * self.row + (columns - 1) * self.col;
            assert!(self.offsets.iter().all(|o| o + last < self.data.len()), "{name} is too short");
        }
    }

    /// One of them.
    fn at(&self, i: usize) -> Strided<'a> {
        Strided { data: self.data, offset: self.offsets[i], row: self.row, col: self.col }
    }
}

/// `out[b] = a[b] · b[b]` for `[m, k]` and `[k, n]` matrices; `out` is dense.
///
/// # Panics
/// Where the operands are too short for their shapes.
pub fn matmul(
    pool: &Pool,
    arithmetic: Arithmetic,
    [m, n, k]: [usize; 3],
    a: Matrices<'_>,
    b: Matrices<'_>,
    out: &mut [f32],
) {
    let batch = a.offsets.len();
    assert_eq!(batch, b.offsets.len(), "both operands have one batch");
    assert_eq!(out.len(), batch * m * n, "the output is dense");
    if out.is_empty() {
        return;
    }
    a.check("a", m, k);
    b.check("b", k, n);
    let one = |i: usize, out: Out, pool: Option<&Pool>| {
        let left = Strided { data: a.data, offset: a.offsets[i], row: a.row, col: a.col };
        product(pool, arithmetic, [m, n, k], left, &b.at(i), out);
    };
    let base = Out::dense(out, n);
    if batch >= pool.threads() {
        // SAFETY: the batches' outputs do not overlap.
        pool.each(batch, &|i| one(i, unsafe { base.skip(i * m * n) }, None));
    } else {
        for i in 0..batch {
            // SAFETY: as above.
            one(i, unsafe { base.skip(i * m * n) }, Some(pool));
        }
    }
}

/// Multiply-accumulates below which a product stays on one thread.
const GRAIN: usize = 1 << 16;

/// One product, its output divided among the threads by rows or, where there are few, by columns.
fn product(
    pool: Option<&Pool>,
    arithmetic: Arithmetic,
    [m, n, k]: [usize; 3],
    left: Strided<'_>,
    right: &impl Columns,
    out: Out,
) {
    if let (Arithmetic::Pa { .. }, 1, 2.., true, Some(column)) =
        (arithmetic, n, m, out.is_column(), right.strided())
    {
        // One column wastes the width of vectors: the same as a row, as a product is the same from both sides.
        return product(pool, arithmetic, [1, m, k], column.turned(), &left.turned(), out);
    }
    let threads = pool.map_or(1, Pool::threads);
    let work = m.saturating_mul(n).saturating_mul(k.max(1));
    let parts = threads.min(work / GRAIN + 1);
    let (Some(pool), true) = (pool, parts > 1) else {
        return serial(arithmetic, m, 0..n, k, left, right, out);
    };
    if m >= 2 * TILE_ROWS * parts || m >= n {
        pool.each(parts, &|i| {
            let (from, to) = (cut(m, TILE_ROWS, i, parts), cut(m, TILE_ROWS, i + 1, parts));
            // SAFETY: the parts write different rows.
            let out = unsafe { out.skip(from * out.row) };
            serial(arithmetic, to - from, 0..n, k, left.skip(from), right, out);
        });
    } else {
        pool.each(parts, &|i| {
            let (from, to) = (cut(n, TILE_COLUMNS, i, parts), cut(n, TILE_COLUMNS, i + 1, parts));
            // The parts write different columns.
            serial(arithmetic, m, from..to, k, left, right, out);
        });
    }
}

/// Where part `i` of an axis begins: at the border of a register tile.
fn cut(total: usize, tile: usize, i: usize, parts: usize) -> usize {
    (total.div_ceil(tile) * i / parts * tile).min(total)
}
