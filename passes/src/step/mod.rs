//! Training steps from forward graphs: a loss, gradients and an optimizer around an inference export.
//!
//! ```text
//! x ─▶ forward ─▶ logits ─▶ loss ─▶ Gradient ─▶ optimizer ─▶ new.<parameter>, new state
//! ```
//!
//! The gradients are left to the op `Gradient`, which compiling resolves under the policy at hand. Inputs,
//! outputs and bindings are named as in steps exported by `pam_export`, and the optimizers compute what
//! those of PyTorch do.

mod loss;
mod optimizer;

pub use loss::LossSpec;
pub use optimizer::OptimizerSpec;

use crate::CompileError;
use pam_ir::attr::Attr;
use pam_ir::build::{BuildError, Builder, Rebuild, Scope};
use pam_ir::graph::{Binding, Graph, Node, Source, Value, ValueId};
use pam_ir::op::Op;
use pam_ir::role::{Component, Mode, Role};
use pam_ir::tensor::Tensor;
use pam_ir::types::{DType, Type};
use regex::Regex;
use std::collections::HashSet;

/// How to build a training step.
#[derive(Clone, Debug)]
pub struct StepOptions {
    /// The loss.
    pub loss: LossSpec,
    /// The optimizer.
    pub optimizer: OptimizerSpec,
    /// Parameters whose name matches are not trained.
    pub freeze: Vec<Regex>,
}

/// Makes a training step of a forward graph.
///
/// Trained are the float constants of more than one element, and the float inputs with defaults, that the
/// output depends on: not the statistics of normalisations, nor masks that hold infinities.
///
/// # Errors
/// Where the graph carries state already, has nothing to train, or does not fit the loss.
pub fn build(graph: &Graph, options: &StepOptions) -> Result<Graph, CompileError> {
    if let Some(b) = graph.bindings.first() {
        let reason = format!("the model is a training step already: it carries `{}`", b.old);
        return Err(CompileError::general(reason, "leave --loss and --optimizer out"));
    }
    let mut source = graph.clone();
    untie(&mut source);
    let trained = trained(&source, options);
    if trained.is_empty() {
        let reason = "the model holds no weights to train".to_owned();
        return Err(CompileError::general(reason, "give values to its inputs with --init"));
    }
    promote(&mut source, &trained);
    let mut made = None;
    let last = source.nodes.len().checked_sub(1);
    let mut step = source.rebuild(|r, id, node| {
        r.copy(&Node { role: Role::Forward, mode: Mode::Native, ..node.clone() });
        if Some(id.index()) == last {
            made = Some(finish(r, options, &trained)?);
        }
        Ok::<(), CompileError>(())
    })?;
    let Some(made) = made else {
        let reason = "the model computes nothing".to_owned();
        return Err(CompileError::general(reason, "export it again"));
    };
    step.bindings = made.bindings;
    // The loss comes first, as it does in exported steps.
    let outputs = std::mem::take(&mut step.outputs);
    let (front, back): (Vec<_>, Vec<_>) = outputs.into_iter().partition(|o| o.name == made.loss);
    let (own, forward): (Vec<_>, Vec<_>) =
        back.into_iter().partition(|o| step.bindings.iter().any(|b| b.new == o.name));
    step.outputs = [front, forward, own].concat();
    step.meta.properties.insert("pam.loss".to_owned(), made.loss);
    Ok(step)
}

/// What `finish` has added.
struct Made {
    loss: String,
    bindings: Vec<Binding>,
}

/// Appends loss, gradients and optimizer.
fn finish(
    r: &mut Rebuild<'_>,
    options: &StepOptions,
    trained: &[ValueId],
) -> Result<Made, CompileError> {
    let outputs: Vec<(String, ValueId)> =
        r.old.outputs.iter().map(|o| (o.name.clone(), r.get(o.value))).collect();
    let (name, loss, is_new) = options.loss.append(&mut r.to, &outputs)?;
    if is_new {
        r.to.output(&name, loss);
    }
    let parameters: Vec<ValueId> = trained.iter().map(|&v| r.get(v)).collect();
    let inputs: Vec<Option<ValueId>> =
        std::iter::once(loss).chain(parameters.iter().copied()).map(Some).collect();
    r.to.scope = scope("gradient", Role::Backward, Component::Other);
    let gradients = r.to.node_n(Op::Gradient, &inputs, &[], parameters.len()).map_err(defect)?;
    r.to.scope = scope("optimizer", Role::Optimizer, Component::Optimizer);
    let pairs: Vec<(ValueId, ValueId)> = parameters.into_iter().zip(gradients).collect();
    let bindings = options.optimizer.append(&mut r.to, &pairs).map_err(defect)?;
    Ok(Made { loss: name, bindings })
}

