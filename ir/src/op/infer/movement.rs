//! Data movement.

use super::{Types, dim, dims, one, product, same_dtype};
use crate::geometry::{normalize_axes, slice_ranges};
use crate::op::Call;
use crate::types::{Type, broadcast};

/// `Reshape`: 0 keeps a dimension unless `allowzero`, -1 is what is left.
pub(in crate::op) fn reshape(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let wanted = call.ints("shape").ok_or("`shape` is missing")?;
    let allow_zero = call.int("allowzero") == Some(1);
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, &d) in wanted.iter().enumerate() {
        shape.push(match d {
            -1 if open.replace(i).is_none() => 1,
            0 if !allow_zero => {
                *ty.shape.get(i).ok_or_else(|| format!("`shape` keeps dimension {i} of {ty}"))?
            }
            d => dim(d, "shape")?,
        });
    }
    let (have, rest) = (product(&ty.shape)?, product(&shape)?);
    if let Some(i) = open {
        if rest == 0 || have % rest != 0 {
            return Err(format!("{ty} does not fit shape {wanted:?}"));
        }
        shape[i] = have / rest;
    } else if have != rest {
        return Err(format!("{ty} does not fit shape {wanted:?}"));
    }
    one(ty.dtype, shape)
}

/// `Flatten`.
pub(in crate::op) fn flatten(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    // The axis may also be one past the last.
    let axis = match call.int("axis").unwrap_or(1) {
        a if a == ty.rank() as i64 => ty.rank(),
        _ => call.axis("axis", ty.rank())?,
    };
    one(ty.dtype, vec![product(&ty.shape[..axis])?, product(&ty.shape[axis..])?])
}

/// `Squeeze`.
pub(in crate::op) fn squeeze(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let axes = match call.ints("axes") {
        Some(axes) => normalize_axes(axes, ty.rank())?,
        None => (0..ty.rank()).filter(|&i| ty.shape[i] == 1).collect(),
    };
    if let Some(&axis) = axes.iter().find(|&&a| ty.shape[a] != 1) {
        return Err(format!("axis {axis} has {} elements, not 1", ty.shape[axis]));
    }
    let kept = ty.shape.iter().enumerate().filter(|(i, _)| !axes.contains(i));
    one(ty.dtype, kept.map(|(_, &d)| d).collect())
}

/// `Unsqueeze`.
pub(in crate::op) fn unsqueeze(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let axes = call.ints("axes").ok_or("`axes` is missing")?;
    let rank = ty.rank() + axes.len();
    let axes = normalize_axes(axes, rank)?;
    let mut old = ty.shape.iter();
    let shape = (0..rank).map(|i| {
        if axes.contains(&i) { 1 } else { *old.next().expect("as many dimensions as the input") }
    });
    one(ty.dtype, shape.collect())
}

/// `Transpose`.
pub(in crate::op) fn transpose(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let perm: Vec<usize> = match call.ints("perm") {
        Some(perm) => {
            let axes = normalize_axes(perm, ty.rank())?;
            if axes.len() != ty.rank() {
                return Err(format!("`perm` has {} entries for {ty}", perm.len()));
            }
            let own = perm.iter().map(|&p| usize::try_from(p));
            own.collect::<Result<_, _>>().map_err(|_| format!("`perm` is {perm:?}"))?
        }
        None => (0..ty.rank()).rev().collect(),
    };
    one(ty.dtype, perm.iter().map(|&p| ty.shape[p]).collect())
}

/// `Expand`.
pub(in crate::op) fn expand(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let shape = dims(call, "shape")?;
    let shape = broadcast(&ty.shape, &shape)
        .ok_or_else(|| format!("{ty} does not broadcast to {shape:?}"))?;
    one(ty.dtype, shape)
}

/// `Tile`.
pub(in crate::op) fn tile(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let repeats = dims(call, "repeats")?;
    if repeats.len() != ty.rank() {
        return Err(format!("`repeats` has {} entries for {ty}", repeats.len()));
    }
    let dims = ty.shape.iter().zip(&repeats).map(|(&d, &r)| product(&[d, r]));
    one(ty.dtype, dims.collect::<Result<_, _>>()?)
}

/// `Concat`.
pub(in crate::op) fn concat(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let axis = call.axis("axis", ty.rank())?;
    let mut shape = ty.shape.clone();
    for i in 1..call.inputs.len() {
        let next = call.input(i)?;
        same_dtype(ty, next)?;
        let fits = next.rank() == ty.rank()
            && (0..ty.rank()).all(|a| a == axis || next.shape[a] == ty.shape[a]);
        if !fits {
            return Err(format!("{next} does not join {ty} along axis {axis}"));
        }
        shape[axis] = shape[axis].checked_add(next.shape[axis]).ok_or("the result is too large")?;
    }
    one(ty.dtype, shape)
}

