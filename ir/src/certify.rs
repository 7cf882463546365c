//! Certify: is a graph legal for a target?
//!
//! The certifier knows the op table and nothing of the rules that rewrite: it judges the graph as it
//! stands. It returns every violation, each with a stable [`Code`]. Only [`certify`] makes a
//! [`Certified`], and only a `Certified` can be planned and run.

use crate::graph::{Graph, Node, NodeId};
use crate::op::{Level, Op};
use crate::role::Mode;
use crate::text::node_line;
use crate::types::DType;
use crate::verify::verify;
use std::fmt;

/// What a graph is certified for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// No native multiplication anywhere.
    MultiplicationFree,
    /// Native multiplications only in nodes whose mode is native; each is listed.
    Mixed,
}

impl Target {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Target::MultiplicationFree => "multiplication-free",
            Target::Mixed => "mixed",
        }
    }

    /// The inverse of [`Target::name`].
    pub fn from_name(name: &str) -> Option<Target> {
        [Target::MultiplicationFree, Target::Mixed].into_iter().find(|t| t.name() == name)
    }
}

/// Why a graph is not legal. The codes are stable: scripts match on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The graph is not well formed.
    Malformed,
    /// A node multiplies floats natively.
    NativeMultiply,
    /// A node multiplies integers at run time.
    IntegerMultiply,
    /// An op that a rule should have lowered stands in the graph.
    NotLowered,
    /// A PA primitive stands on another type than f32.
    PrimitiveType,
    /// An op the table does not know.
    UnknownOp,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 6] = [
        Code::Malformed,
        Code::NativeMultiply,
        Code::IntegerMultiply,
        Code::NotLowered,
        Code::PrimitiveType,
        Code::UnknownOp,
    ];

    /// The code in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Code::Malformed => "malformed",
            Code::NativeMultiply => "native-multiply",
            Code::IntegerMultiply => "integer-multiply",
            Code::NotLowered => "not-lowered",
            Code::PrimitiveType => "primitive-type",
            Code::UnknownOp => "unknown-op",
        }
    }
}

/// One reason why a graph is not legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which law is broken.
    pub code: Code,
    /// Name of the node.
    pub node: String,
    /// Its op.
    pub op: String,
    /// Its printed line.
    pub line: String,
    /// How it breaks the law.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { code, node, op, reason, .. } = self;
        write!(f, "{}: node `{node}` ({op}): {reason}", code.name())
    }
}

/// A node that multiplies natively.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeMultiply {
    /// The node.
    pub id: NodeId,
    /// Name of the node.
    pub node: String,
    /// Its op, as ONNX names it.
    pub op: &'static str,
    /// Its component.
    pub component: crate::role::Component,
    /// Scalar multiplications one execution performs.
    pub scalars: u128,
    /// Whether floats are multiplied rather than integers.
    pub float: bool,
}

/// A graph that is legal for a target; it can no longer be changed.
#[derive(Debug)]
pub struct Certified {
    graph: Graph,
    target: Target,
    native: Vec<NativeMultiply>,
}

impl Certified {
    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What it is certified for.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The native multiplications left, in the order of the nodes; none if multiplication-free.
    pub fn native(&self) -> &[NativeMultiply] {
        &self.native
    }

    /// Gives the graph back and the certificate up.
    pub fn into_graph(self) -> Graph {
        self.graph
    }
}

/// Judges a graph.
///
/// # Errors
/// Every violation, in the order of the nodes.
pub fn certify(graph: Graph, target: Target) -> Result<Certified, Vec<Violation>> {
    let violations = violations(&graph, target);
    if violations.is_empty() {
        let native = native_multiplies(&graph);
        Ok(Certified { graph, target, native })
    } else {
        Err(violations)
    }
}

/// Every violation of a graph.
pub fn violations(graph: &Graph, target: Target) -> Vec<Violation> {
    if let Err(faults) = verify(graph) {
        let violation = |f: crate::verify::Fault| Violation {
            code: Code::Malformed,
            node: f.location,
            op: String::new(),
            line: f.context,
            reason: f.message,
        };
        return faults.into_iter().map(violation).collect();
    }
    graph
        .nodes
        .iter()
        .filter_map(|node| {
            let (code, reason) = judge(graph, node, target)?;
            let op = match node.str("onnx") {
                Some(name) if node.op == Op::Opaque => name,
                _ => node.op.onnx_name(),
            };
            Some(Violation {
                code,
                node: node.name.clone(),
                op: op.to_owned(),
                line: node_line(graph, node),
                reason,
            })
        })
        .collect()
}

/// Every node that multiplies natively, whatever its mode.
pub fn native_multiplies(graph: &Graph) -> Vec<NativeMultiply> {
    let nodes = graph.nodes.iter().enumerate();
    nodes
        .filter_map(|(i, node)| {
            let scalars = graph.multiplies(node);
            (scalars > 0).then(|| NativeMultiply {
                id: NodeId(i as u32),
                node: node.name.clone(),
                op: node.op.onnx_name(),
                component: node.component,
                scalars,
                float: operands(graph, node).any(DType::is_float),
            })
        })
        .collect()
}

fn judge(graph: &Graph, node: &Node, target: Target) -> Option<(Code, String)> {
    let scalars = graph.multiplies(node);
    let float = operands(graph, node).any(DType::is_float);
    match node.op.level() {
        Level::Opaque => Some((Code::UnknownOp, "the compiler does not know this op".to_owned())),
        // Random numbers are drawn for a step, which is an integer.
        Level::Pam => operands(graph, node)
            .find(|d| *d != DType::F32 && (d.is_float() || node.op != Op::PamUniform))
            .map(|d| (Code::PrimitiveType, format!("a PA primitive on {d}"))),
        Level::Plain | Level::Native | Level::Composite
            if target == Target::Mixed && node.mode == Mode::Native =>
        {
            None
        }
        Level::Plain if scalars == 0 => None,
        Level::Composite if scalars == 0 => {
            Some((Code::NotLowered, "no rule has lowered this op".to_owned()))
        }
        Level::Plain | Level::Native | Level::Composite if float => {
            Some((Code::NativeMultiply, format!("{scalars} native float multiplications")))
        }
        Level::Plain | Level::Native | Level::Composite => {
            Some((Code::IntegerMultiply, format!("{scalars} integer multiplications at run time")))
        }
    }
}

fn operands<'g>(graph: &'g Graph, node: &'g Node) -> impl Iterator<Item = DType> + 'g {
    node.inputs.iter().chain(&node.outputs).flatten().map(|&v| graph.ty(v).dtype)
}
