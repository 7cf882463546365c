//! Sequences of tensors, which are lists of values while a model is imported, and the linking of onnxruntime's two
//! models, whose optimizers take them.
//!
//! A value that nothing reads stands for a sequence, so that names, loops, branches and calls pass it on as they do
//! any other; only ops on sequences look up what it stands for.
//!
//! `training_model.onnx` adds each gradient to a buffer in place (`InPlaceAccumulatorV2`), and
//! `optimizer_model.onnx` takes sequences `params`, `gradients` and moments and updates them in place.
//! Linked, the parameters are those whose gradients were accumulated, in that order; what is updated in
//! place becomes an output `new.<name>`, which is bound to the input of that name. Moments begin as zeros,
//! the count of steps as 1, and gradients are not carried over unless the caller asks for it.

use super::forward::norm_of;
use super::{Result, Translation, optimizer};
use crate::graph::ValueId;
use crate::onnx::error::OnnxError;
use crate::onnx::import::place::at;
use crate::onnx::import::{Context, Importer, Names};
use crate::onnx::proto::{NodeProto, ValueInfoProto};
use crate::op::Op;
use crate::tensor::Tensor;
use std::collections::HashMap;

/// The ops on sequences that ONNX has.
pub(super) const STANDARD: [&str; 8] = [
    "ConcatFromSequence",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SplitToSequence",
];

/// The ops of onnxruntime that take or update sequences, or accumulate in place.
pub(super) const TRAINING: [&str; 4] =
    ["AdamWOptimizer", "InPlaceAccumulatorV2", "InplaceClipGradNorm", "SGDOptimizerV2"];

/// A parameter of a training model.
#[derive(Clone, Debug)]
struct Parameter {
    name: String,
    value: ValueId,
    gradient: ValueId,
}

/// The sequences that are known, and what a linked model may ask for.
#[derive(Default)]
pub(in crate::onnx::import) struct Sequences {
    known: HashMap<ValueId, Vec<ValueId>>,
    parameters: Vec<Parameter>,
    /// New values of what is updated in place: outputs to be added.
    pub updates: Vec<(String, ValueId)>,
}

impl Sequences {
    /// Whether a value stands for a sequence.
    pub(in crate::onnx::import) fn is_known(&self, value: ValueId) -> bool {
        self.known.contains_key(&value)
    }
}

