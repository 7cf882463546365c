//! Products, quotients, powers, logarithms, scalings and roundings.

use super::body::{Body, Name};
use crate::onnx::proto::FunctionProto;
use crate::types::DType;

pub(super) const SIGN: u32 = 0x8000_0000;
pub(super) const MAGNITUDE: u32 = 0x7FFF_FFFF;
pub(super) const BIAS: u32 = 0x3F80_0000;
pub(super) const MIN: u32 = 0x0080_0000;
pub(super) const INF: u32 = 0x7F80_0000;
pub(super) const MANTISSA: u32 = 0x007F_FFFF;
pub(super) const NAN: u32 = 0x7FC0_0000;
/// Where a logarithm of 2 in a bit pattern begins: 2^23.
pub(super) const STEP: u32 = 23 << 23;

/// The bits and the magnitude bits of a float.
pub(super) fn parts(b: &mut Body, x: &str) -> (Name, Name) {
    let bits = b.bitcast(x, DType::I32);
    let magnitude = b.mask(&bits, MAGNITUDE);
    (bits, magnitude)
}

/// The float of a sign, magnitude bits and a NaN flag.
pub(super) fn assemble(b: &mut Body, sign: &str, magnitude: &str, nan: &str) -> Name {
    let signed = b.op("BitwiseOr", &[sign, magnitude]);
    let quiet = b.bits(NAN);
    let bits = b.select(nan, &quiet, &signed);
    b.bitcast(&bits, DType::F32)
}

/// The sign bit of a product.
pub(super) fn sign_of_product(b: &mut Body, x: &str, y: &str) -> Name {
    let sign = b.op("BitwiseXor", &[x, y]);
    b.mask(&sign, SIGN)
}

/// `bits(1) − offset`.
pub(super) fn bias(b: &mut Body) -> Name {
    let offset = b.int("offset");
    let one = b.bits(BIAS);
    b.op("Sub", &[&one, &offset])
}

/// The PA product of two floats, broadcast: m = mag(x) + mag(y) − bias.
pub(super) fn product(b: &mut Body, x: &str, y: &str, bias: &str) -> Name {
    let (x, mx) = parts(b, x);
    let (y, my) = parts(b, y);
    let sign = sign_of_product(b, &x, &y);
    // The sum of two magnitudes may exceed 31 bits, so that limits are compared with one of them.
    let excess = b.op("Sub", &[&mx, bias]);
    let sum = b.op("Add", &[&excess, &my]);
    let (low, high) = (b.op("Min", &[&mx, &my]), b.op("Max", &[&mx, &my]));
    let min = b.bits(MIN);
    let inf = b.bits(INF);
    let zero = b.bits(0);
    let floor = b.op("Sub", &[&min, &excess]);
    let under = b.op("Less", &[&my, &floor]);
    let nothing = b.op("Less", &[&low, &min]);
    let vanishes = b.op("Or", &[&under, &nothing]);
    let m = b.select(&vanishes, &zero, &sum);
    let positive = b.op("Max", &[&excess, &zero]);
    let ceiling = b.op("Sub", &[&inf, &positive]);
    let over = b.op("GreaterOrEqual", &[&my, &ceiling]);
    let special = b.op("GreaterOrEqual", &[&high, &inf]);
    let overflows = b.op("Or", &[&over, &special]);
    let m = b.select(&overflows, &inf, &m);
    let is_nan = b.op("Greater", &[&high, &inf]);
    let undefined = b.op("Or", &[&is_nan, &nothing]);
    let nan = b.op("And", &[&special, &undefined]);
    assemble(b, &sign, &m, &nan)
}

pub(super) fn mul() -> FunctionProto {
    let mut b = Body::new("v");
    let bias = bias(&mut b);
    let y = product(&mut b, "a", "b", &bias);
    let doc = "PA product: bits(|c|) = bits(|a|) + bits(|b|) - bits(1) + offset.";
    b.function("mul", &["a", "b"], &y, "c", &["offset"], doc)
}

/// Bits, sign and NaN flag of a PA quotient: m = mag(x) − mag(y) + bias.
pub(super) struct Quotient {
    pub sign: Name,
    pub magnitude: Name,
    pub nan: Name,
}

