//! Derivatives of ops that select among values: the cotangent goes to what was selected.

use super::vjp::{Result, Vjp};
use pam_ir::attr::Attr;
use pam_ir::geometry::reduced_axes;
use pam_ir::graph::ValueId;
use pam_ir::op::Op;
use pam_ir::tensor::Tensor;

/// Gives the cotangents of the inputs of a node that selects; whether it does.
pub(super) fn apply(v: &mut Vjp<'_, '_, '_>) -> Result<bool> {
    match v.node().op {
        // Piecewise constant.
        Op::Floor | Op::Ceil | Op::Round | Op::Sign | Op::Hardmax => {}
        Op::Abs => {
            let (x, d) = (v.x(0)?, v.delta()?);
            let cotangent = mirrored(v, x, d)?;
            v.give(0, cotangent)?;
        }
        Op::Relu | Op::ThresholdedRelu => {
            let (x, d) = (v.x(0)?, v.delta()?);
            let threshold = match v.node().op {
                Op::Relu => 0.0,
                _ => v.node().float("alpha").unwrap_or(1.0),
            };
            let threshold = v.number(threshold, x)?;
            let above = v.op(Op::Greater, &[x, threshold], &[])?;
            let cotangent = v.only(above, d)?;
            v.give(0, cotangent)?;
        }
        Op::Shrink => {
            let (x, d) = (v.x(0)?, v.delta()?);
            let size = v.abs(x)?;
            let bound = v.number(v.node().float("lambd").unwrap_or(0.5), x)?;
            let above = v.op(Op::Greater, &[size, bound], &[])?;
            let cotangent = v.only(above, d)?;
            v.give(0, cotangent)?;
        }
        Op::Clip => clip(v)?,
        Op::Max | Op::Min => extreme(v)?,
        Op::Where => {
            let (condition, d) = (v.x(0)?, v.delta()?);
            let zero = v.number(0.0, d)?;
            if v.wants(1) {
                let cotangent = v.select(condition, d, zero)?;
                v.give(1, cotangent)?;
            }
            if v.wants(2) {
                let cotangent = v.select(condition, zero, d)?;
                v.give(2, cotangent)?;
            }
        }
        Op::ReduceSum | Op::ReduceL1 => {
            let (x, d) = (v.x(0)?, v.delta()?);
            let d = kept(v, d)?;
            let shape = v.shape(x);
            let mut cotangent = v.expand(d, &shape)?;
            if v.node().op == Op::ReduceL1 {
                cotangent = mirrored(v, x, cotangent)?;
            }
            v.give(0, cotangent)?;
        }
        Op::ReduceMax | Op::ReduceMin | Op::GlobalMaxPool => reduced(v)?,
        Op::MaxPool => max_pool(v)?,
        Op::TopK => top_k(v)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// δ with the sign of x, and 0 where x is 0.
fn mirrored(v: &mut Vjp<'_, '_, '_>, x: ValueId, d: ValueId) -> Result<ValueId> {
    let zero = v.number(0.0, x)?;
    let (above, below) = (v.op(Op::Greater, &[x, zero], &[])?, v.op(Op::Less, &[x, zero], &[])?);
    let minus = v.neg(d)?;
    let nothing = v.number(0.0, d)?;
    let rest = v.select(below, minus, nothing)?;
    v.select(above, d, rest)
}

/// What lies between the bounds, bounds included.
fn clip(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (x, d) = (v.x(0)?, v.delta()?);
    let mut cotangent = d;
    for (i, outside) in [(1, Op::Less), (2, Op::Greater)] {
        if let Some(bound) = v.node().input(i) {
            let beyond = v.op(outside, &[x, bound], &[])?;
            let zero = v.number(0.0, d)?;
            if v.wants(i) {
                let own = v.select(beyond, d, zero)?;
                v.give(i, own)?;
            }
            cotangent = v.select(beyond, zero, cotangent)?;
        }
    }
    v.give(0, cotangent)
}

/// Of equal operands the first takes all.
fn extreme(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (y, mut left) = (v.y()?, v.delta()?);
    for i in 0..v.node().inputs.len() {
        let x = v.x(i)?;
        let selected = v.op(Op::Equal, &[x, y], &[])?;
        let zero = v.number(0.0, left)?;
        if v.wants(i) {
            let own = v.select(selected, left, zero)?;
            v.give(i, own)?;
        }
        left = v.select(selected, zero, left)?;
    }
    Ok(())
}

/// The cotangent of a reduction in the shape that keeps the reduced axes.
fn kept(v: &mut Vjp<'_, '_, '_>, d: ValueId) -> Result<ValueId> {
    let mut shape = v.type_of(0)?.shape;
    for axis in axes(v)? {
        shape[axis] = 1;
    }
    v.reshape(d, &shape)
}

fn axes(v: &Vjp<'_, '_, '_>) -> Result<Vec<usize>> {
    let rank = v.type_of(0)?.rank();
    if v.node().op == Op::GlobalMaxPool {
        return Ok((2..rank).collect());
    }
    Ok(v.call(|call| reduced_axes(call, rank))?)
}

/// The first of equal extremes takes all: the reduced axes are brought behind the others and made one.
fn reduced(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (x, d) = (v.x(0)?, v.delta()?);
    let (ty, axes) = (v.type_of(0)?, axes(v)?);
    let kept: Vec<usize> = (0..ty.rank()).filter(|a| !axes.contains(a)).collect();
    let perm: Vec<usize> = kept.iter().chain(&axes).copied().collect();
    let size = |axes: &[usize]| axes.iter().map(|&a| ty.shape[a]).product::<usize>();
    let (outer, inner) = (size(&kept), size(&axes));
    let turned = v.transpose(x, &perm)?;
    let turned_shape = v.shape(turned);
    let rows = v.reshape(turned, &[outer, inner])?;
    let arg = if v.node().op == Op::ReduceMin { Op::ArgMin } else { Op::ArgMax };
    let attrs: [(&str, Attr); 2] = [("axis", 1i64.into()), ("keepdims", 1i64.into())];
    let indices = v.op(arg, &[rows], &attrs)?;
    let d = v.reshape(d, &[outer, 1])?;
    let zeros = v.zeros(&pam_ir::types::Type::new(ty.dtype, [outer, inner]))?;
    let one = v.op(Op::ScatterElements, &[zeros, indices, d], &[("axis", 1i64.into())])?;
    let back = v.reshape(one, &turned_shape)?;
    let mut inverse = vec![0; perm.len()];
    for (i, &p) in perm.iter().enumerate() {
        inverse[p] = i;
    }
    let cotangent = v.transpose(back, &inverse)?;
    v.give(0, cotangent)
}

/// The flat indices of the maxima say where δ is added.
fn max_pool(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (x, d, ty) = (v.x(0)?, v.delta()?, v.type_of(0)?);
    let names = ["kernel_shape", "strides", "pads", "dilations", "auto_pad", "ceil_mode"];
    let attrs = v.copied(&names);
    // Indices may count columns first, so that the pooling is done again for indices by rows.
    let again = v.op_n(Op::MaxPool, &[x], &attrs, 2)?;
    let n = v.ty(d).elements();
    let (indices, d) = (v.reshape(again[1], &[n])?, v.reshape(d, &[n])?);
    let zeros = v.zeros(&pam_ir::types::Type::new(ty.dtype, [ty.elements()]))?;
    let attrs: [(&str, Attr); 2] = [("axis", 0i64.into()), ("reduction", "add".into())];
    let flat = v.op(Op::ScatterElements, &[zeros, indices, d], &attrs)?;
    let cotangent = v.reshape(flat, &ty.shape)?;
    v.give(0, cotangent)
}

fn top_k(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (x, d, ty) = (v.x(0)?, v.delta()?, v.type_of(0)?);
    let indices = match v.node().output(1) {
        Some(indices) => indices,
        None => {
            let attrs = v.copied(&["K", "axis", "largest", "sorted"]);
            v.op_n(Op::TopK, &[x], &attrs, 2)?[1]
        }
    };
    let zeros = v.zeros(&ty)?;
    let axis = v.node().int("axis").unwrap_or(-1);
    let cotangent = v.op(Op::ScatterElements, &[zeros, indices, d], &[("axis", axis.into())])?;
    v.give(0, cotangent)
}

/// A constant of integers.
pub(super) fn integers(v: &mut Vjp<'_, '_, '_>, shape: &[usize], data: Vec<i64>) -> ValueId {
    v.constant(Tensor::new(shape, data))
}
