//! Neighbouring operations in one loop: what softmax and norms consist of between two passes over a row.
//!
//! The results are the bits of the operations one after the other. What lies between them stays in registers.

use crate::elementwise::{BLOCK, PATIENCE, attempt, by_forms};
use crate::function::{Exp2, Forms1, Forms2, PlainMul, Scaled, maximum, moderate};
use crate::native;
use crate::pa::{self, Factor};
use crate::simd::{F1, F2, multiversion};

/// What is computed of the rows of x and of numbers, of which there is one for each row or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compound {
    /// `exp2(max(mul(x, a), b) − c)`, PA: the numerators of a softmax.
    PaExponentials,
    /// `exp(x − a)`, native.
    Exponentials,
    /// `mul(div(x, a), b) + c`, PA, with b and c for each element: the end of a norm.
    PaAffine,
    /// `x / a · b + c`, native, with b and c for each element.
    Affine,
}

/// Computes rows of `row` elements, on this thread. `by` are a, b and c as far as there are such.
///
/// # Panics
/// Where the slices do not fit.
pub fn compute(compound: Compound, row: usize, x: &[f32], by: [&[f32]; 3], y: &mut [f32]) {
    match compound {
        Compound::PaExponentials => pa_exponentials(row, x, by, y),
        Compound::Exponentials => exponentials(row, x, by[0], y),
        Compound::PaAffine => pa_affine(row, x, by, y),
        Compound::Affine => affine(row, x, by, y),
    }
}

/// The number of a row.
#[inline(always)]
fn number(numbers: &[f32], r: usize) -> f32 {
    numbers[if numbers.len() == 1 { 0 } else { r }]
}

/// `exp2(max(mul(x, scale), bound) − shift)`.
#[derive(Clone, Copy)]
struct PaExponential {
    scale: Factor,
    bound: f32,
    shift: f32,
}

impl F1 for PaExponential {
    #[inline(always)]
    fn call(self, x: f32) -> f32 {
        Exp2.call(maximum(self.scale.apply(x), self.bound) - self.shift)
    }
}

impl Forms1 for PaExponential {
    #[inline(always)]
    fn ordinary(self, x: f32) -> (f32, bool) {
        let (z, scaled) = Scaled(self.scale).ordinary(x);
        // What is scaled is a number.
        let z = if z > self.bound { z } else { self.bound };
        let (y, exponent) = Exp2.ordinary(z - self.shift);
        (y, scaled & exponent)
    }
}

multiversion! { pam
    fn pa_exponentials(row: usize, x: &[f32], by: [&[f32]; 3], y: &mut [f32]) {
        let mut failures = [0, 0];
        for (r, (x, y)) in x.chunks_exact(row).zip(y.chunks_exact_mut(row)).enumerate() {
            let [scale, bound, shift] = [number(by[0], r), number(by[1], r), number(by[2], r)];
            match Factor::product(scale, 0) {
                Some(scale) => by_forms(PaExponential { scale, bound, shift }, x, y, &mut failures),
                None => {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y = Exp2.call(maximum(PlainMul.call(*x, scale), bound) - shift);
                    }
                }
            }
        }
    }
}

multiversion! {
    fn exponentials(row: usize, x: &[f32], by: &[f32], y: &mut [f32]) {
        for (r, (x, y)) in x.chunks_exact(row).zip(y.chunks_exact_mut(row)).enumerate() {
            let shift = number(by, r);
            for (y, x) in y.iter_mut().zip(x) {
                *y = native::exp(x - shift);
            }
        }
    }
}

multiversion! { pam
    fn pa_affine(row: usize, x: &[f32], by: [&[f32]; 3], y: &mut [f32]) {
        let [divisors, b, c] = by;
        let mut failures = 0;
        for (r, y) in y.chunks_exact_mut(row).enumerate() {
            let place = r * row..(r + 1) * row;
            let (x, b, c) = (&x[place.clone()], &b[place.clone()], &c[place]);
            let divisor = number(divisors, r);
            let Some(inverse) = Factor::quotient(divisor, 0) else {
                for i in 0..row {
                    y[i] = PlainMul.call(pa::div(x[i], divisor, 0), b[i]) + c[i];
                }
                continue;
            };
            let inverse = Scaled(inverse);
            let (x, x_rest) = x.as_chunks::<BLOCK>();
            let (b, b_rest) = b.as_chunks::<BLOCK>();
            let (c, c_rest) = c.as_chunks::<BLOCK>();
            let (y, y_rest) = y.as_chunks_mut::<BLOCK>();
            for (((y, x), b), c) in y.iter_mut().zip(x).zip(b).zip(c) {
                if failures < PATIENCE {
                    if attempt!(y, |i| {
                        let (quotient, right) = inverse.ordinary(x[i]);
                        let product = PlainMul.ordinary(quotient, b[i]);
                        (product + c[i], right & moderate(quotient, b[i]))
                    }) {
                        continue;
                    }
                    failures += 1;
                }
                for i in 0..BLOCK {
                    y[i] = PlainMul.call(inverse.call(x[i]), b[i]) + c[i];
                }
            }
            for (((y, x), b), c) in y_rest.iter_mut().zip(x_rest).zip(b_rest).zip(c_rest) {
                *y = PlainMul.call(inverse.call(*x), *b) + *c;
            }
        }
    }
}

multiversion! {
    fn affine(row: usize, x: &[f32], by: [&[f32]; 3], y: &mut [f32]) {
        let [divisors, b, c] = by;
        for (r, y) in y.chunks_exact_mut(row).enumerate() {
            let place = r * row..(r + 1) * row;
            let (x, b, c) = (&x[place.clone()], &b[place.clone()], &c[place]);
            let divisor = number(divisors, r);
            for (((y, x), b), c) in y.iter_mut().zip(x).zip(b).zip(c) {
                *y = x / divisor * b + c;
            }
        }
    }
}