pub(super) fn quotient(b: &mut Body, x: &str, y: &str, bias: &str) -> Quotient {
    let (x, mx) = parts(b, x);
    let (y, my) = parts(b, y);
    let sign = sign_of_product(b, &x, &y);
    let difference = b.op("Sub", &[&mx, &my]);
    let sum = b.op("Add", &[&difference, bias]);
    let (min, inf, zero) = (b.bits(MIN), b.bits(INF), b.bits(0));
    let floor = b.op("Sub", &[&min, bias]);
    let ceiling = b.op("Sub", &[&inf, bias]);
    let under = b.op("Less", &[&difference, &floor]);
    let over = b.op("GreaterOrEqual", &[&difference, &ceiling]);
    let (x_zero, y_zero) = (b.op("Less", &[&mx, &min]), b.op("Less", &[&my, &min]));
    let x_inf = b.op("GreaterOrEqual", &[&mx, &inf]);
    let y_inf = b.op("GreaterOrEqual", &[&my, &inf]);
    let m = b.select(&under, &zero, &sum);
    let m = b.select(&over, &inf, &m);
    let vanishes = b.op("Or", &[&x_zero, &y_inf]);
    let m = b.select(&vanishes, &zero, &m);
    let grows = b.op("Or", &[&x_inf, &y_zero]);
    let m = b.select(&grows, &inf, &m);
    let largest = b.op("Max", &[&mx, &my]);
    let is_nan = b.op("Greater", &[&largest, &inf]);
    let zeros = b.op("And", &[&x_zero, &y_zero]);
    let infinities = b.op("And", &[&x_inf, &y_inf]);
    let undefined = b.op("Or", &[&zeros, &infinities]);
    let nan = b.op("Or", &[&is_nan, &undefined]);
    Quotient { sign, magnitude: m, nan }
}

pub(super) fn div() -> FunctionProto {
    let mut b = Body::new("v");
    let bias = bias(&mut b);
    let q = quotient(&mut b, "a", "b", &bias);
    let y = assemble(&mut b, &q.sign, &q.magnitude, &q.nan);
    let doc = "PA quotient: bits(|c|) = bits(|a|) - bits(|b|) + bits(1) - offset.";
    b.function("div", &["a", "b"], &y, "c", &["offset"], doc)
}

pub(super) fn exp2() -> FunctionProto {
    let mut b = Body::new("v");
    // Beyond these bounds the result is 0 or infinite, and the bound itself gives it.
    let (low, high) = (b.scalar(-127f32), b.scalar(128f32));
    let bounded = b.op("Max", &["x", &low]);
    let bounded = b.op("Min", &[&bounded, &high]);
    let (bits, magnitude) = parts(&mut b, &bounded);
    let step = b.bits(STEP);
    let scaled = b.op("Add", &[&bits, &step]);
    let scaled = b.bitcast(&scaled, DType::F32);
    // The scaling of a zero or subnormal is no number, and neither is a NaN.
    let tiny = b.below(&magnitude, MIN);
    let nan = b.bits(INF);
    let nan = b.op("Greater", &[&magnitude, &nan]);
    let void = b.op("Or", &[&tiny, &nan]);
    let zero = b.scalar(0f32);
    let scaled = b.select(&void, &zero, &scaled);
    let rounded = b.op("Round", &[&scaled]);
    let steps = b.cast(&rounded, DType::I32);
    let one = b.bits(BIAS);
    let y = b.op("Add", &[&steps, &one]);
    let smallest = b.scalar(-126f32);
    let under = b.op("Less", &["x", &smallest]);
    let none = b.bits(0);
    let y = b.select(&under, &none, &y);
    let y = assemble(&mut b, &none, &y, &nan);
    b.function("exp2", &["x"], &y, "y", &[], "PA power of two: bits(y) = round(x 2^23) + bits(1).")
}

pub(super) fn log2() -> FunctionProto {
    let mut b = Body::new("v");
    let (bits, magnitude) = parts(&mut b, "x");
    let one = b.bits(BIAS);
    let steps = b.op("Sub", &[&bits, &one]);
    let number = b.cast(&steps, DType::F32);
    let number = b.bitcast(&number, DType::I32);
    let step = b.bits(STEP);
    let scaled = b.op("Sub", &[&number, &step]);
    let zero = b.bits(0);
    let is_one = b.op("Equal", &[&steps, &zero]);
    let y = b.select(&is_one, &zero, &scaled);
    let inf = b.bits(INF);
    let is_inf = b.op("Equal", &[&bits, &inf]);
    let y = b.select(&is_inf, &inf, &y);
    let is_zero = b.below(&magnitude, MIN);
    let minus_inf = b.bits(INF | SIGN);
    let y = b.select(&is_zero, &minus_inf, &y);
    let is_nan = b.op("Greater", &[&magnitude, &inf]);
    let negative = b.op("Less", &[&bits, &zero]);
    let something = b.op("Not", &[&is_zero]);
    let negative = b.op("And", &[&negative, &something]);
    let nan = b.op("Or", &[&is_nan, &negative]);
    let y = assemble(&mut b, &zero, &y, &nan);
    b.function("log2", &["x"], &y, "y", &[], "PA logarithm: y = (bits(x) - bits(1)) / 2^23.")
}

