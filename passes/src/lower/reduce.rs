//! Reductions that multiply.

use super::{LowerError, Lowering, layer_norm, softmax};
use pam_ir::attr::Attr;
use pam_ir::geometry::reduced_axes;
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;

type Result<T = ()> = std::result::Result<T, LowerError>;

/// The input and the axes of a reduction.
fn operands(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(ValueId, Vec<usize>)> {
    let x = lo.input(node, 0)?;
    let axes = lo.with_call(node, |c| reduced_axes(c, c.input(0)?.rank()))?;
    Ok((x, axes))
}

/// Removes the reduced axes unless they are kept.
fn finish(lo: &mut Lowering<'_, '_>, node: &Node, y: ValueId, axes: &[usize]) -> Result {
    let shape = lo.shape(y);
    let keep = node.int("keepdims") != Some(0);
    let kept = (0..shape.len()).filter(|a| keep || !axes.contains(a));
    let y = lo.reshape(y, &kept.map(|a| shape[a]).collect::<Vec<_>>())?;
    lo.set(node, 0, y)
}

/// `div(Σ x, n)`.
pub fn mean(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (x, axes) = operands(lo, node)?;
    let y = lo.mean(x, &axes)?;
    finish(lo, node, y, &axes)
}

/// `Σ |x|`.
pub fn l1(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (x, axes) = operands(lo, node)?;
    let size = lo.abs(x)?;
    let y = lo.sum(size, &axes)?;
    finish(lo, node, y, &axes)
}

/// `sqrt(Σ mul(x, x))`.
pub fn l2(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (x, axes) = operands(lo, node)?;
    let y = layer_norm::p_norm(lo, x, &axes, 2)?;
    finish(lo, node, y, &axes)
}

/// `Σ mul(x, x)`.
pub fn sum_square(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (x, axes) = operands(lo, node)?;
    let square = lo.square(x)?;
    let y = lo.sum(square, &axes)?;
    finish(lo, node, y, &axes)
}

/// `log(Σ x)`.
pub fn log_sum(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (x, axes) = operands(lo, node)?;
    let sum = lo.sum(x, &axes)?;
    let y = lo.log(sum)?;
    finish(lo, node, y, &axes)
}

/// `div(s + log2(Σ exp2(z − s)), log2e)` with `z = mul(x, log2e)` and `s = floor(max z)`; natively an
/// infinite maximum is the result.
pub fn log_sum_exp(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (x, axes) = operands(lo, node)?;
    let mut y = softmax::log_sum_exp(lo, x, &axes)?;
    if !lo.is_pam() {
        let max = lo.reduce(Op::ReduceMax, x, &axes)?;
        let infinite = lo.op(Op::IsInf, &[max], &[])?;
        y = lo.select(infinite, max, y)?;
    }
    finish(lo, node, y, &axes)
}

/// Products of the two halves of the reduced elements, until one is left.
pub fn product(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (x, axes) = operands(lo, node)?;
    let shape = lo.shape(x);
    let kept: Vec<usize> = (0..shape.len()).filter(|a| !axes.contains(a)).collect();
    let perm = [kept.clone(), axes.clone()].concat();
    let outer: usize = kept.iter().map(|&a| shape[a]).product();
    let mut n: usize = axes.iter().map(|&a| shape[a]).product();
    let moved = lo.transpose(x, &perm)?;
    let mut v = lo.reshape(moved, &[outer, n])?;
    if n == 0 {
        let one = lo.scalar(1f32);
        v = lo.expand(one, &[outer, 1])?;
    }
    while n > 1 {
        let half = n / 2;
        let part = |lo: &mut Lowering<'_, '_>, v, from: usize, to: usize| {
            let attrs: [(&str, Attr); 3] = [
                ("starts", vec![from as i64].into()),
                ("ends", vec![to as i64].into()),
                ("axes", vec![1i64].into()),
            ];
            lo.op(Op::Slice, &[v], &attrs)
        };
        let (low, high) = (part(lo, v, 0, half)?, part(lo, v, half, 2 * half)?);
        let mut next = lo.mul(low, high)?;
        if n % 2 == 1 {
            let last = part(lo, v, n - 1, n)?;
            next = lo.op(Op::Concat, &[next, last], &[("axis", 1i64.into())])?;
        }
        v = next;
        n = half + n % 2;
    }
    let dims = (0..shape.len()).map(|a| if axes.contains(&a) { 1 } else { shape[a] });
    let y = lo.reshape(v, &dims.collect::<Vec<_>>())?;
    finish(lo, node, y, &axes)
}

/// `div(Σ operands, n)`.
pub fn mean_of_operands(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let mut sum = lo.input(node, 0)?;
    for i in 1..node.inputs.len() {
        let x = lo.input(node, i)?;
        sum = lo.add(sum, x)?;
    }
    let y = lo.div_scalar(sum, node.inputs.len() as f32)?;
    lo.set(node, 0, y)
}
