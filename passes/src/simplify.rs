//! Simplify: rewritings that never change a bit.
//!
//! | rule | before | after |
//! |---|---|---|
//! | identity | `Identity(x)`; a `Reshape`, `Expand`, `Transpose` or `Cast` to what x is already | x |
//! | types alone | `CastLike(x, y)` | `Cast(x)` |
//! | back and forth | `Neg(Neg(x))` | x |
//! | transposes | `Transpose(Transpose(x) {p}) {q}` | `Transpose(x) {p[q]}` |
//! | reshapes | `Reshape(Reshape(x))` | `Reshape(x)` |
//! | signs | `Add(x, Neg(y))`, `Sub(x, Neg(y))` | `Sub(x, y)`, `Add(x, y)` |
//! | sums | `ReduceSum(x)` of f32 over axes that are not neighbours, or not stated | a `ReduceSum` over stated axes for each run of neighbours, the innermost first, as the sum is defined |
//! | same | `y = f(x) {…}`, `z = f(x) {…}`, f not random | y in place of z |
//! | dead | `y = f(x)`, y unused | nothing |
//!
//! Not here: scalings by powers of two that follow each other, since a subnormal between them is
//! rounded; and `x + 0`, which turns −0 into 0.

use pam_ir::attr::{Attr, Attrs};
use pam_ir::build::{Rebuild, Scope};
use pam_ir::geometry::{reduced_axes, reduction_passes};
use pam_ir::graph::{Graph, Node, ValueId};
use pam_ir::op::Op;
use pam_ir::types::DType;
use std::collections::HashMap;
use std::fmt::Write;

/// Applies all rules.
pub(crate) fn simplify(graph: &Graph) -> Graph {
    let mut known: HashMap<String, Vec<Option<ValueId>>> = HashMap::new();
    let simpler = rebuilt(graph, |r, node| {
        if let Some((old, new)) = simpler(r, node) {
            r.set(old, new);
            return;
        }
        // Two draws of random numbers are two, however much alike.
        if is_random(node.op) {
            return r.copy(node);
        }
        let key = key(node, |v| r.get(v));
        if let Some(outputs) = known.get(&key) {
            let pairs = node.outputs.iter().zip(outputs);
            if pairs.clone().all(|(a, b)| a.is_none() || b.is_some()) {
                for (old, new) in pairs {
                    if let (Some(old), Some(new)) = (old, new) {
                        r.set(*old, *new);
                    }
                }
                return;
            }
        }
        r.copy(node);
        known.insert(key, node.outputs.iter().map(|v| v.map(|v| r.get(v))).collect());
    });
    // What the rules have bypassed is dead now.
    rebuilt(&simpler, |r, node| r.copy(node))
}

