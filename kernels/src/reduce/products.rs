//! Sums of products that are not stored.

use super::LANES;
use super::sums::{Products, Terms, sum_row};
use crate::function::{Forms2, MODERATE, NativeMul, PATIENCE, PlainMul};
use crate::pa::magnitude;
use crate::simd::{F2, multiversion};
use std::marker::PhantomData;
use std::ops::Range;

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
