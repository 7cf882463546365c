//! Products of quantised operands, by products of the floats which their integers are.

use super::quantization::saturated;
use super::{Outputs, Result, Translation};
use crate::attr::Attr;
use crate::graph::ValueId;
use crate::op::Op;
use crate::types::DType;

/// So many products of two differences of bytes have a sum that a float holds exactly.
const EXACT_TERMS: usize = 256;

/// `(a − a_zero) · (b − b_zero)`, 32-bit integers.
pub(super) fn matmul_integer(v: &mut Translation<'_, '_>) -> Outputs {
    let (a, b) = (v.x(0)?, v.x(1)?);
    Ok(vec![Some(matmul(v, [a, b], [v.given(2), v.given(3)])?)])
}

/// The same with scales, rounded to bytes again.
pub(super) fn qlinear_matmul(v: &mut Translation<'_, '_>) -> Outputs {
    let (a, b) = (v.x(0)?, v.x(3)?);
    let sums = matmul(v, [a, b], [v.given(2), v.given(5)])?;
    let (a_scale, b_scale) = (v.x(1)?, v.x(4)?);
    let a_scale = as_column(v, a_scale, a)?;
    rescaled(v, sums, [a_scale, b_scale], [v.x(6)?, v.x(7)?])
}

/// The convolution of `x − x_zero` by `w − w_zero`, 32-bit integers.
pub(super) fn conv_integer(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, w) = (v.x(0)?, v.x(1)?);
    Ok(vec![Some(conv(v, [x, w], [v.given(2), v.given(3)])?)])
}

/// The same with scales and a bias, rounded to bytes again.
pub(super) fn qlinear_conv(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, w) = (v.x(0)?, v.x(3)?);
    let mut sums = conv(v, [x, w], [v.given(2), v.given(5)])?;
    let rank = v.rank(sums);
    if let Some(bias) = v.given(8) {
        let bias = along(v, bias, 1, rank)?;
        sums = v.add(sums, bias)?;
    }
    let (x_scale, w_scale) = (v.x(1)?, v.x(4)?);
    let w_scale = along(v, w_scale, 1, rank)?;
    rescaled(v, sums, [x_scale, w_scale], [v.x(6)?, v.x(7)?])
}

fn matmul(
    v: &mut Translation<'_, '_>,
    [a, b]: [ValueId; 2],
    [a_zero, b_zero]: [Option<ValueId>; 2],
) -> Result {
    let a_zero = a_zero.map(|zero| as_column(v, zero, a)).transpose()?;
    let (a, b) = (centred(v, a, a_zero)?, centred(v, b, b_zero)?);
    let (last, first) = (v.rank(a).saturating_sub(1), v.rank(b).saturating_sub(2));
    let (left, right) = (pieces(v, a, last, EXACT_TERMS)?, pieces(v, b, first, EXACT_TERMS)?);
    summed(v, left.into_iter().zip(right).map(|(a, b)| (Op::MatMul, [a, b])), &[])
}

fn conv(
    v: &mut Translation<'_, '_>,
    [x, w]: [ValueId; 2],
    [x_zero, w_zero]: [Option<ValueId>; 2],
) -> Result {
    let w_zero = w_zero.map(|zero| along(v, zero, 0, v.rank(w))).transpose()?;
    let (x, w) = (centred(v, x, x_zero)?, centred(v, w, w_zero)?);
    let (image, kernel) = (v.ty(x).shape, v.ty(w).shape);
    if image.len() != kernel.len() || kernel.len() < 3 {
        return Err(format!("weights {} for {}", v.ty(w), v.ty(x)));
    }
    let groups = usize::try_from(v.int("group", 1)).ok().filter(|&g| g * kernel[1] == image[1]);
    let groups = groups.ok_or_else(|| format!("weights {} for {}", v.ty(w), v.ty(x)))?;
    // The channels of each group are taken apart, not those of all.
    let channels = (EXACT_TERMS / kernel[2..].iter().product::<usize>().max(1)).max(1);
    let apart = v.reshape(x, &[&[image[0], groups, kernel[1]], &image[2..]].concat())?;
    let (parts, weights) = (pieces(v, apart, 2, channels)?, pieces(v, w, 1, channels)?);
    let mut pairs = Vec::new();
    for (part, weights) in parts.into_iter().zip(weights) {
        let own = v.ty(part).shape[2];
        let part = v.reshape(part, &[&[image[0], groups * own], &image[2..]].concat())?;
        pairs.push((Op::Conv, [part, weights]));
    }
    let names = ["kernel_shape", "strides", "pads", "dilations", "group", "auto_pad"];
    let own = v.attrs.iter().filter(|(name, _)| names.contains(&name.as_str()));
    let own: Vec<(String, Attr)> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    let attrs: Vec<(&str, Attr)> = own.iter().map(|(n, a)| (n.as_str(), a.clone())).collect();
    summed(v, pairs.into_iter(), &attrs)
}

