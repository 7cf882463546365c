//! What onnxruntime's graph optimisations make of several ops: attention, and products with an activation.

use super::{Outputs, Result, Translation};
use crate::attr::Attr;
use crate::graph::ValueId;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::DType;

/// `activation(gemm(a, b, c))`.
pub(super) fn gemm(v: &mut Translation<'_, '_>) -> Outputs {
    let y = v.same_op(Op::Gemm, 3, &["alpha", "beta", "transA", "transB"])?;
    let parameters = [v.float("activation_alpha", 0.01), v.float("activation_beta", 0.0)];
    Ok(vec![Some(activated(v, y, parameters)?)])
}

/// `activation(conv(x, w, b) + z)`.
pub(super) fn conv(v: &mut Translation<'_, '_>) -> Outputs {
    let names = ["kernel_shape", "strides", "pads", "dilations", "group", "auto_pad"];
    let mut y = v.same_op(Op::Conv, 3, &names)?;
    if let Some(z) = v.given(3) {
        y = v.add(y, z)?;
    }
    let parameters = match v.attrs.get("activation_params") {
        Some(Attr::Floats(p)) => [0, 1].map(|i| p.get(i).copied().unwrap_or(0.0)),
        _ => [0.01, 0.0],
    };
    Ok(vec![Some(activated(v, y, parameters)?)])
}

fn activated(v: &mut Translation<'_, '_>, x: ValueId, [a, b]: [f32; 2]) -> Result {
    let name = v.str("activation").unwrap_or_default().to_owned();
    match name.as_str() {
        "" => Ok(x),
        "Relu" => v.op(Op::Relu, &[x]),
        "Tanh" => v.op(Op::Tanh, &[x]),
        "Sigmoid" => v.op(Op::Sigmoid, &[x]),
        "LeakyRelu" => v.op_with(Op::LeakyRelu, &[x], &[("alpha", a.into())]),
        "HardSigmoid" => {
            v.op_with(Op::HardSigmoid, &[x], &[("alpha", a.into()), ("beta", b.into())])
        }
        "Clip" => {
            let (low, high) = (v.number(a.into(), x)?, v.number(b.into(), x)?);
            v.op(Op::Clip, &[x, low, high])
        }
        other => Err(format!("the activation `{other}` is not known")),
    }
}

/// Attention of an input to itself, whose products with the weights are the queries, keys and values.
pub(super) fn attention(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, weights) = (v.x(0)?, v.x(1)?);
    if v.given(4).is_some() || v.int("do_rotary", 0) != 0 {
        return Err("a past and rotary embeddings are not supported".to_owned());
    }
    let mut all = v.op(Op::MatMul, &[x, weights])?;
    if let Some(bias) = v.given(2) {
        all = v.add(all, bias)?;
    }
    let width = *v.ty(all).shape.last().ok_or("the input is a scalar")?;
    let sizes = match v.attrs.get("qkv_hidden_sizes") {
        Some(Attr::Ints(sizes)) if !sizes.is_empty() => sizes.clone(),
        _ => vec![width as i64 / 3; 3],
    };
    let attrs = [("axis", (-1i64).into()), ("split", sizes.into())];
    let parts = v.op_n(Op::Split, &[Some(all)], &attrs, 3)?;
    let [Some(q), Some(k), Some(value)] = parts[..] else {
        return Err("Split gave no value".into());
    };
    attended(v, [q, k, value], [v.given(3), v.given(5)])
}

/// Attention of queries to keys and values, whose biases follow each other in one operand.
pub(super) fn multi_head(v: &mut Translation<'_, '_>) -> Outputs {
    if v.given(6).is_some() || v.given(7).is_some() {
        return Err("a past is not supported".to_owned());
    }
    let mut operands = [v.x(0)?, v.x(1)?, v.x(2)?];
    if v.rank(operands[0]) != 3 {
        return Err("packed queries, keys and values are not supported".to_owned());
    }
    if let Some(bias) = v.given(3) {
        let rest = v.ty(bias).elements().checked_sub(2 * v.ty(operands[0]).shape[2]);
        let size = v.ty(operands[0]).shape[2] as i64;
        let sizes = [size, size, rest.ok_or("the bias is too short")? as i64];
        let attrs = [("axis", 0i64.into()), ("split", sizes.to_vec().into())];
        let parts = v.op_n(Op::Split, &[Some(bias)], &attrs, 3)?;
        for (operand, part) in operands.iter_mut().zip(parts) {
            // Keys and values that are laid out by heads have their bias already.
            if let (3, Some(part)) = (v.rank(*operand), part) {
                *operand = v.add(*operand, part)?;
            }
        }
    }
    attended(v, operands, [v.given(4), v.given(5)])
}

