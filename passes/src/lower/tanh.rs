//! The hyperbolic tangent.

use super::{LowerError, Lowering};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;

/// `tanh(x) = sign(x) · (1 − e) / (1 + e)` with `e = exp(−2|x|)`.
pub fn tanh(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(), LowerError> {
    let x = lo.input(node, 0)?;
    let y = of(lo, x)?;
    lo.set(node, 0, y)
}

/// The hyperbolic tangent of a value.
pub(super) fn of(lo: &mut Lowering<'_, '_>, x: ValueId) -> Result<ValueId, LowerError> {
    if !lo.is_pam() {
        return lo.op(Op::Tanh, &[x], &[]);
    }
    let size = lo.size(x)?;
    let twice = lo.scale(size, -2.0)?;
    let e = lo.exp(twice)?;
    let one = lo.scalar(1f32);
    let (above, below) = (lo.sub(one, e)?, lo.add(one, e)?);
    let ratio = lo.div(above, below)?;
    let mirrored = lo.neg(ratio)?;
    let negative = lo.negative(x)?;
    lo.select(negative, mirrored, ratio)
}
