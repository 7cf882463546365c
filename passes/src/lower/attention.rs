//! Scaled dot-product attention.

use super::{LowerError, Lowering, softmax, tanh};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;
use pam_ir::tensor::Tensor;
use pam_ir::types::DType;

type Result<T = ()> = std::result::Result<T, LowerError>;

/// `softmax(mul(q, s) · mul(k, s)ᵀ + mask) · v` with s the root of the scale, per head; heads of keys
/// and values are repeated where there are fewer of them. A row that the mask hides whole has no
/// weights at all.
pub fn attention(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let heads = |name: &str| node.int(name).and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
    let q = lo.input(node, 0)?;
    let flat = lo.shape(q).len() == 3;
    let q = split(lo, q, heads("q_num_heads"))?;
    let k = lo.input(node, 1)?;
    let mut k = split(lo, k, heads("kv_num_heads"))?;
    let v = lo.input(node, 2)?;
    let mut v = split(lo, v, heads("kv_num_heads"))?;
    let mut remembered = 0;
    if let Some(past) = lo.get(node, 4)? {
        remembered = dims(lo, past)?[2];
        k = lo.op(Op::Concat, &[past, k], &[("axis", 2i64.into())])?;
    }
    if let Some(past) = lo.get(node, 5)? {
        v = lo.op(Op::Concat, &[past, v], &[("axis", 2i64.into())])?;
    }
    lo.set(node, 1, k)?;
    lo.set(node, 2, v)?;
    let [batch, q_heads, rows, size] = dims(lo, q)?;
    let [_, kv_heads, columns, _] = dims(lo, k)?;
    let repeat = q_heads / kv_heads.max(1);
    let (k, v) = (repeated(lo, k, repeat)?, repeated(lo, v, repeat)?);
    let scale = node.float("scale").unwrap_or(1.0 / (size as f32).sqrt()).sqrt();
    let q = lo.scale(q, scale)?;
    let k = lo.scale(k, scale)?;
    let kt = lo.transpose(k, &[0, 1, 3, 2])?;
    let mut scores = lo.matmul(q, kt)?;
    // Which stage the optional output of scores shows.
    let shown = node.output(3).map(|_| node.int("qk_matmul_output_mode").unwrap_or(0));
    if shown == Some(0) {
        lo.set(node, 3, scores)?;
    }
    let cap = node.float("softcap").unwrap_or(0.0);
    if cap != 0.0 {
        let small = lo.div_scalar(scores, cap)?;
        let bounded = tanh::of(lo, small)?;
        scores = lo.scale(bounded, cap)?;
    }
    if shown == Some(1) {
        lo.set(node, 3, scores)?;
    }
    let minus_infinity = lo.scalar(f32::NEG_INFINITY);
    let allowed = seen(lo, node, [batch, rows, columns], remembered)?;
    if let Some(allowed) = allowed {
        scores = lo.select(allowed, scores, minus_infinity)?;
    }
    let mask = lo.get(node, 3)?;
    if let Some(mask) = mask {
        let mask = lengthened(lo, mask, columns)?;
        scores = if lo.ty(mask).dtype == DType::Bool {
            lo.select(mask, scores, minus_infinity)?
        } else {
            lo.add(scores, mask)?
        };
    }
    if shown == Some(2) {
        lo.set(node, 3, scores)?;
    }
    let weights = if allowed.is_some() || mask.is_some() {
        softmax::guarded(lo, scores, 3, 0.0)?
    } else {
        softmax::of(lo, scores, 3)?
    };
    if shown == Some(3) {
        lo.set(node, 3, weights)?;
    }
    let mut y = lo.matmul(weights, v)?;
    if flat {
        let width = dims(lo, y)?[3];
        y = lo.transpose(y, &[0, 2, 1, 3])?;
        y = lo.reshape(y, &[batch, rows, q_heads * width])?;
    }
    lo.set(node, 0, y)
}

