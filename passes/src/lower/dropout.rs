//! Dropout.

use super::random::{key, uniform_of};
use super::{LowerError, Lowering};
use pam_ir::attr::Attr;
use pam_ir::graph::Node;
use pam_ir::op::Op;

/// In training `u ≥ ratio ? div(x, 1 − ratio) : 0` with uniform u, the mask being `u ≥ ratio`;
/// otherwise x itself and a mask of ones.
pub fn dropout(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(), LowerError> {
    let x = lo.input(node, 0)?;
    let shape = lo.shape(x);
    let training = match node.attr("training_mode") {
        Some(Attr::Tensor(t)) => t.to_i64().is_some_and(|v| v == [1]),
        _ => false,
    };
    let ratio = match node.attr("ratio") {
        Some(Attr::Tensor(t)) => t.as_scalar_f64().unwrap_or(0.5) as f32,
        _ => 0.5,
    };
    if !(0.0..1.0).contains(&ratio) {
        return Err(LowerError(format!("the ratio is {ratio}, not in [0, 1)")));
    }
    if !training || ratio == 0.0 {
        lo.set(node, 0, x)?;
        if node.output(1).is_some() {
            let ones = lo.scalar(true);
            let mask = lo.expand(ones, &shape)?;
            lo.set(node, 1, mask)?;
        }
        return Ok(());
    }
    let u = uniform_of(lo, key(node, node.int("seed").unwrap_or(0) as u32), &shape)?;
    let bound = lo.scalar(ratio);
    let mask = lo.op(Op::GreaterOrEqual, &[u, bound], &[])?;
    let scaled = lo.div_scalar(x, 1.0 - ratio)?;
    let zero = lo.scalar(0f32);
    let y = lo.select(mask, scaled, zero)?;
    lo.set(node, 0, y)?;
    lo.set(node, 1, mask)
}
