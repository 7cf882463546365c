//! Gradients of activations, softmax, dropout, convolution and pooling.

use super::forward::biased;
use super::{Outputs, Result, Translation};
use crate::attr::Attr;
use crate::geometry::windows;
use crate::graph::{Source, ValueId};
use crate::op::{Call, Op};
use crate::types::Type;
use std::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};

/// δ where x > 0.
pub(super) fn relu(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, x) = (v.x(0)?, v.x(1)?);
    let above = v.above(x, 0.0)?;
    let zero = v.number(0.0, d)?;
    Ok(vec![Some(v.select(above, d, zero)?)])
}

/// δ where y > 0, alpha · δ elsewhere.
pub(super) fn leaky_relu(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, y, alpha) = (v.x(0)?, v.x(1)?, v.float("alpha", 0.01));
    let above = v.above(y, 0.0)?;
    let small = v.scaled(d, f64::from(alpha))?;
    Ok(vec![Some(v.select(above, d, small)?)])
}

/// δ · (1 − y²).
pub(super) fn tanh(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, y) = (v.x(0)?, v.x(1)?);
    let square = v.mul(y, y)?;
    let slope = v.from(1.0, square)?;
    Ok(vec![Some(v.mul(d, slope)?)])
}

/// δ · y · (1 − y).
pub(super) fn sigmoid(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, y) = (v.x(0)?, v.x(1)?);
    let rest = v.from(1.0, y)?;
    let slope = v.mul(y, rest)?;
    Ok(vec![Some(v.mul(d, slope)?)])
}

/// Of a / b, from δ, a and b: δ / b, and −δ · a / b².
pub(super) fn div(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, a, b) = (v.x(0)?, v.x(1)?, v.x(2)?);
    let above = v.div(d, b)?;
    let (product, square) = (v.mul(d, a)?, v.mul(b, b)?);
    let below = v.div(product, square)?;
    let below = v.op(Op::Neg, &[below])?;
    Ok(vec![Some(narrowed(v, above, a)?), Some(narrowed(v, below, b)?)])
}

/// The sum over what broadcasting repeated of an operand.
fn narrowed(v: &mut Translation<'_, '_>, d: ValueId, like: ValueId) -> Result {
    let (wide, shape) = (v.ty(d).shape, v.ty(like).shape);
    let lead = wide.len().saturating_sub(shape.len());
    let repeated = |&a: &usize| a < lead || shape[a - lead] != wide[a];
    let axes: Vec<usize> = (0..wide.len()).filter(repeated).collect();
    let sum = v.reduce(Op::ReduceSum, d, &axes, true)?;
    if lead == 0 { Ok(sum) } else { v.reshape(sum, &shape) }
}

/// δ · (Φ(x) + x φ(x)).
pub(super) fn gelu(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, x) = (v.x(0)?, v.x(1)?);
    gelu_of(v, d, x)
}

/// The same at x + bias.
pub(super) fn bias_gelu(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, x, bias) = (v.x(0)?, v.x(1)?, v.x(2)?);
    let x = v.add(x, bias)?;
    gelu_of(v, d, x)
}

fn gelu_of(v: &mut Translation<'_, '_>, d: ValueId, x: ValueId) -> Outputs {
    let scaled = v.scaled(x, FRAC_1_SQRT_2)?;
    let erf = v.op(Op::Erf, &[scaled])?;
    let twice = v.shifted(erf, 1.0)?;
    let distribution = v.scaled(twice, 0.5)?;
    let square = v.mul(x, x)?;
    let exponent = v.scaled(square, -0.5)?;
    let bell = v.op(Op::Exp, &[exponent])?;
    let density = v.scaled(bell, 1.0 / (2.0 * PI).sqrt())?;
    let product = v.mul(x, density)?;
    let slope = v.add(distribution, product)?;
    Ok(vec![Some(v.mul(d, slope)?)])
}

