//! Verify: is a graph well formed?
//!
//! Run after every pass. All faults are returned, not only the first, each as
//! `location (context): message`. Whether a graph may multiply is not asked here but in
//! [`crate::certify`].

use crate::graph::{Graph, Node, Source, ValueId};
use crate::op::{Level, Op};
use crate::text::node_line;
use crate::types::checked_elements;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// A way in which a graph is not well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The node, value, output or binding.
    pub location: String,
    /// The printed line of the node, or what the location is.
    pub context: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.location, self.context, self.message)
    }
}

/// Checks everything the documentation of [`Graph`] promises.
///
/// # Errors
/// Every fault found.
pub fn verify(graph: &Graph) -> Result<(), Vec<Fault>> {
    let mut v = Verifier { graph, faults: Vec::new() };
    v.values();
    for (i, node) in graph.nodes.iter().enumerate() {
        v.node(i, node);
    }
    v.interface();
    if v.faults.is_empty() { Ok(()) } else { Err(v.faults) }
}

struct Verifier<'g> {
    graph: &'g Graph,
    faults: Vec<Fault>,
}

impl Verifier<'_> {
    fn fault(&mut self, location: &str, context: impl Into<String>, message: impl Into<String>) {
        self.faults.push(Fault {
            location: location.to_owned(),
            context: context.into(),
            message: message.into(),
        });
    }

    fn values(&mut self) {
        let mut names = HashMap::new();
        for (i, value) in self.graph.values.iter().enumerate() {
            let name = &value.name;
            if name.is_empty() {
                self.fault(&format!("value {i}"), "value", "has no name");
            }
            if names.insert(name, i).is_some() {
                self.fault(name, "value", "another value has this name");
            }
            if checked_elements(&value.ty.shape).is_none() {
                self.fault(name, "value", format!("{} has too many elements", value.ty));
            }
            match (value.source, &value.data) {
                (Source::Constant, None) => self.fault(name, "constant", "has no data"),
                (Source::Node { .. }, Some(_)) => {
                    self.fault(name, "value", "is computed but has data");
                }
                (_, Some(data)) if data.ty() != value.ty => {
                    let message = format!("its data is {}, its type {}", data.ty(), value.ty);
                    self.fault(name, "value", message);
                }
                _ => {}
            }
            let known = match value.source {
                Source::Input => self.graph.inputs.contains(&ValueId(i as u32)),
                Source::Constant => true,
                Source::Node { node, index } => {
                    let node = self.graph.nodes.get(node.index());
                    node.and_then(|n| n.output(index as usize)) == Some(ValueId(i as u32))
                }
            };
            if !known {
                self.fault(name, "value", "its source does not name it");
            }
        }
    }

    fn node(&mut self, position: usize, node: &Node) {
        let out_of_range = |v: &ValueId| v.index() >= self.graph.values.len();
        if node.inputs.iter().chain(&node.outputs).flatten().any(out_of_range) {
            return self.fault(&node.name, node.op.name(), "refers to a value that does not exist");
        }
        let line = node_line(self.graph, node);
        let mut messages = Vec::new();
        for v in node.inputs.iter().flatten() {
            let value = self.graph.value(*v);
            if let Source::Node { node: p, .. } = value.source
                && p.index() >= position
            {
                messages.push(format!("reads `{}` before it is computed", value.name));
            }
        }
        for v in node.outputs.iter().flatten() {
            let value = self.graph.value(*v);
            if !matches!(value.source, Source::Node { node, .. } if node.index() == position) {
                messages.push(format!("`{}` has another source", value.name));
            }
        }
        if node.op.level() != Level::Opaque {
            messages.extend(attributes(node));
            messages.extend(arity(node));
            if messages.is_empty() {
                messages.extend(self.types(node));
            }
        }
        for message in messages {
            self.fault(&node.name, line.clone(), message);
        }
    }

    fn types(&self, node: &Node) -> Option<String> {
        let inferred = match self.graph.with_call(node, |call| (node.op.row().infer)(call)) {
            Ok(types) => types,
            Err(reason) => return Some(reason),
        };
        let outputs = node.outputs.iter().enumerate();
        outputs.filter_map(|(i, v)| Some((i, (*v)?))).find_map(|(i, v)| {
            let value = self.graph.value(v);
            match inferred.get(i) {
                None => Some(format!("output {i} does not exist")),
                Some(ty) if *ty != value.ty => {
                    Some(format!("`{}` is {} but should be {ty}", value.name, value.ty))
                }
                Some(_) => None,
            }
        })
    }

    fn interface(&mut self) {
        let graph = self.graph;
        for v in &graph.inputs {
            match graph.values.get(v.index()) {
                Some(value) if value.source == Source::Input => {}
                Some(value) => self.fault(&value.name, "input", "is not an input value"),
                None => self.fault("input", "input", "refers to a value that does not exist"),
            }
        }
        let mut names = BTreeSet::new();
        for o in &graph.outputs {
            if !names.insert(&o.name) {
                self.fault(&o.name, "output", "another output has this name");
            }
            if o.value.index() >= graph.values.len() {
                self.fault(&o.name, "output", "refers to a value that does not exist");
            }
        }
        for b in &graph.bindings {
            let new = graph.outputs.iter().find(|o| o.name == b.new);
            let old = graph.inputs.iter().find(|v| graph.value(**v).name == b.old);
            match (new, old) {
                (None, _) => self.fault(&b.new, "binding", "no output has this name"),
                (_, None) => self.fault(&b.old, "binding", "no input has this name"),
                (Some(new), Some(old)) if graph.ty(new.value) != graph.ty(*old) => {
                    let (new, old) = (graph.ty(new.value), graph.ty(*old));
                    self.fault(&b.new, "binding", format!("is {new}, but `{}` is {old}", b.old));
                }
                _ => {}
            }
        }
    }
}

