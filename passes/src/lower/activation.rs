//! Activation functions of a few lines each.

use super::{LowerError, Lowering, tanh};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;

type Result<T = ()> = std::result::Result<T, LowerError>;

/// `sigmoid(x) = 1 / (1 + exp(−x))`.
pub fn sigmoid(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let y = sigmoid_of(lo, x)?;
    lo.set(node, 0, y)
}

fn sigmoid_of(lo: &mut Lowering<'_, '_>, x: ValueId) -> Result<ValueId> {
    if !lo.is_pam() {
        return lo.op(Op::Sigmoid, &[x], &[]);
    }
    let minus = lo.neg(x)?;
    // Beyond, e would be infinite and its derivative 0 · ∞; the result is 0 from there on in any case.
    let bound = lo.scalar(lo.largest_exponent());
    let minus = lo.op(Op::Min, &[minus, bound], &[])?;
    let e = lo.exp(minus)?;
    let one = lo.scalar(1f32);
    let sum = lo.add(one, e)?;
    lo.div(one, sum)
}

/// `softplus(x) = max(x, 0) + log(1 + exp(−|x|))`, which cannot overflow.
pub fn softplus(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let y = softplus_of(lo, x)?;
    lo.set(node, 0, y)
}

fn softplus_of(lo: &mut Lowering<'_, '_>, x: ValueId) -> Result<ValueId> {
    let size = lo.size(x)?;
    let minus = lo.neg(size)?;
    let e = lo.exp(minus)?;
    let sum = lo.add_scalar(e, 1.0)?;
    let log = lo.log(sum)?;
    let zero = lo.scalar(0f32);
    // Not `Relu`, whose derivative at 0 is 0: with that of the size, 1, this one makes ½.
    let ramp = lo.op(Op::Max, &[x, zero], &[])?;
    lo.add(ramp, log)
}

/// `softsign(x) = x / (1 + |x|)`.
pub fn softsign(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let size = lo.abs(x)?;
    let sum = lo.add_scalar(size, 1.0)?;
    let y = lo.div(x, sum)?;
    lo.set(node, 0, y)
}

/// `below` where x ≤ 0, else `above`. At 0 both are 0, and the derivative is that of `below`, as in PyTorch.
fn piecewise(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    below: ValueId,
    above: ValueId,
) -> Result<ValueId> {
    let zero = lo.scalar(0f32);
    let under = lo.op(Op::LessOrEqual, &[x, zero], &[])?;
    lo.select(under, below, above)
}

/// `elu(x) = x` above 0, else `alpha · (exp(x) − 1)`.
pub fn elu(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let y = elu_of(lo, x, node.float("alpha").unwrap_or(1.0))?;
    lo.set(node, 0, y)
}

fn elu_of(lo: &mut Lowering<'_, '_>, x: ValueId, alpha: f32) -> Result<ValueId> {
    let below = less_than_nothing(lo, x, x, alpha)?;
    piecewise(lo, x, below, x)
}

/// `alpha · (exp(z) − 1)` where x ≤ 0, else 0: where it is not selected it must not overflow, since its derivative
/// would be 0 · ∞.
fn less_than_nothing(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    z: ValueId,
    alpha: f32,
) -> Result<ValueId> {
    let zero = lo.scalar(0f32);
    let z = piecewise(lo, x, z, zero)?;
    let e = lo.exp(z)?;
    let less = lo.add_scalar(e, -1.0)?;
    lo.scale(less, alpha)
}

/// `selu(x) = gamma · elu(x, alpha)`.
pub fn selu(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let y = elu_of(lo, x, node.float("alpha").unwrap_or(1.673_263_2))?;
    let y = lo.scale(y, node.float("gamma").unwrap_or(1.050_701))?;
    lo.set(node, 0, y)
}

/// `celu(x) = x` above 0, else `alpha · (exp(x / alpha) − 1)`.
pub fn celu(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let alpha = node.float("alpha").unwrap_or(1.0);
    let z = lo.div_scalar(x, alpha)?;
    let below = less_than_nothing(lo, x, z, alpha)?;
    let y = piecewise(lo, x, below, x)?;
    lo.set(node, 0, y)
}

/// `leaky_relu(x) = x` above 0, else `alpha · x`.
pub fn leaky_relu(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let below = lo.scale(x, node.float("alpha").unwrap_or(0.01))?;
    let y = piecewise(lo, x, below, x)?;
    lo.set(node, 0, y)
}

/// `prelu(x) = x` above 0, else `slope · x`.
pub fn prelu(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (x, slope) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let below = lo.mul(slope, x)?;
    let y = piecewise(lo, x, below, x)?;
    lo.set(node, 0, y)
}

/// `hard_sigmoid(x) = max(0, min(1, alpha · x + beta))`.
pub fn hard_sigmoid(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let (alpha, beta) = (node.float("alpha").unwrap_or(0.2), node.float("beta").unwrap_or(0.5));
    let y = hard_sigmoid_of(lo, x, alpha, beta)?;
    lo.set(node, 0, y)
}

fn hard_sigmoid_of(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    alpha: f32,
    beta: f32,
) -> Result<ValueId> {
    let z = lo.scale(x, alpha)?;
    let z = lo.add_scalar(z, beta)?;
    let (low, high) = (lo.scalar(0f32), lo.scalar(1f32));
    lo.op(Op::Clip, &[z, low, high], &[])
}

/// `hard_swish(x) = x · hard_sigmoid(x)` with alpha 1/6 and beta 1/2.
pub fn hard_swish(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let gate = hard_sigmoid_of(lo, x, 1.0 / 6.0, 0.5)?;
    let y = lo.mul(x, gate)?;
    lo.set(node, 0, y)
}

/// `swish(x) = x · sigmoid(alpha · x)`.
pub fn swish(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let z = lo.scale(x, node.float("alpha").unwrap_or(1.0))?;
    let gate = sigmoid_of(lo, z)?;
    let y = lo.mul(x, gate)?;
    lo.set(node, 0, y)
}

/// `mish(x) = x · tanh(softplus(x))`.
pub fn mish(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let z = softplus_of(lo, x)?;
    let gate = tanh::of(lo, z)?;
    let y = lo.mul(x, gate)?;
    lo.set(node, 0, y)
}
