//! The error function.

use super::{LowerError, Lowering, tanh};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;

/// `erf(x) ≈ tanh(x · (1.128379 + 0.102770 · x²))`: odd, bounded by one, and within 4·10⁻⁴ of the
/// error function in exact arithmetic, far less than what PA arithmetic adds.
pub fn erf(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(), LowerError> {
    let x = lo.input(node, 0)?;
    let y = of(lo, x)?;
    lo.set(node, 0, y)
}

/// The error function of a value.
pub(super) fn of(lo: &mut Lowering<'_, '_>, x: ValueId) -> Result<ValueId, LowerError> {
    if !lo.is_pam() {
        return lo.op(Op::Erf, &[x], &[]);
    }
    let square = lo.square(x)?;
    let cubic = lo.scale(square, 0.102_770)?;
    let slope = lo.add_scalar(cubic, std::f32::consts::FRAC_2_SQRT_PI)?;
    let u = lo.mul(x, slope)?;
    tanh::of(lo, u)
}
