//! The products inside sums, in as few passes over the sum as possible.
//!
//! An accumulator starts at +0, so that it never shows the sign of a zero product, nor which NaN it
//! took. And what depends on one operand alone is computed once, before the scan: for each element of
//! the left operand the range of magnitudes of right ones whose product is an ordinary number.

use super::arithmetic::{BIAS, INF, MAGNITUDE, MANTISSA, MIN, NAN, SIGN, parts};
use super::body::{Body, Name};
use crate::types::DType;

/// What turns an infinity into a NaN, in the left operand and, by exclusive or, in the right one. The
/// two together still make a NaN.
const LEFT_NAN: u32 = 0x7FE0_0000;
const RIGHT_NAN: u32 = 0x0040_0000;

/// The left operand of products: for each element four numbers.
///
/// * its bits less the bias, to which those of the right operand are added, signs included;
/// * the magnitude below which a right operand gives zero: all for a zero;
/// * the magnitude from which on it gives infinity or NaN: all for an infinity or NaN;
/// * the bits of what it then gives, where the right operand is positive: a NaN for zeros and NaNs.
pub(super) fn left(b: &mut Body, x: &str, bias: &str) -> [Name; 4] {
    let (bits, magnitude) = parts(b, x);
    let (min, inf, zero) = (b.bits(MIN), b.bits(INF), b.bits(0));
    let shifted = b.op("Sub", &[&bits, bias]);
    let excess = b.op("Sub", &[&magnitude, bias]);
    let nothing = b.below(&magnitude, MIN);
    let floor = b.op("Sub", &[&min, &excess]);
    let floor = b.op("Max", &[&floor, &min]);
    let most = b.bits(MAGNITUDE);
    let floor = b.select(&nothing, &most, &floor);
    let positive = b.op("Max", &[&excess, &zero]);
    let ceiling = b.op("Sub", &[&inf, &positive]);
    let special = b.from(&magnitude, INF);
    let ceiling = b.select(&special, &zero, &ceiling);
    let sign = b.mask(&bits, SIGN);
    let infinite = b.op("BitwiseOr", &[&sign, &inf]);
    let is_nan = b.op("Greater", &[&magnitude, &inf]);
    let void = b.op("Or", &[&nothing, &is_nan]);
    let nan = b.bits(LEFT_NAN);
    let infinite = b.select(&void, &nan, &infinite);
    [shifted, floor, ceiling, infinite]
}

/// The right operand of products: its bits, its magnitude, and what is to be flipped in the left
/// operand's infinity: the sign, or for zeros and NaNs what makes a NaN of it.
pub(super) fn right(b: &mut Body, y: &str) -> [Name; 3] {
    let (bits, magnitude) = parts(b, y);
    let sign = b.mask(&bits, SIGN);
    let inf = b.bits(INF);
    let is_nan = b.op("Greater", &[&magnitude, &inf]);
    let nothing = b.below(&magnitude, MIN);
    let void = b.op("Or", &[&nothing, &is_nan]);
    let nan = b.bits(RIGHT_NAN);
    let flip = b.select(&void, &nan, &sign);
    [bits, magnitude, flip]
}

/// The product of a prepared left and a prepared right operand.
pub(super) fn product_term(b: &mut Body, left: &[Name], right: &[Name]) -> Name {
    let [shifted, floor, ceiling, infinite] = left else { unreachable!("four parts") };
    let [bits, magnitude, flip] = right else { unreachable!("three parts") };
    let sum = b.op("Add", &[shifted, bits]);
    let under = b.op("Less", &[magnitude, floor]);
    let zero = b.bits(0);
    let y = b.select(&under, &zero, &sum);
    let over = b.op("GreaterOrEqual", &[magnitude, ceiling]);
    let signed = b.op("BitwiseXor", &[infinite, flip]);
    let y = b.select(&over, &signed, &y);
    b.bitcast(&y, DType::F32)
}

/// The factor `b` of an exact derivative `mul_grad(a, b, delta)`: the pattern to which the mantissa of
/// `a` is added, with the sign of `b`, and what is to be flipped in an infinity.
pub(super) fn slope_base(f: &mut Body, b: &str, offset: &str) -> [Name; 2] {
    let (bits, magnitude) = parts(f, b);
    let (inf, zero, most) = (f.bits(INF), f.bits(0), f.bits(MAGNITUDE));
    // A sum that would not fit 31 bits becomes the largest that does.
    let added = f.op("Max", &[offset, &zero]);
    let cap = f.op("Sub", &[&most, &added]);
    let base = f.op("Min", &[&magnitude, &cap]);
    let base = f.op("Add", &[&base, offset]);
    let base = f.op("Min", &[&base, &inf]);
    let base = f.op("Max", &[&base, &zero]);
    let nothing = f.below(&magnitude, MIN);
    let base = f.select(&nothing, &zero, &base);
    let is_nan = f.op("Greater", &[&magnitude, &inf]);
    let base = f.select(&is_nan, &inf, &base);
    let sign = f.mask(&bits, SIGN);
    let base = f.op("BitwiseOr", &[&base, &sign]);
    let nan = f.bits(RIGHT_NAN);
    let flip = f.select(&is_nan, &nan, &sign);
    [base, flip]
}

/// `mul_grad(a, b, delta)` of the mantissa of `a`, a prepared `b` and `delta` prepared as a left
/// operand. A NaN in `a` does not show.
pub(super) fn slope_term(f: &mut Body, fraction: &str, base: &[Name], delta: &[Name]) -> Name {
    let [shifted, floor, ceiling, infinite] = delta else { unreachable!("four parts") };
    let [base, flip] = base else { unreachable!("two parts") };
    let sum = f.op("Add", &[base, fraction]);
    let slope = f.mask(&sum, !MANTISSA);
    let magnitude = f.mask(&slope, MAGNITUDE);
    let sum = f.op("Add", &[shifted, &slope]);
    let over = f.op("GreaterOrEqual", &[&magnitude, ceiling]);
    let under = f.op("Less", &[&magnitude, floor]);
    let signed = f.op("BitwiseXor", &[infinite, flip]);
    let y = f.select(&over, &signed, &sum);
    // Both hold for zero times infinity and for a NaN.
    let (nan, zero) = (f.bits(NAN), f.bits(0));
    let nothing = f.select(&over, &nan, &zero);
    let y = f.select(&under, &nothing, &y);
    f.bitcast(&y, DType::F32)
}

/// The bits of 1, which slopes are multiplied with.
pub(super) fn plain_bias(f: &mut Body) -> Name {
    f.bits(BIAS)
}
