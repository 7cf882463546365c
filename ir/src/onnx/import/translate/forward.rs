//! Ops of the forward pass.

use super::{Outputs, Result, Translation};
use crate::attr::Attr;
use crate::graph::ValueId;
use crate::op::Op;

/// `alpha · a' · b'`, with the last two axes exchanged by transA and transB, and the batch axes moved
/// behind the first by transBatchA and transBatchB.
pub(super) fn fused_matmul(v: &mut Translation<'_, '_>) -> Outputs {
    let mut operands = Vec::new();
    for (i, trans, batch) in [(0, "transA", "transBatchA"), (1, "transB", "transBatchB")] {
        let x = v.x(i)?;
        let n = v.rank(x);
        let mut perm: Vec<usize> = (0..n).collect();
        if v.int(batch, 0) != 0 && n > 2 {
            // [m, …batch, k] to [batch…, m, k].
            let first = perm.remove(0);
            perm.insert(n - 2, first);
        }
        if v.int(trans, 0) != 0 && n > 1 {
            perm.swap(n - 2, n - 1);
        }
        operands.push(if perm.is_sorted() { x } else { v.transpose(x, &perm)? });
    }
    let product = v.op(Op::MatMul, &operands)?;
    let alpha = f64::from(v.float("alpha", 1.0));
    Ok(vec![Some(v.scaled(product, alpha)?)])
}

/// The standard function.
pub(super) fn gelu(v: &mut Translation<'_, '_>) -> Outputs {
    let x = v.x(0)?;
    Ok(vec![Some(v.op(Op::Gelu, &[x])?)])
}

/// `gelu(a + b)`.
pub(super) fn bias_gelu(v: &mut Translation<'_, '_>) -> Outputs {
    let (a, b) = (v.x(0)?, v.x(1)?);
    let sum = v.add(a, b)?;
    Ok(vec![Some(v.op(Op::Gelu, &[sum])?)])
}

/// `gelu(x + bias)` in its tanh form.
pub(super) fn fast_gelu(v: &mut Translation<'_, '_>) -> Outputs {
    let x = biased(v)?;
    Ok(vec![Some(v.op_with(Op::Gelu, &[x], &[("approximate", "tanh".into())])?)])
}

/// The first input plus the second, if that is given.
pub(super) fn biased(v: &mut Translation<'_, '_>) -> Result {
    let x = v.x(0)?;
    v.given(1).map_or(Ok(x), |bias| v.add(x, bias))
}

/// `x · sigmoid(alpha · x)`.
pub(super) fn quick_gelu(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, alpha) = (v.x(0)?, v.float("alpha", 1.702));
    // Not as `Swish`, which few runtimes know.
    let scaled = v.scaled(x, alpha.into())?;
    let gate = v.op(Op::Sigmoid, &[scaled])?;
    Ok(vec![Some(v.mul(x, gate)?)])
}

/// `x · scale`, or `x / scale` with scale_down. The scale may be of another type: in the gradient of a mean it is a
/// number of elements.
pub(super) fn scale(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, scale) = (v.x(0)?, v.x(1)?);
    let scale = v.cast(scale, v.ty(x).dtype)?;
    Ok(vec![Some(if v.int("scale_down", 0) != 0 { v.div(x, scale)? } else { v.mul(x, scale)? })])
}

/// The Euclidean norm of all elements of all inputs.
pub(super) fn reduce_all_l2(v: &mut Translation<'_, '_>) -> Outputs {
    let all: Vec<ValueId> = v.inputs.iter().flatten().copied().collect();
    Ok(vec![Some(norm_of(v, &all)?)])
}

/// The Euclidean norm of all elements of some tensors, as a scalar.
pub(super) fn norm_of(v: &mut Translation<'_, '_>, all: &[ValueId]) -> Result {
    let mut sum = None;
    for &x in all {
        let axes: Vec<usize> = (0..v.rank(x)).collect();
        let square = v.mul(x, x)?;
        let part = v.reduce(Op::ReduceSum, square, &axes, false)?;
        sum = Some(match sum {
            None => part,
            Some(before) => v.add(before, part)?,
        });
    }
    let sum = sum.ok_or("has no inputs")?;
    v.op(Op::Sqrt, &[sum])
}

