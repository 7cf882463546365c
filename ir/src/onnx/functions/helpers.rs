//! The helper attributes of calls: numbers that a function's body could only get by multiplying.

use crate::attr::Attr;
use crate::geometry::{reduced_axes, reduction_passes, windows};
use crate::graph::{Graph, Node};
use crate::op::Op;
use crate::role::Mode;
use crate::types::DType;

type Helpers = Vec<(&'static str, Attr)>;

/// The helper attributes of a call of a PA primitive.
///
/// # Errors
/// Where the node is not well formed.
pub fn helper_attributes(graph: &Graph, node: &Node) -> Result<Helpers, String> {
    let shape = |i: usize| -> Result<Vec<usize>, String> {
        let v = node.input(i).ok_or_else(|| format!("input {i} is missing"))?;
        Ok(graph.ty(v).shape.clone())
    };
    let output = || -> Result<Vec<usize>, String> {
        let v = node.output(0).ok_or("the output is missing")?;
        Ok(graph.ty(v).shape.clone())
    };
    let mut helpers = Helpers::new();
    match node.op {
        Op::PamScale => {
            let exponent = node.int("exponent").unwrap_or(0);
            helpers.push(("shift", (exponent.clamp(-400, 400) << 23).into()));
        }
        Op::PamRound => helpers.push(rounding(node)),
        Op::PamMatMul => {
            helpers.push(rounding(node));
            helpers.push(("shape", output()?.as_slice().into()));
            helpers.push(("perm_a", to_front(shape(0)?.len(), 1)?));
            helpers.push(("perm_b", to_front(shape(1)?.len(), 2)?));
        }
        Op::PamMatMulGradA => {
            helpers.push(rounding(node));
            helpers.push(("shape", output()?.as_slice().into()));
            helpers.push(("perm_a", to_front(shape(2)?.len(), 1)?));
            helpers.push(("perm_b", to_front(shape(1)?.len(), 1)?));
        }
        Op::PamMatMulGradB => {
            helpers.push(rounding(node));
            helpers.push(("shape", output()?.as_slice().into()));
            helpers.push(("perm_a", to_front(shape(0)?.len(), 2)?));
            helpers.push(("perm_b", to_front(shape(2)?.len(), 2)?));
        }
        Op::PamConv => {
            helpers.push(rounding(node));
            convolution(graph, node, &shape(0)?, &shape(1)?, &output()?, &mut helpers)?;
        }
        Op::PamUniform => {
            let count: usize = output()?.iter().product();
            helpers.push(("count", Attr::Ints(vec![count as i64])));
        }
        _ => {}
    }
    Ok(helpers)
}

/// Lanes of a sum, and elements of a lane in a chunk.
const LANES: usize = 16;
const STEPS: usize = 256;

/// The attributes of a call of the function that sums in the documented order, in place of a `ReduceSum`;
/// `None` for a node that the standard op is written for: one that is native or not of f32, one whose
/// axes are not neighbours, and one of no elements.
pub fn sum_attributes(graph: &Graph, node: &Node) -> Option<Vec<(&'static str, Attr)>> {
    let (x, y) = (graph.ty(node.input(0)?), graph.ty(node.output(0)?));
    if node.op != Op::ReduceSum || node.mode == Mode::Native || x.dtype != DType::F32 {
        return None;
    }
    let axes = graph.with_call(node, |call| reduced_axes(call, x.rank())).ok()?;
    let [[outer, reduced, inner]] = reduction_passes(&x.shape, &axes)[..] else { return None };
    if x.elements() == 0 {
        return None;
    }
    let chunks = reduced.div_ceil(LANES * STEPS);
    let steps = if chunks > 1 { STEPS } else { reduced.div_ceil(LANES) };
    let missing = chunks * steps * LANES - reduced;
    let ints = |v: &[usize]| Attr::from(v);
    Some(vec![
        ("axes", ints(&axes)),
        ("keepdims", node.int("keepdims").unwrap_or(1).into()),
        ("view", ints(&[outer, reduced, inner])),
        ("padding", ints(&[0, 0, 0, missing, 0, 0])),
        ("split", ints(&[chunks, steps, LANES, outer, inner])),
        ("lanes", ints(&[chunks, LANES, outer, inner])),
        ("total", ints(&[outer, inner])),
        ("shape", ints(&y.shape)),
    ])
}

/// The last kept bit, half of it less one, and the mask of the kept bits.
fn rounding(node: &Node) -> (&'static str, Attr) {
    let dropped = 23 - node.int("mantissa").unwrap_or(23).clamp(0, 23);
    let values = match dropped {
        0 => vec![0, 0, -1],
        n => vec![1 << n, (1 << (n - 1)) - 1, -(1 << n)],
    };
    ("rounding", Attr::Ints(values))
}

/// The permutation that brings the axis `from_end` places from the end to the front.
fn to_front(rank: usize, from_end: usize) -> Result<Attr, String> {
    let axis = rank.checked_sub(from_end).filter(|_| rank >= 2);
    let axis = axis.ok_or_else(|| format!("an operand of rank {rank}"))? as i64;
    let rest = (0..rank as i64).filter(|&a| a != axis);
    Ok(Attr::Ints(std::iter::once(axis).chain(rest).collect()))
}

fn convolution(
    graph: &Graph,
    node: &Node,
    x: &[usize],
    w: &[usize],
    y: &[usize],
    helpers: &mut Helpers,
) -> Result<(), String> {
    let own = graph.with_call(node, |c| windows(c, &x[2..], &w[2..]))?;
    if own.len() > 3 {
        return Err("a convolution of more than three spatial axes".to_owned());
    }
    let unit = crate::geometry::Window {
        input: 1,
        kernel: 1,
        stride: 1,
        dilation: 1,
        input_dilation: 1,
        before: 0,
        after: 0,
        output: 1,
    };
    let mut axes = vec![unit; 3 - own.len()];
    axes.extend(own);
    let group = node.int("group").unwrap_or(1);
    let [n, c, m, inner] = [x[0], x[1], w[0], w[1]].map(|d| d as i64);
    let each = |f: &dyn Fn(&crate::geometry::Window) -> i64| axes.iter().map(f).collect::<Vec<_>>();
    let extents = each(&|a| (a.input as i64 - 1) * a.input_dilation as i64 + 1);
    let mut add = |name: &'static str, parts: &[&[i64]]| {
        helpers.push((name, Attr::Ints(parts.concat())));
    };
    let interleaved = |ones: bool| -> Vec<i64> {
        let pair = |a: &crate::geometry::Window| {
            if ones { [a.input as i64, 1] } else { [0, a.input_dilation as i64 - 1] }
        };
        axes.iter().flat_map(pair).collect()
    };
    add("split", &[&[n, c], &interleaved(true)]);
    add("split_pads", &[&[0; 8], &[0, 0], &interleaved(false)]);
    add("dilated", &[&[n, c], &each(&|a| (a.input * a.input_dilation) as i64)]);
    add("crop_starts", &[&each(&|a| (-a.before).max(0))]);
    let ends: Vec<i64> = axes.iter().zip(&extents).map(|(a, e)| e - (-a.after).max(0)).collect();
    add("crop_ends", &[&ends]);
    let (before, after) = (each(&|a| a.before.max(0)), each(&|a| a.after.max(0)));
    add("padding", &[&[0, 0], &before, &[0, 0], &after]);
    let padded: Vec<i64> = axes.iter().zip(&extents).map(|(a, e)| e + a.before + a.after).collect();
    add("grouped", &[&[n, group, inner], &padded]);
    let elements: i64 = w[1..].iter().map(|&d| d as i64).product();
    add("kernel", &[&[group, m / group, elements]]);
    add("taps", &[&[inner], &each(&|a| a.kernel as i64)]);
    add("tap_steps", &[&[1], &each(&|a| a.dilation as i64)]);
    add("extent", &[&[1], &each(&|a| (a.output as i64 - 1) * a.stride as i64 + 1)]);
    add("steps", &[&[1], &each(&|a| a.stride as i64)]);
    add("sums", &[&[n, group, m / group], &each(&|a| a.output as i64)]);
    let shape: Vec<i64> = y.iter().map(|&d| d as i64).collect();
    add("shape", &[&shape]);
    Ok(())
}
