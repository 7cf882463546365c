//! Trigonometric and hyperbolic functions and their inverses.

use super::{LOG2E, LowerError, Lowering};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;
use std::f32::consts::{FRAC_1_PI, FRAC_PI_2};

type Result<T = ()> = std::result::Result<T, LowerError>;

/// Natively the op itself, under PA the composition.
fn lower(
    lo: &mut Lowering<'_, '_>,
    node: &Node,
    composed: fn(&mut Lowering<'_, '_>, ValueId) -> Result<ValueId>,
) -> Result {
    let x = lo.input(node, 0)?;
    let y = if lo.is_pam() { composed(lo, x)? } else { lo.op(node.op, &[x], &[])? };
    lo.set(node, 0, y)
}

/// `sin(x) = sign(t) · mul(u, 8 − 16·u)` with `t = x / 2π` less the nearest integer and `u` its
/// distance from the nearest half: a parabola for each half wave. The division by 2π is exact, in powers of two, since a relative error of x would be an error
/// of the phase that grows with x.
pub fn sin(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, |lo, x| sin_of(lo, x, 0.0))
}

/// `cos(x) = sin(x + π/2)`.
pub fn cos(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, |lo, x| sin_of(lo, x, 0.25))
}

/// `tan(x) = sin(x) / cos(x)`.
pub fn tan(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, |lo, x| {
        let (sin, cos) = (sin_of(lo, x, 0.0)?, sin_of(lo, x, 0.25)?);
        lo.div(sin, cos)
    })
}

fn sin_of(lo: &mut Lowering<'_, '_>, x: ValueId, shift: f32) -> Result<ValueId> {
    let turns = lo.scale_exactly(x, FRAC_1_PI / 2.0)?;
    turn_sin(lo, turns, shift)
}

/// The sine of a number of turns plus `shift` turns.
pub(super) fn turn_sin(lo: &mut Lowering<'_, '_>, turns: ValueId, shift: f32) -> Result<ValueId> {
    let turns = if shift == 0.0 { turns } else { lo.add_scalar(turns, shift)? };
    let whole = lo.op(Op::Round, &[turns], &[])?;
    let t = lo.sub(turns, whole)?;
    let size = lo.size(t)?;
    let half = lo.scalar(0.5f32);
    let mirrored = lo.sub(half, size)?;
    let u = lo.op(Op::Min, &[size, mirrored], &[])?;
    let steep = lo.scale(u, 16.0)?;
    let eight = lo.scalar(8f32);
    let slope = lo.sub(eight, steep)?;
    let wave = lo.mul(u, slope)?;
    let below = lo.neg(wave)?;
    let negative = lo.negative(t)?;
    lo.select(negative, below, wave)
}

/// `asin(x) = atan(x / √(1 − x²))`.
pub fn asin(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, asin_of)
}

/// `acos(x) = π/2 − asin(x)`.
pub fn acos(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, |lo, x| {
        let asin = asin_of(lo, x)?;
        let right = lo.scalar(FRAC_PI_2);
        lo.sub(right, asin)
    })
}

fn asin_of(lo: &mut Lowering<'_, '_>, x: ValueId) -> Result<ValueId> {
    let square = lo.square(x)?;
    let one = lo.scalar(1f32);
    let rest = lo.sub(one, square)?;
    let root = lo.sqrt(rest)?;
    let ratio = lo.div(x, root)?;
    atan_of(lo, ratio)
}

/// `atan(x) = x / (1 + 0.28125·x²)` for |x| ≤ 1, else `±π/2 − x / (x² + 0.28125)`.
pub fn atan(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, atan_of)
}

fn atan_of(lo: &mut Lowering<'_, '_>, x: ValueId) -> Result<ValueId> {
    // The reciprocal of a large argument keeps infinities in range.
    let size = lo.abs(x)?;
    let one = lo.scalar(1f32);
    let large = lo.op(Op::Greater, &[size, one], &[])?;
    // Where it is not selected it must not be infinite, since its derivative would be 0 · ∞.
    let divisor = lo.select(large, x, one)?;
    let inverse = lo.div(one, divisor)?;
    let z = lo.select(large, inverse, x)?;
    let square = lo.square(z)?;
    let bend = lo.scale(square, 0.281_25)?;
    let below = lo.add(one, bend)?;
    let inner = lo.div(z, below)?;
    let (plus, minus) = (lo.scalar(FRAC_PI_2), lo.scalar(-FRAC_PI_2));
    let negative = lo.negative(x)?;
    let right = lo.select(negative, minus, plus)?;
    let outer = lo.sub(right, inner)?;
    lo.select(large, outer, inner)
}

/// `sinh(x) = (exp(x) − exp(−x)) / 2`.
pub fn sinh(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, |lo, x| {
        let (up, down) = exponentials(lo, x)?;
        let difference = lo.sub(up, down)?;
        lo.scale(difference, 0.5)
    })
}

/// `cosh(x) = (exp(x) + exp(−x)) / 2`.
pub fn cosh(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, |lo, x| {
        let (up, down) = exponentials(lo, x)?;
        let sum = lo.add(up, down)?;
        lo.scale(sum, 0.5)
    })
}

fn exponentials(lo: &mut Lowering<'_, '_>, x: ValueId) -> Result<(ValueId, ValueId)> {
    let up = lo.exp(x)?;
    let minus = lo.neg(x)?;
    Ok((up, lo.exp(minus)?))
}

/// `asinh(x) = sign(x) · log(|x| + √(x² + 1))`.
pub fn asinh(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, |lo, x| {
        let size = lo.size(x)?;
        let log = log_with_root(lo, size, 1.0)?;
        let mirrored = lo.neg(log)?;
        let negative = lo.negative(x)?;
        lo.select(negative, mirrored, log)
    })
}

/// `acosh(x) = log(x + √(x² − 1))`, NaN below 1.
pub fn acosh(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, |lo, x| {
        let (one, nan) = (lo.scalar(1f32), lo.scalar(f32::NAN));
        let outside = lo.op(Op::Less, &[x, one], &[])?;
        let x = lo.select(outside, nan, x)?;
        log_with_root(lo, x, -1.0)
    })
}

/// `log(x + √(x² + c))`; above 2^30, where x² might overflow, `log(2·x)`.
fn log_with_root(lo: &mut Lowering<'_, '_>, x: ValueId, c: f32) -> Result<ValueId> {
    let square = lo.square(x)?;
    let inner = lo.add_scalar(square, c)?;
    let root = lo.sqrt(inner)?;
    let sum = lo.add(x, root)?;
    let bound = lo.scalar(2f32.powi(30));
    let large = lo.op(Op::Greater, &[x, bound], &[])?;
    let kept = lo.select(large, x, sum)?;
    let log = lo.log2(kept)?;
    let (zero, one) = (lo.scalar(0f32), lo.scalar(1f32));
    let doubled = lo.select(large, one, zero)?;
    let log = lo.add(log, doubled)?;
    lo.div_scalar(log, LOG2E)
}

/// `atanh(x) = log((1 + x) / (1 − x)) / 2`.
pub fn atanh(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    lower(lo, node, |lo, x| {
        let one = lo.scalar(1f32);
        let (above, below) = (lo.add(one, x)?, lo.sub(one, x)?);
        let ratio = lo.div(above, below)?;
        let log = lo.log(ratio)?;
        lo.scale(log, 0.5)
    })
}
