//! Matrix products.

use super::{LowerError, Lowering};
use pam_ir::graph::Node;

/// `pam.matmul(a, b)`.
pub fn matmul(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(), LowerError> {
    let (a, b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let y = lo.matmul(a, b)?;
    lo.set(node, 0, y)
}

/// `alpha · a' · b' + beta · c`, with a' and b' transposed where asked for; one multiplication each
/// by alpha and beta where they are not 1, and no c where beta is 0.
pub fn gemm(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(), LowerError> {
    let (mut a, mut b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    if node.int("transA") == Some(1) {
        a = lo.transpose(a, &[1, 0])?;
    }
    if node.int("transB") == Some(1) {
        b = lo.transpose(b, &[1, 0])?;
    }
    let product = lo.matmul(a, b)?;
    let mut y = lo.scale(product, node.float("alpha").unwrap_or(1.0))?;
    let beta = node.float("beta").unwrap_or(1.0);
    if let Some(c) = lo.get(node, 2)?
        && beta != 0.0
    {
        let c = lo.scale(c, beta)?;
        y = lo.add(y, c)?;
    }
    lo.set(node, 0, y)
}
