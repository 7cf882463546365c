//! Einstein summation.

use super::{LowerError, Lowering};
use pam_ir::einsum::Einsum;
use pam_ir::graph::{Node, ValueId};

type Result<T = ()> = std::result::Result<T, LowerError>;

/// Operands are multiplied pairwise from the left: labels that neither the output nor a later operand
/// has are summed, those in one operand only beforehand, those in both by `pam.matmul`.
pub fn einsum(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let shapes: Vec<Vec<usize>> =
        lo.with_call(node, |c| c.inputs.iter().flatten().map(|t| t.shape.clone()).collect());
    let slices: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    let plan = Einsum::parse(node.str("equation").unwrap_or(""), &slices)?;
    let mut current: Option<(ValueId, Vec<usize>)> = None;
    for (i, labels) in plan.inputs.iter().enumerate() {
        let x = lo.input(node, i)?;
        let mut seen = labels.clone();
        seen.sort_unstable();
        if seen.windows(2).any(|w| w[0] == w[1]) {
            let reason = "a label that one operand repeats (a diagonal) is not supported";
            return Err(LowerError(reason.to_owned()));
        }
        let x = widen(lo, x, labels, &plan)?;
        let needed = |label: &usize| {
            plan.output.contains(label) || plan.inputs[i + 1..].iter().any(|l| l.contains(label))
        };
        current = Some(match current {
            None => (x, labels.clone()),
            Some(left) => pair(lo, left, (x, labels.clone()), needed, &plan)?,
        });
    }
    let (x, labels) = current.ok_or_else(|| LowerError("has no operands".to_owned()))?;
    let (x, labels) = sum_out(lo, (x, labels), |l| plan.output.contains(l))?;
    let perm: Vec<usize> = plan
        .output
        .iter()
        .map(|l| labels.iter().position(|x| x == l))
        .collect::<Option<_>>()
        .ok_or_else(|| LowerError("an output label is lost".to_owned()))?;
    let y = lo.transpose(x, &perm)?;
    lo.set(node, 0, y)
}

/// Broadcasts axes of size 1 to the size of their label.
fn widen(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    labels: &[usize],
    plan: &Einsum,
) -> Result<ValueId> {
    let shape: Vec<usize> = labels.iter().map(|&l| plan.sizes[l]).collect();
    lo.expand(x, &shape)
}

/// Sums over the labels that are not kept.
fn sum_out(
    lo: &mut Lowering<'_, '_>,
    (x, labels): (ValueId, Vec<usize>),
    keep: impl Fn(&usize) -> bool,
) -> Result<(ValueId, Vec<usize>)> {
    let axes: Vec<usize> = (0..labels.len()).filter(|&i| !keep(&labels[i])).collect();
    if axes.is_empty() {
        return Ok((x, labels));
    }
    let sum = lo.sum(x, &axes)?;
    let shape = lo.shape(sum);
    let kept: Vec<usize> = (0..labels.len()).filter(|i| !axes.contains(i)).collect();
    let sum = lo.reshape(sum, &kept.iter().map(|&i| shape[i]).collect::<Vec<_>>())?;
    Ok((sum, kept.iter().map(|&i| labels[i]).collect()))
}

fn pair(
    lo: &mut Lowering<'_, '_>,
    left: (ValueId, Vec<usize>),
    right: (ValueId, Vec<usize>),
    needed: impl Fn(&usize) -> bool,
    plan: &Einsum,
) -> Result<(ValueId, Vec<usize>)> {
    let right_labels = right.1.clone();
    let left_labels = left.1.clone();
    let (a, a_labels) = sum_out(lo, left, |l| needed(l) || right_labels.contains(l))?;
    let (b, b_labels) = sum_out(lo, right, |l| needed(l) || left_labels.contains(l))?;
    let pick = |labels: &[usize], f: &dyn Fn(&usize) -> bool| -> Vec<usize> {
        labels.iter().copied().filter(|l| f(l)).collect()
    };
    let batch = pick(&a_labels, &|l| b_labels.contains(l) && needed(l));
    let inner = pick(&a_labels, &|l| b_labels.contains(l) && !needed(l));
    let rows = pick(&a_labels, &|l| !b_labels.contains(l));
    let columns = pick(&b_labels, &|l| !a_labels.contains(l));
    let size = |labels: &[usize]| -> usize { labels.iter().map(|&l| plan.sizes[l]).product() };
    let mut arrange = |x: ValueId, own: &[usize], parts: [&[usize]; 3]| {
        let order = parts.concat();
        let perm: Vec<usize> =
            order.iter().filter_map(|l| own.iter().position(|x| x == l)).collect();
        let x = lo.transpose(x, &perm)?;
        lo.reshape(x, &parts.map(size))
    };
    let a = arrange(a, &a_labels, [&batch, &rows, &inner])?;
    let b = arrange(b, &b_labels, [&batch, &inner, &columns])?;
    let product = lo.matmul(a, b)?;
    let labels = [batch, rows, columns].concat();
    let shape: Vec<usize> = labels.iter().map(|&l| plan.sizes[l]).collect();
    Ok((lo.reshape(product, &shape)?, labels))
}
