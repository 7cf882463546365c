//! Components: the unit of a policy that each node belongs to.
//!
//! Metadata of the file (`pam.component`) is trusted first, then the role, then the op itself.

use pam_ir::graph::{Graph, Node};
use pam_ir::op::Op;
use pam_ir::role::{Component, Role};

pub(crate) fn assign(graph: &mut Graph) {
    for node in &mut graph.nodes {
        let stated = node.metadata.get("pam.component").and_then(|c| Component::from_name(c));
        node.component = stated.unwrap_or_else(|| of(node));
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

fn of_op(op: Op) -> Component {
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