/// `Split`.
pub(in crate::op) fn split(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let axis = call.axis("axis", ty.rank())?;
    let total = ty.shape[axis];
    let parts = match (call.ints("split"), call.int("num_outputs")) {
        (Some(_), _) => dims(call, "split")?,
        (None, Some(n)) if n > 0 && n as usize <= total.max(1) => {
            // The last part is smaller where the axis does not divide.
            let size = total.div_ceil(n as usize);
            (0..n as usize).map(|i| size.min(total.saturating_sub(i * size))).collect()
        }
        _ => return Err("neither `split` nor a fitting `num_outputs` is given".to_owned()),
    };
    if parts.iter().try_fold(0usize, |n, &p| n.checked_add(p)) != Some(total) {
        return Err(format!("parts {parts:?} do not add up to {total}"));
    }
    let part = |&p: &usize| {
        let mut shape = ty.shape.clone();
        shape[axis] = p;
        Type { dtype: ty.dtype, shape }
    };
    Ok(parts.iter().map(part).collect())
}

/// `Slice`.
pub(in crate::op) fn slice(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let ranges = slice_ranges(call, &ty.shape)?;
    one(ty.dtype, ranges.iter().map(|r| r.len).collect())
}

/// `Pad`; negative pads cut off.
pub(in crate::op) fn pad(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    if let Some(value) = call.get(1) {
        same_dtype(ty, value)?;
    }
    let pads = call.ints("pads").ok_or("`pads` is missing")?;
    let all: Vec<i64> = (0..ty.rank() as i64).collect();
    let axes = call.ints("axes").unwrap_or(&all);
    normalize_axes(axes, ty.rank())?;
    if pads.len() != axes.len() + axes.len() {
        return Err(format!("`pads` has {} entries for {} axes", pads.len(), axes.len()));
    }
    if !matches!(call.str("mode"), Some("constant" | "edge" | "reflect" | "wrap")) {
        return Err("`mode` is not constant, edge, reflect or wrap".to_owned());
    }
    let mut shape = ty.shape.clone();
    for (i, &axis) in axes.iter().enumerate() {
        let axis = crate::op::normalize_axis(axis, ty.rank())?;
        let padded = (shape[axis] as i64)
            .checked_add(pads[i])
            .and_then(|d| d.checked_add(pads[i + axes.len()]))
            .ok_or("`pads` are too large")?;
        shape[axis] = dim(padded, "padded dimension")?;
    }
    one(ty.dtype, shape)
}

/// `CenterCropPad`.
pub(in crate::op) fn center_crop_pad(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let target = dims(call, "shape")?;
    let all: Vec<i64> = (0..ty.rank() as i64).collect();
    let axes = call.ints("axes").unwrap_or(&all);
    normalize_axes(axes, ty.rank())?;
    if axes.len() != target.len() {
        return Err(format!("`shape` has {} entries for {} axes", target.len(), axes.len()));
    }
    let mut shape = ty.shape.clone();
    for (&axis, &d) in axes.iter().zip(&target) {
        shape[crate::op::normalize_axis(axis, ty.rank())?] = d;
    }
    one(ty.dtype, shape)
}

/// `DepthToSpace`.
pub(in crate::op) fn depth_to_space(call: &Call<'_>) -> Types {
    let (ty, b) = blocks(call)?;
    let [n, c, h, w] = ty.shape[..] else { unreachable!("blocks checks the rank") };
    let block = product(&[b, b])?;
    if c % block != 0 {
        return Err(format!("{c} channels do not divide into blocks of {block}"));
    }
    one(ty.dtype, vec![n, c / block, product(&[h, b])?, product(&[w, b])?])
}

/// `ReverseSequence`, with a length for each element of the batch.
pub(in crate::op) fn reverse_sequence(call: &Call<'_>) -> Types {
    let (x, lengths) = (call.input(0)?, call.input(1)?);
    let batch = call.axis("batch_axis", x.rank())?;
    if x.rank() < 2 || lengths.shape != [x.shape[batch]] {
        return Err(format!("lengths {lengths} for {x}"));
    }
    Ok(vec![x.clone()])
}

/// `SpaceToDepth`.
pub(in crate::op) fn space_to_depth(call: &Call<'_>) -> Types {
    let (ty, b) = blocks(call)?;
    let [n, c, h, w] = ty.shape[..] else { unreachable!("blocks checks the rank") };
    if h % b != 0 || w % b != 0 {
        return Err(format!("{h} by {w} does not divide into blocks of {b}"));
    }
    one(ty.dtype, vec![n, product(&[c, b, b])?, h / b, w / b])
}

fn blocks<'a>(call: &Call<'a>) -> Result<(&'a Type, usize), String> {
    let ty = call.input(0)?;
    let b = dim(call.int("blocksize").unwrap_or(0), "blocksize")?;
    if b == 0 || ty.rank() != 4 {
        return Err("takes rank 4 and a positive `blocksize`".to_owned());
    }
    Ok((ty, b))
}