/// Rebuilds from the nodes that some output needs.
fn rebuilt(graph: &Graph, mut each: impl FnMut(&mut Rebuild<'_>, &Node)) -> Graph {
    let needed = graph.ancestors(graph.outputs.iter().map(|o| o.value));
    let result = graph.rebuild(|r, id, node| {
        if needed[id.index()] {
            each(r, node);
        }
        Ok::<(), std::convert::Infallible>(())
    });
    match result {
        Ok(graph) => graph,
        Err(never) => match never {},
    }
}

/// The value that takes the place of the node's output, by one of the rules that look at the node
/// and the producer of an operand.
fn simpler(r: &mut Rebuild<'_>, node: &Node) -> Option<(ValueId, ValueId)> {
    let [Some(y)] = node.outputs[..] else { return None };
    let x = r.get(node.input(0)?);
    let ty = r.old.ty(y).clone();
    let movement = matches!(node.op, Op::Reshape | Op::Expand | Op::Transpose | Op::Cast);
    let unmoved = node.op != Op::Transpose || perm(node, ty.rank()).is_some_and(|p| p.is_sorted());
    if node.op == Op::Identity || movement && unmoved && *r.to.ty(x) == ty {
        return Some((y, x));
    }
    let made = |r: &Rebuild<'_>, v: ValueId, op: Op| -> Option<Node> {
        let producer = r.to.graph().producer(v)?;
        Some(r.to.graph().node(producer)).filter(|n| n.op == op).cloned()
    };
    let append = |r: &mut Rebuild<'_>, op: Op, inputs: &[ValueId], attrs: &[(&str, Attr)]| {
        let Node { name, role, component, mode, origin, .. } = node.clone();
        r.to.scope = Scope { name, role, component, mode, origin };
        r.to.node(op, inputs, attrs).ok().map(|v| (y, v))
    };
    match node.op {
        // Of the other operand only the type counts.
        Op::CastLike if *r.to.ty(x) == ty => Some((y, x)),
        Op::CastLike => append(r, Op::Cast, &[x], &[("to", ty.dtype.into())]),
        Op::Neg => made(r, x, Op::Neg)?.input(0).map(|inner| (y, inner)),
        Op::Transpose => {
            let first = made(r, x, Op::Transpose)?;
            let (p, q) = (perm(&first, ty.rank())?, perm(node, ty.rank())?);
            let both: Vec<usize> =
                q.iter().map(|&i| p.get(i).copied()).collect::<Option<Vec<_>>>()?;
            let inner = first.input(0)?;
            if both.is_sorted() {
                return Some((y, inner));
            }
            append(r, Op::Transpose, &[inner], &[("perm", both.as_slice().into())])
        }
        Op::Reshape => {
            let inner = made(r, x, Op::Reshape)?.input(0)?;
            if *r.to.ty(inner) == ty {
                return Some((y, inner));
            }
            let shape = ("shape", ty.shape.as_slice().into());
            append(r, Op::Reshape, &[inner], &[shape, ("allowzero", 1i64.into())])
        }
        Op::ReduceSum if ty.dtype == DType::F32 => {
            let axes = r.old.with_call(node, |call| reduced_axes(call, r.to.ty(x).rank())).ok()?;
            let shape = r.to.ty(x).shape.clone();
            if axes.is_empty() {
                return Some((y, x));
            }
            if reduction_passes(&shape, &axes).len() == 1 {
                let keepdims = node.int("keepdims").unwrap_or(1);
                let attrs: [(&str, Attr); 2] =
                    [("axes", axes.as_slice().into()), ("keepdims", keepdims.into())];
                let stated: Attrs =
                    attrs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
                return if node.attrs == stated {
                    None
                } else {
                    append(r, Op::ReduceSum, &[x], &attrs)
                };
            }
            let mut v = x;
            for run in runs(&shape, &axes) {
                let attrs = [("axes", run.as_slice().into()), ("keepdims", 1i64.into())];
                (_, v) = append(r, Op::ReduceSum, &[v], &attrs)?;
            }
            let shape = ("shape", ty.shape.as_slice().into());
            if r.to.ty(v).shape == ty.shape {
                Some((y, v))
            } else {
                append(r, Op::Reshape, &[v], &[shape])
            }
        }
        Op::Add | Op::Sub if ty.dtype.is_float() => {
            let inner = made(r, r.get(node.input(1)?), Op::Neg)?.input(0)?;
            let op = if node.op == Op::Add { Op::Sub } else { Op::Add };
            append(r, op, &[x, inner], &[])
        }
        _ => None,
    }
}

/// Reduced axes in runs of neighbours, the innermost run first.
fn runs(shape: &[usize], axes: &[usize]) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let mut joined = false;
    for d in (0..shape.len()).rev() {
        if axes.contains(&d) {
            match runs.last_mut().filter(|_| joined) {
                Some(run) => run.insert(0, d),
                None => runs.push(vec![d]),
            }
            joined = true;
        } else if shape[d] != 1 {
            joined = false;
        }
    }
    runs
}

/// The permutation of a transposition.
fn perm(node: &Node, rank: usize) -> Option<Vec<usize>> {
    match node.attrs.get("perm") {
        Some(Attr::Ints(p)) => p.iter().map(|&i| usize::try_from(i).ok()).collect(),
        _ => Some((0..rank).rev().collect()),
    }
}

fn is_random(op: Op) -> bool {
    matches!(
        op,
        Op::Dropout
            | Op::RandomNormal
            | Op::RandomNormalLike
            | Op::RandomUniform
            | Op::RandomUniformLike
            | Op::Bernoulli
    )
}

