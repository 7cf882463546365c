//! Where a training step holds the gradient of each trained parameter.

use super::Detach;
use crate::roles::loss_output;
use pam_ir::graph::{Binding, Graph, NodeId, Source, ValueId};
use pam_ir::op::Op;
use pam_ir::role::Role;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How gradients were found, the most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GradientEvidence {
    /// The graph asks for them by the op `Gradient`.
    Op,
    /// The file's metadata `pam.gradients` names them.
    Metadata,
    /// They bear the names that onnxruntime gives, `<parameter>_grad`.
    Names,
    /// They are what enters the optimizer of their parameter.
    Shape,
    /// They have the values that differentiating the forward pass gives.
    Evaluation,
}

impl GradientEvidence {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            GradientEvidence::Op => "the op Gradient",
            GradientEvidence::Metadata => "metadata",
            GradientEvidence::Names => "names",
            GradientEvidence::Shape => "graph shape",
            GradientEvidence::Evaluation => "evaluation",
        }
    }
}

/// The loss of a training step and the gradients of its trained parameters, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gradients {
    /// The value that is the loss.
    pub loss: String,
    /// Parameters, or other values, and the values that hold their gradients.
    pub pairs: Vec<(String, String)>,
    /// The weakest evidence that was needed.
    pub evidence: GradientEvidence,
    /// Parameters whose gradient neither names nor the graph's shape tell, with the values that may be
    /// it.
    pub open: Vec<(String, Vec<String>)>,
    /// Which marks of the exporter end a derivative.
    pub detach: Detach,
    /// Parameters whose imported gradients are kept, since they are not the derivatives of the forward pass: straight
    /// through what rounds, of another loss, or of no loss at all, as of a target network.
    pub kept: Vec<String>,
}

impl Gradients {
    /// Keeps the imported gradients of some parameters.
    pub(crate) fn keep(&mut self, parameters: &[String]) {
        self.pairs.retain(|(p, _)| !parameters.contains(p));
        self.kept.extend_from_slice(parameters);
    }

    /// Asks again for the gradient of a parameter: whatever the graph's shape says, it may be any of the values on the
    /// way to the new one. Such are optimizers that begin with reductions or other ops that backward passes have, too.
    pub fn doubt(&mut self, graph: &Graph, parameter: &str) {
        let Some(binding) = graph.bindings.iter().find(|b| b.old == parameter) else { return };
        let old = graph.inputs.iter().find(|&&v| graph.value(v).name == binding.old);
        let new = graph.outputs.iter().find(|o| o.name == binding.new);
        let loss = graph.values.iter().position(|v| v.name == self.loss);
        if let (Some(&old), Some(new), Some(loss)) = (old, new, loss) {
            let forward = depends_on(graph, ValueId(loss as u32));
            self.pairs.retain(|(p, _)| p != parameter);
            self.open.push((parameter.to_owned(), candidates(graph, new.value, old, &forward)));
        }
    }
}

/// What was recognised of a step's gradients by their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recognised {
    /// Parameters, and the values that are their gradients.
    pub values: BTreeMap<String, String>,
    /// Which marks of the exporter end a derivative.
    pub detach: Detach,
    /// Parameters whose gradients are not the derivatives of the forward pass.
    pub kept: BTreeSet<String>,
}

