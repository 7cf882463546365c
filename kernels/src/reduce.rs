//! Sums and extremes along one axis of `[outer, reduced, inner]` views.
//!
//! # Order of additions
//!
//! Element r of the reduced axis goes to lane r mod 16 within chunks of [`SUM_CHUNK`] elements; each
//! lane starts at +0 and takes its elements with r ascending. The lanes of a chunk are added as a
//! halving tree: lane i takes lane i + 8, then i + 4, i + 2, i + 1. The sums of the chunks are added
//! in ascending order. The order depends on nothing else.

use crate::Pool;
use crate::elementwise::PATIENCE;
use crate::function::{Forms2, MODERATE, NativeMul, PlainMul, maximum, minimum};
use crate::memory::prefetch_ahead;
use crate::pa::magnitude;
use crate::simd::{F2, multiversion};
use std::marker::PhantomData;
use std::ops::Range;

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
    fn pa_products(row: usize, a: &[f32], b: &[f32], out: &mut [f32]) {
        // Simpler forms, until they have been wrong a few times.
        let mut failures = [0, 0];
        for (r, y) in out.iter_mut().enumerate() {
            let (a, b) = (&a[r * row..][..row], &b[r * row..][..row]);
            if failures[0] < PATIENCE {
                let right = if std::ptr::eq(a, b) {
                    sum_measured::<Square>(a, b, y)
                } else {
                    sum_measured::<Ordinary>(a, b, y)
                };
                if right {
                    continue;
                }
                failures[0] += 1;
            }
            if failures[1] < PATIENCE {
                if sum_measured::<Vanishing>(a, b, y) {
                    continue;
                }
                failures[1] += 1;
            }
            *y = sum_row(row, &mut Products { f: PlainMul, a, b });
        }
    }
}

multiversion! {
    fn native_products(row: usize, a: &[f32], b: &[f32], out: &mut [f32]) {
        for (r, y) in out.iter_mut().enumerate() {
            let (a, b) = (&a[r * row..][..row], &b[r * row..][..row]);
            *y = sum_row(row, &mut Products { f: NativeMul, a, b });
        }
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

/// The number of a row that beats all others, found in lanes side by side: in which order numbers are compared
/// shows for nothing but NaN, of which that of the first lane is taken, and zeros of both signs, of which
/// the last is.
#[inline(always)]
fn extreme_row(x: &[f32], start: f32, beats: impl Fn(f32, f32) -> bool) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut last = [start; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let mut found = Extremes { lanes: [start; LANES], nan: [0; LANES] };
    for block in blocks {
        prefetch_ahead(block);
        found = found.with(block, &beats);
    }
    found = found.with(&last, &beats);
    if found.nan.contains(&u32::MAX) {
        return first_nan(x);
    }
    let extreme = found.extreme(&beats);
    if extreme == 0.0 {
        let mut n = x.len();
        while n > 0 {
            n -= 1;
            if x[n] == 0.0 {
                return x[n];
            }
        }
    }
    extreme
}

/// The first NaN of the first lane that has one.
#[cold]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
fn first_nan(x: &[f32]) -> f32 {
    for lane in 0..LANES {
        let mut i = lane;
        while i < x.len() {
            if x[i].is_nan() {
                return x[i];
            }
            i += LANES;
        }
    }
    f32::NAN
}

/// What has been found in a row.
#[derive(Clone, Copy)]
struct Extremes {
    /// What beats all others of its lane.
    lanes: [f32; LANES],
    /// Where there was a NaN, as masks, which need no conversion.
    nan: [u32; LANES],
}

impl Extremes {
    #[inline(always)]
    fn with(mut self, block: &[f32; LANES], beats: &impl Fn(f32, f32) -> bool) -> Extremes {
        for ((lane, nan), &x) in self.lanes.iter_mut().zip(&mut self.nan).zip(block) {
            *lane = if beats(x, *lane) { x } else { *lane };
            *nan |= if x.is_nan() { u32::MAX } else { 0 };
        }
        self
    }

    /// The lane that beats all others. A function that is called, since the compiler otherwise arranges the lanes
    /// for its sake, at every block of the row.
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
    fn extreme(self, beats: &impl Fn(f32, f32) -> bool) -> f32 {
        self.lanes.iter().fold(self.lanes[0], |e, &lane| if beats(lane, e) { lane } else { e })
    }
}

/// What is summed. A trait, since the compiler may leave the body of a closure outside of the loop.
trait Terms {
    /// Adds those in a range to the lanes.
    fn add(&mut self, lanes: &mut [f32; LANES], range: Range<usize>);
}

struct Numbers<'x>(&'x [f32]);

impl Terms for Numbers<'_> {
    #[inline(always)]
    fn add(&mut self, lanes: &mut [f32; LANES], range: Range<usize>) {
        add(lanes, &self.0[range]);
    }
}

struct Products<'x, F> {
    f: F,
    a: &'x [f32],
    b: &'x [f32],
}

impl<F: F2> Terms for Products<'_, F> {
    #[inline(always)]
    fn add(&mut self, lanes: &mut [f32; LANES], range: Range<usize>) {
        let (a, a_rest) = self.a[range.clone()].as_chunks::<LANES>();
        let (b, b_rest) = self.b[range].as_chunks::<LANES>();
        for (a, b) in a.iter().zip(b) {
            for i in 0..LANES {
                lanes[i] += self.f.call(a[i], b[i]);
            }
        }
        for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
            *lane += self.f.call(*a, *b);
        }
    }
}

