//! Roles: which part of the step each node belongs to.
//!
//! Metadata of the file (`pam.role`) is trusted first. Otherwise the shape of the graph decides: what
//! the loss depends on is forward, its tail is the loss, what carried state depends on is backward or
//! optimizer, the rest is metric.

use crate::components::of_op;
use crate::differentiate::Recognised;
use pam_ir::graph::{Graph, Node, NodeId, Output, Source, ValueId};
use pam_ir::op::Op;
use pam_ir::role::{Component, Role};
use std::collections::BTreeSet;

/// How roles were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Metadata of the file says so.
    Metadata,
    /// Bindings and the shape of the graph.
    Shape,
}

impl Evidence {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Evidence::Metadata => "metadata",
            Evidence::Shape => "graph shape",
        }
    }
}

/// Gives each node a role. What depends on gradients that were recognised by their values is the optimizer's.
pub(crate) fn assign(graph: &mut Graph, recognised: &Recognised) -> Evidence {
    let stated = |n: &Node| n.metadata.get("pam.role").and_then(|r| Role::from_name(r));
    let evidence = if graph.nodes.iter().any(|n| stated(n).is_some()) {
        Evidence::Metadata
    } else {
        Evidence::Shape
    };
    let guessed = guess(graph, recognised);
    for (node, guess) in graph.nodes.iter_mut().zip(guessed) {
        node.role = stated(node).unwrap_or(guess);
    }
    evidence
}

/// The output that is the loss: the one that metadata names, or else a scalar that is no state, one
/// with `loss` in its name before others.
pub(crate) fn loss_output(graph: &Graph) -> Option<&Output> {
    let bound: BTreeSet<&str> = graph.bindings.iter().map(|b| b.new.as_str()).collect();
    let scalar = |v: ValueId| graph.ty(v).dtype.is_float() && graph.ty(v).elements() == 1;
    let free = graph.outputs.iter().filter(|o| !bound.contains(o.name.as_str()));
    let all: Vec<&Output> = free.filter(|o| scalar(o.value)).collect();
    let stated = graph.meta.properties.get("pam.loss");
    let named = all.iter().find(|o| stated == Some(&o.name));
    let spoken = all.iter().find(|o| o.name.to_lowercase().contains("loss"));
    named.or(spoken).or(all.first()).copied()
}

fn guess(graph: &Graph, recognised: &Recognised) -> Vec<Role> {
    let bound: BTreeSet<&str> = graph.bindings.iter().map(|b| b.new.as_str()).collect();
    let state: Vec<&Output> =
        graph.outputs.iter().filter(|o| bound.contains(o.name.as_str())).collect();
    let loss = loss_output(graph);
    // Without carried state there is nothing but a forward pass.
    if state.is_empty() {
        return vec![Role::Forward; graph.nodes.len()];
    }
    let forward = graph.ancestors(loss.map(|o| o.value));
    let loss_part = loss_part(graph, &forward, loss.map(|o| o.value));
    let (after_loss, after_forward) =
        (descendants(graph, &loss_part), descendants(graph, &forward));
    // New state that the forward pass determines, such as running statistics, belongs to it.
    let by = |v: ValueId, marks: &[bool]| graph.producer(v).is_some_and(|n| marks[n.index()]);
    // Where it trains, but nothing depends on the loss, derivatives start elsewhere, as that of a sum of squares does.
    let old: BTreeSet<&str> = graph.bindings.iter().map(|b| b.old.as_str()).collect();
    let read = graph.nodes.iter().zip(&forward).filter(|(_, forward)| **forward);
    let mut read = read.flat_map(|(node, _)| node.inputs.iter().flatten());
    let trains = read.any(|&v| old.contains(graph.value(v).name.as_str()));
    let told = !trains || state.iter().any(|o| by(o.value, &after_loss));
    let statistics = state.iter().map(|o| o.value).filter(|_| told);
    let statistics = statistics.filter(|&v| by(v, &after_forward) && !by(v, &after_loss));
    let statistics = graph.ancestors(statistics);
    let to_state = graph.ancestors(state.iter().map(|o| o.value));
    let optimizer = optimizer(graph, &forward, state.iter().map(|o| o.value).collect());
    let known: BTreeSet<&str> = recognised.values.values().map(String::as_str).collect();
    let behind = behind(graph, &known);
    (0..graph.nodes.len())
        .map(|i| match () {
            () if loss_part[i] => Role::Loss,
            () if forward[i] || statistics[i] => Role::Forward,
            () if optimizer[i] || behind[i] && to_state[i] => Role::Optimizer,
            () if to_state[i] => Role::Backward,
            () => Role::Metric,
        })
        .collect()
}

