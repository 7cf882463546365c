//! Elementwise ops.

use super::{Types, one, same_dtype};
use crate::op::Call;
use crate::types::{self, DType, Type};

/// The output has the type of the first input.
pub(in crate::op) fn same(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    Ok(vec![ty.clone()])
}

/// As [`same`], with bounds that are single numbers.
pub(in crate::op) fn clip(call: &Call<'_>) -> Types {
    let x = call.input(0)?;
    for bound in [call.get(1), call.get(2)].into_iter().flatten() {
        same_dtype(x, bound)?;
        if bound.elements() != 1 {
            return Err(format!("a bound is {bound}, but takes one number"));
        }
    }
    Ok(vec![x.clone()])
}

/// As [`same`], for ops whose other operands broadcast to the first.
pub(in crate::op) fn first(call: &Call<'_>) -> Types {
    let (a, b) = (call.input(0)?, call.input(1)?);
    same_dtype(a, b)?;
    match types::broadcast(&a.shape, &b.shape) {
        Some(shape) if shape == a.shape => Ok(vec![a.clone()]),
        _ => Err(format!("{b} does not broadcast to {a}")),
    }
}

/// All inputs broadcast together and have one element type.
pub(in crate::op) fn broadcast(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let shape = broadcast_all(call)?;
    for i in 1..call.inputs.len() {
        same_dtype(ty, call.input(i)?)?;
    }
    one(ty.dtype, shape)
}

/// As [`broadcast`], but the exponent may have another element type.
pub(in crate::op) fn power(call: &Call<'_>) -> Types {
    one(call.input(0)?.dtype, broadcast_all(call)?)
}

/// As [`broadcast`] with a boolean result.
pub(in crate::op) fn compare(call: &Call<'_>) -> Types {
    let types = broadcast(call)?;
    Ok(types.into_iter().map(|t| Type { dtype: DType::Bool, ..t }).collect())
}

/// As [`same`] with a boolean result.
pub(in crate::op) fn predicate(call: &Call<'_>) -> Types {
    one(DType::Bool, call.input(0)?.shape.clone())
}

/// `Where`.
pub(in crate::op) fn select(call: &Call<'_>) -> Types {
    let (condition, x, y) = (call.input(0)?, call.input(1)?, call.input(2)?);
    if condition.dtype != DType::Bool {
        return Err(format!("the condition is {}, not bool", condition.dtype));
    }
    same_dtype(x, y)?;
    one(x.dtype, broadcast_all(call)?)
}

/// `Cast`, and `BitCast`, whose element types must have one size.
pub(in crate::op) fn cast(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let to = call.dtype("to").ok_or("`to` is missing")?;
    if call.op == crate::op::Op::BitCast && to.size() != ty.dtype.size() {
        return Err(format!("{} and {to} differ in size", ty.dtype));
    }
    one(to, ty.shape.clone())
}

/// `CastLike`.
pub(in crate::op) fn cast_like(call: &Call<'_>) -> Types {
    one(call.input(1)?.dtype, call.input(0)?.shape.clone())
}

/// The types of what is differentiated by.
pub(in crate::op) fn gradient(call: &Call<'_>) -> Types {
    let y = call.input(0)?;
    if !y.dtype.is_float() || y.elements() != 1 {
        return Err(format!("{y} is differentiated, but it must be one float"));
    }
    (1..call.inputs.len()).map(|i| call.input(i).cloned()).collect()
}

/// Opaque ops have the types that the file states.
pub(in crate::op) fn opaque(_: &Call<'_>) -> Types {
    Err("the op is not known".to_owned())
}

fn broadcast_all(call: &Call<'_>) -> Result<Vec<usize>, String> {
    let mut shape = call.input(0)?.shape.clone();
    for i in 1..call.inputs.len() {
        let next = call.input(i)?;
        shape = types::broadcast(&shape, &next.shape)
            .ok_or_else(|| format!("shapes {shape:?} and {:?} do not broadcast", next.shape))?;
    }
    Ok(shape)
}
