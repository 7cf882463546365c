//! Ops that only move elements along strides, seen as one walk over their input each.

use crate::host::strided::{Strided, broadcast_strides};
use pam_ir::geometry::slice_ranges;
use pam_ir::graph::{Graph, Node};
use pam_ir::op::{Op, normalize_axis};
use pam_ir::tensor::strides;

/// The walk over input 0 that gives output `k` of a node, where the op is such a movement.
///
/// # Errors
/// Where the attributes do not fit the shapes.
pub fn walk(graph: &Graph, node: &Node, k: usize) -> Result<Option<Strided>, String> {
    let (Some(input), Some(output)) = (node.input(0), node.output(k)) else { return Ok(None) };
    let (from, to) = (&graph.ty(input).shape, &graph.ty(output).shape);
    let own: Vec<isize> = strides(from).iter().map(|&s| s as isize).collect();
    let same_type = graph.ty(input).dtype == graph.ty(output).dtype;
    let same_size = graph.ty(input).dtype.size() == graph.ty(output).dtype.size();
    Ok(match node.op {
        Op::Identity | Op::Reshape | Op::Flatten | Op::Squeeze | Op::Unsqueeze => {
            Some(Strided::new(from, &own, 0))
        }
        Op::Cast if same_type => Some(Strided::new(from, &own, 0)),
        Op::BitCast if same_size => Some(Strided::new(from, &own, 0)),
        Op::Expand => Some(Strided::new(to, &broadcast_strides(from, to), 0)),
        Op::Transpose => {
            let reverse: Vec<i64> = (0..from.len() as i64).rev().collect();
            let perm = node.ints("perm").unwrap_or(&reverse);
            let axes: Vec<usize> =
                perm.iter().map(|&a| normalize_axis(a, from.len())).collect::<Result<_, _>>()?;
            let moved: Vec<isize> = axes.iter().map(|&a| own[a]).collect();
            Some(Strided::new(to, &moved, 0))
        }
        Op::Tile => {
            let repeats = node.ints("repeats").ok_or("attribute `repeats` is missing")?;
            let (mut dims, mut moved) = (Vec::new(), Vec::new());
            for ((&d, &s), &r) in from.iter().zip(&own).zip(repeats) {
                dims.extend([r.max(0) as usize, d]);
                moved.extend([0, s]);
            }
            Some(Strided::new(&dims, &moved, 0))
        }
        Op::Slice => Some(slice(graph, node, from, &own)?),
        Op::Split => {
            let axis = normalize_axis(node.int("axis").unwrap_or(0), from.len())?;
            let before = node.outputs[..k].iter().enumerate().map(|(i, v)| match v {
                Some(v) => Ok(graph.ty(*v).shape[axis]),
                None => split_size(node, from[axis], i),
            });
            let begin = before.sum::<Result<usize, String>>()?;
            Some(Strided::new(to, &own, begin as isize * own[axis]))
        }
        Op::DepthToSpace => {
            let b = block(node)?;
            let [n, c, h, w] = four(from)?;
            let c = c / (b * b);
            // From n, (b, b, c) or (c, b, b), h, w to n, c, h, b, w, b.
            let (image, row) = ((h * w) as isize, w as isize);
            let (sc, sb0, sb1) = match node.str("mode") {
                Some("CRD") => ((b * b) as isize * image, b as isize * image, image),
                _ => (image, (b * c) as isize * image, c as isize * image),
            };
            let batch = (b * b * c) as isize * image;
            Some(Strided::new(&[n, c, h, b, w, b], &[batch, sc, row, sb0, 1, sb1], 0))
        }
        Op::SpaceToDepth => {
            let b = block(node)?;
            let [n, c, h, w] = four(from)?;
            let (image, row, step) = ((h * w) as isize, w as isize, b as isize);
            Some(Strided::new(
                &[n, b, b, c, h / b, w / b],
                &[c as isize * image, row, 1, image, step * row, step],
                0,
            ))
        }
        _ => None,
    })
}

fn block(node: &Node) -> Result<usize, String> {
    match node.int("blocksize") {
        Some(b) if b > 0 => Ok(b as usize),
        _ => Err("attribute `blocksize` must be positive".to_owned()),
    }
}

fn four(shape: &[usize]) -> Result<[usize; 4], String> {
    shape.try_into().map_err(|_| format!("takes rank 4, not {}", shape.len()))
}

/// The size of part `i` of a split whose output is not asked for.
fn split_size(node: &Node, dim: usize, i: usize) -> Result<usize, String> {
    if let Some(sizes) = node.ints("split") {
        return Ok(sizes.get(i).copied().unwrap_or(0).max(0) as usize);
    }
    let parts = node.int("num_outputs").map_or(node.outputs.len(), |n| n.max(1) as usize);
    let size = dim.div_ceil(parts);
    Ok(size.min(dim.saturating_sub(i * size)))
}

fn slice(graph: &Graph, node: &Node, from: &[usize], own: &[isize]) -> Result<Strided, String> {
    let ranges = graph.with_call(node, |call| slice_ranges(call, from))?;
    let dims: Vec<usize> = ranges.iter().map(|r| r.len).collect();
    let strides: Vec<isize> = ranges.iter().zip(own).map(|(r, s)| r.step as isize * s).collect();
    let offset = ranges.iter().zip(own).map(|(r, s)| r.start as isize * s).sum();
    Ok(Strided::new(&dims, &strides, offset))
}