fn defect(e: BuildError) -> CompileError {
    CompileError::general(e.to_string(), "")
}

fn scope(name: &str, role: Role, component: Component) -> Scope {
    Scope { name: name.to_owned(), role, component, ..Scope::default() }
}

/// What is trained, in the order of the values.
fn trained(graph: &Graph, options: &StepOptions) -> Vec<ValueId> {
    let needed = graph.ancestors(graph.outputs.iter().map(|o| o.value));
    let mut read = vec![false; graph.values.len()];
    let mut fixed = vec![false; graph.values.len()];
    for (node, _) in graph.nodes.iter().zip(&needed).filter(|(_, n)| **n) {
        for (i, v) in node.inputs.iter().enumerate() {
            let Some(v) = v else { continue };
            read[v.index()] = true;
            // Statistics are measured, not trained, and the bounds of selections are no weights.
            let statistics = node.op == Op::BatchNormalization && i >= 3;
            fixed[v.index()] |= statistics || matches!(node.op, Op::Clip | Op::Pow | Op::Equal);
        }
    }
    let frozen = |name: &str| options.freeze.iter().any(|r| r.is_match(name));
    let values = graph.values.iter().enumerate();
    let trained = values.filter(|(i, v)| {
        let Some(data) = &v.data else { return false };
        let finite = || data.to_f64().is_some_and(|d| d.iter().all(|x| x.is_finite()));
        read[*i]
            && !fixed[*i]
            && !matches!(v.source, Source::Node { .. })
            && v.ty.dtype.is_float()
            && v.ty.elements() > 1
            && !frozen(&v.name)
            && finite()
    });
    trained.map(|(i, _)| ValueId(i as u32)).collect()
}

/// Exporters merge weights that begin equal, such as the zeros of biases: a constant whose elements are
/// all equal becomes one for each node that reads it. Weights that differ in their elements are tied
/// on purpose.
fn untie(graph: &mut Graph) {
    let uniform = |v: &Value| {
        v.source == Source::Constant
            && v.ty.dtype.is_float()
            && v.ty.elements() > 1
            && v.data
                .as_ref()
                .and_then(Tensor::to_f64)
                .is_some_and(|d| d.iter().all(|x| *x == d[0]))
    };
    let mut readers = vec![0usize; graph.values.len()];
    let mut taken: HashSet<String> = graph.values.iter().map(|v| v.name.clone()).collect();
    for i in 0..graph.nodes.len() {
        for slot in 0..graph.nodes[i].inputs.len() {
            let Some(v) = graph.nodes[i].inputs[slot] else { continue };
            if !uniform(graph.value(v)) {
                continue;
            }
            readers[v.index()] += 1;
            if readers[v.index()] > 1 {
                let mut copy = graph.value(v).clone();
                let mut n = readers[v.index()];
                while !taken.insert(format!("{}.{n}", copy.name)) {
                    n += 1;
                }
                copy.name = format!("{}.{n}", copy.name);
                graph.nodes[i].inputs[slot] = Some(graph.add_value(copy));
            }
        }
    }
}

/// Makes inputs with defaults of constants.
fn promote(graph: &mut Graph, trained: &[ValueId]) {
    for &v in trained {
        let value = &mut graph.values[v.index()];
        if value.source == Source::Constant {
            value.source = Source::Input;
            graph.inputs.push(v);
        }
    }
}

/// A number as a rank-0 constant of f32.
fn number(b: &mut Builder, x: f64) -> ValueId {
    b.scalar(x as f32)
}

/// An input of f32 that has a default.
fn hyper(b: &mut Builder, name: &str, default: f32) -> ValueId {
    b.input(name, Type::new(DType::F32, []), Some(Tensor::scalar(default)))
}

/// Zeros in the type of a value.
fn zeros(b: &Builder, like: ValueId) -> Option<Tensor> {
    let ty = b.ty(like);
    let zeros = Tensor::new(ty.shape.clone(), vec![0f32; ty.elements()]);
    pam_ir::eval::cast(&zeros, ty.dtype)
}

/// An attribute list of one element.
fn one(name: &str, value: impl Into<Attr>) -> [(&str, Attr); 1] {
    [(name, value.into())]
}

/// Options behind a colon: `name=value,…`.
fn settings(text: &str) -> Result<Vec<(&str, f64)>, String> {
    let parts = text.split(',').filter(|p| !p.is_empty());
    parts
        .map(|part| {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not of the form name=value"))?;
            let value: f64 =
                value.parse().map_err(|_| format!("`{value}` of `{name}` is no number"))?;
            if value.is_finite() { Ok((name, value)) } else { Err(format!("`{name}` is {value}")) }
        })
        .collect()
}
