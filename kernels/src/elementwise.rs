//! Elementwise operations along slices.
//!
//! Operands and results have one length, but that one of two operands may be shorter. Callers go tile
//! by tile, so that chains of operations stay in the cache; nothing here divides work among threads.

use crate::forms::pam::slowly;
use crate::forms::{self, BLOCK, attempt, by_forms};
use crate::function::{Div, Forms2, MODERATE, Mul, PATIENCE, Scaled, moderate};
use crate::memory::prefetch_ahead;
use crate::pa::Factor;
use crate::simd::native::{map1, map2};
use crate::simd::{F2, Own, Right, Source, multiversion, native, pam, run};
use crate::{function, pa};

/// An operation on one slice.
#[derive(Clone, Copy, Debug)]
pub enum Unary {
    /// [`pa::exp2`].
    PaExp2,
    /// [`pa::log2`].
    PaLog2,
    /// [`pa::scale_pow2`] by this exponent.
    Scale(i32),
    /// [`pa::round_mantissa`] to this many bits.
    Round(u32),
    /// −x.
    Neg,
    /// |x|.
    Abs,
    /// The largest integer not above x.
    Floor,
    /// The smallest integer not below x.
    Ceil,
    /// The nearest integer, ties to even.
    RoundEven,
    /// −1, 0 or 1; NaN for NaN.
    Sign,
    /// max(x, 0); NaN for NaN.
    Relu,
    /// Native exponential.
    Exp,
    /// Native logarithm.
    Log,
    /// Native square root.
    Sqrt,
    /// Native reciprocal.
    Reciprocal,
    /// Native hyperbolic tangent.
    Tanh,
    /// Native logistic function.
    Sigmoid,
    /// Native error function.
    Erf,
    /// Native function of the standard library.
    Native(fn(f32) -> f32),
}

/// An operation on two slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// [`pa::mul`].
    PaMul(pa::Offset),
    /// [`pa::div`].
    PaDiv(pa::Offset),
    /// [`pa::exp2_grad`] of (x, δ).
    PaExp2Grad,
    /// [`pa::log2_grad`] of (x, δ).
    PaLog2Grad,
    /// a + b.
    Add,
    /// a − b.
    Sub,
    /// The larger one; NaN if either is.
    Max,
    /// The smaller one; NaN if either is.
    Min,
    /// Native product.
    Mul,
    /// Native quotient.
    Div,
    /// Native power.
    Pow,
    /// Native remainder with the sign of the dividend.
    Rem,
}

/// An operation on three slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ternary {
    /// [`pa::mul_grad`] of (a, b, δ).
    PaMulGrad(pa::Offset),
    /// [`pa::div_grad_a`] of (a, b, δ).
    PaDivGradA(pa::Offset),
    /// [`pa::div_grad_b`] of (a, b, δ).
    PaDivGradB(pa::Offset),
}

/// `y[i] = op(x[i])`.
pub fn unary(op: Unary, x: &[f32], y: &mut [f32]) {
    match op {
        Unary::PaExp2 => forms::pam::map(function::Exp2, x, y),
        Unary::PaLog2 => forms::pam::map(function::Log2, x, y),
        Unary::Scale(k) => forms::pam::map(function::ScalePow2(k), x, y),
        Unary::Round(bits) => pam::map1(function::Round(bits), x, y),
        Unary::Neg => pam::map1(function::Neg, x, y),
        Unary::Abs => pam::map1(function::Abs, x, y),
        Unary::Floor => pam::map1(function::Floor, x, y),
        Unary::Ceil => pam::map1(function::Ceil, x, y),
        Unary::RoundEven => pam::map1(function::RoundEven, x, y),
        Unary::Sign => pam::map1(function::Sign, x, y),
        Unary::Relu => pam::map1(function::Relu, x, y),
        Unary::Exp => forms::native::map(function::Exp, x, y),
        Unary::Log => map1(f32::ln, x, y),
        Unary::Sqrt => map1(f32::sqrt, x, y),
        Unary::Reciprocal => map1(|x: f32| 1.0 / x, x, y),
        Unary::Tanh => map1(function::Tanh, x, y),
        Unary::Sigmoid => map1(function::Sigmoid, x, y),
        Unary::Erf => map1(function::Erf, x, y),
        Unary::Native(f) => map1(f, x, y),
    }
}

