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

/// A function of one number that is simpler for most numbers.
pub(crate) trait Quick1: F1 {
    /// Measures below are those of numbers for which the quick result is right.
    fn limit(self) -> u32;
    /// The quick result and the measure of the number.
    fn quick(self, x: f32) -> (f32, u32);
}

impl Quick1 for Exp2 {
    #[inline(always)]
    fn limit(self) -> u32 {
        pa::EXP2_WITHIN
    }
    #[inline(always)]
    fn quick(self, x: f32) -> (f32, u32) {
        (pa::exp2_within(x), magnitude(x))
    }
}

impl Quick1 for Log2 {
    #[inline(always)]
    fn limit(self) -> u32 {
        INF - MIN
    }
    #[inline(always)]
    fn quick(self, x: f32) -> (f32, u32) {
        (pa::log2_within(x), x.to_bits().wrapping_sub(MIN))
    }
}

impl Quick1 for ScalePow2 {
    #[inline(always)]
    fn limit(self) -> u32 {
        INF - MIN
    }
    #[inline(always)]
    fn quick(self, x: f32) -> (f32, u32) {
        // With more, nothing stays in range; with so much, no exponent wraps around into it.
        let step = (self.0.clamp(-255, 255) << 23) as u32;
        let (before, after) = (magnitude(x), magnitude(x).wrapping_add(step));
        let measure = before.wrapping_sub(MIN).max(after.wrapping_sub(MIN));
        (f32::from_bits(x.to_bits().wrapping_add(step)), measure)
    }
}

impl Quick1 for Scaled {
    #[inline(always)]
    fn limit(self) -> u32 {
        self.0.within().len() as u32
    }
    #[inline(always)]
    fn quick(self, x: f32) -> (f32, u32) {
        (self.0.apply_within(x), magnitude(x).wrapping_sub(self.0.within().start))
    }
}

/// A function of two numbers that is simpler for most numbers.
pub(crate) trait Quick2: F2 {
    /// The result where both magnitudes lie within [`MODERATE`].
    fn quick(self, a: f32, b: f32) -> f32;
}

/// Between 2^−62 and 2^64: products and quotients are normal numbers.
pub(crate) const MODERATE: Range<u32> = BIAS - (62 << 23)..BIAS + (64 << 23);

impl Quick2 for PlainMul {
    #[inline(always)]
    fn quick(self, a: f32, b: f32) -> f32 {
        f32::from_bits(a.to_bits().wrapping_sub(BIAS).wrapping_add(b.to_bits()))
    }
}

impl Quick2 for PlainDiv {
    #[inline(always)]
    fn quick(self, a: f32, b: f32) -> f32 {
        f32::from_bits(a.to_bits().wrapping_sub(b.to_bits()).wrapping_add(BIAS))
    }
}
