//! Ops that pick elements by what is known, and gradients of others: δ is added to zeros where the elements came from.

use super::{Outputs, Translation, of};
use crate::attr::Attr;
use crate::geometry::slice_ranges;
use crate::op::{Call, Op};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The places of the elements that are not zero, which decide the shape and must therefore be known.
pub(super) fn non_zero(v: &mut Translation<'_, '_>) -> Outputs {
    let x = v.x(0)?;
    let known = v.importer.known.get(&x).and_then(|t| crate::eval::cast(t, DType::F64)?.to_f64());
    let known =
        known.ok_or("how many elements are not zero depends on data; use `Where` instead")?;
    let shape = v.ty(x).shape;
    let places: Vec<usize> = (0..known.len()).filter(|&i| known[i] != 0.0).collect();
    let steps = crate::tensor::strides(&shape);
    let axis = |(&n, &step): (&usize, &usize)| places.iter().map(move |p| (p / step % n) as i64);
    let rows: Vec<i64> = shape.iter().zip(&steps).flat_map(axis).collect();
    let made = Tensor::new([shape.len(), places.len()], rows);
    Ok(vec![Some(v.importer.constant("places", made))])
}

/// The entries along an axis, or of all elements, for which a known condition holds.
pub(super) fn compress(v: &mut Translation<'_, '_>) -> Outputs {
    let (mut x, condition) = (v.x(0)?, v.known(1)?);
    let axis = if v.attrs.contains_key("axis") { v.axis(x, 0)? } else { 0 };
    if !v.attrs.contains_key("axis") {
        let elements = v.ty(x).elements();
        x = v.reshape(x, &[elements])?;
    }
    if condition.len() > v.ty(x).shape[axis] {
        return Err(format!("a condition of {} for {}", condition.len(), v.ty(x)));
    }
    let kept = condition.iter().zip(0i64..).filter(|(c, _)| **c != 0).map(|(_, i)| i);
    let kept = v.importer.constant("kept", Tensor::vector(kept.collect::<Vec<i64>>()));
    Ok(vec![Some(v.op_with(Op::Gather, &[x, kept], &[("axis", (axis as i64).into())])?)])
}

/// A cache of sequences `[batch, …, length, …]` with new entries written from a place of each sequence on.
pub(super) fn tensor_scatter(v: &mut Translation<'_, '_>) -> Outputs {
    let (cache, update) = (v.x(0)?, v.x(1)?);
    let (shape, rank) = (v.ty(cache).shape, v.rank(cache));
    let axis = v.axis(cache, -2)?;
    if axis == 0 || v.rank(update) != rank {
        return Err(format!("axis {axis} of {} for {}", v.ty(update), v.ty(cache)));
    }
    let (batch, new) = (shape[0], v.ty(update).shape[axis]);
    let sequences = Tensor::new([batch, 1], (0..batch as i64).collect::<Vec<i64>>());
    let sequences = v.importer.constant("sequences", sequences);
    let places = Tensor::new([1, new], (0..new as i64).collect::<Vec<i64>>());
    let mut places = v.importer.constant("places", places);
    if let Some(first) = v.given(2) {
        let first = v.reshape(first, &[batch, 1])?;
        places = v.add(first, places)?;
    }
    match v.str("mode").unwrap_or("linear") {
        "linear" => {}
        "circular" => {
            let length = v.number(shape[axis] as f64, places)?;
            places = v.op(Op::Mod, &[places, length])?;
        }
        other => return Err(format!("`mode` {other} is not known")),
    }
    let whole: [(&str, Attr); 1] = [("shape", [batch, new, 1].as_slice().into())];
    let mut pair = Vec::new();
    for index in [sequences, places] {
        let column = v.reshape(index, &[&v.ty(index).shape[..], &[1]].concat())?;
        pair.push(v.op_with(Op::Expand, &[column], &whole)?);
    }
    let indices = v.joined(&pair, 2)?;
    // The axis is brought behind that of the batch.
    let mut perm: Vec<usize> = (0..rank).filter(|&a| a != axis).collect();
    perm.insert(1, axis);
    let (cache, update) = (v.transpose(cache, &perm)?, v.transpose(update, &perm)?);
    let written = v.op(Op::ScatterND, &[cache, indices, update])?;
    Ok(vec![Some(v.transpose(written, &inverse(&perm))?)])
}

