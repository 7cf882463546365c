//! Components: the unit of a policy that each node belongs to.
//!
//! Metadata of the file (`pam.component`) is trusted first, then the role, then the op itself. Where
//! a norm, a softmax or an activation comes in parts, the parts are found from the one that gives it
//! away, and a part of the backward pass from the forward values that it multiplies by.

use pam_ir::graph::{Graph, Node, NodeId, Source, ValueId};
use pam_ir::op::Op;
use pam_ir::role::{Component, Role};

pub(crate) fn assign(graph: &mut Graph) {
    let stated: Vec<Option<Component>> = graph
        .nodes
        .iter()
        .map(|n| n.metadata.get("pam.component").and_then(|c| Component::from_name(c)))
        .collect();
    let mut found: Vec<Component> =
        graph.nodes.iter().zip(&stated).map(|(n, s)| s.unwrap_or_else(|| of(n))).collect();
    if stated.iter().any(Option::is_none) {
        let mut parts = Parts { graph, found: &mut found, consumers: graph.consumers() };
        parts.seeds();
        parts.spread();
    }
    for (node, (found, stated)) in graph.nodes.iter_mut().zip(found.into_iter().zip(stated)) {
        node.component = stated.unwrap_or(found);
    }
}

fn of(node: &Node) -> Component {
    match (node.role, node.op) {
        (Role::Optimizer, _) => Component::Optimizer,
        (Role::Loss, _) | (_, Op::SoftmaxCrossEntropyLoss | Op::NegativeLogLikelihoodLoss) => {
            Component::Loss
        }
        (_, op) => of_op(op),
    }
}

/// The component of an op by itself.
pub(crate) fn of_op(op: Op) -> Component {
    match op {
        Op::MatMul | Op::Gemm | Op::Conv | Op::ConvTranspose | Op::Einsum | Op::Attention => {
            Component::MatMul
        }
        Op::Softmax | Op::LogSoftmax | Op::ReduceLogSumExp => Component::Softmax,
        Op::LayerNormalization
        | Op::RMSNormalization
        | Op::BatchNormalization
        | Op::InstanceNormalization
        | Op::GroupNormalization
        | Op::LpNormalization
        | Op::MeanVarianceNormalization
        | Op::LRN => Component::Norm,
        Op::Gelu
        | Op::Erf
        | Op::Tanh
        | Op::Sigmoid
        | Op::Softplus
        | Op::Softsign
        | Op::Elu
        | Op::Selu
        | Op::Celu
        | Op::LeakyRelu
        | Op::PRelu
        | Op::HardSigmoid
        | Op::HardSwish
        | Op::Swish
        | Op::Mish => Component::Activation,
        _ => Component::Other,
    }
}

/// The search for the parts of decomposed components.
struct Parts<'g> {
    graph: &'g Graph,
    found: &'g mut Vec<Component>,
    consumers: Vec<Vec<NodeId>>,
}

