//! Lowering: every op that multiplies in terms of additions and PA primitives.
//!
//! A rule is a plain function that appends through [`Lowering`]. The context carries the arithmetic:
//! under PA its `mul`, `exp`, `matmul` are primitives or compositions of them as docs/numerics.md
//! defines, natively they are the ops of level `native`, so that one rule serves both the rewriting
//! and the expansion of composite ops before a native execution.
//!
//! One file holds one op or a small family; the formula of each rule stands above it. What every rule
//! makes, before and after, lies in `tests/lowering/snapshots`, one file a form. No rule decides what is legal; the certifier, which
//! cannot see the rules, does.

mod activation;
mod arithmetic;
mod attention;
mod batch_norm;
mod context;
mod conv;
mod dropout;
mod einsum;
mod elementary;
mod erf;
mod gelu;
mod gradient;
mod integer;
mod layer_norm;
mod loss;
mod lrn;
mod matmul;
mod pool;
mod pow;
mod random;
mod reduce;
mod resize;
mod rotary;
mod softmax;
mod tanh;
mod trigonometry;

pub use arithmetic::{Arithmetic, LOG2E};
pub use context::{LowerError, Lowering};
pub(crate) use conv::convolve;

use pam_ir::graph::Node;
use pam_ir::op::Op;

/// A lowering rule.
pub type Rule = fn(&mut Lowering<'_, '_>, &Node) -> Result<(), LowerError>;

