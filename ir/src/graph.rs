//! The graph: nodes in topological order over named, typed values.

use crate::attr::{Attr, Attrs};
use crate::op::{Call, Level, Op};
use crate::role::{Component, Mode, Role};
use crate::tensor::Tensor;
use crate::types::Type;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The graph input that counts the steps of a training, for random numbers; 0 unless it is fed.
pub const STEP_INPUT: &str = "pam.step";

/// Identifies a value of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

/// Identifies a node of one graph: its position in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl ValueId {
    /// Position in [`Graph::values`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeId {
    /// Position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Fed by the caller; [`Value::data`] holds its default, if any.
    Input,
    /// Fixed; [`Value::data`] holds it.
    Constant,
    /// Output `index` of a node.
    Node {
        /// The node.
        node: NodeId,
        /// Position among the node's outputs.
        index: u32,
    },
}

/// A tensor flowing through the graph.
#[derive(Clone, Debug)]
pub struct Value {
    /// Name, unique in the graph and not empty. Names of ONNX may hold any character.
    pub name: String,
    /// Element type and static shape.
    pub ty: Type,
    /// Where it comes from.
    pub source: Source,
    /// The elements of a constant, or the default of an input.
    pub data: Option<Tensor>,
}

/// The node a rewritten node stems from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of the node in the source graph.
    pub node: Arc<str>,
    /// Its op type as the source file wrote it.
    pub op: Arc<str>,
    /// The rule that made the change.
    pub rule: Arc<str>,
}

/// An application of an op.
#[derive(Clone, Debug)]
pub struct Node {
    /// The op.
    pub op: Op,
    /// Name; not empty, but not necessarily unique.
    pub name: String,
    /// Inputs in the order of the op's signature, without static operands; `None` for an omitted
    /// optional one.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs in the order of the op's signature; `None` for an omitted one.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes as given, static operands included.
    pub attrs: Attrs,
    /// The part of the step it belongs to.
    pub role: Role,
    /// The component a policy addresses it by.
    pub component: Component,
    /// How it is to multiply under the policy.
    pub mode: Mode,
    /// The source node, for a node that a rule made.
    pub origin: Option<Origin>,
    /// Metadata of the file, kept as it was.
    pub metadata: BTreeMap<String, String>,
}

/// A named output of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Name towards the caller.
    pub name: String,
    /// The value.
    pub value: ValueId,
}

/// A piece of carried state: after a step, output `new` becomes input `old`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Name of the output that holds the new value.
    pub new: String,
    /// Name of the input that holds the old value.
    pub old: String,
}

/// What a file says about itself beside the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Producer name and version.
    pub producer: String,
    /// Opset of the standard domain in the source file.
    pub opset: i64,
    /// Model metadata (`metadata_props`), kept as it was.
    pub properties: BTreeMap<String, String>,
    /// Metadata of the first file's graph.
    pub graph_properties: BTreeMap<String, String>,
    /// Documentation of the model.
    pub doc: String,
}

/// A training step or any other computation without control flow and with static shapes.
///
/// Invariant, checked by [`crate::verify::verify`]: nodes stand in a topological order, every value
/// has one source, names of values are unique, and types follow the shape rules of the ops.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Name of the graph.
    pub name: String,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// All values.
    pub values: Vec<Value>,
    /// Inputs in the caller's order.
    pub inputs: Vec<ValueId>,
    /// Outputs in the caller's order.
    pub outputs: Vec<Output>,
    /// Carried state.
    pub bindings: Vec<Binding>,
    /// What the file says about itself.
    pub meta: Meta,
}

impl Graph {
    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The type of a value.
    pub fn ty(&self, id: ValueId) -> &Type {
        &self.values[id.index()].ty
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The elements of a constant; `None` for anything else, also for inputs with a default.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        let value = self.value(id);
        match value.source {
            Source::Constant => value.data.as_ref(),
            Source::Input | Source::Node { .. } => None,
        }
    }