/// The sum of products, as integers, which each of them is.
fn summed(
    v: &mut Translation<'_, '_>,
    pairs: impl Iterator<Item = (Op, [ValueId; 2])>,
    attrs: &[(&str, Attr)],
) -> Result {
    let mut sum = None;
    for (op, operands) in pairs {
        let product = v.op_with(op, &operands, attrs)?;
        let product = v.cast(product, DType::I32)?;
        sum = Some(match sum {
            None => product,
            Some(before) => v.add(before, product)?,
        });
    }
    sum.ok_or_else(|| "has no terms".to_owned())
}

/// `x − zero` as floats.
fn centred(v: &mut Translation<'_, '_>, x: ValueId, zero: Option<ValueId>) -> Result {
    let ty = v.ty(x);
    if !matches!(ty.dtype, DType::U8 | DType::I8) {
        return Err(format!("an operand is {ty}; 8-bit integers are supported"));
    }
    let mut x = v.cast(x, DType::I32)?;
    if let Some(zero) = zero {
        let zero = v.cast(zero, DType::I32)?;
        x = v.sub(x, zero)?;
    }
    v.cast(x, DType::F32)
}

/// A value in pieces of at most `length` along an axis.
fn pieces(
    v: &mut Translation<'_, '_>,
    x: ValueId,
    axis: usize,
    length: usize,
) -> Result<Vec<ValueId>> {
    let whole = v.ty(x).shape.get(axis).copied().ok_or("an operand is a scalar")?;
    if whole <= length {
        return Ok(vec![x]);
    }
    let sizes: Vec<i64> =
        (0..whole).step_by(length).map(|at| length.min(whole - at) as i64).collect();
    let count = sizes.len();
    let attrs: [(&str, Attr); 2] = [("axis", (axis as i64).into()), ("split", sizes.into())];
    Ok(v.op_n(Op::Split, &[Some(x)], &attrs, count)?.into_iter().flatten().collect())
}

/// Numbers of the rows of a matrix beside it; one for all, or others that have its axes, stay.
fn as_column(v: &mut Translation<'_, '_>, own: ValueId, x: ValueId) -> Result {
    let shape = v.ty(own).shape;
    match shape[..] {
        [n] if n > 1 && v.rank(x) > 1 => v.reshape(own, &[n, 1]),
        _ => Ok(own),
    }
}

/// Numbers along an axis of values of some rank; one for all stays.
fn along(v: &mut Translation<'_, '_>, own: ValueId, axis: usize, rank: usize) -> Result {
    let elements = v.ty(own).elements();
    let mut shape = vec![1; if elements == 1 { 0 } else { rank }];
    if let Some(size) = shape.get_mut(axis) {
        *size = elements;
    }
    v.reshape(own, &shape)
}

/// `saturate(round(sums · scale · scale / y_scale) + y_zero)`.
fn rescaled(
    v: &mut Translation<'_, '_>,
    sums: ValueId,
    [a, b]: [ValueId; 2],
    [y, zero]: [ValueId; 2],
) -> Outputs {
    let mut factors = Vec::new();
    for scale in [a, b, y] {
        factors.push(v.cast(scale, DType::F32)?);
    }
    let both = v.mul(factors[0], factors[1])?;
    let factor = v.div(both, factors[2])?;
    let sums = v.cast(sums, DType::F32)?;
    let scaled = v.mul(sums, factor)?;
    let to = v.ty(zero).dtype;
    Ok(vec![Some(saturated(v, scaled, Some(zero), to)?)])
}
