//! Powers.

use super::{LowerError, Lowering};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;
use pam_ir::types::DType;

/// `pow(x, y)`.
///
/// For a constant y: 0, 1, 2, 3 give 1, x, mul(x, x), mul(mul(x, x), x); ½ gives sqrt(x); −1 gives
/// div(1, x); −½ gives div(1, sqrt(x)); −2 gives div(1, mul(x, x)). Otherwise
/// `exp2(mul(log2(|x|), y))` with sign and NaN as ONNX has them, and 1 where y is 0.
pub fn pow(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(), LowerError> {
    let mut x = lo.input(node, 0)?;
    let mut y = lo.input(node, 1)?;
    if lo.ty(x).dtype != DType::F32 {
        x = lo.cast(x, DType::F32)?;
    }
    if lo.ty(y).dtype != DType::F32 {
        y = match lo.constant_of(y).and_then(|t| pam_ir::eval::cast(t, DType::F32)) {
            Some(t) => lo.constant(t),
            None => lo.cast(y, DType::F32)?,
        };
    }
    let result = match lo.uniform(y) {
        Some(c) if c.is_finite() => power(lo, x, c)?,
        _ if !lo.is_pam() => lo.op(Op::Pow, &[x, y], &[])?,
        _ => general(lo, x, y)?,
    };
    // A constant exponent of more elements than x broadcasts x.
    let wide = pam_ir::types::broadcast(&lo.shape(x), &lo.shape(y))
        .ok_or_else(|| LowerError("the operands do not broadcast".to_owned()))?;
    let result = lo.expand(result, &wide)?;
    lo.set(node, 0, result)
}

/// x to a constant power.
pub(super) fn power(lo: &mut Lowering<'_, '_>, x: ValueId, c: f32) -> Result<ValueId, LowerError> {
    Ok(match c {
        0.0 => {
            let one = lo.scalar(1f32);
            let shape = lo.shape(x);
            lo.expand(one, &shape)?
        }
        1.0 => x,
        2.0 => lo.square(x)?,
        3.0 => {
            let square = lo.square(x)?;
            lo.mul(square, x)?
        }
        0.5 => lo.sqrt(x)?,
        -1.0 => lo.reciprocal(x)?,
        -0.5 => {
            let root = lo.sqrt(x)?;
            lo.reciprocal(root)?
        }
        -2.0 => {
            let square = lo.square(x)?;
            lo.reciprocal(square)?
        }
        _ => {
            let y = lo.scalar(c);
            if lo.is_pam() { constant(lo, x, y, c)? } else { lo.op(Op::Pow, &[x, y], &[])? }
        }
    })
}

/// The p-th root of a sum of powers that are not negative. Its derivative at 0, where that of each term is 0, is
/// made 0 and not infinite, so that nothing there is 0 · ∞.
pub(super) fn root(lo: &mut Lowering<'_, '_>, sum: ValueId, p: f32) -> Result<ValueId, LowerError> {
    let (zero, one) = (lo.scalar(0f32), lo.scalar(1f32));
    let nothing = lo.op(Op::Equal, &[sum, zero], &[])?;
    let kept = lo.select(nothing, one, sum)?;
    let root = power(lo, kept, 1.0 / p)?;
    lo.select(nothing, zero, root)
}

/// The general form where the exponent c is known, so that its kind need not be found at run time.
fn constant(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    y: ValueId,
    c: f32,
) -> Result<ValueId, LowerError> {
    let whole = c.floor() == c;
    let size = if whole {
        lo.abs(x)?
    } else {
        // The logarithm of a negative x is NaN, as the power is; only −∞ has one.
        let (below, above) = (lo.scalar(f32::NEG_INFINITY), lo.scalar(f32::INFINITY));
        let infinite = lo.op(Op::Equal, &[x, below], &[])?;
        lo.select(infinite, above, x)?
    };
    // The power of 0 apart, where c > 1: its derivative is 0, that through the logarithm 0 · ∞.
    let (zero, one) = (lo.scalar(0f32), lo.scalar(1f32));
    let nothing = if c > 1.0 { Some(lo.op(Op::Equal, &[size, zero], &[])?) } else { None };
    let size = nothing.map_or(Ok(size), |n| lo.select(n, one, size))?;
    let log = lo.log2(size)?;
    let z = lo.mul(log, y)?;
    let power = lo.exp2(z)?;
    let power = nothing.map_or(Ok(power), |n| lo.select(n, zero, power))?;
    // All floats from 2^24 on are even.
    if !whole || (c / 2.0).floor() == c / 2.0 {
        return Ok(power);
    }
    let mirrored = lo.neg(power)?;
    let negative = lo.sign_bit(x)?;
    lo.select(negative, mirrored, power)
}

/// The general form for an exponent that is computed.
fn general(lo: &mut Lowering<'_, '_>, x: ValueId, y: ValueId) -> Result<ValueId, LowerError> {
    // A positive constant base, as in beta^step, needs neither sign nor the corner y = 0, since
    // 0 · log2(x) is 0 for it.
    let positive_base = lo.uniform(x).is_some_and(|b| b > 0.0 && b.is_finite() && b != 1.0);
    let size = if positive_base { x } else { lo.abs(x)? };
    let log = lo.log2(size)?;
    let z = lo.mul(log, y)?;
    if positive_base {
        return lo.exp2(z);
    }
    let (zero, one) = (lo.scalar(0f32), lo.scalar(1f32));
    // A base of magnitude 1 stays 1, also under an exponent that is infinite or NaN; under others it does so by
    // itself, and has a derivative.
    let (range, infinity) = (lo.abs(y)?, lo.scalar(f32::INFINITY));
    let finite = lo.op(Op::Less, &[range, infinity], &[])?;
    let endless = lo.op(Op::Not, &[finite], &[])?;
    let unit = lo.op(Op::Equal, &[log, zero], &[])?;
    let unit = lo.op(Op::And, &[unit, endless], &[])?;
    let z = lo.select(unit, zero, z)?;
    let power = lo.exp2(z)?;
    // Where the sign bit is set: odd exponents mirror, and between whole exponents lies nothing, save
    // for the powers of zero and infinity, whose logarithms are infinite.
    let floor = lo.op(Op::Floor, &[y], &[])?;
    let whole = lo.op(Op::Equal, &[floor, y], &[])?;
    let half = lo.div_scalar(y, 2.0)?;
    let half_floor = lo.op(Op::Floor, &[half], &[])?;
    let even = lo.op(Op::Equal, &[half_floor, half], &[])?;
    let mirrored = lo.neg(power)?;
    let signed = lo.select(even, power, mirrored)?;
    let endless = lo.op(Op::IsInf, &[log], &[])?;
    let nan = lo.scalar(f32::NAN);
    let between = lo.select(endless, power, nan)?;
    let below = lo.select(whole, signed, between)?;
    let negative = lo.sign_bit(x)?;
    let result = lo.select(negative, below, power)?;
    let flat = lo.op(Op::Equal, &[y, zero], &[])?;
    lo.select(flat, one, result)
}