    /// The outputs that a file needs an `Identity` for: inputs under another name, constants, and all
    /// but the first name of a computed value.
    pub fn aliases(&self) -> impl Iterator<Item = &Output> {
        let mut named = BTreeSet::new();
        self.outputs.iter().filter(move |o| match self.value(o.value).source {
            Source::Node { .. } => !named.insert(o.value),
            Source::Input => self.value(o.value).name != o.name,
            Source::Constant => true,
        })
    }

    /// The node that makes a value.
    pub fn producer(&self, id: ValueId) -> Option<NodeId> {
        match self.value(id).source {
            Source::Node { node, .. } => Some(node),
            Source::Input | Source::Constant => None,
        }
    }

    /// Adds a value.
    pub fn add_value(&mut self, value: Value) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).expect("fewer than 2^32 values"));
        self.values.push(value);
        id
    }

    /// The types of a node's inputs.
    pub fn input_types(&self, node: &Node) -> Vec<Option<&Type>> {
        node.inputs.iter().map(|v| v.map(|v| self.ty(v))).collect()
    }

    /// Calls `f` with the node as a typed [`Call`].
    pub fn with_call<R>(&self, node: &Node, f: impl FnOnce(&Call<'_>) -> R) -> R {
        let inputs = self.input_types(node);
        f(&Call { op: node.op, attrs: &node.attrs, inputs: &inputs, outputs: node.outputs.len() })
    }

    /// How many scalar multiplications (divisions, roots, transcendental evaluations) one
    /// execution of the node performs natively.
    pub fn multiplies(&self, node: &Node) -> u128 {
        if matches!(node.op.level(), Level::Pam | Level::Opaque) {
            return 0;
        }
        let outputs: Vec<Type> =
            node.outputs.iter().flatten().map(|&v| self.ty(v).clone()).collect();
        self.with_call(node, |call| (node.op.row().count)(call, &outputs))
    }

    /// A name for each node that no other has: of the nodes of one name the last keeps it, the others
    /// get their op, and where needed a number, behind it. (onnxruntime refuses equal names.)
    pub fn unique_node_names(&self) -> Vec<String> {
        let mut taken: HashSet<String> = self.nodes.iter().map(|n| n.name.clone()).collect();
        let mut kept: HashSet<&str> = HashSet::new();
        let mut last: Vec<bool> =
            self.nodes.iter().rev().map(|n| kept.insert(n.name.as_str())).collect();
        last.reverse();
        let mut next: HashMap<String, usize> = HashMap::new();
        let nodes = self.nodes.iter().zip(last);
        nodes
            .map(|(node, keeps)| {
                if keeps {
                    return node.name.clone();
                }
                let stem = format!("{}.{}", node.name, node.op.name());
                let n = next.entry(stem.clone()).or_insert(0);
                loop {
                    *n += 1;
                    let name = if *n == 1 { stem.clone() } else { format!("{stem}_{n}") };
                    if taken.insert(name.clone()) {
                        return name;
                    }
                }
            })
            .collect()
    }

    /// For every value, the nodes that read it, in order; a node that reads it twice stands twice.
    pub fn consumers(&self) -> Vec<Vec<NodeId>> {
        let mut consumers = vec![Vec::new(); self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for v in node.inputs.iter().flatten() {
                consumers[v.index()].push(NodeId(i as u32));
            }
        }
        consumers
    }
}

impl Node {
    /// An attribute, or the default of the op's row.
    pub fn attr(&self, name: &str) -> Option<&Attr> {
        self.attrs.get(name).or_else(|| self.op.signature().default(name))
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attr(name)? {
            Attr::Int(v) => Some(*v),
            _ => None,
        }
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attr(name)? {
            Attr::Float(v) => Some(*v),
            _ => None,
        }
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attr(name)? {
            Attr::Ints(v) => Some(v),
            _ => None,
        }
    }

    /// A string attribute.
    pub fn str(&self, name: &str) -> Option<&str> {
        match self.attr(name)? {
            Attr::Str(v) => Some(v),
            _ => None,
        }
    }

    /// Input `i`, if given.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// Output `i`, if asked for.
    pub fn output(&self, i: usize) -> Option<ValueId> {
        self.outputs.get(i).copied().flatten()
    }
}