/// Attributes that the row does not declare, that have the wrong kind, or that are missing.
fn attributes(node: &Node) -> Vec<String> {
    let signature = node.op.signature();
    let mut messages = Vec::new();
    for (name, attr) in &node.attrs {
        match signature.attribute(name) {
            None => messages.push(format!("has no attribute `{name}`")),
            Some(spec) if spec.kind != attr.kind() => {
                let (is, should) = (attr.kind().name(), spec.kind.name());
                messages.push(format!("attribute `{name}` is of kind {is}, should be {should}"));
            }
            Some(_) => {}
        }
    }
    let missing = signature.attributes.iter().filter(|s| !s.optional);
    let missing = missing.filter(|s| !node.attrs.contains_key(s.name));
    messages.extend(missing.map(|s| format!("attribute `{}` is missing", s.name)));
    messages
}

/// Inputs or outputs that the row does not declare or that are missing.
fn arity(node: &Node) -> Vec<String> {
    let Node { op, .. } = *node;
    let mut messages = Vec::new();
    let operands = dynamic_inputs(op);
    let variadic = operands.last().is_some_and(|o| o.variadic);
    if node.inputs.len() > operands.len() && !variadic {
        messages.push(format!("takes {} inputs, has {}", operands.len(), node.inputs.len()));
    }
    for (i, operand) in operands.iter().enumerate() {
        if !operand.optional && node.input(i).is_none() {
            messages.push(format!("input `{}` is missing", operand.name));
        }
    }
    let outputs = &op.signature().outputs;
    if node.outputs.len() > outputs.len() && !outputs.last().is_some_and(|o| o.variadic) {
        messages.push(format!("has {} outputs, not {}", outputs.len(), node.outputs.len()));
    }
    messages
}

/// The operands of an op that stay inputs in the IR.
pub fn dynamic_inputs(op: Op) -> Vec<&'static crate::op::Operand> {
    op.signature().inputs.iter().filter(|i| i.constant.is_none()).collect()
}
