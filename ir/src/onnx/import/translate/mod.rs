//! Ops that the op table lacks, in terms of those it has.
//!
//! Training graphs hold ops of onnxruntime (`com.microsoft`, some of them in the standard domain) and of ONNX's own
//! training domain, forward models recurrent layers, quantisation, sampling and Fourier transforms. Each is a function
//! of a few lines here that appends ops of the table, so that the rest of the compiler need not know them. The formulas
//! are those of ONNX's docs/Operators.md and of onnxruntime's operator documentation (docs/ContribOperators.md,
//! orttraining/core/graph/training_op_defs.cc).

mod causal;
mod determinant;
mod forward;
mod fused;
mod gradient;
mod indexing;
mod loss;
mod norm;
mod optimizer;
mod quantization;
mod quantized;
mod recurrent;
mod regions;
mod sampling;
mod sequence;
mod spectral;

use super::draft::Draft;
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

/// The most elements of a constant that is made here.
const LARGEST: usize = 1 << 24;
/// The most parts that a value is taken apart into.
const MOST_PARTS: usize = 1 << 20;

/// What an op becomes.
type Rule = fn(&mut Translation<'_, '_>) -> Outputs;

/// The domains, names and translations of all ops that are translated one by one. onnxruntime also writes its own
/// ops without a domain.
#[rustfmt::skip]
const TABLE: &[(&str, &str, Rule)] = &[
    ("", "LSTM", recurrent::lstm),
    ("", "GRU", recurrent::gru),
    ("", "RNN", recurrent::rnn),
    ("", "QuantizeLinear", quantization::quantize),
    ("", "DequantizeLinear", quantization::dequantize),
    ("", "DynamicQuantizeLinear", quantization::dynamic),
    ("", "MatMulInteger", quantized::matmul_integer),
    ("", "QLinearMatMul", quantized::qlinear_matmul),
    ("", "ConvInteger", quantized::conv_integer),
    ("", "QLinearConv", quantized::qlinear_conv),
    ("", "GridSample", sampling::grid_sample),
    ("", "AffineGrid", sampling::affine_grid),
    ("", "RoiAlign", regions::roi_align),
    ("", "DeformConv", regions::deform_conv),
    ("", "TensorScatter", indexing::tensor_scatter),
    ("", "LinearAttention", causal::linear_attention),
    ("", "CausalConvWithState", causal::convolution),
    ("", "Det", determinant::determinant),
    ("", "CumProd", forward::cum_prod),
    ("", "NonZero", indexing::non_zero),
    ("", "Compress", indexing::compress),
    ("", "DFT", spectral::dft),
    ("", "STFT", spectral::stft),
    ("", "HannWindow", spectral::hann),
    ("", "HammingWindow", spectral::hamming),
    ("", "BlackmanWindow", spectral::blackman),
    ("", "MelWeightMatrix", spectral::mel),
    ("", "SwiGLU", forward::swiglu),
    ("ai.onnx.preview.training", "Adam", optimizer::adam),
    ("ai.onnx.preview.training", "Momentum", optimizer::momentum),
    ("ai.onnx.preview.training", "Adagrad", optimizer::adagrad),
    ("com.microsoft", "FusedMatMul", forward::fused_matmul),
    ("com.microsoft", "FusedGemm", fused::gemm),
    ("com.microsoft", "FusedConv", fused::conv),
    ("com.microsoft", "Attention", fused::attention),
    ("com.microsoft", "MultiHeadAttention", fused::multi_head),
    ("com.microsoft", "Gelu", forward::gelu),
    ("com.microsoft", "BiasGelu", forward::bias_gelu),
    ("com.microsoft", "FastGelu", forward::fast_gelu),
    ("com.microsoft", "QuickGelu", forward::quick_gelu),
    ("com.microsoft", "Scale", forward::scale),
    ("com.microsoft", "ReduceAllL2", forward::reduce_all_l2),
    ("com.microsoft", "ConcatTraining", forward::concat),
    ("com.microsoft", "SplitTraining", forward::split),
    ("com.microsoft", "ReduceSumTraining", forward::reduce_sum),
    ("com.microsoft", "BiasDropout", forward::bias_dropout),
    ("com.microsoft", "SimplifiedLayerNormalization", norm::simplified_layer_norm),
    ("com.microsoft", "SkipLayerNormalization", norm::skip_layer_norm),
    ("com.microsoft", "SkipSimplifiedLayerNormalization", norm::skip_simplified_layer_norm),
    ("com.microsoft", "BatchNormInternal", norm::batch_norm),
    ("com.microsoft", "LayerNormalizationGrad", norm::layer_norm_grad),
    ("com.microsoft", "SimplifiedLayerNormalizationGrad", norm::simplified_layer_norm_grad),
    ("com.microsoft", "BatchNormalizationGrad", norm::batch_norm_grad),
    ("com.microsoft", "SoftmaxCrossEntropyLossInternal", loss::cross_entropy),
    ("com.microsoft", "SoftmaxCrossEntropyLossGrad", loss::cross_entropy_grad),
    ("com.microsoft", "SoftmaxCrossEntropyLossInternalGrad", loss::cross_entropy_grad),
    ("com.microsoft", "DivGrad", gradient::div),
    ("com.microsoft", "ReluGrad", gradient::relu),
    ("com.microsoft", "LeakyReluGrad", gradient::leaky_relu),
    ("com.microsoft", "TanhGrad", gradient::tanh),
    ("com.microsoft", "SigmoidGrad", gradient::sigmoid),
    ("com.microsoft", "GeluGrad", gradient::gelu),
    ("com.microsoft", "BiasGeluGrad_dX", gradient::bias_gelu),
    ("com.microsoft", "FastGeluGrad", gradient::fast_gelu),
    ("com.microsoft", "BiasFastGeluGrad_dX", gradient::fast_gelu),
    ("com.microsoft", "QuickGeluGrad", gradient::quick_gelu),
    ("com.microsoft", "SoftmaxGrad_13", gradient::softmax),
    ("com.microsoft", "SoftmaxGrad", gradient::softmax),
    ("com.microsoft", "LogSoftmaxGrad_13", gradient::log_softmax),
    ("com.microsoft", "LogSoftmaxGrad", gradient::log_softmax),
    ("com.microsoft", "DropoutGrad", gradient::dropout),
    ("com.microsoft", "ConvGrad", gradient::conv),
    ("com.microsoft", "MaxPoolGrad", gradient::max_pool),
    ("com.microsoft", "GatherGrad", indexing::gather),
    ("com.microsoft", "GatherElementsGrad", indexing::gather_elements),
    ("com.microsoft", "GatherNDGrad", indexing::gather_nd),
    ("com.microsoft", "SliceGrad", indexing::slice),
];