/// Two nodes with equal keys compute the same bits.
fn key(node: &Node, get: impl Fn(ValueId) -> ValueId) -> String {
    let mut key = node.op.name().to_owned();
    for v in &node.inputs {
        let _ = match v {
            Some(v) => write!(key, " {}", get(*v).0),
            None => write!(key, " _"),
        };
    }
    let _ = write!(key, " {:?} {}", node.attrs, node.outputs.len());
    key
}

#[cfg(test)]
mod tests {
    use super::simplify;
    use pam_ir::text::{brief, parse};

    fn simplified(lines: &str) -> String {
        let graph = parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap();
        let text = brief(&simplify(&graph));
        let nodes = text.lines().filter(|l| !l.starts_with("  in") && l.starts_with("  "));
        nodes.map(str::trim).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn each_rule_fires() {
        let cases = [
            ("a: f32[2,3] = Identity(x)\nout y = a", "out y = x"),
            ("a: f32[2,3] = Reshape(x) {shape=[2, -1]}\nout y = a", "out y = x"),
            ("a: f32[2,3] = Transpose(x) {perm=[0, 1]}\nout y = a", "out y = x"),
            ("a: f32[2,3] = CastLike(x, w)\nout y = a", "out y = x"),
            (
                "n: i64[2,3] = Cast(w) {to=i64}\na: i64[2,3] = CastLike(x, n)\nout y = a",
                "a: i64[2,3] = Cast(x) {to=i64}; out y = a",
            ),
            ("a: f32[2,3] = Neg(x)\nb: f32[2,3] = Neg(a)\nout y = b", "out y = x"),
            ("a: f32[3,2] = Transpose(x)\nb: f32[2,3] = Transpose(a)\nout y = b", "out y = x"),
            (
                "a: f32[6] = Reshape(x) {shape=[6]}\nb: f32[3,2] = Reshape(a) {shape=[3, 2]}\n\
                 out y = b",
                "b: f32[3,2] = Reshape(x) {allowzero=1, shape=[3, 2]}; out y = b",
            ),
            (
                "a: f32[2,3] = Neg(x)\nb: f32[2,3] = Add(w, a)\nout y = b",
                "b: f32[2,3] = Sub(w, x); out y = b",
            ),
            (
                "a: f32[2,3] = Neg(x)\nb: f32[2,3] = Sub(w, a)\nout y = b",
                "b: f32[2,3] = Add(w, x); out y = b",
            ),
            (
                "a: f32[2,3] = Abs(x)\nb: f32[2,3] = Abs(x)\nc: f32[2,3] = Add(a, b)\nout y = c",
                "b: f32[2,3] = Abs(x); c: f32[2,3] = Add(b, b); out y = c",
            ),
            (
                "v: f32[2,3,4] = Expand(z) {shape=[2, 3, 4]}\n\
                 a: f32[3] = ReduceSum(v) {axes=[0, 2], keepdims=0}\nout y = a",
                "v: f32[2,3,4] = Expand(z) {shape=[2, 3, 4]}; \
                 a.ReduceSum: f32[2,3,1] = ReduceSum(v) {axes=[2], keepdims=1}; \
                 a.ReduceSum_3: f32[1,3,1] = ReduceSum(a.ReduceSum) {axes=[0], keepdims=1}; \
                 a: f32[3] = Reshape(a.ReduceSum_3) {shape=[3]}; out y = a",
            ),
            (
                "a: f32[2,3] = RandomNormalLike(x)\nb: f32[2,3] = RandomNormalLike(x)\n\
                 c: f32[2,3] = Sub(a, b)\nout y = c",
                "a: f32[2,3] = RandomNormalLike(x); b: f32[2,3] = RandomNormalLike(x); \
                 c: f32[2,3] = Sub(a, b); out y = c",
            ),
            ("a: f32[2,3] = Abs(x)\nout y = x", "out y = x"),
            ("a: f32[3,2] = Transpose(x)\nout y = a", "a: f32[3,2] = Transpose(x); out y = a"),
        ];
        for (before, after) in cases {
            let lines = format!("in x: f32[2,3]\nin w: f32[2,3]\nin z: f32[]\n{before}");
            assert_eq!(simplified(&lines), after, "{before}");
        }
    }
}