/// A form of the product, right for measures below its limit.
trait Form {
    const LIMIT: u32;
    fn product(a: f32, b: f32) -> (f32, u32);
}

/// Of numbers that are neither small nor large.
struct Ordinary;

impl Form for Ordinary {
    const LIMIT: u32 = MODERATE.end - MODERATE.start;
    #[inline(always)]
    fn product(a: f32, b: f32) -> (f32, u32) {
        let above = |x: f32| magnitude(x).wrapping_sub(MODERATE.start);
        (PlainMul.ordinary(a, b), above(a).max(above(b)))
    }
}

/// Of such a number with itself.
struct Square;

impl Form for Square {
    const LIMIT: u32 = Ordinary::LIMIT;
    #[inline(always)]
    fn product(a: f32, _: f32) -> (f32, u32) {
        (PlainMul.ordinary(a, a), magnitude(a).wrapping_sub(MODERATE.start))
    }
}

/// Of numbers that are not large.
struct Vanishing;

impl Form for Vanishing {
    const LIMIT: u32 = MODERATE.end;
    #[inline(always)]
    fn product(a: f32, b: f32) -> (f32, u32) {
        PlainMul.vanishing(a, b)
    }
}

/// Products by a form, and how they measured.
struct Measured<'x, F> {
    a: &'x [f32],
    b: &'x [f32],
    measures: [u32; LANES],
    form: PhantomData<F>,
}

impl<F: Form> Terms for Measured<'_, F> {
    #[inline(always)]
    fn add(&mut self, lanes: &mut [f32; LANES], range: Range<usize>) {
        let (a, a_rest) = self.a[range.clone()].as_chunks::<LANES>();
        let (b, b_rest) = self.b[range].as_chunks::<LANES>();
        let mut measures = self.measures;
        for (a, b) in a.iter().zip(b) {
            for i in 0..LANES {
                let (product, measure) = F::product(a[i], b[i]);
                measures[i] = measures[i].max(measure);
                lanes[i] += product;
            }
        }
        self.measures = measures;
        for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
            *lane += PlainMul.call(*a, *b);
        }
    }
}

/// The sum of the products of a row by a form; whether that was right.
#[inline(always)]
fn sum_measured<F: Form>(a: &[f32], b: &[f32], y: &mut f32) -> bool {
    let mut products = Measured::<F> { a, b, measures: [0; LANES], form: PhantomData };
    *y = sum_row(a.len(), &mut products);
    products.measures.iter().all(|m| *m < F::LIMIT)
}

/// The sum of a row of `n` numbers.
#[inline(always)]
fn sum_row(n: usize, terms: &mut impl Terms) -> f32 {
    let (mut total, mut at) = (0.0, 0);
    while at < n {
        let mut lanes = [0f32; LANES];
        let end = (at + SUM_CHUNK).min(n);
        terms.add(&mut lanes, at..end);
        let sum = tree(&mut lanes);
        total = if at == 0 { sum } else { total + sum };
        at = end;
    }
    total
}

/// Adds neighbouring numbers to the lanes.
#[inline(always)]
fn add(lanes: &mut [f32; LANES], x: &[f32]) {
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        prefetch_ahead(block);
        lanes.iter_mut().zip(block).for_each(|(l, &x)| *l += x);
    }
    lanes.iter_mut().zip(rest).for_each(|(l, &x)| *l += x);
}

#[inline(always)]
fn tree(lanes: &mut [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
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

/// In an array of its own, since choosing between what is in memory and something else would become stores of
/// some lanes only, which are slow on some processors.
#[inline(always)]
fn extreme_columns<'x>(
    rows: impl Iterator<Item = &'x [f32]>,
    start: f32,
    pick: impl Fn(f32, f32) -> f32,
    out: &mut [f32],
) {
    let mut extremes = [start; COLUMNS];
    for row in rows {
        match <&[f32; COLUMNS]>::try_from(row) {
            Ok(row) => (0..COLUMNS).for_each(|i| extremes[i] = pick(extremes[i], row[i])),
            Err(_) => {
                let mut wide = [start; COLUMNS];
                wide[..row.len()].copy_from_slice(row);
                (0..COLUMNS).for_each(|i| extremes[i] = pick(extremes[i], wide[i]));
            }
        }
    }
    out.copy_from_slice(&extremes[..out.len()]);
}

#[inline(always)]
fn sum_columns<'x>(rows: impl Iterator<Item = &'x [f32]>, out: &mut [f32]) {
    let mut lanes = [[0f32; COLUMNS]; LANES];
    let mut r = 0;
    let mut started = false;
    out.fill(0.0);
    for row in rows {
        lanes[r % LANES].iter_mut().zip(row).for_each(|(l, &x)| *l += x);
        r += 1;
        if r == SUM_CHUNK {
            flush(&mut lanes, out, &mut started);
            r = 0;
        }
    }
    if r > 0 {
        flush(&mut lanes, out, &mut started);
    }
}

/// Adds the lanes of a chunk to the sums and clears them.
#[inline(always)]
fn flush(lanes: &mut [[f32; COLUMNS]; LANES], out: &mut [f32], started: &mut bool) {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (l, h) in low.iter_mut().zip(&high[..half]) {
            l.iter_mut().zip(h).for_each(|(l, h)| *l += h);
        }
        half /= 2;
    }
    for (o, &sum) in out.iter_mut().zip(&lanes[0]) {
        *o = if *started { *o + sum } else { sum };
    }
    *started = true;
    *lanes = [[0.0; COLUMNS]; LANES];
}