/// The exponent is added to in 64 bits. A subnormal operand is first converted from its integer; a
/// subnormal result is rounded as an integer.
pub(super) fn scale_pow2() -> FunctionProto {
    let mut b = Body::new("v");
    let (bits, magnitude) = parts(&mut b, "x");
    let sign = b.mask(&bits, SIGN);
    let small = b.below(&magnitude, MIN);
    let integer = b.cast(&magnitude, DType::F32);
    let integer = b.bitcast(&integer, DType::I32);
    let normal = b.select(&small, &integer, &magnitude);
    let wide = b.cast(&normal, DType::I64);
    let shift = b.wide_int("shift");
    // One unit of a subnormal is 2^-149.
    let unit = 149i64 << 23;
    let (zero64, unit64) = (b.scalar(0i64), b.scalar(unit));
    let back = b.select(&small, &unit64, &zero64);
    let t = b.op("Add", &[&wide, &shift]);
    let t = b.op("Sub", &[&t, &back]);
    let (inf64, min64) = (b.scalar(i64::from(INF)), b.scalar(i64::from(MIN)));
    let capped = b.op("Min", &[&t, &inf64]);
    let units = b.op("Add", &[&capped, &unit64]);
    let units = b.op("Max", &[&units, &zero64]);
    let limit = b.scalar(unit + i64::from(MIN));
    let units = b.op("Min", &[&units, &limit]);
    let units = b.cast(&units, DType::I32);
    let units = b.bitcast(&units, DType::F32);
    let units = b.op("Round", &[&units]);
    let units = b.cast(&units, DType::I32);
    let above = b.op("GreaterOrEqual", &[&capped, &min64]);
    let regular = b.op("Max", &[&capped, &zero64]);
    let regular = b.cast(&regular, DType::I32);
    let m = b.select(&above, &regular, &units);
    let zero = b.bits(0);
    let nothing = b.op("Equal", &[&magnitude, &zero]);
    let m = b.select(&nothing, &zero, &m);
    let inf = b.bits(INF);
    let special = b.op("GreaterOrEqual", &[&magnitude, &inf]);
    let m = b.select(&special, &inf, &m);
    let nan = b.op("Greater", &[&magnitude, &inf]);
    let y = assemble(&mut b, &sign, &m, &nan);
    let doc = "x 2^exponent, exactly, by an addition to the exponent; shift = exponent 2^23.";
    b.function("scale_pow2", &["x"], &y, "y", &["exponent", "shift"], doc)
}

/// Rounds to a narrow mantissa, half to even; `rounding` holds the last kept bit, half of it less one
/// and the mask of the kept bits, or 0, 0, −1 to keep all.
pub(super) fn rounded(b: &mut Body, x: &str) -> Name {
    let (bits, magnitude) = parts(b, x);
    let rounding = b.ints("rounding");
    let rounding = b.cast(&rounding, DType::I32);
    let mut pick = |i: i64| {
        let (from, to) = (b.vector(&[i]), b.vector(&[i + 1]));
        let one = b.op("Slice", &[&rounding, &from, &to]);
        b.op("Squeeze", &[&one])
    };
    let (bit, half, mask) = (pick(0), pick(1), pick(2));
    let (zero, one) = (b.bits(0), b.bits(1));
    let last = b.op("BitwiseAnd", &[&bits, &bit]);
    let even = b.op("Equal", &[&last, &zero]);
    let odd = b.select(&even, &zero, &one);
    let up = b.op("Add", &[&odd, &half]);
    let sum = b.op("Add", &[&bits, &up]);
    let kept = b.op("BitwiseAnd", &[&sum, &mask]);
    let special = b.from(&magnitude, INF);
    let y = b.select(&special, &bits, &kept);
    b.bitcast(&y, DType::F32)
}

pub(super) fn round_mantissa() -> FunctionProto {
    let mut b = Body::new("v");
    let y = rounded(&mut b, "x");
    let doc = "Rounds to a narrow mantissa, half to even.";
    b.function("round_mantissa", &["x"], &y, "y", &["mantissa", "rounding"], doc)
}
