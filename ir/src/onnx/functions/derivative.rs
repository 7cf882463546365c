//! The exact derivatives: products with slopes that are powers of two.

use super::arithmetic::{
    BIAS, INF, MAGNITUDE, MANTISSA, MIN, SIGN, assemble, bias, parts, product, quotient,
};
use super::body::{Body, Name};
use crate::onnx::proto::FunctionProto;
use crate::types::DType;

/// `delta` times a slope given by sign, magnitude bits and NaN flag.
fn times_slope(b: &mut Body, delta: &str, sign: &str, magnitude: &str, nan: &str) -> Name {
    let slope = assemble(b, sign, magnitude, nan);
    let one = b.bits(BIAS);
    product(b, delta, &slope, &one)
}

/// The mantissa; 0 for zeros and subnormals.
fn mantissa(b: &mut Body, magnitude: &str) -> Name {
    let small = b.below(magnitude, MIN);
    let m = b.mask(magnitude, MANTISSA);
    let zero = b.bits(0);
    b.select(&small, &zero, &m)
}

/// The power of two at or below a pattern: 0 below the smallest, at most infinity.
fn power_below(b: &mut Body, pattern: &str) -> Name {
    let small = b.below(pattern, MIN);
    let kept = b.mask(pattern, !MANTISSA);
    let (zero, inf) = (b.bits(0), b.bits(INF));
    let capped = b.op("Min", &[&kept, &inf]);
    b.select(&small, &zero, &capped)
}

fn is_nan(b: &mut Body, magnitude: &str) -> Name {
    let inf = b.bits(INF);
    b.op("Greater", &[magnitude, &inf])
}

/// `mul_grad(a, b, delta)`: the slope has the bits `(mag(b) + mantissa(a) + offset) & ~MANT`.
fn product_grad(f: &mut Body, a: &str, b: &str, delta: &str, offset: &str) -> Name {
    let (_, ma) = parts(f, a);
    let (bits, mb) = parts(f, b);
    let (a_nan, b_nan) = (is_nan(f, &ma), is_nan(f, &mb));
    let nan = f.op("Or", &[&a_nan, &b_nan]);
    let fraction = mantissa(f, &ma);
    let sum = f.op("Add", &[&mb, &fraction]);
    // A sum that would not fit 31 bits with the offset becomes the largest that does.
    let (most, zero) = (f.bits(MAGNITUDE), f.bits(0));
    let added = f.op("Max", &[offset, &zero]);
    let cap = f.op("Sub", &[&most, &added]);
    let sum = f.op("Min", &[&sum, &cap]);
    let sum = f.op("Add", &[&sum, offset]);
    let slope = power_below(f, &sum);
    let none = f.below(&mb, MIN);
    let slope = f.select(&none, &zero, &slope);
    let sign = f.mask(&bits, SIGN);
    times_slope(f, delta, &sign, &slope, &nan)
}

pub(super) fn mul_grad() -> FunctionProto {
    let mut f = Body::new("v");
    let offset = f.int("offset");
    let y = product_grad(&mut f, "a", "b", "delta", &offset);
    let doc = "Exact derivative of the PA product by a, times delta.";
    f.function("mul_grad", &["a", "b", "delta"], &y, "grad", &["offset"], doc)
}

pub(super) fn div_grad_a() -> FunctionProto {
    let mut f = Body::new("v");
    let (_, ma) = parts(&mut f, "a");
    let (bits, mb) = parts(&mut f, "b");
    let (a_nan, b_nan) = (is_nan(&mut f, &ma), is_nan(&mut f, &mb));
    let nan = f.op("Or", &[&a_nan, &b_nan]);
    let fraction = mantissa(&mut f, &ma);
    let one = f.bits(BIAS);
    let numerator = f.op("Add", &[&one, &fraction]);
    let difference = f.op("Sub", &[&numerator, &mb]);
    let bias = bias(&mut f);
    let pattern = f.op("Add", &[&difference, &bias]);
    let slope = power_below(&mut f, &pattern);
    let (zero, inf) = (f.bits(0), f.bits(INF));
    let none = f.below(&mb, MIN);
    let slope = f.select(&none, &inf, &slope);
    let infinite = f.op("Equal", &[&mb, &inf]);
    let slope = f.select(&infinite, &zero, &slope);
    let sign = f.mask(&bits, SIGN);
    let y = times_slope(&mut f, "delta", &sign, &slope, &nan);
    let doc = "Exact derivative of the PA quotient by a, times delta.";
    f.function("div_grad_a", &["a", "b", "delta"], &y, "grad", &["offset"], doc)
}

