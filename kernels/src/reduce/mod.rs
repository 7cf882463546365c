//! Sums and extremes along one axis of `[outer, reduced, inner]` views.
//!
//! # Order of additions
//!
//! Element r of the reduced axis goes to lane r mod 16 within chunks of [`SUM_CHUNK`] elements; each
//! lane starts at +0 and takes its elements with r ascending. The lanes of a chunk are added as a
//! halving tree: lane i takes lane i + 8, then i + 4, i + 2, i + 1. The sums of the chunks are added
//! in ascending order. The order depends on nothing else.

mod extremes;
mod products;
mod sums;

use crate::Pool;
use crate::function::{maximum, minimum};
use crate::simd::multiversion;
use extremes::{extreme_columns, extreme_row};
use products::{native_products, pa_products};
use sums::{Numbers, sum_columns, sum_row};
pub(crate) use sums::{add, tree};

/// The length of the chunks of a sum, part of the numerics.
pub const SUM_CHUNK: usize = 4096;
/// The number of lanes of a chunk, part of the numerics.
pub const LANES: usize = 16;

/// Columns that are reduced side by side: their lanes fit the first-level cache.
const COLUMNS: usize = 64;

/// What is computed along the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Sum.
    Sum,
    /// Maximum; NaN if there is one.
    Max,
    /// Minimum; NaN if there is one.
    Min,
}

/// `out[o, i]` from `x[o, r, i]` over all r.
///
/// # Panics
/// Where the slices do not fit the sizes.
pub fn reduce(
    pool: &Pool,
    reduction: Reduction,
    [outer, reduced, inner]: [usize; 3],
    x: &[f32],
    out: &mut [f32],
) {
    assert_eq!(x.len(), outer * reduced * inner, "x has its shape");
    assert_eq!(out.len(), outer * inner, "out has its shape");
    if out.is_empty() {
        return;
    }
    if inner == 1 {
        let rows: usize = (32 * 1024 / reduced.max(1)).clamp(1, outer);
        let blocks: Vec<&mut [f32]> = out.chunks_mut(rows).collect();
        each(pool, blocks, 0, &|b, out: &mut [f32]| {
            let x = &x[b * rows * reduced..][..out.len() * reduced];
            reduce_rows(reduction, reduced, x, out);
        });
        return;
    }
    let mut blocks: Vec<&mut [f32]> = Vec::new();
    for line in out.chunks_mut(inner) {
        blocks.extend(line.chunks_mut(COLUMNS));
    }
    let per_line = inner.div_ceil(COLUMNS);
    each(pool, blocks, 0, &|b, out: &mut [f32]| {
        let (o, first) = (b / per_line, b % per_line * COLUMNS);
        columns(reduction, &x[o * reduced * inner..][..reduced * inner], inner, first, out);
    });
}

fn each<'o>(
    pool: &Pool,
    mut blocks: Vec<&'o mut [f32]>,
    first: usize,
    f: &(impl Fn(usize, &'o mut [f32]) + Sync),
) {
    if blocks.len() <= 1 || pool.threads() == 1 {
        return blocks.into_iter().enumerate().for_each(|(i, b)| f(first + i, b));
    }
    let middle = blocks.len() / 2;
    let right = blocks.split_off(middle);
    pool.join(|| each(pool, blocks, first, f), || each(pool, right, first + middle, f));
}

/// The sum of one contiguous row in the documented order.
pub fn sum(x: &[f32]) -> f32 {
    let mut y = [0.0];
    reduce_rows(Reduction::Sum, x.len(), x, &mut y);
    y[0]
}

/// `out[r]` from the `r`-th of the rows of `row` elements that follow each other in `x`, on this thread.
///
/// # Panics
/// Where the slices do not fit.
pub fn reduce_rows(reduction: Reduction, row: usize, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), row * out.len(), "x has a row for each result");
    rows(reduction, row, x, out);
}

/// A product whose sums along rows need no memory for the products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// The native one.
    Native,
    /// [`pa::mul`](crate::pa::mul) without compensation.
    Pa,
}

/// The sums of `product(a, b)` along rows of `row` elements, on this thread: the bits of the products'
/// [`reduce_rows`].
///
/// # Panics
/// Where the slices do not fit.
pub fn sum_products(product: Product, row: usize, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert_eq!([a.len(), b.len()], [row * out.len(); 2], "a and b have a row for each result");
    match product {
        Product::Native => native_products(row, a, b, out),
        Product::Pa => pa_products(row, a, b, out),
    }
}

multiversion! { pam
    fn rows(reduction: Reduction, row: usize, x: &[f32], out: &mut [f32]) {
        for (r, y) in out.iter_mut().enumerate() {
            let x = &x[r * row..][..row];
            *y = match reduction {
                Reduction::Sum => sum_row(row, &mut Numbers(x)),
                Reduction::Max => extreme_row(x, f32::NEG_INFINITY, |x, y| x > y),
                Reduction::Min => extreme_row(x, f32::INFINITY, |x, y| x < y),
            };
        }
    }
}

multiversion! { pam
    /// Neighbouring columns of a `[reduced, inner]` matrix.
    fn columns(reduction: Reduction, x: &[f32], inner: usize, first: usize, out: &mut [f32]) {
        let width = out.len();
        let rows = || x.chunks_exact(inner).map(|row| &row[first..first + width]);
        match reduction {
            Reduction::Sum => sum_columns(rows(), out),
            Reduction::Max => extreme_columns(rows(), f32::NEG_INFINITY, maximum, out),
            Reduction::Min => extreme_columns(rows(), f32::INFINITY, minimum, out),
        }
    }
}
