//! Derivatives of ops that pick elements by indices or put them there: the cotangent goes the other way.

use super::marks;
use super::selection::integers;
use super::vjp::{Result, Vjp};
use crate::lower::LowerError;
use pam_ir::geometry::windows;
use pam_ir::graph::ValueId;
use pam_ir::op::Op;
use pam_ir::tensor::Tensor;
use pam_ir::types::{DType, Type};

/// Gives the cotangents of the inputs of a node that picks or puts; whether it does.
pub(super) fn apply(v: &mut Vjp<'_, '_, '_>) -> Result<bool> {
    match v.node().op {
        Op::Gather => gather(v)?,
        Op::GatherElements => {
            let (indices, d, ty) = (v.x(1)?, v.delta()?, v.type_of(0)?);
            let zeros = v.zeros(&ty)?;
            let mut attrs = v.copied(&["axis"]);
            attrs.push(("reduction", "add".into()));
            let cotangent = v.op(Op::ScatterElements, &[zeros, indices, d], &attrs)?;
            v.give(0, cotangent)?;
        }
        Op::GatherND => {
            let (indices, d, ty) = (full_indices(v)?, v.delta()?, v.type_of(0)?);
            let zeros = v.zeros(&ty)?;
            let attrs = [("reduction", "add".into())];
            let cotangent = v.op(Op::ScatterND, &[zeros, indices, d], &attrs)?;
            v.give(0, cotangent)?;
        }
        Op::ScatterElements | Op::ScatterND => scatter(v)?,
        Op::Col2Im => col2im(v)?,
        Op::MaxUnpool => {
            let (indices, d, ty) = (v.x(1)?, v.delta()?, v.type_of(0)?);
            let n = v.ty(d).elements();
            let flat = v.reshape(d, &[n])?;
            let indices = v.reshape(indices, &[ty.elements()])?;
            let picked = v.op(Op::GatherElements, &[flat, indices], &[("axis", 0i64.into())])?;
            let cotangent = v.reshape(picked, &ty.shape)?;
            v.give(0, cotangent)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The rows that were picked are added to zeros where they came from.
fn gather(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (indices, mut d, shape) = (v.x(1)?, v.delta()?, v.type_of(0)?.shape);
    if let Some(row) = marks::padding_row(v.node()) {
        d = without_row(v, d, row)?;
    }
    let axis = v.axis(shape.len())?;
    let cotangent = scattered_rows(v, indices, d, axis, &shape)?;
    v.give(0, cotangent)
}

/// Zeros of a shape, to whose rows along an axis those of `d` are added: what was picked by `Gather`.
pub(super) fn scattered_rows(
    v: &mut Vjp<'_, '_, '_>,
    indices: ValueId,
    d: ValueId,
    axis: usize,
    shape: &[usize],
) -> Result<ValueId> {
    let picked = v.shape(indices);
    // The axes of the indices and that of the rows are brought to the front.
    let (n, rank) = (picked.len(), shape.len());
    let perm: Vec<usize> = (axis..axis + n).chain(0..axis).chain(axis + n..rank - 1 + n).collect();
    let updates = v.transpose(d, &perm)?;
    let column = v.reshape(indices, &[&picked[..], &[1]].concat())?;
    // Those of ScatterND are of 64 bits, those of Gather of either width.
    let column =
        if v.ty(column).dtype == DType::I64 { column } else { v.cast(column, DType::I64)? };
    let order: Vec<usize> = std::iter::once(axis).chain((0..rank).filter(|&a| a != axis)).collect();
    let front: Vec<usize> = order.iter().map(|&a| shape[a]).collect();
    let zeros = v.zeros(&Type::new(v.ty(d).dtype, front))?;
    let attrs = [("reduction", "add".into())];
    let sums = v.op(Op::ScatterND, &[zeros, column, updates], &attrs)?;
    let mut inverse = vec![0; rank];
    for (i, &a) in order.iter().enumerate() {
        inverse[a] = i;
    }
    v.transpose(sums, &inverse)
}

/// The indices of a `GatherND` with those of its batch axes before them, as `ScatterND` wants them.
fn full_indices(v: &mut Vjp<'_, '_, '_>) -> Result<ValueId> {
    let indices = v.x(1)?;
    let (shape, dtype) = (v.shape(indices), v.ty(indices).dtype);
    let batch = v.node().int("batch_dims").unwrap_or(0) as usize;
    let Some((_, tuples)) = shape.split_last().filter(|_| batch > 0) else { return Ok(indices) };
    let mut columns = Vec::new();
    for axis in 0..batch {
        let mut along = vec![1; shape.len()];
        along[axis] = shape[axis];
        let places = integers(v, &along, (0..shape[axis] as i64).collect());
        let places = v.cast(places, dtype)?;
        columns.push(v.expand(places, &[tuples, &[1]].concat())?);
    }
    columns.push(indices);
    v.op(Op::Concat, &columns, &[("axis", (-1i64).into())])
}

/// Each element of a block takes the cotangent of the place in the image that it was added to, and 0 in the border.
fn col2im(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (d, ty) = (v.delta()?, v.type_of(0)?);
    let to = v.shape(d);
    let (outer, image) = to.split_at(2);
    let block = v.node().ints("block_shape").unwrap_or(&[]);
    let kernel: Vec<usize> = block.iter().map(|&k| k as usize).collect();
    let axes = v.call(|call| windows(call, image, &kernel))?;
    let place = |mut element: usize, mut window: usize| {
        let (mut flat, mut step) = (0, 1);
        for axis in axes.iter().rev() {
            let (k, w) = (element % axis.kernel, window % axis.output);
            (element, window) = (element / axis.kernel, window / axis.output);
            let at = (w * axis.stride + k * axis.dilation) as i64 - axis.before;
            flat += usize::try_from(at).ok().filter(|&at| at < axis.input)? * step;
            step *= axis.input;
        }
        Some(flat as i64)
    };
    // Behind the image stands a zero for the border.
    let size: usize = image.iter().product();
    let count = axes.iter().map(|a| a.output).product();
    let elements = 0..kernel.iter().product::<usize>();
    let places = elements.flat_map(|e| (0..count).map(move |w| (e, w)));
    let rows: Vec<i64> = places.map(|(e, w)| place(e, w).unwrap_or(size as i64)).collect();
    let rows = integers(v, &[rows.len()], rows);
    let flat = v.reshape(d, &[outer, &[size]].concat())?;
    let bordered = v.op(Op::Pad, &[flat], &[("pads", vec![0i64, 0, 0, 0, 0, 1].into())])?;
    let picked = v.op(Op::Gather, &[bordered, rows], &[("axis", 2i64.into())])?;
    let cotangent = v.reshape(picked, &ty.shape)?;
    v.give(0, cotangent)
}

/// Rows of the cotangent, but zeros where row `row` was picked.
fn without_row(v: &mut Vjp<'_, '_, '_>, d: ValueId, row: i64) -> Result<ValueId> {
    let indices = v.x(1)?;
    let row = v.constant(Tensor::scalar(row));
    let dtype = v.ty(indices).dtype;
    let row = v.cast(row, dtype)?;
    let padding = v.op(Op::Equal, &[indices, row], &[])?;
    let column = [v.shape(indices), vec![1; v.shape(d).len() - v.shape(indices).len()]].concat();
    let padding = v.reshape(padding, &column)?;
    let zero = v.number(0.0, d)?;
    v.select(padding, zero, d)
}

/// Updates take the cotangents of the places they went to; data keeps those that were not replaced.
fn scatter(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (indices, d) = (v.x(1)?, v.delta()?);
    let (node, attrs) = (v.node(), v.copied(&["axis"]));
    let added = match node.str("reduction") {
        None | Some("none") => false,
        Some("add") => true,
        Some("max" | "min") => return scattered_extremes(v),
        Some(other) => return Err(LowerError(format!("no derivative with reduction `{other}`"))),
    };
    if v.wants(2) {
        let pick = if node.op == Op::ScatterND { Op::GatherND } else { Op::GatherElements };
        let cotangent = v.op(pick, &[d, indices], &attrs)?;
        v.give(2, cotangent)?;
    }
    if v.wants(0) {
        let mut cotangent = d;
        if !added {
            let ty = v.type_of(2)?;
            let zeros = v.zeros(&ty)?;
            cotangent = v.op(node.op, &[d, indices, zeros], &attrs)?;
        }
        v.give(0, cotangent)?;
    }
    Ok(())
}

/// Equal extremes of one place share its cotangent evenly, as in PyTorch.
fn scattered_extremes(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (data, indices, updates) = (v.x(0)?, v.x(1)?, v.x(2)?);
    let (y, d, node) = (v.y()?, v.delta()?, v.node());
    let axis = v.copied(&["axis"]);
    let pick = if node.op == Op::ScatterND { Op::GatherND } else { Op::GatherElements };
    let reached = v.op(pick, &[y, indices], &axis)?;
    let (kept, won) =
        (v.op(Op::Equal, &[data, y], &[])?, v.op(Op::Equal, &[updates, reached], &[])?);
    let dtype = v.ty(d).dtype;
    let (own, others) = (v.cast(kept, dtype)?, v.cast(won, dtype)?);
    let sums = [&axis[..], &[("reduction", "add".into())]].concat();
    let count = v.op(node.op, &[own, indices, others], &sums)?;
    let share = v.div(d, count)?;
    let zero = v.number(0.0, d)?;
    let cotangent = v.select(kept, share, zero)?;
    v.give(0, cotangent)?;
    let shares = v.op(pick, &[share, indices], &axis)?;
    let cotangent = v.select(won, shares, zero)?;
    v.give(2, cotangent)
}
