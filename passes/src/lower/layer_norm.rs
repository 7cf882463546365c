//! Normalisations within a sample.

use super::{LowerError, Lowering, pow};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::{Op, normalize_axis};

type Result<T = ()> = std::result::Result<T, LowerError>;

fn epsilon(node: &Node) -> f32 {
    node.float("epsilon").unwrap_or(1e-5)
}

/// `c = x − mean x; v = mean(mul(c, c)); div(c, sqrt(v + ε))` over axes: the normalised value, the
/// mean and the standard deviation.
fn standardize(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    axes: &[usize],
    epsilon: f32,
) -> Result<(ValueId, ValueId, ValueId)> {
    let mean = lo.mean(x, axes)?;
    let centred = lo.sub(x, mean)?;
    let square = lo.square(centred)?;
    let variance = lo.mean(square, axes)?;
    let variance = lo.add_scalar(variance, epsilon)?;
    let deviation = lo.sqrt(variance)?;
    Ok((lo.div(centred, deviation)?, mean, deviation))
}

/// `mul(div(x − μ, sqrt(v + ε)), w) + b` over the axes from `axis` on; also the mean and the inverse
/// standard deviation `div(1, sqrt(v + ε))`.
pub fn layer_norm(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let rank = lo.shape(x).len();
    let axis = lo.with_call(node, |c| c.axis("axis", rank))?;
    let axes: Vec<usize> = (axis..rank).collect();
    let (normal, mean, deviation) = standardize(lo, x, &axes, epsilon(node))?;
    let w = lo.input(node, 1)?;
    let mut y = lo.mul(normal, w)?;
    if let Some(b) = lo.get(node, 2)? {
        y = lo.add(y, b)?;
    }
    lo.set(node, 0, y)?;
    lo.set(node, 1, mean)?;
    if node.output(2).is_some() {
        let inverse = lo.reciprocal(deviation)?;
        lo.set(node, 2, inverse)?;
    }
    Ok(())
}

/// `mul(div(x, sqrt(mean(mul(x, x)) + ε)), w)` over the axes from `axis` on.
pub fn rms_norm(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let rank = lo.shape(x).len();
    let axis = lo.with_call(node, |c| c.axis("axis", rank))?;
    let axes: Vec<usize> = (axis..rank).collect();
    let square = lo.square(x)?;
    let mean = lo.mean(square, &axes)?;
    let mean = lo.add_scalar(mean, epsilon(node))?;
    let root = lo.sqrt(mean)?;
    let normal = lo.div(x, root)?;
    let w = lo.input(node, 1)?;
    let y = lo.mul(normal, w)?;
    lo.set(node, 0, y)
}

/// The layer norm of each channel of each sample over its spatial axes, scaled per channel.
pub fn instance_norm(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let axes: Vec<usize> = (2..lo.shape(x).len()).collect();
    let (normal, ..) = standardize(lo, x, &axes, epsilon(node))?;
    per_channel(lo, node, normal)
}

/// The layer norm of each group of channels of each sample, scaled per channel.
pub fn group_norm(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let shape = lo.shape(x);
    let groups = node.int("num_groups").and_then(|g| usize::try_from(g).ok()).unwrap_or(0);
    if groups == 0 || shape.len() < 2 || !shape[1].is_multiple_of(groups) {
        return Err(LowerError(format!("{groups} groups do not divide the channels")));
    }
    let rest: usize = shape[2..].iter().product::<usize>() * (shape[1] / groups);
    let grouped = lo.reshape(x, &[shape[0], groups, rest])?;
    let (normal, ..) = standardize(lo, grouped, &[2], epsilon(node))?;
    let normal = lo.reshape(normal, &shape)?;
    per_channel(lo, node, normal)
}

fn per_channel(lo: &mut Lowering<'_, '_>, node: &Node, normal: ValueId) -> Result {
    let rank = lo.shape(normal).len();
    let (w, b) = (lo.input(node, 1)?, lo.input(node, 2)?);
    let (w, b) = (lo.along(w, 1, rank)?, lo.along(b, 1, rank)?);
    let scaled = lo.mul(normal, w)?;
    let y = lo.add(scaled, b)?;
    lo.set(node, 0, y)
}

/// `div(x, ‖x‖_p)` along an axis; a row of zeros stays one.
pub fn lp_norm(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let rank = lo.shape(x).len();
    let axis = lo.with_call(node, |c| c.axis("axis", rank))?;
    let norm = p_norm(lo, x, &[axis], node.int("p").unwrap_or(2))?;
    let (zero, one) = (lo.scalar(0f32), lo.scalar(1f32));
    let empty = lo.op(Op::Equal, &[norm, zero], &[])?;
    let norm = lo.select(empty, one, norm)?;
    let y = lo.div(x, norm)?;
    lo.set(node, 0, y)
}

/// `(Σ |x|^p)^(1/p)` over axes, which are kept. Where all x are 0 its derivative is 0.
pub(super) fn p_norm(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    axes: &[usize],
    p: i64,
) -> Result<ValueId> {
    if p == 1 {
        let size = lo.abs(x)?;
        return lo.sum(size, axes);
    }
    if p < 1 {
        return Err(LowerError(format!("a norm of p = {p}")));
    }
    let size = if p == 2 { x } else { lo.abs(x)? };
    let power = pow::power(lo, size, p as f32)?;
    let sum = lo.sum(power, axes)?;
    pow::root(lo, sum, p as f32)
}

/// `div(x − mean x, sqrt(mean(mul(c, c))))` over axes, with 1e-9 added to the deviation as ONNX has
/// it.
pub fn mean_variance_norm(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let rank = lo.shape(x).len();
    let axes = node.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes = axes
        .iter()
        .map(|&a| normalize_axis(a, rank))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let mean = lo.mean(x, &axes)?;
    let centred = lo.sub(x, mean)?;
    let square = lo.square(centred)?;
    let variance = lo.mean(square, &axes)?;
    let deviation = lo.sqrt(variance)?;
    let deviation = lo.add_scalar(deviation, 1e-9)?;
    let y = lo.div(centred, deviation)?;
    lo.set(node, 0, y)
}
