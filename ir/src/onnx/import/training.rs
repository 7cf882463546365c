//! ONNX's own form of training: the op `Gradient`, and `training_info`.
//!
//! A model may carry an algorithm graph beside its inference graph. A training step is one after the other:
//! the algorithm sees the values of the inference graph, and `update_binding` says which of its outputs is
//! the next value of which initializer.

use super::super::error::OnnxError;
use super::super::proto::{
    GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use super::place::Site;
use super::{Importer, bindings};
use crate::graph::ValueId;
use crate::op::Op;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The algorithms of a model's `training_info`, and whether each is a record only: a model that this program has
/// written, as its metadata say, keeps the one of its source, but its graph computes all that the algorithm gives and
/// that is bound.
fn algorithms(model: &ModelProto) -> impl Iterator<Item = (&GraphProto, bool)> {
    let graph = model.graph.iter();
    let names: BTreeSet<&str> = graph.flat_map(|g| &g.output).map(|o| o.name()).collect();
    let written = model.metadata_props.iter().any(|p| p.key() == "pam.target");
    let all = model.training_info.iter().filter_map(|t| Some((t, t.algorithm.as_ref()?)));
    all.filter(|(_, a)| !a.node.is_empty()).map(move |(t, a)| {
        let mut given = a.output.iter().map(|o| o.name());
        let mut bound = t.update_binding.iter().map(|b| b.value());
        let done = written
            && !a.output.is_empty()
            && given.all(|name| names.contains(name))
            && bound.all(|name| names.contains(name));
        (a, done)
    })
}

/// How many nodes of `training_info` are a record of what the graph computes itself, and no part of the step.
pub fn recorded_nodes(model: &ModelProto) -> usize {
    algorithms(model).filter(|(_, done)| *done).map(|(a, _)| a.node.len()).sum()
}

/// The graph of a model with the algorithm of its training behind it, and an input for each initializer that gets a new
/// value, whose default it is: those that the training, the metadata or the given pairs of output and input bind.
pub(super) fn joined<'m>(
    model: &'m ModelProto,
    bind: &[(String, String)],
) -> Option<Cow<'m, GraphProto>> {
    let graph = model.graph.as_ref()?;
    let algorithms: Vec<&GraphProto> =
        algorithms(model).filter(|(_, done)| !done).map(|(a, _)| a).collect();
    let updates = model.training_info.iter().flat_map(|t| &t.update_binding);
    let updates = updates.filter(|_| !algorithms.is_empty()).map(|b| b.key().to_owned());
    let stated = bindings::stated(model).and_then(Result::ok).unwrap_or_default();
    let given = bind.iter().map(|(_, old)| old.clone());
    let bound: BTreeSet<String> = updates.chain(stated.into_values()).chain(given).collect();
    let inputs: BTreeSet<&str> = graph.input.iter().map(|i| i.name()).collect();
    let constant = |t: &&TensorProto| bound.contains(t.name()) && !inputs.contains(t.name());
    if algorithms.is_empty() && !graph.initializer.iter().any(|t| constant(&t)) {
        return Some(Cow::Borrowed(graph));
    }
    let mut whole = graph.clone();
    for algorithm in algorithms {
        whole.node.extend(algorithm.node.iter().cloned());
        whole.initializer.extend(algorithm.initializer.iter().cloned());
        whole.input.extend(algorithm.input.iter().cloned());
        // An algorithm may name outputs of the graph again.
        let outputs = &mut whole.output;
        for output in &algorithm.output {
            if outputs.iter().all(|o| o.name() != output.name()) {
                outputs.push(output.clone());
            }
        }
        whole.value_info.extend(algorithm.value_info.iter().cloned());
    }
    let inputs: BTreeSet<String> = whole.input.iter().map(|i| i.name().to_owned()).collect();
    let constant = |t: &&TensorProto| bound.contains(t.name()) && !inputs.contains(t.name());
    let states = whole.initializer.iter().filter(constant);
    let states: Vec<ValueInfoProto> = states
        .map(|t| {
            let dim = |&d: &i64| Dimension {
                value: Some(dimension::Value::DimValue(d)),
                ..Dimension::default()
            };
            let tensor = type_proto::Tensor {
                elem_type: Some(t.data_type()),
                shape: Some(TensorShapeProto { dim: t.dims.iter().map(dim).collect() }),
            };
            ValueInfoProto {
                name: Some(t.name().to_owned()),
                r#type: Some(TypeProto {
                    value: Some(type_proto::Value::TensorType(tensor)),
                    ..TypeProto::default()
                }),
                ..ValueInfoProto::default()
            }
        })
        .collect();
    whole.input.extend(states);
    Some(Cow::Owned(whole))
}

/// Whether a node is ONNX's `Gradient`.
pub(super) fn is_gradient(node: &NodeProto) -> bool {
    node.domain() == "ai.onnx.preview.training" && node.op_type() == "Gradient"
}

/// The names of the values that a `Gradient` refers to by its attributes.
pub(super) fn referred(node: &NodeProto) -> impl Iterator<Item = String> + '_ {
    let all = node.attribute.iter().filter(|a| matches!(a.name(), "xs" | "y"));
    let words = all.flat_map(|a| a.strings.iter().map(Vec::as_slice).chain(a.s.as_deref()));
    words.map(text)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Importer<'_> {
    /// Appends a `Gradient`: the derivatives of the value that `y` names by those that `xs` name.
    pub(super) fn gradient(&mut self, site: &Site<'_>) -> Result<Vec<Option<ValueId>>, OnnxError> {
        let &Site { context, names, node, label, .. } = site;
        let error = |reason: String| site.error(&reason, "export it again");
        let xs: Vec<String> = site
            .attribute("xs")
            .map(|a| a.strings.iter().map(|s| text(s)).collect())
            .unwrap_or_default();
        let y = site.attribute("y").and_then(|a| a.s.as_deref()).map(text).unwrap_or_default();
        let find = |name: &str| {
            names.get(name).ok_or_else(|| error(format!("`{name}` is defined by nothing")))
        };
        let mut inputs = vec![Some(find(&y)?)];
        for (x, given) in xs.iter().zip(&node.input) {
            if find(x)? != find(given)? {
                let reason =
                    format!("the derivative by `{x}` is asked for at another value, `{given}`");
                return Err(error(reason));
            }
            inputs.push(Some(find(x)?));
        }
        let outputs: Vec<&str> = node.output.iter().map(String::as_str).collect();
        let draft = super::draft::Draft {
            op: Op::Gradient,
            inputs,
            attrs: crate::attr::Attrs::new(),
            outputs: outputs.len(),
        };
        self.builder.scope.name = label.to_owned();
        self.append(draft, label, &outputs, &context.prefix, BTreeMap::new()).map_err(error)
    }
}
