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

use super::proto::{FunctionProto, ModelProto, NodeProto};
use crate::graph::Graph;
use std::collections::{BTreeMap, BTreeSet};

/// The functions of the primitives named, in the order of the names.
pub fn functions_for(used: &BTreeSet<&str>) -> Vec<FunctionProto> {
    used.iter().filter_map(|name| function(name)).collect()
}

/// The function that a float `ReduceSum` is written as a call of.
pub const SUM: &str = "sum";

fn function(name: &str) -> Option<FunctionProto> {
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

/// Compares what a file says of the PA primitives with what it must say: its functions of the domain
/// `pam` with the ones above, and the attributes of its `pam` nodes, helpers included, with those
/// that follow from the graph imported from it.
///
/// # Errors
/// Every difference, one line each.
pub fn check_functions(model: &ModelProto, graph: &Graph) -> Result<(), Vec<String>> {
    let mut faults = Vec::new();
    for f in model.functions.iter().filter(|f| f.domain() == "pam") {
        if function(f.name()).as_ref() != Some(f) {
            faults.push(format!("function pam.{} is not the canonical one", f.name()));
        }
    }
    let pam = |m: &ModelProto| -> Vec<NodeProto> {
        let nodes = m.graph.iter().flat_map(|g| &g.node);
        nodes.filter(|n| n.domain() == "pam").cloned().collect()
    };
    match super::export::export(graph, model, &BTreeMap::new()) {
        Err(e) => faults.push(e),
        Ok(again) => {
            let (own, expected) = (pam(model), pam(&again));
            if own.len() != expected.len() {
                let (n, m) = (own.len(), expected.len());
                faults
                    .push(format!("the graph calls {n} PA primitives outside functions, not {m}"));
            }
            for (a, b) in own.iter().zip(&expected) {
                if a.attribute != b.attribute {
                    faults.push(format!("node `{}`: helper attributes do not fit", a.name()));
                }
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::GraphProto;

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
            "Equal",
            "Expand",
            "Floor",
            "Greater",
            "GreaterOrEqual",
            "Identity",
            "Less",
            "Max",
            "Min",
            "Not",
            "Or",
            "Pad",
            "Range",
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