impl Importer<'_> {
    /// What stands for an input that is a sequence, if that is one that a linked model knows.
    pub(in crate::onnx::import) fn sequence_input(
        &mut self,
        info: &ValueInfoProto,
    ) -> Option<ValueId> {
        if self.sequences.parameters.is_empty() {
            return None;
        }
        let name = info.name();
        let parameters = self.sequences.parameters.clone();
        let elements = parameters.iter().map(|p| match name {
            "params" => p.value,
            "gradients" => p.gradient,
            _ => {
                let ty = self.builder.ty(p.value).clone();
                let zeros = Tensor::new(ty.shape.clone(), vec![0f32; ty.elements()]);
                let zeros = crate::eval::cast(&zeros, ty.dtype);
                self.builder.input(&format!("{name}.{}", p.name), ty, zeros)
            }
        });
        let elements = elements.collect();
        Some(self.sequence(elements))
    }

    /// A value that stands for these.
    fn sequence(&mut self, elements: Vec<ValueId>) -> ValueId {
        let value = self.builder.constant("sequence", Tensor::scalar(false));
        self.sequences.known.insert(value, elements);
        value
    }

    /// Appends a node that makes, takes or updates sequences or accumulates in place; `None` for any
    /// other.
    pub(in crate::onnx::import) fn sequence_node(
        &mut self,
        context: &Context<'_>,
        names: &mut Names<'_>,
        node: &NodeProto,
        label: &str,
        position: usize,
    ) -> Option<std::result::Result<(), OnnxError>> {
        let first = node.input.first().and_then(|name| names.get(name));
        if let ("Identity", Some(same)) = (node.op_type(), first)
            && self.sequences.is_known(same)
        {
            return Some(self.define(context, names, &output(node, 0), same));
        }
        if !STANDARD.iter().chain(&TRAINING).any(|known| *known == node.op_type()) {
            return None;
        }
        self.builder.scope.name = label.to_owned();
        let made = self.sequence_op(context, names, node);
        Some(made.map_err(|reason| at(context, node, position, &reason, "")))
    }

    fn sequence_op(
        &mut self,
        context: &Context<'_>,
        names: &mut Names<'_>,
        node: &NodeProto,
    ) -> Result<()> {
        let value = |i: usize| -> Result {
            let name = node.input.get(i).map_or("", String::as_str);
            names.get(name).ok_or_else(|| format!("input `{name}` is defined by nothing"))
        };
        let sequence = |importer: &Self, i: usize| -> Result<Vec<ValueId>> {
            let name = node.input.get(i).map_or("", String::as_str);
            let known = names.get(name).and_then(|v| importer.sequences.known.get(&v));
            known.cloned().ok_or_else(|| {
                format!(
                    "input `{name}` is no known sequence; give the training model before this one"
                )
            })
        };
        let op = node.op_type();
        if STANDARD.contains(&op) {
            let tensor = |i| value(i).ok().filter(|v| !self.sequences.is_known(*v));
            let inputs: Vec<Option<ValueId>> = (0..node.input.len()).map(tensor).collect();
            let all = match op {
                "SequenceConstruct" | "SequenceEmpty" | "SplitToSequence" => Vec::new(),
                _ => sequence(self, 0)?,
            };
            let mut v = Translation::new(self, context, node, &inputs)?;
            let made = match standard(&mut v, all)? {
                Made::Sequence(elements) => self.sequence(elements),
                Made::Tensor(element) => element,
            };
            return self.define(context, names, &output(node, 0), made).map_err(|e| e.reason);
        }
        if op == "InPlaceAccumulatorV2" {
            let (buffer, gradient, flag) = (value(0)?, value(1)?, value(2).ok());
            let mut v = Translation::new(self, context, node, &[])?;
            // A vector of one, which would make one of a scalar.
            let reset = flag.map(|flag| v.reshape(flag, &[])).transpose()?;
            let sum = v.add(buffer, gradient)?;
            let new = match reset {
                Some(reset) => v.select(reset, gradient, sum)?,
                None => sum,
            };
            let done = v.done();
            let gradient_name = &node.input[1];
            let name = gradient_name.strip_suffix("_grad").unwrap_or(gradient_name);
            if let Some(p) = names.get(name) {
                let parameter = Parameter { name: name.to_owned(), value: p, gradient: new };
                self.sequences.parameters.push(parameter);
            }
            self.begin_as_zeros(buffer);
            if let Some(reset) = flag {
                let ty = self.builder.ty(reset).clone();
                let always = Tensor::new(ty.shape.clone(), vec![true; ty.elements()]);
                self.builder.set_default(reset, always);
            }
            self.update(&node.input[0].clone(), new);
            return self.define(context, names, &output(node, 0), done).map_err(|e| e.reason);
        }
        let inputs: Vec<ValueId> = match op {
            "AdamWOptimizer" => vec![value(0)?, value(1)?],
            "SGDOptimizerV2" => vec![value(0)?],
            _ => Vec::new(),
        };
        let first = inputs.len();
        let groups = match op {
            "AdamWOptimizer" => 4,
            "SGDOptimizerV2" => 2,
            _ => 1,
        };
        let mut own = Vec::new();
        for g in 0..groups {
            own.push(sequence(self, first + g)?);
        }
        if own.iter().any(|s| s.len() != own[0].len()) {
            return Err("the sequences differ in length".to_owned());
        }
        let mut v = Translation::new(self, context, node, &[])?;
        if op == "InplaceClipGradNorm" {
            let clipped = clipped(&mut v, &own[0])?;
            let made = self.sequence(clipped);
            return self.define(context, names, &output(node, 0), made).map_err(|e| e.reason);
        }
        let mut new: Vec<Vec<ValueId>> = vec![Vec::new(); groups];
        for (i, (&p, &g)) in own[0].iter().zip(own.get(1).unwrap_or(&own[0])).enumerate() {
            if op == "AdamWOptimizer" {
                let tensors = [p, g, own[2][i], own[3][i]];
                let [p, m, s] = optimizer::adamw(&mut v, [inputs[0], inputs[1]], tensors)?;
                for (group, value) in [(0, p), (2, m), (3, s)] {
                    new[group].push(value);
                }
            } else {
                new[0].push(optimizer::sgd(&mut v, inputs[0], p, g)?);
            }
        }
        let done = v.done();
        for group in [0, 2, 3] {
            let Some(values) = new.get(group).filter(|n| !n.is_empty()) else { continue };
            for (old, new) in own[group].iter().zip(values) {
                let name = self.builder.graph().value(*old).name.clone();
                self.update(&name, *new);
            }
        }
        // Outputs beyond the flag are the updated sequences.
        for (i, group) in [(1, 0), (2, 2), (3, 3)] {
            let name = output(node, i);
            if let (false, Some(values)) = (name.is_empty(), new.get(group)) {
                let made = self.sequence(values.clone());
                self.define(context, names, &name, made).map_err(|e| e.reason)?;
            }
        }
        if op == "AdamWOptimizer" {
            self.count(inputs[1])?;
        }
        self.define(context, names, &output(node, 0), done).map_err(|e| e.reason)
    }

    /// Lets an input begin as zeros, if it has no value.
    fn begin_as_zeros(&mut self, v: ValueId) {
        let ty = self.builder.ty(v).clone();
        let zeros = Tensor::new(ty.shape.clone(), vec![0f32; ty.elements()]);
        if let Some(zeros) = crate::eval::cast(&zeros, ty.dtype) {
            self.builder.set_default(v, zeros);
        }
    }

    /// Makes a value the next one of an input.
    pub(super) fn update(&mut self, old: &str, new: ValueId) {
        self.sequences.updates.push((format!("new.{old}"), new));
    }

    /// Counts steps, from 1.
    fn count(&mut self, step: ValueId) -> Result<()> {
        let name = self.builder.graph().value(step).name.clone();
        let ty = self.builder.ty(step).clone();
        let ones = Tensor::new(ty.shape.clone(), vec![1f32; ty.elements()]);
        let ones = crate::eval::cast(&ones, ty.dtype).ok_or("the count is no number")?;
        self.builder.set_default(step, ones.clone());
        let one = self.constant("one", ones);
        let next = self.before(Op::Add, &[Some(step), Some(one)], crate::attr::Attrs::new())?;
        self.update(&name, next);
        Ok(())
    }
}

