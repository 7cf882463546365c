//! The cross entropy and its gradient.

use super::{Outputs, Translation};
use crate::attr::Attr;
use crate::op::Op;
use crate::types::Type;

/// The standard loss, whose ignored label is an operand here.
pub(super) fn cross_entropy(v: &mut Translation<'_, '_>) -> Outputs {
    let mut attrs: Vec<(&str, Attr)> =
        vec![("reduction", v.str("reduction").unwrap_or("mean").into())];
    if v.given(3).is_some() {
        let ignored = v.known(3)?;
        let ignored = *ignored.first().ok_or("the ignored label is empty")?;
        attrs.push(("ignore_index", ignored.into()));
    }
    let inputs = [v.given(0), v.given(1), v.given(2)];
    v.op_n(Op::SoftmaxCrossEntropyLoss, &inputs, &attrs, v.outputs)
}

/// `(exp(log_prob) − one_hot(label)) · weight · δ`, over the sum of weights for a mean; ignored labels
/// weigh nothing.
pub(super) fn cross_entropy_grad(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, log, labels) = (v.x(0)?, v.x(1)?, v.x(2)?);
    let ty = v.ty(log);
    let internal = v.op == "SoftmaxCrossEntropyLossInternalGrad";
    let ignored = match v.attrs.get("ignore_index") {
        Some(Attr::Int(i)) => Some(*i),
        _ if internal && v.given(4).is_some() => v.known(4)?.first().copied(),
        _ => None,
    };
    let mut column = v.ty(labels).shape;
    column.insert(1, 1);
    let labels = v.reshape(labels, &column)?;
    let weights = Type::new(ty.dtype, column.clone());
    let one = v.number(1.0, log)?;
    let mut weight = v.op_with(Op::Expand, &[one], &[("shape", column.as_slice().into())])?;
    let mut picked = labels;
    if let Some(ignored) = ignored {
        let ignored = v.number(ignored as f64, labels)?;
        let is_ignored = v.op(Op::Equal, &[labels, ignored])?;
        let nothing = v.zeros(&weights)?;
        weight = v.select(is_ignored, nothing, weight)?;
        // An ignored label need not be a class.
        let zero = v.number(0.0, labels)?;
        picked = v.select(is_ignored, zero, labels)?;
    }
    if let Some(classes) = v.given(3) {
        let own = v.op(Op::Gather, &[classes, picked])?;
        weight = v.mul(weight, own)?;
    }
    let mut factor = match v.str("reduction").unwrap_or("mean") {
        "none" => v.reshape(d, &column)?,
        _ => d,
    };
    if v.str("reduction").unwrap_or("mean") == "mean" {
        let axes: Vec<usize> = (0..column.len()).collect();
        let sum = v.reduce(Op::ReduceSum, weight, &axes, false)?;
        factor = v.div(factor, sum)?;
    }
    let weight = v.mul(weight, factor)?;
    let probability = v.op(Op::Exp, &[log])?;
    let zeros = v.zeros(&ty)?;
    let ones = v.op_with(Op::Expand, &[one], &[("shape", column.as_slice().into())])?;
    let hot = v.op_with(Op::ScatterElements, &[zeros, picked, ones], &[("axis", 1i64.into())])?;
    let gap = v.sub(probability, hot)?;
    let mut gradient = v.mul(gap, weight)?;
    if let Some(bias) = v.given(if internal { 5 } else { 4 }) {
        gradient = v.add(gradient, bias)?;
    }
    Ok(vec![Some(gradient)])
}