/// With u = √(2/π) (x + 0.044715 x³) and t = tanh u: `δ · (½ (1 + t) + ½ x (1 − t²) u')`.
pub(super) fn fast_gelu(v: &mut Translation<'_, '_>) -> Outputs {
    let d = v.x(0)?;
    let inputs = v.inputs;
    v.inputs = &inputs[1..];
    let x = biased(v);
    v.inputs = inputs;
    let x = x?;
    let factor = SQRT_2 / PI.sqrt();
    let square = v.mul(x, x)?;
    let cubic = v.scaled(square, 0.044_715)?;
    let cubic = v.shifted(cubic, 1.0)?;
    let inner = v.mul(x, cubic)?;
    let u = v.scaled(inner, factor)?;
    let t = v.op(Op::Tanh, &[u])?;
    let slope = v.scaled(square, 3.0 * 0.044_715)?;
    let slope = v.shifted(slope, 1.0)?;
    let slope = v.scaled(slope, factor)?;
    let t2 = v.mul(t, t)?;
    let rest = v.from(1.0, t2)?;
    let bend = v.mul(rest, slope)?;
    let bend = v.mul(bend, x)?;
    let sum = v.shifted(t, 1.0)?;
    let sum = v.add(sum, bend)?;
    let half = v.scaled(sum, 0.5)?;
    Ok(vec![Some(v.mul(d, half)?)])
}

/// With s = sigmoid(alpha x): `δ · (s + alpha x s (1 − s))`.
pub(super) fn quick_gelu(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, x, alpha) = (v.x(0)?, v.x(1)?, f64::from(v.float("alpha", 1.702)));
    let scaled = v.scaled(x, alpha)?;
    let s = v.op(Op::Sigmoid, &[scaled])?;
    let rest = v.from(1.0, s)?;
    let bend = v.mul(scaled, rest)?;
    let bend = v.shifted(bend, 1.0)?;
    let slope = v.mul(s, bend)?;
    Ok(vec![Some(v.mul(d, slope)?)])
}

/// The axes of a softmax: one, or before opset 13 all from it on.
fn softmax_axes(v: &Translation<'_, '_>, y: ValueId) -> Result<Vec<usize>> {
    if v.op.ends_with("_13") {
        return Ok(vec![v.axis(y, -1)?]);
    }
    Ok((v.axis(y, 1)?..v.rank(y)).collect())
}

/// `(δ − Σ δ · y) · y`.
pub(super) fn softmax(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, y) = (v.x(0)?, v.x(1)?);
    let axes = softmax_axes(v, y)?;
    let product = v.mul(d, y)?;
    let sum = v.reduce(Op::ReduceSum, product, &axes, true)?;
    let gap = v.sub(d, sum)?;
    Ok(vec![Some(v.mul(gap, y)?)])
}

/// `δ − exp(y) · Σ δ`.
pub(super) fn log_softmax(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, y) = (v.x(0)?, v.x(1)?);
    let axes = softmax_axes(v, y)?;
    let sum = v.reduce(Op::ReduceSum, d, &axes, true)?;
    let probability = v.op(Op::Exp, &[y])?;
    let product = v.mul(probability, sum)?;
    Ok(vec![Some(v.sub(d, product)?)])
}

/// `δ / (1 − ratio)` where the mask kept; δ itself outside of training.
pub(super) fn dropout(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, mask) = (v.x(0)?, v.x(1)?);
    let known = |i: usize| v.given(i).and_then(|x| v.importer.known.get(&x)?.as_scalar_f64());
    let ratio = match v.given(2) {
        None => 0.5,
        Some(_) => known(2).ok_or("the ratio depends on data, but must be known")?,
    };
    if v.given(3).is_some() && known(3) == Some(0.0) {
        return Ok(vec![Some(d)]);
    }
    let scaled = v.scaled(d, 1.0 / (1.0 - ratio))?;
    let zero = v.number(0.0, d)?;
    Ok(vec![Some(v.select(mask, scaled, zero)?)])
}