/// The marked nodes and all that depend on them.
fn descendants(graph: &Graph, marked: &[bool]) -> Vec<bool> {
    let mut all = marked.to_vec();
    for (i, node) in graph.nodes.iter().enumerate() {
        let mut producers = node.inputs.iter().flatten().filter_map(|&v| graph.producer(v));
        all[i] = all[i] || producers.any(|p| all[p.index()]);
    }
    all
}

/// The nodes that depend on one of the named values.
fn behind(graph: &Graph, known: &BTreeSet<&str>) -> Vec<bool> {
    let mut all = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate().filter(|_| !known.is_empty()) {
        all[i] = node.inputs.iter().flatten().any(|&v| {
            known.contains(graph.value(v).name.as_str())
                || graph.producer(v).is_some_and(|p| all[p.index()])
        });
    }
    all
}

/// Going back from new state: elementwise nodes, for gradients are made by contractions and
/// reductions, while an update is elementwise.
fn optimizer(graph: &Graph, forward: &[bool], mut stack: Vec<ValueId>) -> Vec<bool> {
    let mut marked = vec![false; graph.nodes.len()];
    while let Some(v) = stack.pop() {
        let Some(id) = graph.producer(v) else { continue };
        let node = graph.node(id);
        if marked[id.index()] || forward[id.index()] || !elementwise(node.op) {
            continue;
        }
        marked[id.index()] = true;
        stack.extend(node.inputs.iter().flatten());
    }
    // A gradient may be elementwise as well, but it is made of two values that are not the
    // optimizer's, while that takes state and hyper-parameters, or squares a gradient.
    for (i, node) in graph.nodes.iter().enumerate() {
        let mut operands = node.inputs.iter().flatten();
        let enters = |&v: &ValueId| graph.producer(v).is_none_or(|p| marked[p.index()]);
        let squares = operands.clone().all(|v| Some(*v) == node.input(0));
        marked[i] = marked[i] && (squares || operands.any(enters));
    }
    marked
}

fn elementwise(op: Op) -> bool {
    matches!(
        op,
        Op::Add
            | Op::Sub
            | Op::Mul
            | Op::Div
            | Op::Sqrt
            | Op::Pow
            | Op::Reciprocal
            | Op::Neg
            | Op::Sign
            | Op::Abs
            | Op::Identity
            | Op::Cast
            | Op::Max
            | Op::Min
            | Op::Clip
            | Op::Where
            | Op::Equal
    )
}

/// The tail of the forward pass: going back from the loss, nodes that feed nothing else, up to and
/// with the softmax of the scores; where there is none, up to the layer that makes the predictions.
fn loss_part(graph: &Graph, forward: &[bool], loss: Option<ValueId>) -> Vec<bool> {
    let mut marked = vec![false; graph.nodes.len()];
    let Some(loss) = loss else { return marked };
    let old: BTreeSet<&str> = graph.bindings.iter().map(|b| b.old.as_str()).collect();
    let consumers = graph.consumers();
    for (i, node) in graph.nodes.iter().enumerate().rev().filter(|&(i, _)| forward[i]) {
        let within = |c: &NodeId| {
            let end = matches!(
                graph.node(*c).op,
                Op::LogSoftmax | Op::Softmax | Op::SoftmaxCrossEntropyLoss
            );
            marked[c.index()] && !end
        };
        let mut outputs = node.outputs.iter().flatten();
        let tail = outputs.all(|v| {
            *v == loss || consumers[v.index()].iter().filter(|c| forward[c.index()]).all(within)
        });
        let parameters = node.inputs.iter().flatten().any(|&v| {
            let value = graph.value(v);
            value.source == Source::Input && old.contains(value.name.as_str())
        });
        marked[i] = tail && !parameters && !is_layer(node.op);
    }
    marked
}

/// Whether an op makes predictions rather than comparing them.
fn is_layer(op: Op) -> bool {
    matches!(of_op(op), Component::MatMul | Component::Norm | Component::Activation)
        || matches!(op, Op::Relu | Op::MaxPool | Op::AveragePool | Op::GlobalAveragePool)
}
