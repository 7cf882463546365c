//! Determinants, by elimination.

use super::{Outputs, Result, Translation};
use crate::attr::Attr;
use crate::graph::ValueId;
use crate::op::Op;
use crate::tensor::Tensor;

/// The determinants of matrices `[…, n, n]`: the product of the pivots, the largest that each column has left, with
/// the sign of the exchanges. Where no pivot is left, the determinant is 0.
pub(super) fn determinant(v: &mut Translation<'_, '_>) -> Outputs {
    let x = v.x(0)?;
    let ty = v.ty(x);
    let [outer @ .., n, m] = &ty.shape[..] else { return Err(format!("{ty} is no matrix")) };
    if n != m || *n == 0 {
        return Err(format!("{ty} is not square"));
    }
    let (count, n) = (outer.iter().product::<usize>(), *n);
    let mut left = v.reshape(x, &[count, n, n])?;
    let one = v.number(1.0, x)?;
    let ones: [(&str, Attr); 1] = [("shape", [count, 1, 1].as_slice().into())];
    let mut product = v.op_with(Op::Expand, &[one], &ones)?;
    for size in (1..=n).rev() {
        let column = if size == 1 { left } else { slice(v, left, [0, size], [0, 1])? };
        let sizes = v.op(Op::Abs, &[column])?;
        let first = v.op_with(Op::ArgMax, &[sizes], &[("axis", 1i64.into())])?;
        // The first row and that of the pivot change places, and the sign with it.
        let numbers = Tensor::new([1, size, 1], (0..size as i64).collect::<Vec<i64>>());
        let numbers = v.importer.constant("rows", numbers);
        let zero = v.number(0.0, numbers)?;
        let (here, there) =
            (v.op(Op::Equal, &[numbers, zero])?, v.op(Op::Equal, &[numbers, first])?);
        let order = v.select(there, zero, numbers)?;
        let order = v.select(here, first, order)?;
        let whole: [(&str, Attr); 1] = [("shape", [count, size, size].as_slice().into())];
        let order = v.op_with(Op::Expand, &[order], &whole)?;
        left = v.op_with(Op::GatherElements, &[left, order], &[("axis", 1i64.into())])?;
        let stays = v.op(Op::Equal, &[first, zero])?;
        let other = v.op(Op::Neg, &[product])?;
        product = v.select(stays, product, other)?;
        let pivot = if size == 1 { left } else { slice(v, left, [0, 1], [0, 1])? };
        product = v.mul(product, pivot)?;
        if size == 1 {
            break;
        }
        let nothing = v.number(0.0, pivot)?;
        let vanishes = v.op(Op::Equal, &[pivot, nothing])?;
        let divisor = v.select(vanishes, one, pivot)?;
        let below = slice(v, left, [1, size], [0, 1])?;
        let factors = v.div(below, divisor)?;
        let row = slice(v, left, [0, 1], [1, size])?;
        let rest = slice(v, left, [1, size], [1, size])?;
        let taken = v.mul(factors, row)?;
        left = v.sub(rest, taken)?;
    }
    Ok(vec![Some(v.reshape(product, outer)?)])
}

/// Rows and columns from one number up to another.
fn slice(v: &mut Translation<'_, '_>, x: ValueId, rows: [usize; 2], columns: [usize; 2]) -> Result {
    let at = |i: usize| [rows[i] as i64, columns[i] as i64].to_vec();
    let attrs: [(&str, Attr); 3] =
        [("starts", at(0).into()), ("ends", at(1).into()), ("axes", vec![1i64, 2].into())];
    v.op_with(Op::Slice, &[x], &attrs)
}
