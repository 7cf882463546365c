//! Products of integers by constants, where shape arithmetic leaves some over.

use super::{LowerError, Lowering};
use pam_ir::graph::{Node, ValueId};

/// `x · c = Σ 2^i · x` over the bits of c, each doubling an addition. Only for one constant c of at
/// most 32 bits; anything else stays and the certifier reports it.
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
    let y = lo.op(pam_ir::op::Op::Mul, &[a, b], &[])?;
    lo.set(node, 0, y)
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
