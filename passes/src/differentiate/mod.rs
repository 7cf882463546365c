//! Reverse-mode differentiation of lowered graphs.
//!
//! The forward pass has been lowered to primitives, native ops and ops that do not multiply; each node
//! knows its mode. [`gradients`] walks its nodes backwards and appends, for each, what `table` says:
//! under the mode `exact` the derivative of the piecewise affine function, under `approx` the textbook
//! derivative in PA arithmetic, under `native` the textbook derivative. What is composed gets its
//! derivative through the nodes it was lowered to, as in the paper.
//!
//! [`regenerate`] replaces the backward pass of a training step by such a one.

mod contraction;
mod gradients;
mod indexing;
mod marks;
mod movement;
mod regenerate;
mod selection;
mod table;
mod vjp;

pub use gradients::{GradientEvidence, Gradients, Recognised, find};
pub use marks::Detach;
pub(crate) use marks::{is_detached, lost_detach};
pub(crate) use regenerate::{Regenerated, answer, check_graph, regenerate};

use crate::lower::{Arithmetic, LowerError, Lowering};
use pam_ir::attr::Attr;
use pam_ir::build::{Rebuild, Scope};
use pam_ir::graph::{Node, Origin, ValueId};
use pam_ir::op::Level;
use pam_ir::role::{Mode, Role};
use std::collections::HashMap;
use vjp::Vjp;

/// Why a graph cannot be differentiated, and at which node.
pub(crate) struct DifferentiateError {
    pub node: Option<Box<Node>>,
    pub reason: String,
}

impl From<LowerError> for DifferentiateError {
    fn from(e: LowerError) -> DifferentiateError {
        DifferentiateError { node: None, reason: e.0 }
    }
}

/// Appends the derivative of a scalar `loss` by each of `wanted`, values of the graph that is being
/// built; `None` for one that the loss does not depend on.
pub(crate) fn gradients(
    r: &mut Rebuild<'_>,
    arithmetic: Arithmetic,
    loss: ValueId,
    wanted: &[ValueId],
) -> Result<Vec<Option<ValueId>>, DifferentiateError> {
    let ty = r.to.ty(loss).clone();
    if !ty.dtype.is_float() || ty.elements() != 1 {
        let reason = format!("the loss is {ty}, but only one float can be differentiated");
        return Err(DifferentiateError { node: None, reason });
    }
    let reached = reached(r, wanted);
    let mut cotangents: HashMap<ValueId, ValueId> = HashMap::new();
    let count = r.to.graph().nodes.len();
    r.to.scope = Scope { name: "loss".to_owned(), role: Role::Backward, ..Scope::default() };
    let one = pam_ir::tensor::Tensor::scalar(1f32);
    let seed = pam_ir::eval::cast(&one, ty.dtype).unwrap_or(one);
    let seed = r.to.constant("loss.gradient", seed);
    let shape = Attr::from(ty.shape.as_slice());
    let seed = r.to.node(pam_ir::op::Op::Expand, &[seed], &[("shape", shape)]);
    cotangents.insert(loss, seed.map_err(LowerError::from)?);
    for i in (0..count).rev() {
        let graph = r.to.graph();
        let asked = |v: &Option<ValueId>| v.is_some_and(|v| cotangents.contains_key(&v));
        let reaches = |v: &Option<ValueId>| v.is_some_and(|v| reached[v.index()]);
        let node = &graph.nodes[i];
        if !node.outputs.iter().any(asked) || !node.inputs.iter().any(reaches) {
            continue;
        }
        let node = node.clone();
        r.to.scope = scope(&node);
        let native = node.op.level() == Level::Native || node.mode == Mode::Native;
        let arithmetic = if native { Arithmetic::Portable } else { arithmetic };
        let lo = Lowering::new(r, arithmetic);
        let mut vjp = Vjp::new(lo, &node, &mut cotangents, &reached);
        let known = table::apply(&mut vjp).map_err(|e| e.0);
        let reason = match known {
            Ok(true) => continue,
            Ok(false) => "this op has no derivative".to_owned(),
            Err(reason) => reason,
        };
        return Err(DifferentiateError { node: Some(Box::new(node)), reason });
    }
    Ok(wanted.iter().map(|v| cotangents.get(v).copied()).collect())
}

/// Marks the float values that depend on one of `from`.
fn reached(r: &Rebuild<'_>, from: &[ValueId]) -> Vec<bool> {
    let graph = r.to.graph();
    let mut reached = vec![false; graph.values.len()];
    for v in from {
        reached[v.index()] = true;
    }
    for node in graph.nodes.iter().filter(|n| !marks::is_detached(n)) {
        if node.inputs.iter().flatten().any(|v| reached[v.index()]) {
            for v in node.outputs.iter().flatten() {
                reached[v.index()] = graph.ty(*v).dtype.is_float();
            }
        }
    }
    reached
}

/// The scope of the derivative of a node: its component and mode, the backward role.
fn scope(node: &Node) -> Scope {
    let origin = node.origin.clone().unwrap_or_else(|| Origin {
        node: node.name.as_str().into(),
        op: node.op.onnx_name().into(),
        rule: "".into(),
    });
    let name = format!("{}.grad", node.name);
    Scope {
        name,
        role: Role::Backward,
        component: node.component,
        mode: node.mode,
        origin: Some(Origin { rule: "differentiate".into(), ..origin }),
    }
}
