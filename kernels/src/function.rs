//! Operations as types, for the loops over slices: all of PA arithmetic, what else a program without
//! multiplications does, and those native ones that are too large to be inlined otherwise.

use crate::native;
use crate::pa::{self, BIAS, Factor, INF, MAGNITUDE, MIN, Offset, magnitude};
use crate::simd::{F1, F2, functions};
use std::ops::Range;

/// The larger one; NaN if either is (ONNX `Max`).
#[inline(always)]
pub(crate) fn maximum(a: f32, b: f32) -> f32 {
    let larger = if a > b { a } else { b };
    if a.is_nan() { a } else { larger }
}

/// The smaller one; NaN if either is (ONNX `Min`).
#[inline(always)]
pub(crate) fn minimum(a: f32, b: f32) -> f32 {
    let smaller = if a < b { a } else { b };
    if a.is_nan() { a } else { smaller }
}

functions! {
    // What every program consists of besides products.
    Neg F1(x) => -x;
    Abs F1(x) => x.abs();
    Floor F1(x) => x.floor();
    Ceil F1(x) => x.ceil();
    RoundEven F1(x) => x.round_ties_even();
    // Adding +0 makes a zero positive and leaves NaN.
    Sign F1(x) => if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x + 0.0 };
    Relu F1(x) => if x < 0.0 { 0.0 } else { x };
    Add F2(a, b) => a + b;
    Sub F2(a, b) => a - b;
    Max F2(a, b) => maximum(a, b);
    Min F2(a, b) => minimum(a, b);
    Erf F1(x) => native::erf(x);
    Exp F1(x) => native::exp(x);
    Tanh F1(x) => native::tanh(x);
    Sigmoid F1(x) => native::sigmoid(x);
    Exp2 F1(x) => pa::exp2(x);
    Log2 F1(x) => pa::log2(x);
    ScalePow2(k: i32) F1(x) => pa::scale_pow2(x, k);
    Round(bits: u32) F1(x) => pa::round_mantissa(x, bits);
    NativeMul F2(a, b) => a * b;
    // Without compensation, so that the offset is a constant.
    PlainMul F2(a, b) => pa::mul(a, b, 0);
    PlainDiv F2(a, b) => pa::div(a, b, 0);
    Mul(offset: Offset) F2(a, b) => pa::mul(a, b, offset);
    Div(offset: Offset) F2(a, b) => pa::div(a, b, offset);
    // By a number that stays the same.
    Scaled(factor: Factor) F1(x) => factor.apply(x);
    Exp2Grad F2(x, d) => pa::exp2_grad(x, d);
    Log2Grad F2(x, d) => pa::log2_grad(x, d);
    MulGrad(offset: Offset) F3(a, b, d) => pa::mul_grad(a, b, d, offset);
    DivGradA(offset: Offset) F3(a, b, d) => pa::div_grad_a(a, b, d, offset);
    DivGradB(offset: Offset) F3(a, b, d) => pa::div_grad_b(a, b, d, offset);
    // The product where neither zeros nor ends of the range are possible.
    Raw(bias: u32) F2(a, b) => {
        f32::from_bits(a.to_bits().wrapping_sub(bias).wrapping_add(b.to_bits()))
    };
    // The product where it cannot overflow; +0 where it is zero.
    Compared(bias: u32) F2(a, b) => {
        let (x, y) = (a.to_bits() & MAGNITUDE, b.to_bits() & MAGNITUDE);
        let sum = a.to_bits().wrapping_sub(bias).wrapping_add(b.to_bits());
        let lives = (x >= MIN) & (y >= MIN) & (x + y >= bias + MIN);
        f32::from_bits(if lives { sum } else { 0 })
    };
}

/// How often a form was wrong before it is no longer tried.
pub(crate) const PATIENCE: u32 = 2;

/// A function of one number that is simpler for most numbers. Each form says whether it is right.
pub(crate) trait Forms1: F1 {
    /// Whether there are such forms of this very function.
    #[inline(always)]
    fn applies(self) -> bool {
        true
    }
    /// For ordinary numbers.
    fn ordinary(self, x: f32) -> (f32, bool);
    /// For numbers that may be zero, or become it. The function itself where nothing is simpler.
    #[inline(always)]
    fn vanishing(self, x: f32) -> (f32, bool) {
        (self.call(x), true)
    }
}

impl Forms1 for Exp2 {
    #[inline(always)]
    fn ordinary(self, x: f32) -> (f32, bool) {
        (pa::exp2_within(x), magnitude(x) < pa::EXP2_WITHIN)
    }
    #[inline(always)]
    fn vanishing(self, x: f32) -> (f32, bool) {
        let (y, right) = self.ordinary(x);
        let none = x < -126.0;
        (if none { 0.0 } else { y }, right | none)
    }
}