/// Which keys each row may see, unless all: those before it and as near as the windows say, and no padding. Row i is at
/// position i behind those remembered, or so that the last row is at the last key that is no padding.
fn seen(
    lo: &mut Lowering<'_, '_>,
    node: &Node,
    [batch, rows, columns]: [usize; 3],
    remembered: usize,
) -> Result<Option<ValueId>> {
    let window = |name: &str| node.int(name).filter(|&n| n >= 0);
    let (before, mut behind) = (window("left_window_size"), window("right_window_size"));
    if node.int("is_causal") == Some(1) {
        behind = Some(0);
    }
    let each =
        (0..rows * columns).map(|i| ((i / columns.max(1)) as i64, (i % columns.max(1)) as i64));
    // How many keys there must be before the first row, at least, for a row to see a key, and at most.
    let least = |(i, j): (i64, i64)| behind.map_or(i64::MIN, |n| j - i - n.min(columns as i64));
    let most = |(i, j): (i64, i64)| before.map_or(i64::MAX, |n| (j - i).saturating_add(n));
    let Some(lengths) = lo.get(node, 6)? else {
        if before.is_none() && behind.is_none() {
            return Ok(None);
        }
        let start = remembered as i64;
        let allowed = each.map(|at| least(at) <= start && start <= most(at)).collect();
        return Ok(Some(lo.constant(Tensor::new([rows, columns], allowed))));
    };
    // As many keys as there are, less the rows.
    let least = each.clone().map(|at| (least(at).saturating_add(rows as i64)).max(at.1 + 1));
    let least = lo.constant(Tensor::new([rows, columns], least.collect::<Vec<i64>>()));
    let lengths = lo.reshape(lengths, &[batch, 1, 1, 1])?;
    let lengths = lo.cast(lengths, DType::I64)?;
    let mut allowed = lo.op(Op::LessOrEqual, &[least, lengths], &[])?;
    if before.is_some() {
        let most = each.map(|at| most(at).saturating_add(rows as i64));
        let most = lo.constant(Tensor::new([rows, columns], most.collect::<Vec<i64>>()));
        let near = lo.op(Op::LessOrEqual, &[lengths, most], &[])?;
        allowed = lo.op(Op::And, &[allowed, near], &[])?;
    }
    Ok(Some(allowed))
}

/// A mask that hides the keys for which it has no entry.
fn lengthened(lo: &mut Lowering<'_, '_>, mask: ValueId, columns: usize) -> Result<ValueId> {
    let mut shape = lo.shape(mask);
    let Some(last) = shape.last_mut().filter(|n| (2..columns).contains(n)) else { return Ok(mask) };
    *last = columns - *last;
    let dtype = lo.ty(mask).dtype;
    let hidden = if dtype == DType::Bool { lo.scalar(false) } else { lo.scalar(f32::NEG_INFINITY) };
    let hidden = lo.cast(hidden, dtype)?;
    let hidden = lo.expand(hidden, &shape)?;
    lo.op(Op::Concat, &[mask, hidden], &[("axis", (-1i64).into())])
}

fn dims(lo: &Lowering<'_, '_>, x: ValueId) -> Result<[usize; 4]> {
    lo.shape(x).try_into().map_err(|s| LowerError(format!("an operand has shape {s:?}")))
}

/// `[batch, sequence, heads · size]` as `[batch, heads, sequence, size]`.
fn split(lo: &mut Lowering<'_, '_>, x: ValueId, heads: usize) -> Result<ValueId> {
    let shape = lo.shape(x);
    let [batch, sequence, width] = shape[..] else { return Ok(x) };
    let x = lo.reshape(x, &[batch, sequence, heads, width / heads.max(1)])?;
    lo.transpose(x, &[0, 2, 1, 3])
}

/// Each head as often as query heads share it.
fn repeated(lo: &mut Lowering<'_, '_>, x: ValueId, times: usize) -> Result<ValueId> {
    if times == 1 {
        return Ok(x);
    }
    let [batch, heads, sequence, size] = dims(lo, x)?;
    let x = lo.reshape(x, &[batch, heads, 1, sequence, size])?;
    let x = lo.expand(x, &[batch, heads, times, sequence, size])?;
    lo.reshape(x, &[batch, heads * times, sequence, size])
}