/// What an op on sequences gives.
enum Made {
    Sequence(Vec<ValueId>),
    Tensor(ValueId),
}

/// The standard ops on a sequence, whose positions must be known.
fn standard(v: &mut Translation<'_, '_>, mut all: Vec<ValueId>) -> Result<Made> {
    let position = |v: &Translation<'_, '_>, i: usize, n: usize| -> Result<usize> {
        crate::op::normalize_axis(*v.known(i)?.first().ok_or("the position is empty")?, n)
    };
    Ok(match v.op {
        "SequenceConstruct" => {
            Made::Sequence((0..v.inputs.len()).map(|i| v.x(i)).collect::<Result<_>>()?)
        }
        "SequenceInsert" => {
            let at = v.given(2).map_or(Ok(all.len()), |_| position(v, 2, all.len() + 1))?;
            all.insert(at, v.x(1)?);
            Made::Sequence(all)
        }
        "SequenceErase" if all.is_empty() => return Err("the sequence is empty".to_owned()),
        "SequenceErase" => {
            let at = v.given(1).map_or(Ok(all.len() - 1), |_| position(v, 1, all.len()))?;
            all.remove(at);
            Made::Sequence(all)
        }
        "SequenceAt" => Made::Tensor(all[position(v, 1, all.len())?]),
        "SequenceLength" => {
            let length = Tensor::scalar(all.len() as i64);
            Made::Tensor(v.importer.constant("length", length))
        }
        "ConcatFromSequence" => {
            let first = *all.first().ok_or("the sequence is empty")?;
            let new = v.int("new_axis", 0) != 0;
            let rank = v.rank(first) + usize::from(new);
            let axis = crate::op::normalize_axis(v.int("axis", 0), rank)?;
            if new {
                for element in &mut all {
                    let mut shape = v.ty(*element).shape;
                    shape.insert(axis, 1);
                    *element = v.reshape(*element, &shape)?;
                }
            }
            Made::Tensor(v.joined(&all, axis)?)
        }
        "SplitToSequence" => Made::Sequence(split(v)?),
        _ => Made::Sequence(all),
    })
}

/// The parts of a tensor along an axis: of known lengths, of one length but for the last, or, where none is given,
/// its elements.
fn split(v: &mut Translation<'_, '_>) -> Result<Vec<ValueId>> {
    let x = v.x(0)?;
    let axis = v.axis(x, 0)?;
    let n = v.ty(x).shape[axis];
    let given = v.given(1).map(|s| Ok::<_, String>((v.rank(s), v.known(1)?))).transpose()?;
    let (lengths, drop) = match given {
        Some((0, length)) => {
            let length = length[0].max(1);
            let starts = (0..n as i64).step_by(length as usize);
            (starts.map(|from| length.min(n as i64 - from)).collect(), false)
        }
        Some((_, lengths)) => (lengths, false),
        None => (vec![1; n], v.int("keepdims", 1) == 0),
    };
    let count = lengths.len();
    let attrs = [("axis", (axis as i64).into()), ("split", lengths.into())];
    let parts = v.op_n(Op::Split, &[Some(x)], &attrs, count)?;
    let mut parts: Vec<ValueId> = parts.into_iter().flatten().collect();
    if drop {
        let mut shape = v.ty(x).shape;
        shape.remove(axis);
        for part in &mut parts {
            *part = v.reshape(*part, &shape)?;
        }
    }
    Ok(parts)
}

fn output(node: &NodeProto, i: usize) -> String {
    node.output.get(i).cloned().unwrap_or_default()
}

/// All gradients times `min(1, max_norm / (norm + 1e−6))`.
fn clipped(v: &mut Translation<'_, '_>, gradients: &[ValueId]) -> Result<Vec<ValueId>> {
    let norm = norm_of(v, gradients)?;
    let floor = v.shifted(norm, 1e-6)?;
    let largest = v.number(f64::from(v.float("max_norm", 1.0)), norm)?;
    let ratio = v.div(largest, floor)?;
    let one = v.number(1.0, norm)?;
    let factor = v.op(Op::Min, &[ratio, one])?;
    gradients.iter().map(|&g| v.mul(g, factor)).collect()
}