/// `y[i] = op(a[i], b[i])`. One of the operands may be shorter, by a whole factor: each of its numbers then
/// belongs to as many neighbouring results.
pub fn binary(op: Binary, a: &[f32], b: &[f32], y: &mut [f32]) {
    match op {
        Binary::PaMul(offset) if b.len() < y.len() => scale(Mul(offset), a, b, y),
        // A product is the same from both sides.
        Binary::PaMul(offset) if a.len() < y.len() => scale(Mul(offset), b, a, y),
        Binary::PaMul(0) => forms2(function::PlainMul, a, b, y),
        Binary::PaMul(offset) => pam::map2(function::Mul(offset), a, b, y),
        Binary::PaDiv(offset) if b.len() < y.len() => scale(Div(offset), a, b, y),
        Binary::PaDiv(0) if a.len() == y.len() => {
            forms2(function::PlainDiv, a, b, y);
        }
        Binary::PaDiv(offset) => pam::map2(function::Div(offset), a, b, y),
        Binary::PaExp2Grad => pam::map2(function::Exp2Grad, a, b, y),
        Binary::PaLog2Grad => pam::map2(function::Log2Grad, a, b, y),
        Binary::Add => pam::map2(function::Add, a, b, y),
        Binary::Sub => pam::map2(function::Sub, a, b, y),
        Binary::Max => pam::map2(function::Max, a, b, y),
        Binary::Min => pam::map2(function::Min, a, b, y),
        Binary::Mul => map2(function::NativeMul, a, b, y),
        Binary::Div => map2(|a: f32, b: f32| a / b, a, b, y),
        Binary::Pow => map2(f32::powf, a, b, y),
        Binary::Rem => map2(|a: f32, b: f32| a % b, a, b, y),
    }
}

multiversion! { pam
    /// `y[i] = f(a[i], b[i])`.
    fn forms2<F: Forms2>(f: F, a: &[f32], b: &[f32], y: &mut [f32]) {
        let (a, a_rest) = a.as_chunks::<BLOCK>();
        let (b, b_rest) = b.as_chunks::<BLOCK>();
        let (y, y_rest) = y.as_chunks_mut::<BLOCK>();
        let mut failures = [0, 0];
        for ((a, b), y) in a.iter().zip(b).zip(y) {
            prefetch_ahead(a);
            prefetch_ahead(b);
            if failures[0] < PATIENCE {
                if attempt!(y, |i| (f.ordinary(a[i], b[i]), moderate(a[i], b[i]))) {
                    continue;
                }
                failures[0] += 1;
            }
            if failures[1] < PATIENCE {
                if attempt!(y, |i| {
                    let (value, measure) = f.vanishing(a[i], b[i]);
                    (value, measure < MODERATE.end)
                }) {
                    continue;
                }
                failures[1] += 1;
            }
            for i in 0..BLOCK {
                y[i] = f.call(a[i], b[i]);
            }
        }
        for ((y, &a), &b) in y_rest.iter_mut().zip(a_rest).zip(b_rest) {
            *y = f.call(a, b);
        }
    }
}

/// A product or a quotient, of which those with one number have something in common.
pub(crate) trait Scaling: F2 {
    /// What that is, if the number is ordinary.
    fn factor(self, b: f32) -> Option<Factor>;
}

impl Scaling for Mul {
    #[inline(always)]
    fn factor(self, b: f32) -> Option<Factor> {
        Factor::product(b, self.0)
    }
}

impl Scaling for Div {
    #[inline(always)]
    fn factor(self, b: f32) -> Option<Factor> {
        Factor::quotient(b, self.0)
    }
}

multiversion! { pam
    /// Products or quotients of x, or of y itself, by few numbers.
    fn scale<F: Scaling, S: Source>(f: F, x: S, by: &[f32], y: &mut [f32]) {
        let (n, failures) = (run(by, y), &mut [0, 0]);
        for (i, (&b, y)) in by.iter().zip(y.chunks_mut(n)).enumerate() {
            let x = x.from(i * n).first(y.len());
            match f.factor(b) {
                Some(factor) => by_forms(Scaled(factor), slowly, x, y, failures),
                None => x.each(Right(f, b), y),
            }
        }
    }
}

/// `y[i] = op(y[i], b[i])`, where the second operand is shorter by a whole factor, as in [`binary`].
pub fn overwrite(op: Binary, y: &mut [f32], b: &[f32]) {
    match op {
        Binary::PaMul(offset) => scale(Mul(offset), Own, b, y),
        Binary::PaDiv(offset) => scale(Div(offset), Own, b, y),
        Binary::PaExp2Grad => pam::overwrite(function::Exp2Grad, y, b),
        Binary::PaLog2Grad => pam::overwrite(function::Log2Grad, y, b),
        Binary::Add => pam::overwrite(function::Add, y, b),
        Binary::Sub => pam::overwrite(function::Sub, y, b),
        Binary::Max => pam::overwrite(function::Max, y, b),
        Binary::Min => pam::overwrite(function::Min, y, b),
        Binary::Mul => native::overwrite(function::NativeMul, y, b),
        Binary::Div => native::overwrite(|a: f32, b: f32| a / b, y, b),
        Binary::Pow => native::overwrite(f32::powf, y, b),
        Binary::Rem => native::overwrite(|a: f32, b: f32| a % b, y, b),
    }
}

/// `y[i] = op(a[i], b[i], c[i])`.
pub fn ternary(op: Ternary, a: &[f32], b: &[f32], c: &[f32], y: &mut [f32]) {
    match op {
        Ternary::PaMulGrad(o) => pam::map3(function::MulGrad(o), a, b, c, y),
        Ternary::PaDivGradA(o) => pam::map3(function::DivGradA(o), a, b, c, y),
        Ternary::PaDivGradB(o) => pam::map3(function::DivGradB(o), a, b, c, y),
    }
}
