//! Interpolation.

use super::{LowerError, Lowering};
use pam_ir::attr::Attr;
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;
use pam_ir::resize::{self, Taps};
use pam_ir::tensor::Tensor;

/// For each axis that changes, `Σ mul(gather(x, places), weights)`, elements ascending; neighbours alone are
/// gathered. Elements outside of a region are `extrapolation_value`.
pub fn resize(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(), LowerError> {
    let x = lo.input(node, 0)?;
    let shape = lo.shape(x);
    let axes: Vec<(usize, Taps)> = lo.with_call(node, |call| {
        let axes = resize::axes(call, &shape)?;
        axes.iter().map(|a| Ok((a.axis, resize::taps(call, a)?))).collect::<Result<_, String>>()
    })?;
    let mut y = x;
    for (axis, taps) in &axes {
        y = interpolate(lo, y, *axis, taps)?;
    }
    let value = node.float("extrapolation_value").unwrap_or(0.0);
    for (axis, taps) in axes {
        if taps.outside.contains(&true) {
            let mask = Tensor::new(vec![taps.outside.len()], taps.outside);
            let mask = lo.constant(mask);
            let mask = lo.along(mask, axis, shape.len())?;
            let value = lo.scalar(value);
            y = lo.select(mask, value, y)?;
        }
    }
    lo.set(node, 0, y)
}

fn interpolate(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    axis: usize,
    taps: &Taps,
) -> Result<ValueId, LowerError> {
    let rank = lo.shape(x).len();
    let mut sum = None;
    for (places, weights) in taps.places.iter().zip(&taps.weights) {
        if !weights.is_empty() && weights.iter().all(|&w| w == 0.0) {
            continue;
        }
        let places = lo.constant(Tensor::new(vec![places.len()], places.clone()));
        let attrs: [(&str, Attr); 1] = [("axis", (axis as i64).into())];
        let mut term = lo.op(Op::Gather, &[x, places], &attrs)?;
        if weights.iter().any(|&w| w != 1.0) {
            let weights = lo.constant(Tensor::new(vec![weights.len()], weights.clone()));
            let weights = lo.along(weights, axis, rank)?;
            term = lo.mul(term, weights)?;
        }
        sum = Some(match sum {
            Some(sum) => lo.add(sum, term)?,
            None => term,
        });
    }
    sum.ok_or_else(|| LowerError("nothing is interpolated".to_owned()))
}
