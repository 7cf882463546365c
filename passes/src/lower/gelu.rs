//! The Gaussian error linear unit.

use super::{LowerError, Lowering, erf, tanh};
use pam_ir::graph::Node;
use std::f32::consts::FRAC_1_SQRT_2;

/// `gelu(x) = x/2 · (1 + erf(x / √2))`, or, approximated by tanh,
/// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`.
pub fn gelu(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(), LowerError> {
    let x = lo.input(node, 0)?;
    let step = if node.str("approximate") == Some("tanh") {
        let square = lo.square(x)?;
        let cube = lo.mul(square, x)?;
        let small = lo.scale(cube, 0.044_715)?;
        let sum = lo.add(x, small)?;
        let u = lo.scale(sum, 0.797_884_6)?;
        tanh::of(lo, u)?
    } else {
        let u = lo.scale(x, FRAC_1_SQRT_2)?;
        erf::of(lo, u)?
    };
    let one = lo.scalar(1f32);
    let gate = lo.add(one, step)?;
    let half = lo.scale(x, 0.5)?;
    let y = lo.mul(half, gate)?;
    lo.set(node, 0, y)
}