fn attended(
    v: &mut Translation<'_, '_>,
    [q, k, value]: [ValueId; 3],
    [mask, bias]: [Option<ValueId>; 2],
) -> Outputs {
    if v.outputs > 1 {
        return Err("its present keys and values are not supported".to_owned());
    }
    let heads = v.int("num_heads", 1);
    if let Some(x) = [q, k, value].into_iter().find(|x| !matches!(v.rank(*x), 3 | 4)) {
        return Err(format!("an operand is {}, which is not of rank 3 or 4", v.ty(x)));
    }
    // All by heads, or none.
    let flat = [q, k, value].iter().all(|x| v.rank(*x) == 3);
    let mut operands = vec![];
    for x in [q, k, value] {
        operands.push(if flat { x } else { split(v, x, heads as usize)? });
    }
    let total = v.ty(operands[1]).shape[if flat { 1 } else { 2 }];
    let mut hidden = bias;
    if let Some(mask) = mask {
        let mask = visible(v, mask, total)?;
        let (shown, filter) = (v.number(0.0, q)?, f64::from(v.float("mask_filter_value", -1e4)));
        let filter = v.number(filter, q)?;
        let mask = v.select(mask, shown, filter)?;
        hidden = Some(hidden.map_or(Ok(mask), |bias| v.add(bias, mask))?);
    }
    operands.extend(hidden);
    let mut attrs = vec![("is_causal", v.int("unidirectional", 0).into())];
    if flat {
        attrs.extend([("q_num_heads", heads.into()), ("kv_num_heads", heads.into())]);
    }
    if let scale @ 1e-30.. = v.float("scale", 0.0) {
        attrs.push(("scale", scale.into()));
    }
    let mut y = v.op_with(Op::Attention, &operands, &attrs)?;
    if !flat {
        let [batch, heads, rows, size] = v.ty(y).shape[..] else { return Err("no heads".into()) };
        y = v.transpose(y, &[0, 2, 1, 3])?;
        y = v.reshape(y, &[batch, rows, heads * size])?;
    }
    Ok(vec![Some(y)])
}

/// `[batch, sequence, heads · size]` as `[batch, heads, sequence, size]`.
fn split(v: &mut Translation<'_, '_>, x: ValueId, heads: usize) -> Result {
    let [batch, sequence, width] = v.ty(x).shape[..] else { return Ok(x) };
    let x = v.reshape(x, &[batch, sequence, heads, width / heads.max(1)])?;
    v.transpose(x, &[0, 2, 1, 3])
}

/// Which keys may be seen, `[batch, 1, 1 or rows, keys]`: the mask is not 0 there, or says how many of the first ones.
fn visible(v: &mut Translation<'_, '_>, mask: ValueId, total: usize) -> Result {
    let shape = v.ty(mask).shape;
    let wide = match shape[..] {
        [batch] => vec![batch, 1, 1, 1],
        [batch, keys] if keys == total => vec![batch, 1, 1, keys],
        [batch, rows, keys] if keys == total => vec![batch, 1, rows, keys],
        _ => return Err(format!("a mask {} is not supported", v.ty(mask))),
    };
    let mask = v.reshape(mask, &wide)?;
    if shape.len() == 1 {
        let mask = v.cast(mask, DType::I64)?;
        let places = Tensor::vector((0..total as i64).collect::<Vec<i64>>());
        let places = v.importer.constant("places", places);
        return v.op(Op::Less, &[places, mask]);
    }
    v.cast(mask, DType::Bool)
}
