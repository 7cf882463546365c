//! Softmax and its logarithm.

use super::{LOG2E, LowerError, Lowering};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;

type Result<T = ()> = std::result::Result<T, LowerError>;

/// `z = mul(x, log2e); s = floor(max z); e = exp2(z − s); div(e, Σ e)` along an axis; natively
/// `e = exp(x − max x)`. A row of nothing but −inf gives NaN, as it does natively.
pub fn softmax(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let axis = lo.with_call(node, |c| c.axis("axis", c.input(0)?.rank()))?;
    let y = if lo.is_read_by(node, Op::IsNaN) {
        guarded(lo, x, axis, f32::NAN)?
    } else {
        of(lo, x, axis)?
    };
    lo.set(node, 0, y)
}

/// A softmax whose rows of nothing but −inf are a number by selection, so that they have no derivative: through
/// the exponentials it would be NaN, also for a model that replaces these rows.
pub(super) fn guarded(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    axis: usize,
    masked: f32,
) -> Result<ValueId> {
    let (zero, minus_infinity) = (lo.scalar(0f32), lo.scalar(f32::NEG_INFINITY));
    let max = lo.reduce(Op::ReduceMax, x, &[axis])?;
    let hidden = lo.op(Op::Equal, &[max, minus_infinity], &[])?;
    let safe = lo.select(hidden, zero, x)?;
    let y = of(lo, safe, axis)?;
    let masked = lo.scalar(masked);
    lo.select(hidden, masked, y)
}

/// The softmax of a value along an axis.
pub(super) fn of(lo: &mut Lowering<'_, '_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let (e, _) = shifted(lo, x, &[axis])?;
    let sum = lo.sum(e, &[axis])?;
    lo.div(e, sum)
}

/// `x − logsumexp(x)` along an axis.
pub fn log_softmax(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let axis = lo.with_call(node, |c| c.axis("axis", c.input(0)?.rank()))?;
    let y = log_of(lo, x, axis)?;
    lo.set(node, 0, y)
}

/// The logarithm of the softmax of a value along an axis.
pub(super) fn log_of(lo: &mut Lowering<'_, '_>, x: ValueId, axis: usize) -> Result<ValueId> {
    let norm = log_sum_exp(lo, x, &[axis])?;
    lo.sub(x, norm)
}

/// `logsumexp(x) = div(s + log2(Σ exp2(z − s)), log2e)` over axes, which are kept; natively
/// `max x + log(Σ exp(x − max x))`.
pub(super) fn log_sum_exp(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    axes: &[usize],
) -> Result<ValueId> {
    let (e, shift) = shifted(lo, x, axes)?;
    let sum = lo.sum(e, axes)?;
    if lo.is_pam() {
        let log = lo.log2(sum)?;
        let total = lo.add(shift, log)?;
        lo.div_scalar(total, LOG2E)
    } else {
        let log = lo.log(sum)?;
        lo.add(shift, log)
    }
}

/// Exponentials that cannot overflow, and what was subtracted from the exponents: in base 2 under
/// PA, where the shift is a whole number so that it only moves exponents.
fn shifted(lo: &mut Lowering<'_, '_>, x: ValueId, axes: &[usize]) -> Result<(ValueId, ValueId)> {
    if lo.is_pam() {
        let z = lo.scale(x, LOG2E)?;
        // The lowest number, a mask that many models use, stays one in base 2; a row of −∞ has no softmax.
        let (lowest, nan) = (lo.scalar(f32::MIN), lo.scalar(f32::NAN));
        let max = lo.reduce(Op::ReduceMax, x, axes)?;
        let infinite = lo.op(Op::IsInf, &[max], &[])?;
        let bound = lo.select(infinite, nan, lowest)?;
        let high = lo.scale(max, LOG2E)?;
        let high = lo.op(Op::Max, &[high, bound], &[])?;
        let shift = lo.op(Op::Floor, &[high], &[])?;
        let z = lo.op(Op::Max, &[z, bound], &[])?;
        let small = lo.sub(z, shift)?;
        Ok((lo.exp2(small)?, shift))
    } else {
        let max = lo.reduce(Op::ReduceMax, x, axes)?;
        let small = lo.sub(x, max)?;
        Ok((lo.exp(small)?, max))
    }
}
