//! Losses.

use super::{LowerError, Lowering, softmax};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;
use pam_ir::types::DType;

type Result<T = ()> = std::result::Result<T, LowerError>;

/// The negative log-likelihood of the log-softmax over the classes; also the log-softmax itself.
pub fn cross_entropy(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let scores = lo.input(node, 0)?;
    let log = softmax::log_of(lo, scores, 1)?;
    let loss = likelihood(lo, node, log)?;
    lo.set(node, 0, loss)?;
    lo.set(node, 1, log)
}

/// `−x[label]`, weighted by class; `mean` divides by the sum of the weights, ignored labels having
/// none.
pub fn nll_loss(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let log = lo.input(node, 0)?;
    let loss = likelihood(lo, node, log)?;
    lo.set(node, 0, loss)
}

fn likelihood(lo: &mut Lowering<'_, '_>, node: &Node, log: ValueId) -> Result<ValueId> {
    let mut labels = lo.input(node, 1)?;
    if lo.ty(labels).dtype != DType::I64 {
        labels = lo.cast(labels, DType::I64)?;
    }
    let shape = lo.shape(labels);
    let ignored = match node.int("ignore_index") {
        None => None,
        Some(index) => {
            let index = lo.scalar(index);
            let ignored = lo.op(Op::Equal, &[labels, index], &[])?;
            // An ignored label may be no class, so class 0 is looked up in its place.
            let zero = lo.scalar(0i64);
            labels = lo.select(ignored, zero, labels)?;
            Some(ignored)
        }
    };
    let column = lo.op(Op::Unsqueeze, &[labels], &[("axes", vec![1i64].into())])?;
    let picked = lo.op(Op::GatherElements, &[log, column], &[("axis", 1i64.into())])?;
    let picked = lo.reshape(picked, &shape)?;
    let mut loss = lo.neg(picked)?;
    let mut weights = match lo.get(node, 2)? {
        Some(w) => Some(lo.op(Op::Gather, &[w, labels], &[("axis", 0i64.into())])?),
        None => None,
    };
    if let Some(ignored) = ignored {
        let (zero, one) = (lo.scalar(0f32), lo.scalar(1f32));
        let own = weights.unwrap_or(one);
        weights = Some(lo.select(ignored, zero, own)?);
        loss = lo.select(ignored, zero, loss)?;
    }
    let has_class_weights = node.input(2).is_some();
    if let (Some(w), true) = (weights, has_class_weights) {
        loss = lo.mul(loss, w)?;
    }
    let axes: Vec<usize> = (0..shape.len()).collect();
    let loss = match node.str("reduction") {
        Some("none") => return Ok(loss),
        Some("sum") => lo.sum(loss, &axes)?,
        _ => match weights {
            None => lo.mean(loss, &axes)?,
            Some(w) => {
                let (sum, weight) = (lo.sum(loss, &axes)?, lo.sum(w, &axes)?);
                lo.div(sum, weight)?
            }
        },
    };
    lo.reshape(loss, &[])
}
