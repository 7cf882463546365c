//! Ops beyond the standard ones, in terms of standard ones.
//!
//! Training graphs hold ops of onnxruntime (`com.microsoft`, some of them in the standard domain) and of
//! ONNX's own training domain. Each is a function of a few lines here that appends standard ops, so that
//! the rest of the compiler need not know them. The formulas are those of onnxruntime's operator
//! documentation (docs/ContribOperators.md, orttraining/core/graph/training_op_defs.cc) and of ONNX's
//! docs/Operators.md.

mod forward;
mod gradient;
mod indexing;
mod loss;
mod norm;
mod optimizer;
mod sequence;

use super::node::attr;
use super::{Context, Importer, inline, is_standard};
use crate::attr::{Attr, Attrs};
use crate::graph::ValueId;
use crate::onnx::proto::NodeProto;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use std::collections::BTreeMap;

pub(super) use sequence::Sequences;

type Result<T = ValueId> = std::result::Result<T, String>;
type Outputs = std::result::Result<Vec<Option<ValueId>>, String>;

/// What an op becomes.
type Rule = fn(&mut Vendor<'_, '_>) -> Outputs;

/// The rule of an op that is not in the op table.
fn rule(domain: &str, op: &str) -> Option<Rule> {
    let rule: Rule = match (domain, op) {
        ("ai.onnx.preview.training", "Adam") => optimizer::adam,
        ("ai.onnx.preview.training", "Momentum") => optimizer::momentum,
        ("ai.onnx.preview.training", "Adagrad") => optimizer::adagrad,
        // onnxruntime also writes its own ops without a domain.
        ("com.microsoft" | "", _) => match op {
            "FusedMatMul" => forward::fused_matmul,
            "Gelu" => forward::gelu,
            "BiasGelu" => forward::bias_gelu,
            "FastGelu" => forward::fast_gelu,
            "QuickGelu" => forward::quick_gelu,
            "Scale" => forward::scale,
            "ReduceAllL2" => forward::reduce_all_l2,
            "ConcatTraining" => forward::concat,
            "SplitTraining" => forward::split,
            "ReduceSumTraining" => forward::reduce_sum,
            "BiasDropout" => forward::bias_dropout,
            "SimplifiedLayerNormalization" => norm::simplified_layer_norm,
            "SkipLayerNormalization" => norm::skip_layer_norm,
            "BatchNormInternal" => norm::batch_norm,
            "LayerNormalizationGrad" => norm::layer_norm_grad,
            "SimplifiedLayerNormalizationGrad" => norm::simplified_layer_norm_grad,
            "BatchNormalizationGrad" => norm::batch_norm_grad,
            "SoftmaxCrossEntropyLossInternal" => loss::cross_entropy,
            "SoftmaxCrossEntropyLossGrad" | "SoftmaxCrossEntropyLossInternalGrad" => {
                loss::cross_entropy_grad
            }
            "ReluGrad" => gradient::relu,
            "LeakyReluGrad" => gradient::leaky_relu,
            "TanhGrad" => gradient::tanh,
            "SigmoidGrad" => gradient::sigmoid,
            "GeluGrad" => gradient::gelu,
            "BiasGeluGrad_dX" => gradient::bias_gelu,
            "FastGeluGrad" | "BiasFastGeluGrad_dX" => gradient::fast_gelu,
            "QuickGeluGrad" => gradient::quick_gelu,
            "SoftmaxGrad_13" | "SoftmaxGrad" => gradient::softmax,
            "LogSoftmaxGrad_13" | "LogSoftmaxGrad" => gradient::log_softmax,
            "DropoutGrad" => gradient::dropout,
            "ConvGrad" => gradient::conv,
            "MaxPoolGrad" => gradient::max_pool,
            "GatherGrad" => indexing::gather,
            "GatherElementsGrad" => indexing::gather_elements,
            "GatherNDGrad" => indexing::gather_nd,
            "SliceGrad" => indexing::slice,
            _ => return None,
        },
        _ => return None,
    };
    Some(rule)
}

/// A node under translation.
struct Vendor<'v, 'i> {
    importer: &'v mut Importer<'i>,
    inputs: &'v [Option<ValueId>],
    attrs: BTreeMap<String, Attr>,
    /// How many outputs the node names.
    outputs: usize,
    /// The op's name.
    op: &'v str,
}

impl Importer<'_> {
    /// Appends what an op beyond the standard ones becomes; `None` if there is no rule for it.
    pub(super) fn vendor(
        &mut self,
        context: &Context<'_>,
        node: &NodeProto,
        inputs: &[Option<ValueId>],
    ) -> Option<Outputs> {
        let domain = if is_standard(node.domain()) { "" } else { node.domain() };
        let rule = rule(domain, node.op_type())?;
        let mut attrs = BTreeMap::new();
        for attribute in &node.attribute {
            if let Some(given) = inline::resolve(context, attribute) {
                match attr(given, None) {
                    Ok(value) => attrs.insert(attribute.name().to_owned(), value),
                    Err(e) => return Some(Err(e)),
                };
            }
        }
        let outputs = node.output.len();
        let op = node.op_type();
        let mut vendor = Vendor { importer: self, inputs, attrs, outputs, op };
        let made = rule(&mut vendor);
        Some(made.inspect(|values| {
            for (value, name) in values.iter().zip(&node.output) {
                if let (Some(value), false) = (value, name.is_empty()) {
                    self.builder.rename(*value, &format!("{}{name}", context.prefix));
                }
            }
        }))
    }
}

