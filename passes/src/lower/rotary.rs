//! Rotary position embedding.

use super::{LowerError, Lowering};
use pam_ir::attr::Attr;
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;

type Result<T = ()> = std::result::Result<T, LowerError>;

/// `(mul(cos, a) − mul(sin, b), mul(sin, a) + mul(cos, b))` for the pairs (a, b) of rotated elements:
/// the two halves of each head, or, interleaved, neighbours.
pub fn rotary_embedding(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let own = lo.shape(x);
    // As [batch, heads, sequence, size].
    let x = match own[..] {
        [batch, sequence, width] => {
            let heads = node.int("num_heads").and_then(|h| usize::try_from(h).ok()).unwrap_or(0);
            if heads == 0 || width % heads != 0 {
                return Err(LowerError("an input of rank 3 needs `num_heads`".to_owned()));
            }
            let x = lo.reshape(x, &[batch, sequence, heads, width / heads])?;
            lo.transpose(x, &[0, 2, 1, 3])?
        }
        _ => x,
    };
    let [batch, heads, sequence, size] = lo.shape(x)[..] else {
        return Err(LowerError(format!("the input has shape {own:?}")));
    };
    let turned = match node.int("rotary_embedding_dim").unwrap_or(0) {
        0 => size,
        n => n as usize,
    };
    let half = turned / 2;
    let angles = |lo: &mut Lowering<'_, '_>, i: usize| -> Result<ValueId> {
        let mut cache = lo.input(node, i)?;
        if let Some(positions) = lo.get(node, 3)? {
            cache = lo.op(Op::Gather, &[cache, positions], &[("axis", 0i64.into())])?;
        }
        lo.reshape(cache, &[batch, 1, sequence, half])
    };
    let (cos, sin) = (angles(lo, 1)?, angles(lo, 2)?);
    let rotated = slice(lo, x, 3, 0, turned)?;
    let interleaved = node.int("interleaved") == Some(1);
    let (pairs, axis) = if interleaved {
        (lo.reshape(rotated, &[batch, heads, sequence, half, 2])?, 4)
    } else {
        (lo.reshape(rotated, &[batch, heads, sequence, 2, half])?, 3)
    };
    let part = |lo: &mut Lowering<'_, '_>, i: usize| -> Result<ValueId> {
        let p = slice(lo, pairs, axis, i, i + 1)?;
        lo.reshape(p, &[batch, heads, sequence, half])
    };
    let (a, b) = (part(lo, 0)?, part(lo, 1)?);
    let (ca, sb) = (lo.mul(cos, a)?, lo.mul(sin, b)?);
    let (sa, cb) = (lo.mul(sin, a)?, lo.mul(cos, b)?);
    let (real, imaginary) = (lo.sub(ca, sb)?, lo.add(sa, cb)?);
    let mut shape = vec![batch, heads, sequence, half];
    shape.insert(axis, 1);
    let (real, imaginary) = (lo.reshape(real, &shape)?, lo.reshape(imaginary, &shape)?);
    let joined = lo.op(Op::Concat, &[real, imaginary], &[("axis", (axis as i64).into())])?;
    let mut y = lo.reshape(joined, &[batch, heads, sequence, turned])?;
    if turned < size {
        let rest = slice(lo, x, 3, turned, size)?;
        y = lo.op(Op::Concat, &[y, rest], &[("axis", 3i64.into())])?;
    }
    if own.len() == 3 {
        y = lo.transpose(y, &[0, 2, 1, 3])?;
        y = lo.reshape(y, &own)?;
    }
    lo.set(node, 0, y)
}

fn slice(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    axis: usize,
    from: usize,
    to: usize,
) -> Result<ValueId> {
    let attrs: [(&str, Attr); 3] = [
        ("starts", vec![from as i64].into()),
        ("ends", vec![to as i64].into()),
        ("axes", vec![axis as i64].into()),
    ];
    lo.op(Op::Slice, &[x], &attrs)
}
