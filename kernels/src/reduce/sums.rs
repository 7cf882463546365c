//! Sums of rows and of columns, in the order that the numerics prescribe.

use super::{COLUMNS, LANES, SUM_CHUNK};
use crate::memory::prefetch_ahead;
use crate::simd::F2;
use std::ops::Range;

/// What is summed. A trait, since the compiler may leave the body of a closure outside of the loop.
pub(super) trait Terms {
    /// Adds those in a range to the lanes.
    fn add(&mut self, lanes: &mut [f32; LANES], range: Range<usize>);
}

/// Numbers of a slice.
pub(super) struct Numbers<'x>(pub &'x [f32]);

impl Terms for Numbers<'_> {
    #[inline(always)]
    fn add(&mut self, lanes: &mut [f32; LANES], range: Range<usize>) {
        add(lanes, &self.0[range]);
    }
}

/// What a function gives of two slices.
pub(super) struct Products<'x, F> {
    pub f: F,
    pub a: &'x [f32],
    pub b: &'x [f32],
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

/// The sum of a row of `n` numbers.
#[inline(always)]
pub(super) fn sum_row(n: usize, terms: &mut impl Terms) -> f32 {
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
pub(crate) fn add(lanes: &mut [f32; LANES], x: &[f32]) {
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        prefetch_ahead(block);
        lanes.iter_mut().zip(block).for_each(|(l, &x)| *l += x);
    }
    lanes.iter_mut().zip(rest).for_each(|(l, &x)| *l += x);
}

/// The sum of the lanes.
#[inline(always)]
pub(crate) fn tree(lanes: &mut [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
pub(super) fn sum_columns<'x>(rows: impl Iterator<Item = &'x [f32]>, out: &mut [f32]) {
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
