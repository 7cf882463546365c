//! Sources of constants and random numbers.

use super::{Types, dims, one};
use crate::attr::Attr;
use crate::op::Call;
use crate::tensor::Tensor;
use crate::types::DType;

/// `Shape`: the dimensions from `start` to `end`.
pub(in crate::op) fn shape(call: &Call<'_>) -> Types {
    let rank = call.input(0)?.rank();
    let (start, end) = shape_range(call, rank);
    one(DType::I64, vec![end.saturating_sub(start)])
}

/// The range of dimensions that a `Shape` node gives.
pub(crate) fn shape_range(call: &Call<'_>, rank: usize) -> (usize, usize) {
    let clamp = |v: i64| {
        let v = if v < 0 { v.saturating_add(rank as i64) } else { v };
        v.clamp(0, rank as i64) as usize
    };
    (clamp(call.int("start").unwrap_or(0)), clamp(call.int("end").unwrap_or(rank as i64)))
}

/// `Size`.
pub(in crate::op) fn size(call: &Call<'_>) -> Types {
    call.input(0)?;
    one(DType::I64, vec![])
}

/// `ConstantOfShape`.
pub(in crate::op) fn constant_of_shape(call: &Call<'_>) -> Types {
    let dtype = match call.attr("value") {
        Some(Attr::Tensor(t)) if t.elements() == 1 => t.dtype(),
        Some(Attr::Tensor(t)) => return Err(format!("`value` has {} elements", t.elements())),
        _ => DType::F32,
    };
    one(dtype, dims(call, "input")?)
}

/// `Range`.
pub(in crate::op) fn range(call: &Call<'_>) -> Types {
    let tensor = |name: &str| match call.attr(name) {
        Some(Attr::Tensor(t)) if t.elements() == 1 => Ok(t),
        _ => Err(format!("`{name}` is not a scalar")),
    };
    let (start, limit, delta) = (tensor("start")?, tensor("limit")?, tensor("delta")?);
    one(start.dtype(), vec![range_len(start, limit, delta)?])
}

/// The number of elements of a `Range`.
pub(crate) fn range_len(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<usize, String> {
    if start.dtype() != limit.dtype() || start.dtype() != delta.dtype() {
        return Err("`start`, `limit` and `delta` differ in element type".to_owned());
    }
    let len = match (start.to_i64(), limit.to_i64(), delta.to_i64()) {
        (Some(s), Some(l), Some(d)) => {
            let (s, l, d) = (i128::from(s[0]), i128::from(l[0]), i128::from(d[0]));
            if d == 0 {
                return Err("`delta` is 0".to_owned());
            }
            let steps = (l - s + d - d.signum()) / d;
            steps.max(0) as f64
        }
        _ => {
            let f = |t: &Tensor| t.as_scalar_f64().ok_or("the operands are not numbers");
            ((f(limit)? - f(start)?) / f(delta)?).ceil().max(0.0)
        }
    };
    if len.is_nan() || len > (1u64 << 40) as f64 {
        return Err("the range does not end".to_owned());
    }
    Ok(len as usize)
}

/// `EyeLike`.
pub(in crate::op) fn eye_like(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    if ty.rank() != 2 {
        return Err(format!("takes a matrix, not {ty}"));
    }
    one(call.dtype("dtype").unwrap_or(ty.dtype), ty.shape.clone())
}

/// Random numbers of a shape given as attribute.
pub(in crate::op) fn random(call: &Call<'_>) -> Types {
    one(call.dtype("dtype").unwrap_or(DType::F32), dims(call, "shape")?)
}

/// Random numbers in the shape of the input.
pub(in crate::op) fn random_like(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    one(call.dtype("dtype").unwrap_or(ty.dtype), ty.shape.clone())
}

/// `pam.uniform`.
pub(in crate::op) fn random_uniform(call: &Call<'_>) -> Types {
    let step = call.input(0)?;
    if step.dtype != DType::I64 || step.rank() != 0 {
        return Err(format!("the step is {step}, not i64[]"));
    }
    if call.ints("key").map(<[i64]>::len) != Some(2) {
        return Err("`key` does not have two words".to_owned());
    }
    one(DType::F32, dims(call, "shape")?)
}
