//! Optimizers: those of ONNX's training domain, and the updates that onnxruntime applies to sequences.

use super::{Outputs, Result, Translation};
use crate::graph::ValueId;
use crate::op::Op;

/// R, T and then X, G and state, so many of each; the rule gives the new X and the new state of one.
fn each(
    v: &mut Translation<'_, '_>,
    groups: usize,
    update: impl Fn(&mut Translation<'_, '_>, &[ValueId]) -> Result<Vec<ValueId>>,
) -> Outputs {
    let tensors = v.inputs.len().saturating_sub(2);
    if tensors == 0 || !tensors.is_multiple_of(groups) {
        return Err(format!("takes a rate, a count and {groups} tensors for each parameter"));
    }
    let n = tensors / groups;
    let mut outputs = vec![None; n * (groups - 1)];
    for i in 0..n {
        let own = (0..groups).map(|g| v.x(2 + g * n + i)).collect::<Result<Vec<ValueId>>>()?;
        for (g, new) in update(v, &own)?.into_iter().enumerate() {
            outputs[g * n + i] = Some(new);
        }
    }
    Ok(outputs)
}

/// `norm_coefficient · x + g`.
fn regularised(v: &mut Translation<'_, '_>, x: ValueId, g: ValueId) -> Result {
    let norm = f64::from(v.float("norm_coefficient", 0.0));
    if norm == 0.0 {
        return Ok(g);
    }
    let pull = v.scaled(x, norm)?;
    v.add(pull, g)
}

/// A count of i64 as a float of a type, and whether it is above zero.
fn counted(v: &mut Translation<'_, '_>, like: ValueId) -> Result<(ValueId, ValueId)> {
    let t = v.x(1)?;
    let above = v.above(t, 0.0)?;
    let dtype = v.ty(like).dtype;
    Ok((v.op_with(Op::Cast, &[t], &[("to", crate::attr::Attr::Type(dtype))])?, above))
}

/// 1 − beta^t.
fn correction(v: &mut Translation<'_, '_>, beta: f64, t: ValueId) -> Result {
    let base = v.number(beta, t)?;
    let power = v.op(Op::Pow, &[base, t])?;
    v.from(1.0, power)
}

/// ONNX `Adam`, version 1 of the training domain.
pub(super) fn adam(v: &mut Translation<'_, '_>) -> Outputs {
    let rate = v.x(0)?;
    let (alpha, beta) = (f64::from(v.float("alpha", 0.9)), f64::from(v.float("beta", 0.999)));
    let (t, above) = counted(v, rate)?;
    let (first, second) = (correction(v, alpha, t)?, correction(v, beta, t)?);
    let root = v.op(Op::Sqrt, &[second])?;
    let corrected = v.mul(rate, root)?;
    let corrected = v.div(corrected, first)?;
    let rate = v.select(above, corrected, rate)?;
    let epsilon = f64::from(v.float("epsilon", 1e-6));
    let post = f64::from(v.float("norm_coefficient_post", 0.0));
    each(v, 4, |v, own| {
        let (x, g) = (own[0], regularised(v, own[0], own[1])?);
        let mean = decayed(v, own[2], g, alpha)?;
        let square = v.mul(g, g)?;
        let squares = decayed(v, own[3], square, beta)?;
        let root = v.op(Op::Sqrt, &[squares])?;
        let size = v.shifted(root, epsilon)?;
        let direction = v.mul(rate, mean)?;
        let step = v.div(direction, size)?;
        let moved = v.sub(x, step)?;
        Ok(vec![v.scaled(moved, 1.0 - post)?, mean, squares])
    })
}

/// `decay · old + (1 − decay) · new`.
fn decayed(v: &mut Translation<'_, '_>, old: ValueId, new: ValueId, decay: f64) -> Result {
    let (kept, share) = (v.scaled(old, decay)?, v.scaled(new, 1.0 - decay)?);
    v.add(kept, share)
}

/// ONNX `Momentum`, version 1 of the training domain.
pub(super) fn momentum(v: &mut Translation<'_, '_>) -> Outputs {
    let rate = v.x(0)?;
    let (_, above) = counted(v, rate)?;
    let (alpha, beta) = (f64::from(v.float("alpha", 0.0)), f64::from(v.float("beta", 0.0)));
    let nesterov = v.str("mode") == Some("nesterov");
    let (beta, one) = (v.number(beta, rate)?, v.number(1.0, rate)?);
    let beta = v.select(above, beta, one)?;
    each(v, 3, |v, own| {
        let (x, g) = (own[0], regularised(v, own[0], own[1])?);
        let kept = v.scaled(own[2], alpha)?;
        let share = v.mul(g, beta)?;
        let new = v.add(kept, share)?;
        let mut direction = new;
        if nesterov {
            let ahead = v.scaled(new, alpha)?;
            direction = v.add(g, ahead)?;
        }
        let step = v.mul(rate, direction)?;
        Ok(vec![v.sub(x, step)?, new])
    })
}