impl Parts<'_> {
    /// The producer of an operand, if it is one of these ops.
    fn made_by(&self, v: Option<ValueId>, ops: &[Op]) -> Option<NodeId> {
        self.graph.producer(v?).filter(|&n| ops.contains(&self.graph.node(n).op))
    }

    fn is_constant(&self, v: ValueId) -> bool {
        self.graph.value(v).source == Source::Constant
    }

    fn mark(&mut self, id: NodeId, component: Component) {
        let found = &mut self.found[id.index()];
        if *found == Component::Other {
            *found = component;
        }
    }

    /// What gives a component away: `exp(x − max x)`, `sqrt(variance + ε)`, `1 + erf(x / √2)`.
    fn seeds(&mut self) {
        let graph = self.graph;
        for (i, node) in graph.nodes.iter().enumerate() {
            if node.role != Role::Forward {
                continue;
            }
            let id = NodeId(i as u32);
            match node.op {
                Op::Exp => {
                    let Some(sub) = self.made_by(node.input(0), &[Op::Sub]) else { continue };
                    let max = self.made_by(graph.node(sub).input(1), &[Op::ReduceMax]);
                    if max.is_some() {
                        self.mark(sub, Component::Softmax);
                        self.mark(id, Component::Softmax);
                    }
                }
                Op::Sqrt => {
                    let Some(sum) = self.made_by(node.input(0), &[Op::Add]) else { continue };
                    let operands = graph.node(sum).inputs.iter().flatten();
                    let (epsilon, variance): (Vec<ValueId>, Vec<ValueId>) =
                        operands.partition(|&&v| self.is_constant(v));
                    if let ([_], [variance]) = (&epsilon[..], &variance[..]) {
                        self.mark(id, Component::Norm);
                        self.mark(sum, Component::Norm);
                        self.moments(*variance, 6);
                    }
                }
                _ => {}
            }
        }
    }

    /// Going back from a variance: means, squares, and the difference from the mean.
    fn moments(&mut self, v: ValueId, depth: usize) {
        let ops = [Op::ReduceMean, Op::ReduceSum, Op::Mul, Op::Div, Op::Pow, Op::Sub, Op::Reshape];
        let Some(id) = self.made_by(Some(v), &ops).filter(|_| depth > 0) else { return };
        self.mark(id, Component::Norm);
        let node = self.graph.node(id);
        // Beyond the difference lies the operand of the norm, but also the mean.
        let from = usize::from(node.op == Op::Sub);
        for &v in node.inputs[from..].iter().flatten() {
            self.moments(v, if from == 1 { 2 } else { depth - 1 });
        }
    }

    /// From the parts that are known to those that take their results, and to those whose results
    /// only they take.
    fn spread(&mut self) {
        for _ in 0..2 {
            for i in 0..self.graph.nodes.len() {
                self.visit(i, Parts::by_operands);
            }
            for i in (0..self.graph.nodes.len()).rev() {
                self.visit(i, Parts::by_consumers);
            }
        }
    }

    fn visit(&mut self, i: usize, rule: fn(&Self, &Node) -> Option<Component>) {
        let node = &self.graph.nodes[i];
        if self.found[i] == Component::Other && is_part(node.op) {
            self.found[i] = rule(self, node).unwrap_or(Component::Other);
        }
    }

    fn by_operands(&self, node: &Node) -> Option<Component> {
        match node.role {
            Role::Forward => self.by_results(node),
            Role::Backward => self.by_saved(node),
            Role::Loss | Role::Optimizer | Role::Metric => None,
        }
    }

    /// The component of a forward node all of whose computed operands belong to it. What multiplies a
    /// part of a norm is one, and so is new state made of one; what multiplies a part of an
    /// activation is its gate.
    fn by_results(&self, node: &Node) -> Option<Component> {
        let from = usize::from(node.op == Op::Where);
        let operands = node.inputs[from..].iter().flatten();
        let producers: Vec<Component> = operands
            .filter_map(|&v| self.graph.producer(v))
            .map(|p| self.found[p.index()])
            .collect();
        let first = *producers.first()?;
        let state = || node.output(0).is_some_and(|v| self.consumers[v.index()].is_empty());
        let scales = matches!(node.op, Op::Mul | Op::Div);
        if producers.contains(&Component::Norm) && (scales || state()) {
            return Some(Component::Norm);
        }
        if producers.contains(&Component::Activation) && node.op == Op::Mul {
            return Some(Component::Activation);
        }
        let reduces = matches!(node.op, Op::ReduceSum | Op::ReduceMean);
        let continues = match first {
            Component::Softmax | Component::Norm => true,
            Component::Activation => !reduces,
            _ => false,
        };
        (continues && producers.iter().all(|&c| c == first)).then_some(first)
    }

    /// The component whose forward values a backward node multiplies by, else the one it continues.
    fn by_saved(&self, node: &Node) -> Option<Component> {
        // The operand of a norm may be the result of an activation.
        let first = |found: &mut dyn Iterator<Item = Component>| {
            let all: Vec<Component> = found.collect();
            let order =
                [Component::Norm, Component::Softmax, Component::Loss, Component::Activation];
            order.into_iter().find(|c| all.contains(c))
        };
        let operands = || node.inputs.iter().flatten();
        let producers = || operands().filter_map(|&v| self.graph.producer(v));
        let part = |backward: bool| {
            let same = move |p: &NodeId| (self.graph.node(*p).role == Role::Backward) == backward;
            first(&mut producers().filter(same).map(|p| self.found[p.index()]))
        };
        // A parameter belongs to the node of the forward pass that takes it.
        let parameter = || {
            let inputs = operands().filter(|v| self.graph.value(**v).source == Source::Input);
            let takers = inputs.flat_map(|v| &self.consumers[v.index()]);
            let forward = takers.filter(|c| self.graph.node(**c).role == Role::Forward);
            first(&mut forward.map(|c| self.found[c.index()]))
        };
        part(false).or_else(parameter).or_else(|| part(true))
    }

    /// The component that all consumers of a node's results in its own pass belong to. In the
    /// forward pass only for what prepares an operand: differences, scalings, means.
    fn by_consumers(&self, node: &Node) -> Option<Component> {
        let constant = || node.inputs.iter().flatten().any(|&v| self.is_constant(v));
        let prepares = match (node.role, node.op) {
            (Role::Backward, _) => true,
            (Role::Forward, Op::Add | Op::Mul | Op::Div | Op::Pow) => constant(),
            (Role::Forward, op) => matches!(op, Op::Sub | Op::ReduceSum | Op::ReduceMean),
            (Role::Loss | Role::Optimizer | Role::Metric, _) => false,
        };
        let consumers = || node.outputs.iter().flatten().flat_map(|v| &self.consumers[v.index()]);
        let subtracts = |c: &NodeId| {
            let taker = self.graph.node(*c);
            let norm = self.found[c.index()] == Component::Norm && taker.op == Op::Sub;
            norm && taker.input(1) == node.output(0)
        };
        if node.role == Role::Forward && consumers().any(subtracts) {
            return Some(Component::Norm);
        }
        let mut own = consumers()
            .filter(|c| self.graph.node(**c).role == node.role)
            .map(|c| self.found[c.index()]);
        let first = own.next().filter(|_| prepares)?;
        let composed = !matches!(first, Component::Other | Component::MatMul);
        (composed && own.all(|c| c == first)).then_some(first)
    }
}

/// Ops that norms, softmaxes, activations and their derivatives come apart into.
fn is_part(op: Op) -> bool {
    matches!(
        op,
        Op::Add
            | Op::Sub
            | Op::Mul
            | Op::Div
            | Op::Neg
            | Op::Exp
            | Op::Sqrt
            | Op::Reciprocal
            | Op::Pow
            | Op::ReduceSum
            | Op::ReduceMean
            | Op::Where
            | Op::Reshape
            | Op::Unsqueeze
            | Op::Squeeze
            | Op::Expand
    )
}
