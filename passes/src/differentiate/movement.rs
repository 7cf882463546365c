//! Derivatives of ops that move elements: the cotangent moves back.

use super::indexing::{self, scattered_rows};
use super::selection::integers;
use super::vjp::{Result, Vjp};
use crate::lower::LowerError;
use pam_ir::attr::Attr;
use pam_ir::geometry::{padded_positions, slice_ranges};
use pam_ir::graph::ValueId;
use pam_ir::op::Op;
use pam_ir::tensor::Tensor;

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
        _ => return indexing::apply(v),
    }
    Ok(true)
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
    let axis = v.axis(v.shape(d).len())?;
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
    let axis = v.axis(ty.rank())?;
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
    if v.node().op == Op::Pad && v.wants(1) {
        filling(v, &positions, d)?;
    }
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

/// The number that a border is filled with gets the sum of the border.
fn filling(v: &mut Vjp<'_, '_, '_>, positions: &[Vec<Option<usize>>], d: ValueId) -> Result {
    let mut inside = None;
    for (axis, sources) in positions.iter().enumerate() {
        let mut shape = vec![1; positions.len()];
        shape[axis] = sources.len();
        let own: Vec<bool> = sources.iter().map(Option::is_some).collect();
        let own = v.constant(Tensor::new(shape, own));
        inside = Some(match inside {
            None => own,
            Some(before) => v.op(Op::And, &[before, own], &[])?,
        });
    }
    let Some(inside) = inside else { return Ok(()) };
    let zero = v.number(0.0, d)?;
    let border = v.select(inside, zero, d)?;
    let axes: Vec<usize> = (0..positions.len()).collect();
    let sum = v.sum(border, &axes)?;
    let shape = v.type_of(1)?.shape;
    let sum = v.reshape(sum, &shape)?;
    v.give(1, sum)
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