/// A concatenation that also tells the lengths of its parts.
pub(super) fn concat(v: &mut Translation<'_, '_>) -> Outputs {
    let parts: Vec<ValueId> = v.inputs.iter().flatten().copied().collect();
    let axis = v.axis(*parts.first().ok_or("has no inputs")?, 0)?;
    let lengths: Vec<i64> = parts.iter().map(|&p| v.ty(p).shape[axis] as i64).collect();
    let y = v.joined(&parts, axis)?;
    let lengths = v.importer.constant("lengths", crate::tensor::Tensor::vector(lengths));
    Ok(vec![Some(y), Some(lengths)])
}

/// A split into known lengths.
pub(super) fn split(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, lengths) = (v.x(0)?, v.known(1)?);
    let axis = v.axis(x, 0)?;
    let attrs = [("axis", (axis as i64).into()), ("split", lengths.into())];
    v.op_n(Op::Split, &[Some(x)], &attrs, v.outputs)
}

/// A sum over known axes.
pub(super) fn reduce_sum(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, axes) = (v.x(0)?, v.known(1)?);
    let attrs = [
        ("axes", Attr::Ints(axes)),
        ("keepdims", v.int("keepdims", 1).into()),
        ("noop_with_empty_axes", v.int("noop_with_empty_axes", 0).into()),
    ];
    Ok(vec![Some(v.op_with(Op::ReduceSum, &[x], &attrs)?)])
}

/// `dropout(x + bias) + residual`.
pub(super) fn bias_dropout(v: &mut Translation<'_, '_>) -> Outputs {
    let sum = biased(v)?;
    let inputs = [Some(sum), v.given(3), v.given(4)];
    let mut outputs = v.op_n(Op::Dropout, &inputs, &[], v.outputs)?;
    if let (Some(residual), Some(Some(y))) = (v.given(2), outputs.first().copied()) {
        outputs[0] = Some(v.add(y, residual)?);
    }
    Ok(outputs)
}

/// Running products along a known axis, one after the other.
pub(super) fn cum_prod(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, axis) = (v.x(0)?, v.known(1)?);
    let axis = *axis.first().ok_or("the axis is empty")?;
    let axis = crate::op::normalize_axis(axis, v.rank(x))?;
    let n = v.ty(x).shape[axis];
    if n == 0 {
        return Ok(vec![Some(v.op(Op::Identity, &[x])?)]);
    }
    let mut factors = v.parts(x, axis, n)?;
    let (exclusive, reverse) = (v.int("exclusive", 0) != 0, v.int("reverse", 0) != 0);
    if reverse {
        factors.reverse();
    }
    if exclusive {
        let (one, shape) = (v.number(1.0, x)?, v.ty(factors[0]).shape);
        let ones = v.op_with(Op::Expand, &[one], &[("shape", shape.as_slice().into())])?;
        factors.insert(0, ones);
        factors.truncate(n);
    }
    let mut products = vec![factors[0]];
    for &factor in &factors[1..] {
        products.push(v.mul(products[products.len() - 1], factor)?);
    }
    if reverse {
        products.reverse();
    }
    // A single product may be the operand itself, which keeps its name.
    let y = v.joined(&products, axis)?;
    Ok(vec![Some(if y == x { v.op(Op::Identity, &[x])? } else { y })])
}

/// `swish(a) · b`.
pub(super) fn swiglu(v: &mut Translation<'_, '_>) -> Outputs {
    let (a, b, alpha) = (v.x(0)?, v.x(1)?, v.float("alpha", 1.0));
    let gate = v.op_with(Op::Swish, &[a], &[("alpha", alpha.into())])?;
    Ok(vec![Some(v.mul(gate, b)?)])
}