impl Forms1 for Exp {
    #[inline(always)]
    fn ordinary(self, x: f32) -> (f32, bool) {
        (native::exp_within(x), x.abs() < native::EXP_WITHIN)
    }
    #[inline(always)]
    fn vanishing(self, x: f32) -> (f32, bool) {
        let (y, right) = self.ordinary(x);
        let none = x <= -104.0;
        (if none { 0.0 } else { y }, right | none)
    }
}

impl Forms1 for Log2 {
    #[inline(always)]
    fn ordinary(self, x: f32) -> (f32, bool) {
        (pa::log2_within(x), x.to_bits().wrapping_sub(MIN) < INF - MIN)
    }
}

impl ScalePow2 {
    /// The scaled number, and a measure that is below `INF - MIN` if that is right.
    #[inline(always)]
    fn measured(self, x: f32) -> (f32, u32) {
        // With more, nothing stays in range; with so much, no exponent wraps around into it.
        let step = (self.0.clamp(-255, 255) << 23) as u32;
        let (before, after) = (magnitude(x), magnitude(x).wrapping_add(step));
        let measure = before.wrapping_sub(MIN).max(after.wrapping_sub(MIN));
        (f32::from_bits(x.to_bits().wrapping_add(step)), measure)
    }
}

impl Forms1 for ScalePow2 {
    #[inline(always)]
    fn ordinary(self, x: f32) -> (f32, bool) {
        let (scaled, measure) = self.measured(x);
        (scaled, measure < INF - MIN)
    }
    #[inline(always)]
    fn vanishing(self, x: f32) -> (f32, bool) {
        // Subnormal results are rounded, so that zeros are all that may vanish.
        let (scaled, measure) = self.measured(x);
        let zero = magnitude(x) == 0;
        (if zero { x } else { scaled }, if zero { 0 } else { measure } < INF - MIN)
    }
}

impl Forms1 for Scaled {
    #[inline(always)]
    fn ordinary(self, x: f32) -> (f32, bool) {
        let within = self.0.within();
        let right = magnitude(x).wrapping_sub(within.start) < within.len() as u32;
        (self.0.apply_within(x), right)
    }
    #[inline(always)]
    fn vanishing(self, x: f32) -> (f32, bool) {
        (self.0.apply_below(x), magnitude(x) < self.0.within().end)
    }
}

/// A function of two numbers that is simpler for most numbers, as [`Forms1`].
pub(crate) trait Forms2: F2 {
    /// For magnitudes within [`MODERATE`]: the result.
    fn ordinary(self, a: f32, b: f32) -> f32;
    /// For numbers that may be zero, or become it: the result and the measure, right below the end of
    /// [`MODERATE`].
    fn vanishing(self, a: f32, b: f32) -> (f32, u32);
}

/// Between 2^−62 and 2^64: products and quotients are normal numbers.
pub(crate) const MODERATE: Range<u32> = BIAS - (62 << 23)..BIAS + (64 << 23);

/// Whether the magnitudes of two numbers are moderate.
#[inline(always)]
pub(crate) fn moderate(a: f32, b: f32) -> bool {
    let above = |x: f32| magnitude(x).wrapping_sub(MODERATE.start);
    above(a).max(above(b)) < MODERATE.end - MODERATE.start
}

/// A result of this magnitude, which may be below zero, with the sign of the product of two numbers; zero where
/// this magnitude or that of the operand is not that of a normal number.
#[inline(always)]
fn alive(operand: u32, m: u32, a: f32, b: f32) -> f32 {
    let m = if (operand as i32).min(m as i32) < MIN as i32 { 0 } else { m };
    f32::from_bits(m | (a.to_bits() ^ b.to_bits()) & !MAGNITUDE)
}

impl Forms2 for PlainMul {
    #[inline(always)]
    fn ordinary(self, a: f32, b: f32) -> f32 {
        f32::from_bits(a.to_bits().wrapping_sub(BIAS).wrapping_add(b.to_bits()))
    }
    #[inline(always)]
    fn vanishing(self, a: f32, b: f32) -> (f32, u32) {
        let (x, y) = (magnitude(a), magnitude(b));
        (alive(x.min(y), (x + y).wrapping_sub(BIAS), a, b), x.max(y))
    }
}

impl Forms2 for PlainDiv {
    #[inline(always)]
    fn ordinary(self, a: f32, b: f32) -> f32 {
        f32::from_bits(a.to_bits().wrapping_sub(b.to_bits()).wrapping_add(BIAS))
    }
    #[inline(always)]
    fn vanishing(self, a: f32, b: f32) -> (f32, u32) {
        // Divisors from 2^−63 to the largest number measure less than the end of what is moderate.
        const DIVISOR: u32 = INF - MODERATE.end;
        let (x, y) = (magnitude(a), magnitude(b));
        let quotient = x.wrapping_sub(y).wrapping_add(BIAS);
        (alive(x, quotient, a, b), x.max(y.wrapping_sub(DIVISOR)))
    }
}
