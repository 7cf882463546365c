//! Products, quotients, exponentials, logarithms and roots.

use super::{LowerError, Lowering};
use pam_ir::graph::Node;

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

/// `a − b · trunc(a / b)`.
pub fn modulo(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (a, b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let quotient = lo.div(a, b)?;
    let size = lo.abs(quotient)?;
    let down = lo.op(pam_ir::op::Op::Floor, &[size], &[])?;
    let up = lo.neg(down)?;
    let negative = lo.negative(quotient)?;
    let whole = lo.select(negative, up, down)?;
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