/// The permutation that undoes another.
fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (i, &a) in perm.iter().enumerate() {
        inverse[a] = i;
    }
    inverse
}

/// Of `Gather`: the shape of the data, the indices and δ.
pub(super) fn gather(v: &mut Translation<'_, '_>) -> Outputs {
    let (shape, indices, d) = (v.known(0)?, v.x(1)?, v.x(2)?);
    let ty = of(v.ty(d).dtype, &shape)?;
    let axis = crate::op::normalize_axis(v.int("axis", 0), ty.rank())?;
    let (picked, rank) = (v.ty(indices).shape, ty.rank());
    // The axes of the indices and that of the rows are brought to the front.
    let n = picked.len();
    let perm: Vec<usize> = (axis..axis + n).chain(0..axis).chain(axis + n..rank - 1 + n).collect();
    let updates = v.transpose(d, &perm)?;
    let column = v.reshape(indices, &[&picked[..], &[1]].concat())?;
    let order: Vec<usize> = std::iter::once(axis).chain((0..rank).filter(|&a| a != axis)).collect();
    let front: Vec<usize> = order.iter().map(|&a| ty.shape[a]).collect();
    let zeros = v.zeros(&Type::new(ty.dtype, front))?;
    let add = [("reduction", Attr::from("add"))];
    let sums = v.op_with(Op::ScatterND, &[zeros, column, updates], &add)?;
    Ok(vec![Some(v.transpose(sums, &inverse(&order))?)])
}

/// Of `GatherElements`: δ, the shape of the data and the indices.
pub(super) fn gather_elements(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, shape, indices) = (v.x(0)?, v.known(1)?, v.x(2)?);
    let ty = of(v.ty(d).dtype, &shape)?;
    let axis = crate::op::normalize_axis(v.int("axis", 0), ty.rank())? as i64;
    let zeros = v.zeros(&ty)?;
    let attrs: [(&str, Attr); 2] = [("axis", axis.into()), ("reduction", "add".into())];
    Ok(vec![Some(v.op_with(Op::ScatterElements, &[zeros, indices, d], &attrs)?)])
}

/// Of `GatherND`: the shape of the data, the indices and δ.
pub(super) fn gather_nd(v: &mut Translation<'_, '_>) -> Outputs {
    let (shape, indices, d) = (v.known(0)?, v.x(1)?, v.x(2)?);
    if v.int("batch_dims", 0) != 0 {
        return Err("`batch_dims` is not supported".to_owned());
    }
    let zeros = of(v.ty(d).dtype, &shape)?;
    let zeros = v.zeros(&zeros)?;
    let add = [("reduction", Attr::from("add"))];
    Ok(vec![Some(v.op_with(Op::ScatterND, &[zeros, indices, d], &add)?)])
}

/// Of `Slice` with steps of 1: δ, the shape of the data, starts, ends, axes and steps.
pub(super) fn slice(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, shape) = (v.x(0)?, v.known(1)?);
    let ty = of(v.ty(d).dtype, &shape)?;
    let mut attrs = crate::attr::Attrs::new();
    for (i, name) in [(2, "starts"), (3, "ends"), (4, "axes"), (5, "steps")] {
        if v.given(i).is_some() {
            attrs.insert(name.to_owned(), Attr::Ints(v.known(i)?));
        }
    }
    let call = Call { op: Op::Slice, attrs: &attrs, inputs: &[Some(&ty)], outputs: 1 };
    let ranges = slice_ranges(&call, &ty.shape)?;
    if ranges.iter().any(|r| r.step != 1) {
        return Err("only steps of 1 are supported".to_owned());
    }
    let before = ranges.iter().map(|r| r.start as i64);
    let after = ranges.iter().zip(&ty.shape).map(|(r, &n)| (n - r.start - r.len) as i64);
    let pads: Vec<i64> = before.chain(after).collect();
    Ok(vec![Some(v.op_with(Op::Pad, &[d], &[("pads", pads.into())])?)])
}