/// The ops that are translated on import: domain (empty for ONNX's own) and name. Control flow is in it as well.
pub fn translated() -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = TABLE.iter().map(|(domain, op, _)| (*domain, *op));
    let control = ["Constant", "If", "Loop", "Scan"].into_iter().chain(sequence::STANDARD);
    let sequences = sequence::TRAINING.into_iter().map(|op| ("com.microsoft", op));
    let flex = [("ai.onnx.preview", "FlexAttention")];
    control.map(|op| ("", op)).chain(own).chain(sequences).chain(flex)
}

/// The translation of an op.
fn rule(domain: &str, op: &str) -> Option<Rule> {
    let fits = |d: &str| d == domain || domain.is_empty() && d == "com.microsoft";
    TABLE.iter().find(|(d, o, _)| *o == op && fits(d)).map(|(_, _, rule)| *rule)
}

/// A node under translation.
struct Translation<'v, 'i> {
    importer: &'v mut Importer<'i>,
    inputs: &'v [Option<ValueId>],
    attrs: BTreeMap<String, Attr>,
    /// How many outputs the node lists.
    outputs: usize,
    /// Which of them it names.
    named: Vec<bool>,
    /// The op's name.
    op: &'v str,
    /// The opset.
    version: i64,
}

impl Importer<'_> {
    /// Appends what an op that the table lacks becomes; `None` if there is no rule for it.
    pub(super) fn translate(
        &mut self,
        context: &Context<'_>,
        node: &NodeProto,
        inputs: &[Option<ValueId>],
    ) -> Option<Outputs> {
        let domain = if is_standard(node.domain()) { "" } else { node.domain() };
        let rule = rule(domain, node.op_type())?;
        let made = Translation::new(self, context, node, inputs).and_then(|mut v| rule(&mut v));
        Some(made.inspect(|values| {
            for (value, name) in values.iter().zip(&node.output) {
                if let (Some(value), false) = (value, name.is_empty()) {
                    self.builder.rename(*value, &format!("{}{name}", context.prefix));
                }
            }
        }))
    }
}

