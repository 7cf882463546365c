//! Gathers, scatters and selections by rank.

use super::{Types, dims, indices, one, product, same_dtype};
use crate::op::Call;
use crate::types::{DType, Type};

/// `Gather`.
pub(in crate::op) fn gather(call: &Call<'_>) -> Types {
    let (data, index) = (call.input(0)?, call.input(1)?);
    indices(index)?;
    let axis = call.axis("axis", data.rank())?;
    let (before, after) = (&data.shape[..axis], &data.shape[axis + 1..]);
    one(data.dtype, [before, &index.shape, after].concat())
}

/// `GatherElements`.
pub(in crate::op) fn gather_elements(call: &Call<'_>) -> Types {
    let (data, index) = (call.input(0)?, call.input(1)?);
    indices(index)?;
    let axis = call.axis("axis", data.rank())?;
    let fits = index.rank() == data.rank()
        && (0..data.rank()).all(|i| i == axis || index.shape[i] <= data.shape[i]);
    if !fits {
        return Err(format!("indices {index} do not fit {data}"));
    }
    one(data.dtype, index.shape.clone())
}

/// `GatherND`.
pub(in crate::op) fn gather_nd(call: &Call<'_>) -> Types {
    let (data, index) = (call.input(0)?, call.input(1)?);
    indices(index)?;
    let batch = usize::try_from(call.int("batch_dims").unwrap_or(0)).unwrap_or(usize::MAX);
    let tuple = *index.shape.last().ok_or("the indices are a scalar")?;
    let fits = batch < index.rank()
        && batch.checked_add(tuple).is_some_and(|n| n <= data.rank())
        && data.shape[..batch] == index.shape[..batch];
    if !fits {
        return Err(format!("indices {index} do not fit {data}"));
    }
    let outer = &index.shape[..index.rank() - 1];
    one(data.dtype, [outer, &data.shape[batch + tuple..]].concat())
}

/// `TopK`.
pub(in crate::op) fn top_k(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let axis = call.axis("axis", ty.rank())?;
    let k = call.int("K").and_then(|k| usize::try_from(k).ok()).filter(|&k| k <= ty.shape[axis]);
    let mut shape = ty.shape.clone();
    shape[axis] = k.ok_or_else(|| format!("`K` does not fit the {} elements", ty.shape[axis]))?;
    Ok(vec![Type::new(ty.dtype, shape.clone()), Type::new(DType::I64, shape)])
}

/// `OneHot`.
pub(in crate::op) fn one_hot(call: &Call<'_>) -> Types {
    let (index, values) = (call.input(0)?, call.input(1)?);
    let depth = super::dim(call.int("depth").ok_or("`depth` is missing")?, "depth")?;
    if values.shape != [2] {
        return Err(format!("the off and on values are {values}"));
    }
    let axis = call.axis("axis", index.rank() + 1)?;
    let mut shape = index.shape.clone();
    shape.insert(axis, depth);
    one(values.dtype, shape)
}

/// `MaxUnpool`.
pub(in crate::op) fn max_unpool(call: &Call<'_>) -> Types {
    let (x, index) = (call.input(0)?, call.input(1)?);
    if x.shape != index.shape || index.dtype != DType::I64 {
        return Err(format!("indices {index} do not fit {x}"));
    }
    if call.ints("output_shape").is_some() {
        return one(x.dtype, dims(call, "output_shape")?);
    }
    let rank = x.rank().checked_sub(2).ok_or_else(|| format!("{x} has no spatial axes"))?;
    let kernel = dims(call, "kernel_shape")?;
    let ones = vec![1; rank];
    let zeros = vec![0; rank + rank];
    let strides = call.ints("strides").unwrap_or(&ones);
    let pads = call.ints("pads").unwrap_or(&zeros);
    if kernel.len() != rank || strides.len() != rank || pads.len() != rank + rank {
        return Err("the attributes do not fit the spatial axes".to_owned());
    }
    let mut shape = x.shape[..2].to_vec();
    for i in 0..rank {
        let d = (x.shape[i + 2] as i64 - 1)
            .checked_mul(strides[i])
            .and_then(|d| d.checked_add(kernel[i] as i64))
            .and_then(|d| d.checked_sub(pads[i]))
            .and_then(|d| d.checked_sub(pads[i + rank]));
        shape.push(super::dim(d.ok_or("the output is too large")?, "output")?);
    }
    one(x.dtype, shape)
}

/// `Col2Im`.
pub(in crate::op) fn col2im(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let (image, block) = (dims(call, "image_shape")?, dims(call, "block_shape")?);
    let [n, columns, blocks] = ty.shape[..] else {
        return Err(format!("takes rank 3, not {ty}"));
    };
    let per_channel = product(&block)?;
    if per_channel == 0 || columns % per_channel != 0 {
        return Err(format!("{columns} rows do not divide into blocks of {per_channel}"));
    }
    let windows = crate::geometry::windows(call, &image, &block)?;
    let positions: Vec<usize> = windows.iter().map(|w| w.output).collect();
    if product(&positions)? != blocks {
        return Err(format!("{ty} has {blocks} blocks, the image {positions:?}"));
    }
    let mut shape = vec![n, columns / per_channel];
    shape.extend(image);
    Ok(vec![Type::new(ty.dtype, shape)])
}

/// `ScatterElements` and `ScatterND`: the type of the data.
pub(in crate::op) fn scatter(call: &Call<'_>) -> Types {
    let (data, index, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    indices(index)?;
    same_dtype(data, updates)?;
    let fits = if call.op == crate::op::Op::ScatterElements {
        let axis = call.axis("axis", data.rank())?;
        index.shape == updates.shape
            && index.rank() == data.rank()
            && (0..data.rank()).all(|i| i == axis || index.shape[i] <= data.shape[i])
    } else {
        let tuple = *index.shape.last().ok_or("the indices are a scalar")?;
        tuple <= data.rank() && {
            let outer = &index.shape[..index.rank() - 1];
            updates.shape == [outer, &data.shape[tuple..]].concat()
        }
    };
    if !fits {
        return Err(format!("indices {index} and updates {updates} do not fit {data}"));
    }
    if !matches!(call.str("reduction"), Some("none" | "add" | "mul" | "max" | "min")) {
        return Err("`reduction` is not none, add, mul, max or min".to_owned());
    }
    Ok(vec![data.clone()])
}
