//! Multiplication counts: how many scalar multiplications, divisions, roots and transcendental
//! evaluations one native execution performs, each counted as one. Additions and comparisons are
//! free. The formula of each op stands in its function's documentation; n is the number of elements
//! of the output unless said otherwise.

use crate::attr::Attr;
use crate::op::{Call, Op};
use crate::types::Type;

fn n(ty: Option<&Type>) -> u128 {
    ty.map_or(0, |t| t.shape.iter().map(|&d| d as u128).product())
}

/// 0.
pub(super) fn zero(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

/// n.
pub(super) fn each_output(_: &Call<'_>, outputs: &[Type]) -> u128 {
    n(outputs.first())
}

/// Elements of all outputs: one product at least goes into each derivative.
pub(super) fn all_outputs(_: &Call<'_>, outputs: &[Type]) -> u128 {
    outputs.iter().map(|ty| n(Some(ty))).sum()
}

/// 2 n.
pub(super) fn twice_each_output(_: &Call<'_>, outputs: &[Type]) -> u128 {
    2 * n(outputs.first())
}

/// 3 n.
pub(super) fn thrice_each_output(_: &Call<'_>, outputs: &[Type]) -> u128 {
    3 * n(outputs.first())
}

/// Elements of the first input.
pub(super) fn each_input(call: &Call<'_>, _: &[Type]) -> u128 {
    n(call.get(0))
}

/// n, unless there is only one operand.
pub(super) fn mean(call: &Call<'_>, outputs: &[Type]) -> u128 {
    if call.inputs.len() > 1 { n(outputs.first()) } else { 0 }
}

/// n exponentials and a logarithm a row.
pub(super) fn log_softmax(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let row = call.get(0).and_then(|x| x.shape.get(call.axis("axis", x.rank()).ok()?));
    n(outputs.first()) + n(outputs.first()) / row.map_or(1, |&d| d.max(1) as u128)
}

/// A product a label if there are weights, and a division for the mean.
pub(super) fn likelihood(call: &Call<'_>, _: &[Type]) -> u128 {
    let weighted = if call.get(2).is_some() { n(call.get(1)) } else { 0 };
    weighted + u128::from(!matches!(call.str("reduction"), Some("none" | "sum")))
}

/// Elements of the scores (exponentials), labels (logarithms), and what the likelihood needs.
pub(super) fn cross_entropy(call: &Call<'_>, outputs: &[Type]) -> u128 {
    n(call.get(0)) + n(call.get(1)) + likelihood(call, outputs)
}

/// n, unless the numbers lie in a range of length 1.
pub(super) fn uniform(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let end = |name: &str, default: f32| call.float(name).unwrap_or(default);
    if end("high", 1.0) - end("low", 0.0) == 1.0 { 0 } else { n(outputs.first()) }
}

/// Elements of the first input and of the output.
pub(super) fn input_and_output(call: &Call<'_>, outputs: &[Type]) -> u128 {
    n(call.get(0)) + n(outputs.first())
}

/// Elements of the updates where they are multiplied into the data, else 0.
pub(super) fn scatter(call: &Call<'_>, _: &[Type]) -> u128 {
    if call.str("reduction") == Some("mul") { n(call.get(2)) } else { 0 }
}

/// n · k.
pub(super) fn matmul(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let k = call.get(0).and_then(|a| a.shape.last()).copied().unwrap_or(0);
    n(outputs.first()) * k as u128
}

/// n · k, n more for an alpha that is not 1, and the elements of C for a beta.
pub(super) fn gemm(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let inner = if call.int("transA") == Some(1) { 0 } else { 1 };
    let k = call.get(0).and_then(|a| a.shape.get(inner)).copied().unwrap_or(0) as u128;
    let alpha = u128::from(call.float("alpha") != Some(1.0));
    let beta = u128::from(call.get(2).is_some() && call.float("beta") != Some(1.0));
    n(outputs.first()) * (k + alpha) + beta * n(call.get(2))
}

/// n · elements of one output channel's kernel.
pub(super) fn conv(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let kernel = call.get(1).map_or(0, |w| w.shape[1..].iter().map(|&d| d as u128).product());
    n(outputs.first()) * kernel
}

/// Elements of the input · elements of one input channel's kernel.
pub(super) fn conv_transpose(call: &Call<'_>, _: &[Type]) -> u128 {
    let kernel = call.get(1).map_or(0, |w| w.shape[1..].iter().map(|&d| d as u128).product());
    n(call.get(0)) * kernel
}

/// The product of all label sizes, once for each operand beyond the first.
pub(super) fn einsum(call: &Call<'_>, _: &[Type]) -> u128 {
    let shapes: Vec<&[usize]> = call.inputs.iter().flatten().map(|t| t.shape.as_slice()).collect();
    let parsed = crate::einsum::Einsum::parse(call.str("equation").unwrap_or(""), &shapes);
    let all: u128 = parsed.map_or(0, |e| e.sizes.iter().map(|&d| d as u128).product());
    all * (shapes.len() as u128).saturating_sub(1)
}

/// 4 n for the error function form (scaling, erf, product, half), 8 n for the tanh form.
pub(super) fn gelu(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let each = if call.str("approximate") == Some("tanh") { 8 } else { 4 };
    each * n(outputs.first())
}

/// 4 n: exponential, logarithm, tanh, product.
pub(super) fn mish(_: &Call<'_>, outputs: &[Type]) -> u128 {
    4 * n(outputs.first())
}

/// 3 n (square, normalise, scale) and 4 a row (two means, root, reciprocal).
pub(super) fn layer_norm(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let Some(x) = call.get(0) else { return 0 };
    let rows: u128 = match call.op {
        Op::InstanceNormalization => x.shape.iter().take(2).map(|&d| d as u128).product(),
        Op::GroupNormalization => {
            let groups = call.int("num_groups").unwrap_or(1).max(1) as u128;
            x.shape.first().map_or(0, |&d| d as u128) * groups
        }
        _ => {
            let axis = call.axis("axis", x.rank()).unwrap_or(0);
            x.shape[..axis].iter().map(|&d| d as u128).product()
        }
    };
    3 * n(outputs.first()) + 4 * rows
}

/// 2 n and 2 a channel (root, reciprocal); in training n more for the squares and 6 a channel for
/// the means and the running statistics.
pub(super) fn batch_norm(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let (all, channels) = (n(outputs.first()), n(call.get(1)));
    if call.int("training_mode") == Some(1) {
        3 * all + 8 * channels
    } else {
        2 * all + 2 * channels
    }
}

/// n · elements of the window, and n roots.
pub(super) fn lp_pool(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let window: u128 =
        call.ints("kernel_shape").unwrap_or(&[]).iter().map(|&d| d as u128).product();
    n(outputs.first()) * (window + 1)
}

/// For each axis that changes, n times as many as it interpolates; copying the nearest needs none.
pub(super) fn resize(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let (Some(x), Ok(true)) = (call.get(0), crate::resize::interpolates(call)) else { return 0 };
    let axes = crate::resize::axes(call, &x.shape).unwrap_or_default();
    let widths = axes.iter().map(|a| crate::resize::width(call, a).unwrap_or(0) as u128);
    n(outputs.first()) * widths.sum::<u128>()
}

/// n in training with a ratio that is not 0, else 0.
pub(super) fn dropout(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let training = match call.attr("training_mode") {
        Some(Attr::Tensor(t)) => t.to_i64().is_some_and(|v| v == [1]),
        _ => false,
    };
    let ratio = match call.attr("ratio") {
        Some(Attr::Tensor(t)) => t.as_scalar_f64().unwrap_or(0.5),
        _ => 0.5,
    };
    if training && ratio != 0.0 { n(outputs.first()) } else { 0 }
}

/// Two matrix products, the scaling and the softmax of the scores.
pub(super) fn attention(call: &Call<'_>, outputs: &[Type]) -> u128 {
    let size = |i: usize, heads: &str| {
        let ty = call.get(i)?;
        let last = *ty.shape.last()? as u128;
        let heads = call.int(heads).unwrap_or(1).max(1) as u128;
        Some(if ty.rank() == 3 { last / heads } else { last })
    };
    let (Some(q), Some(qd), Some(vd)) =
        (call.get(0), size(0, "q_num_heads"), size(2, "kv_num_heads"))
    else {
        return 0;
    };
    let total = match outputs.get(1) {
        Some(key) => key.shape.get(2).copied(),
        None => call.get(1).and_then(|k| k.shape.get(k.rank().saturating_sub(2)).copied()),
    };
    let scores = n(Some(q)) / qd.max(1) * total.unwrap_or(0) as u128;
    scores * (qd + vd + 3)
}
