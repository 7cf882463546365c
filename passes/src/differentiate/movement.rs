//! Derivatives of ops that move elements: the cotangent moves back.

use super::marks;
use super::selection::integers;
use super::vjp::{Result, Vjp};
use crate::lower::LowerError;
use pam_ir::attr::Attr;
use pam_ir::geometry::{padded_positions, slice_ranges, windows};
use pam_ir::graph::ValueId;
use pam_ir::op::{Op, normalize_axis};
use pam_ir::tensor::Tensor;
use pam_ir::types::{DType, Type};

/// Gives the cotangents of the inputs of a node that moves elements; whether it does.
pub(super) fn apply(v: &mut Vjp<'_, '_, '_>) -> Result<bool> {
    match v.node().op {
        Op::Reshape | Op::Flatten | Op::Squeeze | Op::Unsqueeze => {
            let (d, shape) = (v.delta()?, v.type_of(0)?.shape);
            let cotangent = v.reshape(d, &shape)?;
            v.give(0, cotangent)?;
        }
        Op::Transpose => {
            let (d, rank) = (v.delta()?, v.type_of(0)?.rank());
            let reversed: Vec<i64> = (0..rank as i64).rev().collect();
            let mut inverse = vec![0; rank];
            for (i, &p) in v.node().ints("perm").unwrap_or(&reversed).iter().enumerate() {
                inverse[p as usize] = i;
            }
            let cotangent = v.transpose(d, &inverse)?;
            v.give(0, cotangent)?;
        }
        // Broadcasting is undone where the cotangent is given.
        Op::Expand => {
            let d = v.delta()?;
            v.give(0, d)?;
        }
        Op::Tile => tile(v)?,
        Op::Concat => concat(v)?,
        Op::Split => split(v)?,
        Op::Slice => slice(v)?,
        Op::Pad | Op::CenterCropPad => pad(v)?,
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
        Op::Trilu => {
            let (d, attrs) = (v.delta()?, v.copied(&["k", "upper"]));
            let cotangent = v.op(Op::Trilu, &[d], &attrs)?;
            v.give(0, cotangent)?;
        }
        Op::CumSum => {
            let d = v.delta()?;
            let mut attrs = v.copied(&["axis", "exclusive"]);
            let reverse = 1 - v.node().int("reverse").unwrap_or(0);
            attrs.push(("reverse", reverse.into()));
            let cotangent = v.op(Op::CumSum, &[d], &attrs)?;
            v.give(0, cotangent)?;
        }
        Op::ReverseSequence => {
            let (lengths, d) = (v.x(1)?, v.delta()?);
            let attrs = v.copied(&["batch_axis", "time_axis"]);
            let cotangent = v.op(Op::ReverseSequence, &[d, lengths], &attrs)?;
            v.give(0, cotangent)?;
        }
        Op::SpaceToDepth => {
            let (d, attrs) = (v.delta()?, v.copied(&["blocksize"]));
            let cotangent = v.op(Op::DepthToSpace, &[d], &attrs)?;
            v.give(0, cotangent)?;
        }
        Op::DepthToSpace => depth_to_space(v)?,
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

fn axis(v: &Vjp<'_, '_, '_>, rank: usize) -> Result<usize> {
    Ok(normalize_axis(v.node().int("axis").unwrap_or(0), rank)?)
}

/// Repetitions are summed.
fn tile(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (d, shape) = (v.delta()?, v.type_of(0)?.shape);
    let repeats = v.node().ints("repeats").unwrap_or(&[]).to_vec();
    let pairs = repeats.iter().zip(&shape).flat_map(|(&r, &n)| [r as usize, n]);
    let pairs: Vec<usize> = pairs.collect();
    let split = v.reshape(d, &pairs)?;
    let axes: Vec<usize> = (0..shape.len()).map(|a| 2 * a).collect();
    let sum = v.sum(split, &axes)?;
    let cotangent = v.reshape(sum, &shape)?;
    v.give(0, cotangent)
}

/// A range of one axis.
fn range(
    v: &mut Vjp<'_, '_, '_>,
    x: ValueId,
    axis: usize,
    start: usize,
    end: usize,
) -> Result<ValueId> {
    let attrs: [(&str, Attr); 3] = [
        ("starts", vec![start as i64].into()),
        ("ends", vec![end as i64].into()),
        ("axes", vec![axis as i64].into()),
    ];
    v.op(Op::Slice, &[x], &attrs)
}

fn concat(v: &mut Vjp<'_, '_, '_>) -> Result {
    let d = v.delta()?;
    let axis = axis(v, v.shape(d).len())?;
    let mut start = 0;
    for i in 0..v.node().inputs.len() {
        let end = start + v.type_of(i)?.shape[axis];
        if v.wants(i) {
            let cotangent = range(v, d, axis, start, end)?;
            v.give(i, cotangent)?;
        }
        start = end;
    }
    Ok(())
}

/// Parts that nothing depends on count as zeros.
fn split(v: &mut Vjp<'_, '_, '_>) -> Result {
    let ty = v.type_of(0)?;
    let axis = axis(v, ty.rank())?;
    let types = v.call(|call| (call.op.row().infer)(call))?;
    let mut parts = Vec::with_capacity(types.len());
    for (i, ty) in types.iter().enumerate() {
        parts.push(match v.delta_of(i) {
            Some(d) => d,
            None => v.zeros(ty)?,
        });
    }
    let cotangent = v.op(Op::Concat, &parts, &[("axis", (axis as i64).into())])?;
    v.give(0, cotangent)
}

/// The cotangent is turned round where the step was negative, spread by the step, and padded with zeros.
fn slice(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (d, shape) = (v.delta()?, v.type_of(0)?.shape);
    let ranges = v.call(|call| slice_ranges(call, &shape))?;
    let backwards: Vec<usize> = (0..shape.len()).filter(|&a| ranges[a].step < 0).collect();
    let mut cotangent = v.reversed(d, &backwards)?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (a, range) in ranges.iter().enumerate() {
        let step = range.step.unsigned_abs() as usize;
        let reach = range.len.saturating_sub(1).saturating_mul(step);
        let first = if range.step < 0 { range.start - reach } else { range.start };
        cotangent = v.dilate(cotangent, a, if range.len > 1 { step } else { 1 })?;
        let covered = if range.len == 0 { 0 } else { reach + 1 };
        before.push(if range.len == 0 { 0 } else { first as i64 });
        after.push(shape[a] as i64 - covered as i64 - before[a]);
    }
    if before.iter().chain(&after).any(|&p| p != 0) {
        let pads: Vec<i64> = before.into_iter().chain(after).collect();
        cotangent = v.op(Op::Pad, &[cotangent], &[("pads", pads.into())])?;
    }
    v.give(0, cotangent)
}

/// Borders of constants are cut off, and zeros stand for what was cropped; elements that were repeated get the sum of
/// what their copies got, axis by axis.
fn pad(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (mut d, from) = (v.delta()?, v.type_of(0)?.shape);
    let to = v.shape(d);
    let positions = v.call(|call| padded_positions(call, &from, &to))?;
    if v.node().str("mode").is_some_and(|m| m != "constant") {
        for (axis, sources) in positions.iter().enumerate() {
            let rows: Vec<i64> = sources.iter().flatten().map(|&p| p as i64).collect();
            if rows.iter().copied().eq(0..from[axis] as i64) {
                continue;
            }
            let shape = [&from[..=axis], &to[axis + 1..]].concat();
            let rows = integers(v, &[rows.len()], rows);
            d = scattered_rows(v, rows, d, axis, &shape)?;
        }
        return v.give(0, d);
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (axis, sources) in positions.iter().enumerate() {
        let begin = sources.iter().zip(0i64..).find_map(|(p, i)| Some(i - (*p)? as i64));
        // Nothing of the input is left.
        let Some(begin) = begin else {
            let zeros = v.zeros(&v.type_of(0)?)?;
            return v.give(0, zeros);
        };
        before.push(-begin);
        after.push(from[axis] as i64 - to[axis] as i64 + begin);
    }
    let cotangent = v.op(Op::Pad, &[d], &[("pads", [before, after].concat().into())])?;
    v.give(0, cotangent)
}

/// The rows that were picked are added to zeros where they came from.
fn gather(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (indices, mut d, shape) = (v.x(1)?, v.delta()?, v.type_of(0)?.shape);
    if let Some(row) = marks::padding_row(v.node()) {
        d = without_row(v, d, row)?;
    }
    let axis = axis(v, shape.len())?;
    let cotangent = scattered_rows(v, indices, d, axis, &shape)?;
    v.give(0, cotangent)
}

/// Zeros of a shape, to whose rows along an axis those of `d` are added: what was picked by `Gather`.
fn scattered_rows(
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

fn depth_to_space(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (d, ty) = (v.delta()?, v.type_of(0)?);
    if v.node().str("mode") != Some("CRD") {
        let attrs = v.copied(&["blocksize"]);
        let cotangent = v.op(Op::SpaceToDepth, &[d], &attrs)?;
        return v.give(0, cotangent);
    }
    let b = v.node().int("blocksize").unwrap_or(1) as usize;
    let [n, c, h, w] = ty.shape[..] else {
        return Err(LowerError(format!("takes images, not {ty}")));
    };
    let split = v.reshape(d, &[n, c / (b * b), h, b, w, b])?;
    let turned = v.transpose(split, &[0, 1, 3, 5, 2, 4])?;
    let cotangent = v.reshape(turned, &ty.shape)?;
    v.give(0, cotangent)
}