/// ONNX `Adagrad`, version 1 of the training domain.
pub(super) fn adagrad(v: &mut Translation<'_, '_>) -> Outputs {
    let rate = v.x(0)?;
    let (t, _) = counted(v, rate)?;
    let decay = f64::from(v.float("decay_factor", 0.0));
    let slower = v.scaled(t, decay)?;
    let slower = v.shifted(slower, 1.0)?;
    let rate = v.div(rate, slower)?;
    let epsilon = f64::from(v.float("epsilon", 1e-6));
    each(v, 3, |v, own| {
        let (x, g) = (own[0], regularised(v, own[0], own[1])?);
        let square = v.mul(g, g)?;
        let squares = v.add(own[2], square)?;
        let root = v.op(Op::Sqrt, &[squares])?;
        let size = v.shifted(root, epsilon)?;
        let direction = v.mul(rate, g)?;
        let step = v.div(direction, size)?;
        Ok(vec![v.sub(x, step)?, squares])
    })
}

/// What onnxruntime's AdamWOptimizer makes of a parameter, its gradient and its two moments. Mode 0 is
/// PyTorch's: decay first, ε added to the corrected root. Mode 1 is that of Hugging Face: ε added to the
/// root, decay last.
pub(super) fn adamw(
    v: &mut Translation<'_, '_>,
    [lr, step]: [ValueId; 2],
    [p, g, m, s]: [ValueId; 4],
) -> Result<[ValueId; 3]> {
    let (alpha, beta) = (f64::from(v.float("alpha", 0.9)), f64::from(v.float("beta", 0.999)));
    let (epsilon, decay) = (v.float("epsilon", 1e-8), v.float("weight_decay", 1e-2));
    let (epsilon, decay) = (f64::from(epsilon), f64::from(decay));
    let mean = decayed(v, m, g, alpha)?;
    let square = v.mul(g, g)?;
    let squares = decayed(v, s, square, beta)?;
    let mut root = v.op(Op::Sqrt, &[squares])?;
    let mut rate = lr;
    let torch = v.int("adam_mode", 0) == 0;
    if v.int("correct_bias", 1) != 0 {
        let dtype = v.ty(lr).dtype;
        let t = v.op_with(Op::Cast, &[step], &[("to", crate::attr::Attr::Type(dtype))])?;
        let (first, second) = (correction(v, alpha, t)?, correction(v, beta, t)?);
        let second = v.op(Op::Sqrt, &[second])?;
        rate = v.div(lr, first)?;
        if torch {
            root = v.div(root, second)?;
        } else {
            rate = v.mul(rate, second)?;
        }
    }
    let size = v.shifted(root, epsilon)?;
    let shrink = v.scaled(lr, decay)?;
    let mut x = p;
    if torch && decay != 0.0 {
        let keep = v.from(1.0, shrink)?;
        x = v.mul(x, keep)?;
    }
    let direction = v.mul(rate, mean)?;
    let step = v.div(direction, size)?;
    x = v.sub(x, step)?;
    if !torch && decay != 0.0 {
        let pull = v.mul(x, shrink)?;
        x = v.sub(x, pull)?;
    }
    // A rate of one element must not raise the rank of a scalar parameter.
    let shape = v.ty(p).shape;
    let shaped = |v: &mut Translation<'_, '_>, t: ValueId| {
        if v.ty(t).shape == shape { Ok(t) } else { v.reshape(t, &shape) }
    };
    Ok([shaped(v, x)?, mean, squares])
}

/// What onnxruntime's SGDOptimizerV2 makes of a parameter and its gradient.
pub(super) fn sgd(v: &mut Translation<'_, '_>, lr: ValueId, p: ValueId, g: ValueId) -> Result {
    let step = v.mul(lr, g)?;
    let shape = v.ty(p).shape;
    let new = v.sub(p, step)?;
    if v.ty(new).shape == shape { Ok(new) } else { v.reshape(new, &shape) }
}