/// Finds the gradients of a labelled training step; `None` where it has no loss or trains nothing.
///
/// # Errors
/// Where a gradient may be none of the values.
pub fn find(graph: &Graph, recognised: &Recognised) -> Result<Option<Gradients>, String> {
    if let Some(asked) = asked(graph) {
        return Ok(Some(asked));
    }
    let Some(loss) = loss_output(graph) else { return Ok(None) };
    let forward = depends_on(graph, loss.value);
    let inputs: HashMap<&str, ValueId> =
        graph.inputs.iter().map(|&v| (graph.value(v).name.as_str(), v)).collect();
    let values: HashMap<&str, ValueId> = graph
        .values
        .iter()
        .enumerate()
        .map(|(i, v)| (v.name.as_str(), ValueId(i as u32)))
        .collect();
    let stated: BTreeMap<String, String> = graph
        .meta
        .properties
        .get("pam.gradients")
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let outputs: HashMap<&str, ValueId> =
        graph.outputs.iter().map(|o| (o.name.as_str(), o.value)).collect();
    let mut found = Gradients {
        loss: graph.value(loss.value).name.clone(),
        pairs: Vec::new(),
        evidence: GradientEvidence::Metadata,
        open: Vec::new(),
        detach: recognised.detach,
        kept: Vec::new(),
    };
    for Binding { new, old } in &graph.bindings {
        let (Some(&parameter), Some(&next)) = (inputs.get(old.as_str()), outputs.get(new.as_str()))
        else {
            continue;
        };
        let trained = forward[parameter.index()] && graph.ty(parameter).dtype.is_float();
        // What the forward pass alone determines, such as running statistics, is not trained.
        if !trained || !made_by(graph, next, Role::Optimizer) {
            continue;
        }
        if recognised.kept.contains(old) {
            found.kept.push(old.clone());
            continue;
        }
        let fits = |v: &ValueId| graph.ty(*v) == graph.ty(parameter);
        let by_metadata = stated.get(old).and_then(|g| values.get(g.as_str())).filter(|v| fits(v));
        let by_name = values.get(format!("{old}_grad").as_str()).filter(|v| fits(v));
        let by_value =
            recognised.values.get(old).and_then(|g| values.get(g.as_str())).filter(|v| fits(v));
        let (gradient, evidence) = match (by_metadata, by_name, by_value) {
            (Some(&v), ..) => (v, GradientEvidence::Metadata),
            (None, Some(&v), _) => (v, GradientEvidence::Names),
            (None, None, Some(&v)) => (v, GradientEvidence::Evaluation),
            (None, None, None) => match entering(graph, next, parameter)[..] {
                [v] => (v, GradientEvidence::Shape),
                _ => {
                    let possible = candidates(graph, next, parameter, &forward);
                    if possible.is_empty() {
                        return Err(format!("no value can be the gradient of `{old}`"));
                    }
                    found.open.push((old.clone(), possible));
                    continue;
                }
            },
        };
        found.evidence = found.evidence.max(evidence);
        found.pairs.push((old.clone(), graph.value(gradient).name.clone()));
    }
    let parameters = found.pairs.iter().map(|(p, _)| p).chain(found.open.iter().map(|(p, _)| p));
    let parameters: Vec<ValueId> = parameters.map(|p| inputs[p.as_str()]).collect();
    found.detach = found.detach.reaching(graph, loss.value, &parameters);
    let trains = !found.pairs.is_empty() || !found.open.is_empty() || !found.kept.is_empty();
    Ok(trains.then_some(found))
}

/// The values on the way to a new value that have the type of the parameter and are no part of the
/// forward pass.
fn candidates(graph: &Graph, next: ValueId, parameter: ValueId, forward: &[bool]) -> Vec<String> {
    let needed = graph.ancestors([next]);
    let nodes = graph.nodes.iter().zip(needed).filter(|(_, needed)| *needed);
    let values = nodes.flat_map(|(node, _)| node.outputs.iter().flatten());
    let fitting = values
        .filter(|v| **v != next && !forward[v.index()] && graph.ty(**v) == graph.ty(parameter));
    fitting.map(|&v| graph.value(v).name.clone()).collect()
}

/// What the ops `Gradient` of a graph ask for; the loss is that of the first.
fn asked(graph: &Graph) -> Option<Gradients> {
    let mut found: Option<Gradients> = None;
    let name = |v: ValueId| graph.value(v).name.clone();
    for node in graph.nodes.iter().filter(|n| n.op == Op::Gradient) {
        let Some(loss) = node.input(0).map(name) else { continue };
        let pairs = node.inputs[1..].iter().zip(&node.outputs);
        let pairs = pairs.filter_map(|(x, d)| Some((name((*x)?), name((*d)?))));
        let all = found.get_or_insert_with(|| Gradients {
            loss,
            pairs: Vec::new(),
            evidence: GradientEvidence::Op,
            open: Vec::new(),
            detach: Detach::All,
            kept: Vec::new(),
        });
        all.pairs.extend(pairs);
    }
    found
}

/// Marks the values that a value depends on.
fn depends_on(graph: &Graph, value: ValueId) -> Vec<bool> {
    let nodes = graph.ancestors([value]);
    let mut marked = vec![false; graph.values.len()];
    for (node, _) in graph.nodes.iter().zip(nodes).filter(|(_, needed)| *needed) {
        node.inputs.iter().flatten().for_each(|v| marked[v.index()] = true);
    }
    marked
}

fn made_by(graph: &Graph, value: ValueId, role: Role) -> bool {
    graph.producer(value).is_some_and(|n| graph.node(n).role == role)
}

/// The values of the backward pass that enter the optimizer on the way to a new value and have the type
/// of the parameter.
fn entering(graph: &Graph, next: ValueId, parameter: ValueId) -> Vec<ValueId> {
    let mut seen = vec![false; graph.nodes.len()];
    let mut found = Vec::new();
    let mut stack: Vec<NodeId> = graph.producer(next).into_iter().collect();
    while let Some(id) = stack.pop() {
        if std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        for &v in graph.node(id).inputs.iter().flatten() {
            let Source::Node { node, .. } = graph.value(v).source else { continue };
            match graph.node(node).role {
                Role::Optimizer => stack.push(node),
                Role::Backward if graph.ty(v) == graph.ty(parameter) && !found.contains(&v) => {
                    found.push(v);
                }
                _ => {}
            }
        }
    }
    found
}
