//! Quantisation to integers and back.

use super::{Outputs, Result, Translation};
use crate::attr::Attr;
use crate::graph::ValueId;
use crate::onnx::tensor::dtype;
use crate::op::Op;
use crate::types::DType;

/// `saturate(round(x / scale) + zero point)`, ties to even.
pub(super) fn quantize(v: &mut Translation<'_, '_>) -> Outputs {
    let (mut x, zero) = (v.x(0)?, v.given(2));
    let scale = spread(v, v.x(1)?, x)?;
    let to = match (zero, v.int("output_dtype", 0)) {
        (Some(zero), _) => v.ty(zero).dtype,
        (None, 0) => DType::U8,
        (None, number) => dtype(i32::try_from(number).unwrap_or(0))?,
    };
    x = v.cast(x, v.ty(scale).dtype)?;
    let zero = match zero {
        Some(zero) => Some(spread(v, zero, x)?),
        None => None,
    };
    let quotient = v.div(x, scale)?;
    Ok(vec![Some(saturated(v, quotient, zero, to)?)])
}

/// `(x − zero point) · scale`.
pub(super) fn dequantize(v: &mut Translation<'_, '_>) -> Outputs {
    let x = v.x(0)?;
    let scale = spread(v, v.x(1)?, x)?;
    let mut number = v.cast(x, DType::I32)?;
    if let Some(zero) = v.given(2) {
        let zero = spread(v, zero, x)?;
        let zero = v.cast(zero, DType::I32)?;
        number = v.sub(number, zero)?;
    }
    let number = v.cast(number, v.ty(scale).dtype)?;
    let y = v.mul(number, scale)?;
    Ok(vec![Some(match v.int("output_dtype", 0) {
        0 => y,
        to => v.cast(y, dtype(i32::try_from(to).unwrap_or(0))?)?,
    })])
}

/// To unsigned bytes, with a scale and a zero point that the range of x, with 0 in it, gives.
pub(super) fn dynamic(v: &mut Translation<'_, '_>) -> Outputs {
    let x = v.x(0)?;
    let axes: Vec<usize> = (0..v.rank(x)).collect();
    let zero = v.number(0.0, x)?;
    let (low, high) =
        (v.reduce(Op::ReduceMin, x, &axes, false)?, v.reduce(Op::ReduceMax, x, &axes, false)?);
    let (low, high) = (v.op(Op::Min, &[low, zero])?, v.op(Op::Max, &[high, zero])?);
    let range = v.sub(high, low)?;
    let steps = v.number(255.0, x)?;
    let scale = v.div(range, steps)?;
    let nothing = v.op(Op::Equal, &[range, zero])?;
    let one = v.number(1.0, x)?;
    let scale = v.select(nothing, one, scale)?;
    let below = v.div(low, scale)?;
    let below = v.op(Op::Neg, &[below])?;
    let point = saturated(v, below, None, DType::U8)?;
    let quotient = v.div(x, scale)?;
    let y = saturated(v, quotient, Some(point), DType::U8)?;
    Ok(vec![Some(y), Some(scale), Some(point)])
}

/// The nearest integer plus a zero point, cut to the range of a type.
pub(super) fn saturated(
    v: &mut Translation<'_, '_>,
    x: ValueId,
    zero: Option<ValueId>,
    to: DType,
) -> Result {
    let (low, high) = match to {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65_535.0),
        DType::I16 => (-32_768.0, 32_767.0),
        other => return Err(format!("quantises to {other}, which is not supported")),
    };
    let mut y = v.op(Op::Round, &[x])?;
    if let Some(zero) = zero {
        let zero = v.cast(zero, v.ty(x).dtype)?;
        y = v.add(y, zero)?;
    }
    let (low, high) = (v.number(low, x)?, v.number(high, x)?);
    let y = v.op(Op::Max, &[y, low])?;
    let y = v.op(Op::Min, &[y, high])?;
    v.cast(y, to)
}

/// A scale or zero point so that it broadcasts against x: one for all, for each index of an axis, or for each
/// block of an axis.
fn spread(v: &mut Translation<'_, '_>, scale: ValueId, x: ValueId) -> Result {
    let (own, wide) = (v.ty(scale).shape, v.ty(x).shape);
    if own.iter().product::<usize>() == 1 {
        return v.reshape(scale, &[]);
    }
    let axis = crate::op::normalize_axis(v.int("axis", 1), wide.len())?;
    let block = usize::try_from(v.int("block_size", 0)).unwrap_or(0);
    if block == 0 {
        let mut shape = vec![1; wide.len()];
        shape[axis] = own[0];
        if own != [wide[axis]] {
            return Err(format!("a scale of shape {own:?} does not fit axis {axis} of {wide:?}"));
        }
        return v.reshape(scale, &shape);
    }
    if own.len() != wide.len() || own[axis] * block != wide[axis] {
        return Err(format!("a scale of shape {own:?} does not fit blocks of {block} of {wide:?}"));
    }
    let mut apart = own.clone();
    apart.insert(axis + 1, 1);
    let column = v.reshape(scale, &apart)?;
    apart[axis + 1] = block;
    let repeated: [(&str, Attr); 1] = [("shape", apart.as_slice().into())];
    let repeated = v.op_with(Op::Expand, &[column], &repeated)?;
    v.reshape(repeated, &wide)
}
