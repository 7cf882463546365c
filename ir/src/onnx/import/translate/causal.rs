//! Sequence models that carry a state from one step to the next: linear attention and the convolution before it.

use super::{Outputs, Result, Translation};
use crate::graph::ValueId;
use crate::op::Op;
use crate::types::Type;

/// Attention without a softmax, by a state `S[key, value]` of each head: `S ← S + k ⊗ u`, `o = scale · qᵀ S`. With a
/// decay, S is first multiplied by its exponential; with an update rate β, u is `β (v − kᵀ S)` in place of v.
pub(super) fn linear_attention(v: &mut Translation<'_, '_>) -> Outputs {
    let (gated, corrected) = match v.str("update_rule").unwrap_or("gated_delta") {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => return Err(format!("`update_rule` {other} is not known")),
    };
    for (i, name, asked) in [(4, "decay", gated), (5, "beta", corrected)] {
        if v.given(i).is_some() != asked {
            let verb = if asked { "needs" } else { "takes no" };
            return Err(format!("this `update_rule` {verb} `{name}`"));
        }
    }
    let (query, key, value) = (v.x(0)?, v.x(1)?, v.x(2)?);
    let [batch, steps, width] = v.ty(query).shape[..] else {
        return Err(format!("the query is {}, which is not of rank 3", v.ty(query)));
    };
    let positive = |n: i64| usize::try_from(n).ok().filter(|&n| n > 0);
    let counts = [v.int("q_num_heads", 0), v.int("kv_num_heads", 0)].map(positive);
    let ([Some(readers), Some(heads)], true) = (counts, steps > 0) else {
        return Err("needs numbers of heads and at least one step".to_owned());
    };
    if !readers.is_multiple_of(heads) || !width.is_multiple_of(readers) {
        return Err(format!("{width} elements, {readers} and {heads} heads do not divide"));
    }
    let (size, shared) = (width / readers, readers / heads);
    // Several queries may read the state of one head.
    let sizes = [batch, steps];
    let queries = by_step(v, query, sizes, [heads, shared, size])?;
    let keys = by_step(v, key, sizes, [heads, size, 1])?;
    let wide = v.ty(value).shape.last().map_or(0, |n| n / heads);
    let values = by_step(v, value, sizes, [heads, 1, wide])?;
    let decays = match v.given(4) {
        Some(decay) => {
            let per_key = v.ty(decay).shape.last() != Some(&heads);
            let decay = v.op(Op::Exp, &[decay])?;
            by_step(v, decay, sizes, [heads, if per_key { size } else { 1 }, 1])?
        }
        None => vec![],
    };
    let rates = match v.given(5) {
        Some(rate) => {
            let own = v.ty(rate).shape.last().copied().unwrap_or(1);
            by_step(v, rate, sizes, [own, 1, 1])?
        }
        None => vec![],
    };
    let mut state = match v.given(3) {
        Some(past) => {
            let past = v.importer.start(past)?;
            v.cast(past, v.ty(query).dtype)?
        }
        None => v.zeros(&Type::new(v.ty(query).dtype, [batch, heads, size, wide]))?,
    };
    let kept = v.given(3).map_or(v.ty(query).dtype, |past| v.ty(past).dtype);
    let mut read = Vec::new();
    for t in 0..steps {
        if let Some(&decay) = decays.get(t) {
            state = v.mul(state, decay)?;
        }
        let mut new = values[t];
        if let Some(&rate) = rates.get(t) {
            let row = v.reshape(keys[t], &[batch, heads, 1, size])?;
            let known = v.op(Op::MatMul, &[row, state])?;
            new = v.sub(new, known)?;
            new = v.mul(rate, new)?;
        }
        let outer = v.mul(keys[t], new)?;
        state = v.add(state, outer)?;
        let y = v.op(Op::MatMul, &[queries[t], state])?;
        read.push(v.reshape(y, &[batch, 1, readers * wide])?);
    }
    let read = v.joined(&read, 1)?;
    let scale = match v.float("scale", 0.0) {
        0.0 => (size as f64).sqrt().recip(),
        scale => scale.into(),
    };
    let y = v.scaled(read, scale)?;
    Ok(vec![Some(y), Some(v.cast(state, kept)?)])
}

/// The steps of `x[batch, steps, …]`, each as `[batch, …shape]`.
fn by_step(
    v: &mut Translation<'_, '_>,
    x: ValueId,
    [batch, steps]: [usize; 2],
    shape: [usize; 3],
) -> Result<Vec<ValueId>> {
    if v.rank(x) != 3 || v.ty(x).shape[..2] != [batch, steps] {
        return Err(format!("an operand is {}, not [{batch},{steps},…]", v.ty(x)));
    }
    let apart = [&[batch * steps], &shape[..]].concat();
    let wide = v.reshape(x, &[&[batch, steps], &shape[..]].concat())?;
    let first = v.transpose(wide, &[1, 0, 2, 3, 4])?;
    let flat = v.reshape(first, &apart)?;
    v.parts(flat, 0, steps)
}

/// A convolution of each channel by itself with what lies before it, and the end of the input for the next call. The
/// past takes the place of the padding.
pub(super) fn convolution(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, w) = (v.x(0)?, v.x(1)?);
    let (shape, weights) = (v.ty(x).shape, v.ty(w).shape);
    let ([batch, channels, _], [_, _, length @ (1..)]) = (&shape[..], &weights[..]) else {
        return Err(format!("weights {} for {}", v.ty(w), v.ty(x)));
    };
    let past = match v.given(3) {
        Some(past) => v.importer.start(past)?,
        None => v.zeros(&Type::new(v.ty(x).dtype, [*batch, *channels, length - 1]))?,
    };
    let past = if *length == 1 { None } else { Some(past) };
    let whole: Vec<ValueId> = past.into_iter().chain([x]).collect();
    let whole = v.joined(&whole, 2)?;
    let operands: Vec<ValueId> = [whole, w].into_iter().chain(v.given(2)).collect();
    let mut y = v.op_with(Op::Conv, &operands, &[("group", (*channels as i64).into())])?;
    match v.str("activation").unwrap_or("none") {
        "none" => {}
        "silu" | "swish" => {
            let gate = v.op(Op::Sigmoid, &[y])?;
            y = v.mul(y, gate)?;
        }
        other => return Err(format!("the activation `{other}` is not known")),
    }
    let total = v.ty(whole).shape[2] as i64;
    let first = total - (*length as i64 - 1);
    let range = [("starts", vec![first]), ("ends", vec![total]), ("axes", vec![2])];
    let range = range.map(|(name, at)| (name, at.into()));
    Ok(vec![Some(y), Some(v.op_with(Op::Slice, &[whole], &range)?)])
}