/// The input's gradient is the transposed convolution of δ; the kernel's is the convolution of the input
/// with δ, samples taking the place of channels and the stride that of the dilation; the bias's is a sum.
pub(super) fn conv(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, x, w) = (v.x(0)?, v.x(1)?, v.x(2)?);
    let (xs, ws, ds) = (v.ty(x).shape, v.ty(w).shape, v.ty(d).shape);
    let attrs = v.attrs.clone();
    let types = [v.ty(x), v.ty(w)];
    let call = Call {
        op: Op::Conv,
        attrs: &attrs,
        inputs: &[Some(&types[0]), Some(&types[1])],
        outputs: 1,
    };
    let axes = windows(&call, &xs[2..], &ws[2..])?;
    let group = v.int("group", 1) as usize;
    let list =
        |f: &dyn Fn(&crate::geometry::Window) -> i64| Attr::Ints(axes.iter().map(f).collect());
    let before: Vec<i64> = axes.iter().map(|a| a.before).collect();
    let pads: Vec<i64> = before.iter().copied().chain(axes.iter().map(|a| a.after)).collect();
    let spatial: Vec<usize> = (2..xs.len()).collect();
    // What the stride left over of the input.
    let left = list(&|a| {
        let span = (a.kernel as i64 - 1) * a.dilation as i64 + 1;
        a.input as i64 + a.before + a.after - span - (a.output as i64 - 1) * a.stride as i64
    });
    let attrs = [
        ("strides", list(&|a| a.stride as i64)),
        ("dilations", list(&|a| a.dilation as i64)),
        ("pads", Attr::Ints(pads.clone())),
        ("output_padding", left),
        ("group", (group as i64).into()),
    ];
    // That of an image is not asked for.
    let by_x = match v.named.first() {
        Some(true) => Some(v.op_with(Op::ConvTranspose, &[d, w], &attrs)?),
        _ => None,
    };
    let (n, c) = (xs[0], ws[1]);
    let split = v.reshape(x, &[&[n, group, c], &xs[2..]].concat())?;
    let perm: Vec<usize> = [2, 1, 0].into_iter().chain(3..xs.len() + 1).collect();
    let turned = v.transpose(split, &perm)?;
    let images = v.reshape(turned, &[&[c, group * n], &xs[2..]].concat())?;
    let swap: Vec<usize> = [1, 0].into_iter().chain(spatial.iter().copied()).collect();
    let kernels = v.transpose(d, &swap)?;
    let y = v.op_with(
        Op::Conv,
        &[images, kernels],
        &[
            ("strides", list(&|a| a.dilation as i64)),
            ("dilations", list(&|a| a.stride as i64)),
            ("pads", Attr::Ints(pads)),
            ("group", (group as i64).into()),
        ],
    )?;
    // What the stride left over gives positions beyond the kernel.
    let ends: Vec<i64> = ws[2..].iter().map(|&k| k as i64).collect();
    let cut = v.op_with(
        Op::Slice,
        &[y],
        &[
            ("starts", Attr::Ints(vec![0; ends.len()])),
            ("ends", Attr::Ints(ends)),
            ("axes", Attr::Ints(spatial.iter().map(|&a| a as i64).collect())),
        ],
    )?;
    let by_w = v.transpose(cut, &swap)?;
    let rest: Vec<usize> = (0..ds.len()).filter(|&a| a != 1).collect();
    let by_b = v.reduce(Op::ReduceSum, d, &rest, false)?;
    Ok(vec![by_x, Some(by_w), Some(by_b)])
}

/// δ is added where the maxima came from; the size of the input is that of the pooling which found them.
pub(super) fn max_pool(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, indices) = (v.x(0)?, v.x(1)?);
    let graph = v.importer.builder.graph();
    let ty: Option<Type> = match graph.value(indices).source {
        Source::Node { node, .. } => graph.node(node).input(0).map(|x| graph.ty(x).clone()),
        Source::Input | Source::Constant => None,
    };
    let ty = ty.ok_or("the pooling that made the indices is not found")?;
    let n = v.ty(d).elements();
    let (indices, d) = (v.reshape(indices, &[n])?, v.reshape(d, &[n])?);
    let zeros = v.zeros(&Type::new(ty.dtype, [ty.elements()]))?;
    let attrs: [(&str, Attr); 2] = [("axis", 0i64.into()), ("reduction", "add".into())];
    let flat = v.op_with(Op::ScatterElements, &[zeros, indices, d], &attrs)?;
    Ok(vec![Some(v.reshape(flat, &ty.shape)?)])
}
