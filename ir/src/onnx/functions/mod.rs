//! The PA primitives as model-local functions of standard ops.
//!
//! A written file carries the functions it uses, so that any ONNX runtime can run it. Their bodies
//! consist of integer additions, comparisons, selections and data movement of opset 26; none of them
//! multiplies, not even integers. They follow docs/numerics.md corner by corner, and the contractions
//! add in the documented order: a Scan over k inside a Scan over chunks of k.
//!
//! What a body cannot compute without multiplying (sizes of reshaped tensors, shifted exponents) the
//! writer states in helper attributes, see [`helper_attributes`].

mod arithmetic;
mod body;
mod contraction;
mod convolution;
mod derivative;
mod helpers;
mod random;
mod reduction;
mod term;

pub use helpers::{helper_attributes, sum_attributes};

use super::proto::FunctionProto;
use std::collections::BTreeSet;

/// The functions of the primitives named, in the order of the names.
pub fn functions_for(used: &BTreeSet<&str>) -> Vec<FunctionProto> {
    used.iter().filter_map(|name| function(name)).collect()
}

/// The function that a float `ReduceSum` is written as a call of.
pub const SUM: &str = "sum";

/// The function of a primitive.
pub(super) fn function(name: &str) -> Option<FunctionProto> {
    Some(match name {
        "mul" => arithmetic::mul(),
        "div" => arithmetic::div(),
        "exp2" => arithmetic::exp2(),
        "log2" => arithmetic::log2(),
        "scale_pow2" => arithmetic::scale_pow2(),
        "round_mantissa" => arithmetic::round_mantissa(),
        "mul_grad" => derivative::mul_grad(),
        "div_grad_a" => derivative::div_grad_a(),
        "div_grad_b" => derivative::div_grad_b(),
        "exp2_grad" => derivative::exp2_grad(),
        "log2_grad" => derivative::log2_grad(),
        "matmul" => contraction::matmul(),
        "matmul_grad_a" => contraction::matmul_grad_a(),
        "matmul_grad_b" => contraction::matmul_grad_b(),
        "conv" => convolution::conv(),
        "uniform" => random::uniform(),
        SUM => reduction::sum(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{GraphProto, NodeProto};

    const ALL: [&str; 17] = [
        SUM,
        "mul",
        "div",
        "exp2",
        "log2",
        "scale_pow2",
        "round_mantissa",
        "mul_grad",
        "div_grad_a",
        "div_grad_b",
        "exp2_grad",
        "log2_grad",
        "matmul",
        "matmul_grad_a",
        "matmul_grad_b",
        "conv",
        "uniform",
    ];

    fn ops(nodes: &[NodeProto], found: &mut BTreeSet<String>) {
        for node in nodes {
            assert_eq!(node.domain(), "", "{}", node.op_type());
            found.insert(node.op_type().to_owned());
            let graphs = node.attribute.iter().filter_map(|a| a.g.as_ref());
            graphs.for_each(|g: &GraphProto| ops(&g.node, found));
        }
    }

    #[test]
    fn every_primitive_has_a_function_without_multiplications() {
        let primitives = crate::op::Op::all().filter(|op| op.level() == crate::op::Level::Pam);
        for op in primitives {
            assert!(function(op.onnx_name()).is_some(), "{}", op.onnx_name());
        }
        let mut found = BTreeSet::new();
        for f in functions_for(&ALL.into()) {
            ops(&f.node, &mut found);
        }
        let allowed = [
            "Add",
            "And",
            "BitCast",
            "BitShift",
            "BitwiseAnd",
            "BitwiseOr",
            "BitwiseXor",
            "Cast",
            "Concat",
            "Constant",
            "ConstantOfShape",
            "CumSum",
            "Equal",
            "Expand",
            "Floor",
            "Greater",
            "GreaterOrEqual",
            "Identity",
            "Less",
            "Max",
            "Min",
            "NonZero",
            "Not",
            "Or",
            "Pad",
            "Reshape",
            "Round",
            "Scan",
            "Shape",
            "Slice",
            "Squeeze",
            "Sub",
            "Transpose",
            "Unsqueeze",
            "Where",
        ];
        for op in &found {
            assert!(allowed.contains(&op.as_str()), "{op}");
        }
    }
}