pub(super) fn div_grad_b() -> FunctionProto {
    let mut f = Body::new("v");
    let bias = bias(&mut f);
    let q = quotient(&mut f, "a", "b", &bias);
    let (a_bits, _) = parts(&mut f, "a");
    let (_, mb) = parts(&mut f, "b");
    let top = f.mask(&q.magnitude, !MANTISSA);
    let bottom = f.mask(&mb, !MANTISSA);
    let difference = f.op("Sub", &[&top, &bottom]);
    // The difference is below INF, but with the bias added it may not fit 31 bits.
    let room = f.bits(INF - BIAS);
    let difference = f.op("Min", &[&difference, &room]);
    let one = f.bits(BIAS);
    let pattern = f.op("Add", &[&difference, &one]);
    let slope = power_below(&mut f, &pattern);
    let (zero, inf) = (f.bits(0), f.bits(INF));
    let infinite = f.op("Equal", &[&q.magnitude, &inf]);
    let none = f.below(&mb, MIN);
    let grows = f.op("Or", &[&infinite, &none]);
    let slope = f.select(&grows, &inf, &slope);
    let vanishes = f.op("Equal", &[&q.magnitude, &zero]);
    let slope = f.select(&vanishes, &zero, &slope);
    let sign = f.mask(&a_bits, SIGN);
    let flip = f.bits(SIGN);
    let sign = f.op("BitwiseXor", &[&sign, &flip]);
    let y = times_slope(&mut f, "delta", &sign, &slope, &q.nan);
    let doc = "Exact derivative of the PA quotient by b, times delta.";
    f.function("div_grad_b", &["a", "b", "delta"], &y, "grad", &["offset"], doc)
}

pub(super) fn exp2_grad() -> FunctionProto {
    let mut f = Body::new("v");
    let (_, m) = parts(&mut f, "x");
    let nan = is_nan(&mut f, &m);
    let (low, high) = (f.scalar(-127f32), f.scalar(128f32));
    let zero = f.scalar(0f32);
    // A negative subnormal counts as a zero: its floor is not -1.
    let tiny = f.below(&m, MIN);
    let void = f.op("Or", &[&nan, &tiny]);
    let x = f.select(&void, &zero, "x");
    let floor = f.op("Floor", &[&x]);
    let bounded = f.op("Max", &[&floor, &low]);
    let bounded = f.op("Min", &[&bounded, &high]);
    // The exponent is shifted into place by adding 23 to the exponent of the number itself.
    let bits = f.bitcast(&bounded, DType::I32);
    let step = f.bits(super::arithmetic::STEP);
    let moved = f.op("Add", &[&bits, &step]);
    let moved = f.bitcast(&moved, DType::F32);
    let is_zero = f.op("Equal", &[&bounded, &zero]);
    let moved = f.select(&is_zero, &zero, &moved);
    let steps = f.cast(&moved, DType::I32);
    let one = f.bits(BIAS);
    let slope = f.op("Add", &[&steps, &one]);
    let none = f.bits(0);
    let y = times_slope(&mut f, "delta", &none, &slope, &nan);
    let doc = "Exact derivative of the PA power of two, times delta.";
    f.function("exp2_grad", &["x", "delta"], &y, "grad", &[], doc)
}

pub(super) fn log2_grad() -> FunctionProto {
    let mut f = Body::new("v");
    let (bits, m) = parts(&mut f, "x");
    let exponent = f.mask(&m, !MANTISSA);
    let two = f.bits(BIAS + BIAS);
    let pattern = f.op("Sub", &[&two, &exponent]);
    let slope = power_below(&mut f, &pattern);
    let (zero, inf) = (f.bits(0), f.bits(INF));
    let is_zero = f.below(&m, MIN);
    let slope = f.select(&is_zero, &inf, &slope);
    let infinite = f.op("Equal", &[&m, &inf]);
    let slope = f.select(&infinite, &zero, &slope);
    let negative = f.op("Less", &[&bits, &zero]);
    let something = f.op("Not", &[&is_zero]);
    let negative = f.op("And", &[&negative, &something]);
    let x_nan = is_nan(&mut f, &m);
    let nan = f.op("Or", &[&x_nan, &negative]);
    let y = times_slope(&mut f, "delta", &zero, &slope, &nan);
    let doc = "Exact derivative of the PA logarithm, times delta.";
    f.function("log2_grad", &["x", "delta"], &y, "grad", &[], doc)
}