impl Vendor<'_, '_> {
    /// A required input.
    fn x(&self, i: usize) -> Result {
        self.given(i).ok_or_else(|| format!("input {i} is missing"))
    }

    /// An input, if it is given.
    fn given(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    fn ty(&self, v: ValueId) -> Type {
        self.importer.builder.ty(v).clone()
    }

    fn rank(&self, v: ValueId) -> usize {
        self.importer.builder.ty(v).rank()
    }

    fn float(&self, name: &str, default: f32) -> f32 {
        match self.attrs.get(name) {
            Some(Attr::Float(x)) => *x,
            _ => default,
        }
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        match self.attrs.get(name) {
            Some(Attr::Int(x)) => *x,
            _ => default,
        }
    }

    fn str(&self, name: &str) -> Option<&str> {
        match self.attrs.get(name) {
            Some(Attr::Str(x)) => Some(x),
            _ => None,
        }
    }

    /// An axis of a value, non-negative.
    fn axis(&self, v: ValueId, default: i64) -> Result<usize> {
        crate::op::normalize_axis(self.int("axis", default), self.rank(v))
    }

    /// The integers that an input is known to hold.
    fn known(&self, i: usize) -> Result<Vec<i64>> {
        let known = self.importer.known.get(&self.x(i)?).and_then(Tensor::to_i64);
        known.ok_or_else(|| {
            format!("input {i} depends on data, but must be known when compiling; make it an initializer")
        })
    }

    fn op(&mut self, op: Op, inputs: &[ValueId]) -> Result {
        self.op_with(op, inputs, &[])
    }

    fn op_with(&mut self, op: Op, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> Result {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        let attrs: Attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        self.importer.before(op, &inputs, attrs)
    }

    fn add(&mut self, a: ValueId, b: ValueId) -> Result {
        self.op(Op::Add, &[a, b])
    }

    fn sub(&mut self, a: ValueId, b: ValueId) -> Result {
        self.op(Op::Sub, &[a, b])
    }

    fn mul(&mut self, a: ValueId, b: ValueId) -> Result {
        self.op(Op::Mul, &[a, b])
    }

    fn div(&mut self, a: ValueId, b: ValueId) -> Result {
        self.op(Op::Div, &[a, b])
    }

    /// A number of the element type of a value.
    fn number(&mut self, x: f64, like: ValueId) -> Result {
        let dtype = self.importer.builder.ty(like).dtype;
        let tensor = crate::eval::cast(&Tensor::scalar(x), dtype);
        let tensor = tensor.ok_or_else(|| format!("{x} cannot be {dtype}"))?;
        Ok(self.importer.constant("c", tensor))
    }

    fn scaled(&mut self, x: ValueId, c: f64) -> Result {
        if c == 1.0 {
            return Ok(x);
        }
        let c = self.number(c, x)?;
        self.mul(x, c)
    }

    fn shifted(&mut self, x: ValueId, c: f64) -> Result {
        let c = self.number(c, x)?;
        self.add(x, c)
    }

    /// c − x.
    fn from(&mut self, c: f64, x: ValueId) -> Result {
        let c = self.number(c, x)?;
        self.sub(c, x)
    }

    fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Result {
        self.op_with(Op::Reshape, &[x], &[("shape", shape.into())])
    }

    fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result {
        self.op_with(Op::Transpose, &[x], &[("perm", perm.into())])
    }

    fn reduce(&mut self, op: Op, x: ValueId, axes: &[usize], keep: bool) -> Result {
        let attrs = [("axes", axes.into()), ("keepdims", i64::from(keep).into())];
        if axes.is_empty() { Ok(x) } else { self.op_with(op, &[x], &attrs) }
    }

    /// x where a condition holds, else y.
    fn select(&mut self, condition: ValueId, x: ValueId, y: ValueId) -> Result {
        self.op(Op::Where, &[condition, x, y])
    }

    /// Whether x > c.
    fn above(&mut self, x: ValueId, c: f64) -> Result {
        let c = self.number(c, x)?;
        self.op(Op::Greater, &[x, c])
    }

    /// Zeros of a type.
    fn zeros(&mut self, ty: &Type) -> Result {
        let zero = crate::eval::cast(&Tensor::scalar(0f32), ty.dtype);
        let zero = zero.ok_or_else(|| format!("no zeros of {}", ty.dtype))?;
        let zero = self.importer.constant("zero", zero);
        self.op_with(Op::Expand, &[zero], &[("shape", ty.shape.as_slice().into())])
    }

    /// The flag by which an op says that it has updated something.
    fn done(&mut self) -> ValueId {
        self.importer.constant("updated", Tensor::new([1], vec![true]))
    }
}

/// A type of dimensions.
fn of(dtype: DType, shape: &[i64]) -> Result<Type> {
    let dims = shape.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<usize>>>();
    Ok(Type::new(dtype, dims.ok_or_else(|| format!("a shape of {shape:?}"))?))
}