/// The name and rule of an op that multiplies; `None` for one that needs none.
pub fn rule(op: Op) -> Option<(&'static str, Rule)> {
    let rule: (&'static str, Rule) = match op {
        Op::Mul => ("mul", elementary::mul),
        Op::Div => ("div", elementary::div),
        Op::Mod => ("mod", elementary::modulo),
        Op::Exp => ("exp", elementary::exp),
        Op::Log => ("log", elementary::log),
        Op::Sqrt => ("sqrt", elementary::sqrt),
        Op::Reciprocal => ("reciprocal", elementary::reciprocal),
        Op::Pow => ("pow", pow::pow),
        Op::Tanh => ("tanh", tanh::tanh),
        Op::Sigmoid => ("sigmoid", activation::sigmoid),
        Op::Erf => ("erf", erf::erf),
        Op::Sin => ("sin", trigonometry::sin),
        Op::Cos => ("cos", trigonometry::cos),
        Op::Tan => ("tan", trigonometry::tan),
        Op::Asin => ("asin", trigonometry::asin),
        Op::Acos => ("acos", trigonometry::acos),
        Op::Atan => ("atan", trigonometry::atan),
        Op::Sinh => ("sinh", trigonometry::sinh),
        Op::Cosh => ("cosh", trigonometry::cosh),
        Op::Asinh => ("asinh", trigonometry::asinh),
        Op::Acosh => ("acosh", trigonometry::acosh),
        Op::Atanh => ("atanh", trigonometry::atanh),
        Op::MatMul => ("matmul", matmul::matmul),
        Op::Gemm => ("gemm", matmul::gemm),
        Op::Conv => ("conv", conv::conv),
        Op::ConvTranspose => ("conv_transpose", conv::conv_transpose),
        Op::Einsum => ("einsum", einsum::einsum),
        Op::Gradient => ("gradient", gradient::gradient),
        Op::Softmax => ("softmax", softmax::softmax),
        Op::LogSoftmax => ("log_softmax", softmax::log_softmax),
        Op::Softplus => ("softplus", activation::softplus),
        Op::Softsign => ("softsign", activation::softsign),
        Op::Gelu => ("gelu", gelu::gelu),
        Op::Elu => ("elu", activation::elu),
        Op::Selu => ("selu", activation::selu),
        Op::Celu => ("celu", activation::celu),
        Op::LeakyRelu => ("leaky_relu", activation::leaky_relu),
        Op::PRelu => ("prelu", activation::prelu),
        Op::HardSigmoid => ("hard_sigmoid", activation::hard_sigmoid),
        Op::HardSwish => ("hard_swish", activation::hard_swish),
        Op::Swish => ("swish", activation::swish),
        Op::Mish => ("mish", activation::mish),
        Op::LayerNormalization => ("layer_norm", layer_norm::layer_norm),
        Op::RMSNormalization => ("rms_norm", layer_norm::rms_norm),
        Op::BatchNormalization => ("batch_norm", batch_norm::batch_norm),
        Op::InstanceNormalization => ("instance_norm", layer_norm::instance_norm),
        Op::GroupNormalization => ("group_norm", layer_norm::group_norm),
        Op::LpNormalization => ("lp_norm", layer_norm::lp_norm),
        Op::MeanVarianceNormalization => ("mean_variance_norm", layer_norm::mean_variance_norm),
        Op::LRN => ("lrn", lrn::lrn),
        Op::Resize => ("resize", resize::resize),
        Op::ReduceMean => ("reduce_mean", reduce::mean),
        Op::ReduceL1 => ("reduce_l1", reduce::l1),
        Op::ReduceL2 => ("reduce_l2", reduce::l2),
        Op::ReduceSumSquare => ("reduce_sum_square", reduce::sum_square),
        Op::ReduceLogSum => ("reduce_log_sum", reduce::log_sum),
        Op::ReduceLogSumExp => ("reduce_log_sum_exp", reduce::log_sum_exp),
        Op::ReduceProd => ("reduce_prod", reduce::product),
        Op::Mean => ("mean", reduce::mean_of_operands),
        Op::AveragePool => ("average_pool", pool::average_pool),
        Op::GlobalAveragePool => ("global_average_pool", pool::global_average_pool),
        Op::LpPool => ("lp_pool", pool::lp_pool),
        Op::GlobalLpPool => ("global_lp_pool", pool::global_lp_pool),
        Op::SoftmaxCrossEntropyLoss => ("cross_entropy", loss::cross_entropy),
        Op::NegativeLogLikelihoodLoss => ("nll_loss", loss::nll_loss),
        Op::Dropout => ("dropout", dropout::dropout),
        Op::Attention => ("attention", attention::attention),
        Op::RotaryEmbedding => ("rotary_embedding", rotary::rotary_embedding),
        Op::RandomNormal | Op::RandomNormalLike => ("random_normal", random::normal),
        Op::RandomUniform | Op::RandomUniformLike => ("random_uniform", random::uniform),
        Op::Bernoulli => ("bernoulli", random::bernoulli),
        // Additions, comparisons, data movement.
        Op::Add
        | Op::Sub
        | Op::Sum
        | Op::Neg
        | Op::Abs
        | Op::Sign
        | Op::Floor
        | Op::Ceil
        | Op::Round
        | Op::Relu
        | Op::Max
        | Op::Min
        | Op::Clip
        | Op::ThresholdedRelu
        | Op::Shrink
        | Op::Hardmax
        | Op::Where
        | Op::Equal
        | Op::Less
        | Op::LessOrEqual
        | Op::Greater
        | Op::GreaterOrEqual
        | Op::And
        | Op::Or
        | Op::Xor
        | Op::Not
        | Op::IsNaN
        | Op::IsInf
        | Op::BitwiseAnd
        | Op::BitwiseOr
        | Op::BitwiseXor
        | Op::BitwiseNot
        | Op::BitShift
        | Op::Cast
        | Op::CastLike
        | Op::BitCast
        | Op::Identity
        | Op::Reshape
        | Op::Flatten
        | Op::Squeeze
        | Op::Unsqueeze
        | Op::Transpose
        | Op::Expand
        | Op::Tile
        | Op::Concat
        | Op::Split
        | Op::Slice
        | Op::Pad
        | Op::Gather
        | Op::GatherElements
        | Op::GatherND
        | Op::ScatterElements
        | Op::ScatterND
        | Op::Trilu
        | Op::DepthToSpace
        | Op::SpaceToDepth
        | Op::ReverseSequence
        | Op::Col2Im
        | Op::OneHot
        | Op::CenterCropPad
        | Op::Shape
        | Op::Size
        | Op::ConstantOfShape
        | Op::Range
        | Op::EyeLike
        | Op::ReduceSum
        | Op::ReduceMax
        | Op::ReduceMin
        | Op::ArgMax
        | Op::ArgMin
        | Op::CumSum
        | Op::TopK
        | Op::MaxPool
        | Op::GlobalMaxPool
        | Op::MaxUnpool => return None,
        // Primitives.
        Op::PamMul
        | Op::PamDiv
        | Op::PamExp2
        | Op::PamLog2
        | Op::PamScale
        | Op::PamRound
        | Op::PamMatMul
        | Op::PamConv
        | Op::PamMulGrad
        | Op::PamDivGradA
        | Op::PamDivGradB
        | Op::PamExp2Grad
        | Op::PamLog2Grad
        | Op::PamMatMulGradA
        | Op::PamMatMulGradB
        | Op::PamUniform => return None,
        // Nothing is known of it; the certifier reports it.
        Op::Opaque => return None,
    };
    Some(rule)
}

/// The rule for products and quotients of integers that shape arithmetic left over.
pub fn integer_rule(op: Op) -> Option<(&'static str, Rule)> {
    Some(match op {
        Op::Mul => ("integer_mul", integer::mul as Rule),
        Op::Div => ("integer_div", integer::div),
        Op::Mod => ("integer_mod", integer::modulo),
        Op::Pow => ("integer_pow", integer::pow),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pam_ir::op::Level;

    #[test]
    fn every_op_that_multiplies_has_a_rule() {
        for op in Op::all() {
            let multiplies = matches!(op.level(), Level::Native | Level::Composite);
            assert_eq!(rule(op).is_some(), multiplies, "{}", op.name());
        }
    }
}