impl<'v, 'i> Translation<'v, 'i> {
    fn new(
        importer: &'v mut Importer<'i>,
        context: &Context<'_>,
        node: &'v NodeProto,
        inputs: &'v [Option<ValueId>],
    ) -> Result<Self> {
        let mut attrs = BTreeMap::new();
        for attribute in &node.attribute {
            if let Some(given) = inline::resolve(context, attribute) {
                attrs.insert(attribute.name().to_owned(), attr(given, None)?);
            }
        }
        let domain = if is_standard(node.domain()) { "" } else { node.domain() };
        let version = context.opsets.get(domain).copied().unwrap_or(1);
        let (outputs, op) = (node.output.len(), node.op_type());
        let named = node.output.iter().map(|name| !name.is_empty()).collect();
        Ok(Translation { importer, inputs, attrs, outputs, named, op, version })
    }
}

impl Translation<'_, '_> {
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
        self.importer.made(op, inputs, attrs)
    }

    /// An op of the first inputs with those of the node's attributes that it has.
    fn same_op(&mut self, op: Op, inputs: usize, names: &[&str]) -> Result {
        let inputs: Vec<Option<ValueId>> = (0..inputs).map(|i| self.given(i)).collect();
        let own = self.attrs.iter().filter(|(name, _)| names.contains(&name.as_str()));
        let attrs: Attrs = own.map(|(name, value)| (name.clone(), value.clone())).collect();
        self.importer.before(op, &inputs, attrs)
    }

    /// An op with `outputs` outputs.
    fn op_n(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        attrs: &[(&str, Attr)],
        outputs: usize,
    ) -> Outputs {
        let label = self.importer.builder.scope.name.clone();
        let names: Vec<String> =
            (0..outputs).map(|i| format!("{label}.{}.{i}", op.name())).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let draft = Draft { op, inputs: inputs.to_vec(), attrs, outputs };
        self.importer.append(draft, &label, &names, "", BTreeMap::new())
    }

    /// The `n` equal parts of a value along an axis.
    fn parts(&mut self, x: ValueId, axis: usize, n: usize) -> Result<Vec<ValueId>> {
        if n == 1 {
            return Ok(vec![x]);
        }
        let ty = self.ty(x);
        let length = ty.shape.get(axis).and_then(|size| size.checked_div(n));
        let length = length.filter(|_| n <= MOST_PARTS);
        let length = length.ok_or_else(|| format!("{ty} has no {n} parts along axis {axis}"))?;
        let attrs: [(&str, Attr); 2] =
            [("axis", (axis as i64).into()), ("split", vec![length as i64; n].into())];
        let parts = self.op_n(Op::Split, &[Some(x)], &attrs, n)?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// Values joined along an axis.
    fn joined(&mut self, parts: &[ValueId], axis: usize) -> Result {
        if let [one] = parts {
            return Ok(*one);
        }
        self.op_with(Op::Concat, parts, &[("axis", (axis as i64).into())])
    }

    fn cast(&mut self, x: ValueId, to: DType) -> Result {
        if self.ty(x).dtype == to {
            return Ok(x);
        }
        self.op_with(Op::Cast, &[x], &[("to", to.into())])
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
        self.importer.zeros(ty)
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
