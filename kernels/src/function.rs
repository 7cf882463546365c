//! Operations as types, for the loops over slices: all of PA arithmetic, what else a program without
//! multiplications does, and those native ones that are too large to be inlined otherwise.

use crate::contract::pack::{MAGNITUDE, MIN};
use crate::elementwise::{maximum, minimum};
use crate::native;
use crate::pa::{self, Offset};
use crate::simd::functions;

functions! {
    // What every program consists of besides products.
    Neg F1(x) => -x;
    Abs F1(x) => x.abs();
    Floor F1(x) => x.floor();
    Ceil F1(x) => x.ceil();
    RoundEven F1(x) => x.round_ties_even();
    Sign F1(x) => if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x };
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
    // The bit pattern plus a number: a scaling that stays in range.
    AddStep(step: u32) F1(x) => f32::from_bits(x.to_bits().wrapping_add(step));
    Round(bits: u32) F1(x) => pa::round_mantissa(x, bits);
    // Without compensation, so that the offset is a constant.
    PlainMul F2(a, b) => pa::mul(a, b, 0);
    PlainDiv F2(a, b) => pa::div(a, b, 0);
    Mul(offset: Offset) F2(a, b) => pa::mul(a, b, offset);
    Div(offset: Offset) F2(a, b) => pa::div(a, b, offset);
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
