//! Local response normalisation.

use super::{LowerError, Lowering, pow};
use pam_ir::attr::Attr;
use pam_ir::graph::Node;
use pam_ir::op::Op;

/// `div(x, pow(bias + mul(alpha / size, Σ mul(x, x)), beta))`, the sum over `size` neighbouring
/// channels.
pub fn lrn(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(), LowerError> {
    let x = lo.input(node, 0)?;
    let shape = lo.shape(x);
    let size = node.int("size").filter(|&s| s > 0 && shape.len() >= 2);
    let size = size.ok_or_else(|| LowerError("`size` is not positive".to_owned()))?;
    let square = lo.square(x)?;
    // What lies beyond all channels adds nothing.
    let most = shape[1].saturating_sub(1) as i64;
    let before = ((size - 1) / 2).min(most);
    let after = (size - 1 - (size - 1) / 2).min(most);
    let pads = vec![before, after];
    let attrs = [("pads", pads.into()), ("axes", vec![1i64].into())];
    let padded = lo.op(Op::Pad, &[square], &attrs)?;
    let mut sum = None;
    for i in 0..=before + after {
        let attrs: [(&str, Attr); 3] = [
            ("starts", vec![i].into()),
            ("ends", vec![i + shape[1] as i64].into()),
            ("axes", vec![1i64].into()),
        ];
        let slice = lo.op(Op::Slice, &[padded], &attrs)?;
        sum = Some(match sum {
            Some(s) => lo.add(s, slice)?,
            None => slice,
        });
    }
    let sum = sum.ok_or_else(|| LowerError("`size` is not positive".to_owned()))?;
    let alpha = node.float("alpha").unwrap_or(1e-4);
    let scaled = lo.scale(sum, alpha / size as f32)?;
    let base = lo.add_scalar(scaled, node.float("bias").unwrap_or(1.0))?;
    let power = pow::power(lo, base, node.float("beta").unwrap_or(0.75))?;
    let y = lo.div(x, power)?;
    lo.set(node, 0, y)
}
