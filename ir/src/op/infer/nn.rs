//! Pooling, normalisation, losses and dropout.

use super::{Types, dims, same_dtype};
use crate::geometry::windows;
use crate::op::{Call, Op};
use crate::types::{DType, Type, broadcast};

/// Pooling over windows; `MaxPool` also gives indices.
pub(in crate::op) fn pool(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let rank = ty.rank().checked_sub(2).filter(|&r| r > 0);
    let rank = rank.ok_or_else(|| format!("{ty} has no spatial axes"))?;
    let kernel = dims(call, "kernel_shape")?;
    if kernel.len() != rank {
        return Err(format!("`kernel_shape` has {} entries, not {rank}", kernel.len()));
    }
    let mut shape = ty.shape[..2].to_vec();
    shape.extend(windows(call, &ty.shape[2..], &kernel)?.iter().map(|w| w.output));
    let values = Type::new(ty.dtype, shape.clone());
    Ok(if call.op == Op::MaxPool {
        vec![values, Type::new(DType::I64, shape)]
    } else {
        vec![values]
    })
}

/// Pooling over all spatial positions.
pub(in crate::op) fn global_pool(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    if ty.rank() < 2 {
        return Err(format!("{ty} has no channels"));
    }
    let shape = ty.shape.iter().enumerate().map(|(i, &d)| if i < 2 { d } else { 1 });
    Ok(vec![Type::new(ty.dtype, shape.collect::<Vec<_>>())])
}

/// `Resize`.
pub(in crate::op) fn resize(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    if crate::resize::interpolates(call)? && !ty.dtype.is_float() {
        return Err(format!("interpolates floats, not {ty}"));
    }
    let mut shape = ty.shape.clone();
    for axis in crate::resize::axes(call, &ty.shape)? {
        shape[axis.axis] = axis.output;
    }
    Ok(vec![Type::new(ty.dtype, shape)])
}

/// `LayerNormalization`: output, mean and inverse standard deviation.
pub(in crate::op) fn layer_norm(call: &Call<'_>) -> Types {
    let x = call.input(0)?;
    let axis = call.axis("axis", x.rank())?;
    for i in 1..call.inputs.len() {
        if let Some(t) = call.get(i)
            && broadcast(&t.shape, &x.shape) != Some(x.shape.clone())
        {
            return Err(format!("{t} does not broadcast to {x}"));
        }
    }
    let stash = if call.int("stash_type") == Some(1) { DType::F32 } else { x.dtype };
    let row = x.shape.iter().enumerate().map(|(i, &d)| if i < axis { d } else { 1 });
    let row = Type::new(stash, row.collect::<Vec<_>>());
    Ok(vec![x.clone(), row.clone(), row])
}

/// `BatchNormalization`: output, and in training running mean and variance.
pub(in crate::op) fn batch_norm(call: &Call<'_>) -> Types {
    let x = call.input(0)?;
    let channels = *x.shape.get(1).unwrap_or(&1);
    for i in 1..5 {
        let t = call.input(i)?;
        if t.shape != [channels] {
            return Err(format!("{t} does not fit the {channels} channels of {x}"));
        }
    }
    Ok(vec![x.clone(), call.input(3)?.clone(), call.input(4)?.clone()])
}

/// `SoftmaxCrossEntropyLoss`: loss and log-probabilities.
pub(in crate::op) fn cross_entropy(call: &Call<'_>) -> Types {
    let mut types = nll_loss(call)?;
    types.push(call.input(0)?.clone());
    Ok(types)
}

/// `NegativeLogLikelihoodLoss`.
pub(in crate::op) fn nll_loss(call: &Call<'_>) -> Types {
    let (scores, labels) = (call.input(0)?, call.input(1)?);
    super::indices(labels)?;
    if scores.rank() < 2 {
        return Err(format!("{scores} has no classes"));
    }
    let targets = [&scores.shape[..1], &scores.shape[2..]].concat();
    if labels.shape != targets {
        return Err(format!("labels {labels} do not fit {scores}"));
    }
    if let Some(w) = call.get(2) {
        same_dtype(scores, w)?;
        if w.shape != [scores.shape[1]] {
            return Err(format!("weights {w} do not fit the {} classes", scores.shape[1]));
        }
    }
    let shape = match call.str("reduction") {
        Some("none") => targets,
        Some("mean" | "sum") => Vec::new(),
        other => return Err(format!("`reduction` cannot be `{}`", other.unwrap_or_default())),
    };
    Ok(vec![Type::new(scores.dtype, shape)])
}

/// `Dropout`: output and mask.
pub(in crate::op) fn dropout(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    Ok(vec![ty.clone(), Type::new(DType::Bool, ty.shape.clone())])
}
