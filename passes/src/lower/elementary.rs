//! Products, quotients, exponentials, logarithms and roots.

use super::{LowerError, Lowering};
use pam_ir::graph::Node;
use pam_ir::op::Op;

type Result = std::result::Result<(), LowerError>;

/// `a · b`: `pam.mul(a, b)`, or an exact exponent addition where one is a constant power of two.
pub fn mul(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (a, b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let y = lo.mul(a, b)?;
    lo.set(node, 0, y)
}

/// `a / b`: `pam.div(a, b)`, or an exact exponent addition where b is a constant power of two.
pub fn div(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (a, b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let y = lo.div(a, b)?;
    lo.set(node, 0, y)
}

/// `a − b · trunc(a / b)` for `fmod` 1, `a − b · floor(a / b)`, whose sign is that of b, for 0.
/// Natively floor is made of the remainder that has the sign of a.
pub fn modulo(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (a, b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let truncating = node.int("fmod") == Some(1);
    if !lo.is_pam() {
        let rest = lo.op(Op::Mod, &[a, b], &[("fmod", 1i64.into())])?;
        if truncating {
            return lo.set(node, 0, rest);
        }
        let (low, high) = (lo.negative(rest)?, lo.negative(b)?);
        let differ = lo.op(Op::Xor, &[low, high], &[])?;
        let zero = lo.scalar(0f32);
        let none = lo.op(Op::Equal, &[rest, zero], &[])?;
        let some = lo.op(Op::Not, &[none], &[])?;
        let off = lo.op(Op::And, &[differ, some], &[])?;
        let moved = lo.add(rest, b)?;
        let y = lo.select(off, moved, rest)?;
        return lo.set(node, 0, y);
    }
    let quotient = lo.div(a, b)?;
    let mut whole = lo.op(Op::Floor, &[quotient], &[])?;
    if truncating {
        let up = lo.op(Op::Ceil, &[quotient], &[])?;
        let negative = lo.negative(quotient)?;
        whole = lo.select(negative, up, whole)?;
    }
    let product = lo.mul(b, whole)?;
    let y = lo.sub(a, product)?;
    lo.set(node, 0, y)
}

/// `exp(x) = exp2(mul(x, log2e))`.
pub fn exp(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let y = lo.exp(x)?;
    lo.set(node, 0, y)
}

/// `log(x) = div(log2(x), log2e)`.
pub fn log(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let y = lo.log(x)?;
    lo.set(node, 0, y)
}

/// `sqrt(x) = exp2(div(log2(x), 2))`.
pub fn sqrt(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let y = lo.sqrt(x)?;
    lo.set(node, 0, y)
}

/// `reciprocal(x) = div(1, x)`.
pub fn reciprocal(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let y = lo.reciprocal(x)?;
    lo.set(node, 0, y)
}
