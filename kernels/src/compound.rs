//! Neighbouring operations in one loop: what softmax and norms consist of between two passes over a row.
//!
//! The results are the bits of the operations one after the other. What lies between them stays in registers.

use crate::forms::{self, BLOCK, Rows, attempt};
use crate::function::{Exp, Exp2, Forms1, Forms2, PATIENCE, PlainMul, Scaled, maximum, moderate};
use crate::pa::{self, BIAS, Factor, INF, magnitude};
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

/// Computes rows of `row` elements, on this thread, and of the exponentials their sums along rows, if there is a place
/// for them. `by` are a, b and c as far as there are such.
///
/// # Panics
/// Where the slices do not fit.
pub fn compute(
    compound: Compound,
    row: usize,
    x: &[f32],
    by: [&[f32]; 3],
    y: &mut [f32],
    sums: &mut [f32],
) {
    match compound {
        Compound::PaExponentials => forms::pam::rows(PaExponentials(by), row, x, y, sums),
        Compound::Exponentials => forms::native::rows(Exponentials(by[0]), row, x, y, sums),
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
    scale: f32,
    bound: f32,
    shift: f32,
}

impl PaExponential {
    /// What scaling adds to the bits.
    #[inline(always)]
    fn raise(self) -> u32 {
        self.scale.to_bits().wrapping_sub(BIAS)
    }
}

impl F1 for PaExponential {
    #[inline(always)]
    fn call(self, x: f32) -> f32 {
        Exp2.call(maximum(PlainMul.call(x, self.scale), self.bound) - self.shift)
    }
}

impl Forms1 for PaExponential {
    /// The scale is at least one, so that nothing becomes smaller, and small enough for zeros, which become something
    /// by their bits, to stay so small that it does not show.
    #[inline(always)]
    fn applies(self) -> bool {
        (1.0..1e18).contains(&self.scale) && !self.bound.is_nan()
    }
    #[inline(always)]
    fn ordinary(self, x: f32) -> (f32, bool) {
        // NaN stays, also that which the bits of products beyond the range are.
        let z = f32::from_bits(x.to_bits().wrapping_add(self.raise()));
        Exp2.ordinary(if self.bound > z { self.bound } else { z } - self.shift)
    }
    #[inline(always)]
    fn vanishing(self, x: f32) -> (f32, bool) {
        // Products below the range are NaN by their bits, too, and bounded as −∞ is.
        let z = f32::from_bits(x.to_bits().wrapping_add(self.raise()));
        let (y, right) = Exp2.vanishing(if z > self.bound { z } else { self.bound } - self.shift);
        (y, right & ((x < 0.0) | (magnitude(x) < INF - self.raise())))
    }
}

/// Those of all rows.
#[derive(Clone, Copy)]
struct PaExponentials<'a>([&'a [f32]; 3]);

impl Rows for PaExponentials<'_> {
    type Row = PaExponential;

    #[inline(always)]
    fn row(self, r: usize) -> PaExponential {
        let [scales, bounds, shifts] = self.0;
        PaExponential {
            scale: number(scales, r),
            bound: number(bounds, r),
            shift: number(shifts, r),
        }
    }
}

/// `exp(x − shift)`.
#[derive(Clone, Copy)]
struct Exponential {
    shift: f32,
}

impl F1 for Exponential {
    #[inline(always)]
    fn call(self, x: f32) -> f32 {
        Exp.call(x - self.shift)
    }
}

impl Forms1 for Exponential {
    #[inline(always)]
    fn ordinary(self, x: f32) -> (f32, bool) {
        Exp.ordinary(x - self.shift)
    }
    #[inline(always)]
    fn vanishing(self, x: f32) -> (f32, bool) {
        Exp.vanishing(x - self.shift)
    }
}

/// Those of all rows.
#[derive(Clone, Copy)]
struct Exponentials<'a>(&'a [f32]);

impl Rows for Exponentials<'_> {
    type Row = Exponential;

    #[inline(always)]
    fn row(self, r: usize) -> Exponential {
        Exponential { shift: number(self.0, r) }
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
