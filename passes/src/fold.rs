//! Fold: what constants determine is computed when compiling, and what no output needs is dropped.
//!
//! Integer shape arithmetic disappears here, exactly. Defaults of inputs are not constants.

use pam_ir::eval::{evaluate, is_float_multiply};
use pam_ir::graph::{Graph, Node};
use pam_ir::op::{Call, Op};
use pam_ir::tensor::Tensor;
use pam_ir::types::Type;

/// What folding did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Nodes that became constants.
    pub nodes: usize,
    /// Nodes among them that multiply floats.
    pub multiplies: usize,
    /// Nodes that no output needs.
    pub dead: usize,
}

/// Larger results stay computations: a file should not grow by what a node makes cheaply.
const LIMIT: usize = 1 << 16;

pub(crate) fn fold(graph: &Graph) -> (Graph, Folded) {
    let mut folded = Folded::default();
    let needed = graph.ancestors(graph.outputs.iter().map(|o| o.value));
    let result = graph.rebuild(|r, id, node| {
        if !needed[id.index()] {
            folded.dead += 1;
            return Ok::<(), std::convert::Infallible>(());
        }
        let known: Option<Vec<Option<Tensor>>> = if foldable(graph, node) {
            let constant = |v| r.to.graph().constant(v).cloned();
            let each = |v: &Option<_>| match v {
                None => Some(None),
                Some(v) => constant(r.get(*v)).map(Some),
            };
            let all: Option<Vec<_>> = node.inputs.iter().map(each).collect();
            match node.op {
                Op::Shape | Op::Size => Some(vec![None; node.inputs.len()]),
                _ => all,
            }
        } else {
            None
        };
        let outputs = known.and_then(|inputs| {
            let tensors: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
            graph.with_call(node, |call| evaluate(call, &tensors).map(|o| (o, counts(call))))
        });
        let Some((outputs, multiplies)) = outputs else {
            r.copy(node);
            return Ok(());
        };
        folded.nodes += 1;
        folded.multiplies += usize::from(multiplies);
        for (v, tensor) in node.outputs.iter().zip(outputs) {
            if let Some(v) = v {
                let name = &graph.value(*v).name;
                let new = r.to.constant(name, tensor);
                r.set(*v, new);
            }
        }
        Ok(())
    });
    match result {
        Ok(graph) => (graph, folded),
        Err(never) => match never {},
    }
}

fn foldable(graph: &Graph, node: &Node) -> bool {
    node.outputs.iter().flatten().all(|&v| graph.ty(v).elements() <= LIMIT)
}

fn counts(call: &Call<'_>) -> bool {
    let types: Vec<Type> = (call.op.row().infer)(call).unwrap_or_default();
    is_float_multiply(call, &types)
}
