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
mod signature;
mod statistics;
mod weights;

pub use loss::LossSpec;
pub use optimizer::OptimizerSpec;
pub use signature::warnings;

use crate::CompileError;
use pam_ir::attr::Attr;
use pam_ir::build::{BuildError, Builder, Rebuild, Scope};
use pam_ir::graph::{Binding, Graph, Node, Source, ValueId};
use pam_ir::op::Op;
use pam_ir::role::{Component, Mode, Role};
use pam_ir::tensor::Tensor;
use pam_ir::types::{DType, Type};
use regex::Regex;

/// How to build a training step.
#[derive(Clone, Debug)]
pub struct StepOptions {
    /// The loss.
    pub loss: LossSpec,
    /// The optimizer.
    pub optimizer: OptimizerSpec,
    /// Parameters, and running statistics, whose name matches stay what they are.
    pub freeze: Vec<Regex>,
}

impl StepOptions {
    fn is_frozen(&self, name: &str) -> bool {
        self.freeze.iter().any(|r| r.is_match(name))
    }
}

/// Makes a training step of a forward graph.
///
/// Trained are what the file's exporter calls a parameter, and where it does not say, the float constants, and the float inputs with defaults, that the output depends on: not the
/// statistics of normalisations, bounds and exponents, nor masks that hold infinities or numbers nearly as large. Of
/// single numbers only those are that are a bias, slope, scale or shift of a layer, or have the name of a module's
/// parameter, `block.0.scale`. Statistics of normalisations that are in training mode are carried on as state.
///
/// # Errors
/// Where the graph carries state already, has nothing to train, or does not fit the loss.
pub fn build(graph: &Graph, options: &StepOptions) -> Result<Graph, CompileError> {
    if let Some(b) = graph.bindings.first() {
        let reason = format!("the model is a training step already: it carries `{}`", b.old);
        return Err(CompileError::general(reason, "leave --loss and --optimizer out"));
    }
    let mut source = graph.clone();
    weights::separate(&mut source);
    let transposed = weights::transposed(&source);
    let trained = weights::trained(&source, options, &transposed);
    weights::check(&source, &trained, options)?;
    let statistics = statistics::running(&mut source, options);
    promote(&mut source, trained.iter().chain(statistics.iter().map(|(old, _)| old)));
    let mut made = None;
    let last = source.nodes.len().checked_sub(1);
    let mut step = source.rebuild(|r, id, node| {
        if id.index() == 0 {
            r.to.scope = scope("tied", Role::Forward, Component::Other);
            for &(weight, transpose) in &transposed {
                let weight = r.get(weight);
                let made = r.to.node(Op::Transpose, &[weight], &one("perm", vec![1i64, 0]));
                r.set(transpose, made.map_err(defect)?);
            }
        }
        r.copy(&Node { role: Role::Forward, mode: Mode::Native, ..node.clone() });
        if Some(id.index()) == last {
            made = Some(finish(r, options, &trained, &statistics)?);
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
    statistics: &[(ValueId, ValueId)],
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
    let mut bindings = options.optimizer.append(&mut r.to, &pairs).map_err(defect)?;
    for &(old, new) in statistics {
        let (old, new) = (r.get(old), r.get(new));
        bindings.push(bind(&mut r.to, old, new));
    }
    Ok(Made { loss: name, bindings })
}

fn defect(e: BuildError) -> CompileError {
    CompileError::general(e.to_string(), "")
}

fn scope(name: &str, role: Role, component: Component) -> Scope {
    Scope { name: name.to_owned(), role, component, ..Scope::default() }
}

/// Makes a value the next one of an input.
fn bind(b: &mut Builder, old: ValueId, new: ValueId) -> Binding {
    let old = b.graph().value(old).name.clone();
    let new_name = format!("new.{old}");
    b.output(&new_name, new);
    Binding { new: new_name, old }
}

/// Makes inputs with defaults of constants.
fn promote<'a>(graph: &mut Graph, state: impl Iterator<Item = &'a ValueId>) {
    for &v in state {
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
    let mut given: Vec<(&str, f64)> = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` is not of the form name=value"))?;
        let value: f64 =
            value.parse().map_err(|_| format!("`{value}` of `{name}` is no number"))?;
        if !value.is_finite() {
            return Err(format!("`{name}` is {value}"));
        }
        if given.iter().any(|(other, _)| *other == name) {
            return Err(format!("`{name}` is given already"));
        }
        given.push((name, value));
    }
    Ok(given)
}
