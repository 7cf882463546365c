//! Products of integers by constants and by truth values, where shape arithmetic and masks leave some over.

use super::{LowerError, Lowering};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;
use pam_ir::types::DType;

/// `x · c = Σ 2^i · x` over the bits of c, each doubling an addition, for one constant c of at most 32 bits;
/// a selection where one factor is a truth value, cast. Anything else stays and the certifier reports it.
pub fn mul(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<(), LowerError> {
    let (a, b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    for (x, c) in [(a, b), (b, a)] {
        if lo.ty(c).elements() == 1
            && let Some(c) = lo.constant_of(c).and_then(|t| t.to_i64()).map(|v| v[0])
            && c.unsigned_abs() <= u64::from(u32::MAX)
        {
            let y = times(lo, x, c)?;
            let wide = pam_ir::types::broadcast(&lo.shape(a), &lo.shape(b));
            let y = match wide {
                Some(shape) => lo.expand(y, &shape)?,
                None => y,
            };
            return lo.set(node, 0, y);
        }
    }
    for (x, c) in [(a, b), (b, a)] {
        if let Some(condition) = truth(lo, c) {
            let zero = lo.sub(x, x)?;
            let y = lo.select(condition, x, zero)?;
            return lo.set(node, 0, y);
        }
    }
    let y = lo.op(Op::Mul, &[a, b], &[])?;
    lo.set(node, 0, y)
}

/// The truth value that an integer was cast from.
fn truth(lo: &Lowering<'_, '_>, v: ValueId) -> Option<ValueId> {
    let graph = lo.graph();
    let node = graph.node(graph.producer(v)?);
    let from = node.input(0).filter(|_| node.op == Op::Cast)?;
    (graph.ty(from).dtype == DType::Bool).then_some(from)
}

fn times(lo: &mut Lowering<'_, '_>, x: ValueId, c: i64) -> Result<ValueId, LowerError> {
    let mut sum = None;
    let mut power = x;
    let mut left = c.unsigned_abs();
    while left != 0 {
        if left & 1 == 1 {
            sum = Some(match sum {
                Some(s) => lo.add(s, power)?,
                None => power,
            });
        }
        left >>= 1;
        if left != 0 {
            power = lo.add(power, power)?;
        }
    }
    match sum {
        Some(s) if c < 0 => lo.neg(s),
        Some(s) => Ok(s),
        None => lo.sub(x, x),
    }
}
