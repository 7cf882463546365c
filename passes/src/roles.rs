//! Roles: which part of the step each node belongs to.
//!
//! Metadata of the file (`pam.role`) is trusted first. Otherwise the shape of the graph decides: what
//! the loss depends on is forward, what carried state depends on is backward or optimizer, the rest
//! is metric.

use pam_ir::graph::{Graph, Node, ValueId};
use pam_ir::op::Op;
use pam_ir::role::Role;
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

pub(crate) fn assign(graph: &mut Graph) -> Evidence {
    let stated = |n: &Node| n.metadata.get("pam.role").and_then(|r| Role::from_name(r));
    let evidence = if graph.nodes.iter().any(|n| stated(n).is_some()) {
        Evidence::Metadata
    } else {
        Evidence::Shape
    };
    let guessed = guess(graph);
    for (node, guess) in graph.nodes.iter_mut().zip(guessed) {
        node.role = stated(node).unwrap_or(guess);
    }
    evidence
}

fn guess(graph: &Graph) -> Vec<Role> {
    let bound: BTreeSet<&str> = graph.bindings.iter().map(|b| b.new.as_str()).collect();
    let free: Vec<_> = graph.outputs.iter().filter(|o| !bound.contains(o.name.as_str())).collect();
    let scalar = |v: ValueId| graph.ty(v).dtype.is_float() && graph.ty(v).elements() == 1;
    let loss = free
        .iter()
        .find(|o| scalar(o.value) && o.name.to_lowercase().contains("loss"))
        .or_else(|| free.iter().find(|o| scalar(o.value)));
    // Without carried state there is nothing but a forward pass.
    if bound.is_empty() {
        return vec![Role::Forward; graph.nodes.len()];
    }
    let forward = graph.ancestors(loss.map(|o| o.value));
    let state = graph.outputs.iter().filter(|o| bound.contains(o.name.as_str()));
    let to_state = graph.ancestors(state.map(|o| o.value));
    let optimizer = optimizer(graph, &forward, &bound);
    let loss_part = loss_part(graph, &forward, loss.map(|o| o.value));
    (0..graph.nodes.len())
        .map(|i| match () {
            () if loss_part[i] => Role::Loss,
            () if forward[i] => Role::Forward,
            () if optimizer[i] => Role::Optimizer,
            () if to_state[i] => Role::Backward,
            () => Role::Metric,
        })
        .collect()
}

/// Nodes that see optimizer state or the old parameter only on the way to the new one: going back
/// from new state, elementwise nodes of the shape of that state, and everything that only they use.
fn optimizer(graph: &Graph, forward: &[bool], bound: &BTreeSet<&str>) -> Vec<bool> {
    let mut marked = vec![false; graph.nodes.len()];
    let mut stack: Vec<ValueId> =
        graph.outputs.iter().filter(|o| bound.contains(o.name.as_str())).map(|o| o.value).collect();
    while let Some(v) = stack.pop() {
        let Some(id) = graph.producer(v) else { continue };
        let node = graph.node(id);
        // Gradients are made by contractions and reductions; an update is elementwise.
        if marked[id.index()] || forward[id.index()] || !elementwise(node.op) {
            continue;
        }
        marked[id.index()] = true;
        stack.extend(node.inputs.iter().flatten());
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
            | Op::Identity
            | Op::Cast
            | Op::Max
            | Op::Min
    )
}

/// Forward nodes that depend on labels: integer inputs that reach the loss without being looked up
/// in a table of weights.
fn loss_part(graph: &Graph, forward: &[bool], loss: Option<ValueId>) -> Vec<bool> {
    let mut marked = vec![false; graph.nodes.len()];
    let Some(loss) = loss else { return marked };
    let consumers = graph.consumers();
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        if !forward[i] {
            continue;
        }
        let is_loss =
            matches!(node.op, Op::SoftmaxCrossEntropyLoss | Op::NegativeLogLikelihoodLoss);
        let scalar_tail = node.outputs.iter().flatten().all(|v| {
            let within = |c: &pam_ir::graph::NodeId| marked[c.index()];
            *v == loss || consumers[v.index()].iter().filter(|c| forward[c.index()]).all(within)
        });
        let small = node.outputs.iter().flatten().all(|&v| graph.ty(v).elements() == 1);
        marked[i] = is_loss || (scalar_tail && (small || node.op == Op::LogSoftmax));
    }
    marked
}
