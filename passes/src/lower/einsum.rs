//! Einstein summation.

use super::{LowerError, Lowering};
use pam_ir::attr::Attr;
use pam_ir::einsum::Einsum;
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;

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
        let x = widen(lo, x, labels, &plan)?;
        let (x, labels) = diagonal(lo, x, labels)?;
        let needed = |label: &usize| {
            plan.output.contains(label) || plan.inputs[i + 1..].iter().any(|l| l.contains(label))
        };
        current = Some(match current {
            None => (x, labels),
            Some(left) => pair(lo, left, (x, labels), needed, &plan)?,
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

/// Takes the diagonal of axes with the same label: every (n + 1)-th element of the two as one axis.
fn diagonal(
    lo: &mut Lowering<'_, '_>,
    mut x: ValueId,
    labels: &[usize],
) -> Result<(ValueId, Vec<usize>)> {
    let mut labels = labels.to_vec();
    let pair = |labels: &[usize]| {
        (0..labels.len()).find_map(|j| Some((labels[..j].iter().position(|l| *l == labels[j])?, j)))
    };
    while let Some((i, j)) = pair(&labels) {
        let rest: Vec<usize> = (0..labels.len()).filter(|&a| a != i && a != j).collect();
        x = lo.transpose(x, &[rest.as_slice(), &[i, j]].concat())?;
        let mut shape = lo.shape(x);
        let n = shape.split_off(rest.len())[0];
        shape.push(n * n);
        x = lo.reshape(x, &shape)?;
        let attrs: [(&str, Attr); 4] = [
            ("starts", vec![0i64].into()),
            ("ends", vec![(n * n) as i64].into()),
            ("axes", vec![rest.len() as i64].into()),
            ("steps", vec![n as i64 + 1].into()),
        ];
        x = lo.op(Op::Slice, &[x], &attrs)?;
        labels = rest.iter().chain(&[i]).map(|&a| labels[a]).collect();
    }
    Ok((x, labels))
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
