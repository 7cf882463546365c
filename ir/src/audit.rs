//! Audit: what a graph multiplies as it stands.
//!
//! An audit judges nothing and rewrites nothing. It lists every node that multiplies natively, tells
//! floats from integers, and leaves out integer arithmetic that constants and shapes determine, which
//! costs nothing when the step runs.

use crate::certify::{Code, NativeMultiply, Target, Violation, native_multiplies, violations};
use crate::graph::{Graph, Node, Source};
use crate::onnx::functions::sum_attributes;
use crate::op::Op;
use std::collections::BTreeMap;

/// How often each op stands in a graph, by the op's ONNX name with its domain (`pam.mul`).
pub type Census = BTreeMap<String, usize>;

/// What a graph multiplies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Native multiplications, in the order of the nodes.
    pub multiplies: Vec<NativeMultiply>,
    /// Nodes of shape arithmetic: integer multiplications that are known before the step runs.
    pub fixed: usize,
    /// What may multiply: ops that the table does not know, primitives on types they are not defined for.
    pub unknown: Vec<Violation>,
}

impl Audit {
    /// Whether nothing multiplies.
    pub fn is_clean(&self) -> bool {
        self.multiplies.is_empty() && self.unknown.is_empty()
    }

    /// Nodes and scalar multiplications in all.
    pub fn total(&self) -> Tally {
        self.multiplies.iter().map(|m| Tally { nodes: 1, scalars: m.scalars }).sum()
    }
}

/// A number of nodes and of the scalar multiplications that one execution of them performs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Nodes.
    pub nodes: usize,
    /// Scalar multiplications, divisions, roots and transcendental evaluations.
    pub scalars: u128,
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Tally>>(iter: I) -> Tally {
        iter.fold(Tally::default(), |a, b| Tally {
            nodes: a.nodes + b.nodes,
            scalars: a.scalars.saturating_add(b.scalars),
        })
    }
}

/// Audits a graph.
pub fn audit(graph: &Graph) -> Audit {
    let fixed = fixed(graph);
    let mut audit = Audit::default();
    for multiply in native_multiplies(graph) {
        if !multiply.float && fixed[multiply.id.index()] {
            audit.fixed += 1;
        } else {
            audit.multiplies.push(multiply);
        }
    }
    audit.unknown = violations(graph, Target::Mixed)
        .into_iter()
        .filter(|v| matches!(v.code, Code::UnknownOp | Code::PrimitiveType))
        .collect();
    audit
}

/// Counts the ops of a graph.
pub fn census(graph: &Graph) -> Census {
    let mut census = Census::new();
    for node in &graph.nodes {
        *census.entry(op_name(node)).or_default() += 1;
    }
    census
}

/// The census of the file that a graph is written to, where sums are calls of their function, and further names of a
/// value are identities.
pub fn written_census(graph: &Graph) -> Census {
    let mut census = census(graph);
    let sums = graph.nodes.iter().filter(|n| sum_attributes(graph, n).is_some()).count();
    if let (1.., Some(all)) = (sums, census.get_mut(Op::ReduceSum.onnx_name())) {
        *all -= sums;
        census.retain(|_, n| *n > 0);
        census.insert("pam.sum".to_owned(), sums);
    }
    let identities = graph.aliases().count();
    if identities > 0 {
        *census.entry(qualified_name(Op::Identity)).or_default() += identities;
    }
    census
}

/// The op of a node as ONNX names it, with its domain where that is not the standard one.
pub fn op_name(node: &Node) -> String {
    match node.op {
        Op::Opaque => node.str("onnx").unwrap_or("unknown").to_owned(),
        op => qualified_name(op),
    }
}

/// The ONNX name of an op, with its domain where that is not the standard one.
pub fn qualified_name(op: Op) -> String {
    match op.domain() {
        "" => op.onnx_name().to_owned(),
        domain => format!("{domain}.{}", op.onnx_name()),
    }
}

/// Which nodes depend on nothing but constants and shapes.
fn fixed(graph: &Graph) -> Vec<bool> {
    let mut fixed = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let known = |v| match graph.value(v).source {
            Source::Input => false,
            Source::Constant => true,
            Source::Node { node, .. } => fixed[node.index()],
        };
        fixed[i] = matches!(node.op, Op::Shape | Op::Size)
            || node.inputs.iter().flatten().all(|&v| known(v));
    }
    fixed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;

    #[test]
    fn shape_arithmetic_is_told_from_multiplications() {
        let graph = parse(
            "graph g {
               in x: f32[2,3]
               in n: i64[]
               const c: i64[] = 4
               s: i64[2] = Shape(x)
               t: i64[2] = Mul(s, c)
               u: i64[] = Mul(n, c)
               y: f32[2,3] = Mul(x, x)
               z: f32[2,3] = PamMul(y, x)
               out t = t
               out u = u
               out z = z
             }",
            &[],
        )
        .unwrap();
        let audit = audit(&graph);
        let found: Vec<(&str, u128, bool)> =
            audit.multiplies.iter().map(|m| (m.op, m.scalars, m.float)).collect();
        assert_eq!(found, [("Mul", 1, false), ("Mul", 6, true)]);
        assert_eq!((audit.fixed, audit.total().scalars), (1, 7));
        assert_eq!(census(&graph)["pam.mul"], 1);
        assert_eq!(census(&graph)["Mul"], 3);
    }

    #[test]
    fn primitives_of_integers_are_not_clean() {
        let lines = "in n: i64[2,2]\nm: i64[2,2] = PamMatMul(n, n)\nout m = m";
        let graph = crate::text::parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap();
        assert_eq!(audit(&graph).unknown[0].code, Code::PrimitiveType);
    }
}
