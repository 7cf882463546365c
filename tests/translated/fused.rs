//! What onnxruntime's optimisations make of several ops, against those.

use crate::common::nodes::{float, int, ints, node, random, text};
use crate::evaluated;
use pam_ir::onnx::proto::NodeProto;
use pam_ir::tensor::Tensor;

/// That `y` of the first nodes is that of the other ones.
fn same(fused: Vec<NodeProto>, apart: Vec<NodeProto>, inputs: &[(&str, Tensor)]) {
    let [found, expected] = [fused, apart].map(|nodes| evaluated(nodes, inputs, &["y"]).remove(0));
    assert_eq!(found.shape(), expected.shape());
    for (a, b) in found.to_f64().unwrap().iter().zip(expected.to_f64().unwrap()) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn products_are_activated() {
    let inputs = [("a", random(1, &[3, 4])), ("b", random(2, &[5, 4])), ("c", random(3, &[5]))];
    let product = [int("transB", 1), float("alpha", 0.5)];
    let leaky = [text("activation", "LeakyRelu"), float("activation_alpha", 0.2)];
    same(
        vec![node("com.microsoft::FusedGemm", "a,b,c", "y", &[&product[..], &leaky].concat())],
        vec![
            node("Gemm", "a,b,c", "p", &product),
            node("LeakyRelu", "p", "y", &[float("alpha", 0.2)]),
        ],
        &inputs,
    );
    let inputs = [
        ("x", random(4, &[1, 2, 5, 5])),
        ("w", random(5, &[3, 2, 3, 3])),
        ("b", random(6, &[3])),
        ("z", random(7, &[1, 3, 5, 5])),
    ];
    let pads = [ints("pads", &[1, 1, 1, 1])];
    let relu = [text("activation", "Relu")];
    same(
        vec![node("com.microsoft::FusedConv", "x,w,b,z", "y", &[&pads[..], &relu].concat())],
        vec![
            node("Conv", "x,w,b", "p", &pads),
            node("Add", "p,z", "s", &[]),
            node("Relu", "s", "y", &[]),
        ],
        &inputs,
    );
}

#[test]
fn norms_take_a_sum() {
    let inputs = [
        ("x", random(1, &[2, 3, 4])),
        ("s", random(2, &[2, 3, 4])),
        ("g", random(3, &[4])),
        ("b", random(4, &[4])),
    ];
    same(
        vec![node("com.microsoft::SkipSimplifiedLayerNormalization", "x,s,g,b", "y", &[])],
        vec![
            node("Sum", "x,s,b", "t", &[]),
            node("RMSNormalization", "t,g", "y", &[float("epsilon", 1e-12)]),
        ],
        &inputs,
    );
}

#[test]
fn attention_has_its_projections_biases_and_masks() {
    let heads = [int("num_heads", 2)];
    let shapes = [int("q_num_heads", 2), int("kv_num_heads", 2)];
    let inputs = [
        ("x", random(1, &[2, 3, 4])),
        ("w", random(2, &[4, 12])),
        ("b", random(3, &[12])),
        // The last key of the second sample is padding.
        ("n", Tensor::vector(vec![3i32, 2])),
    ];
    let padding = [vec![1u8; 5], vec![0]].concat().iter().map(|&x| x != 0).collect::<Vec<bool>>();
    let mut apart = vec![
        node("MatMul", "x,w", "p", &[]),
        node("Add", "p,b", "qkv", &[]),
        node("Split", "qkv", "q,k,v", &[int("axis", -1), int("num_outputs", 3)]),
        node("Attention", "q,k,v,m", "y", &shapes),
    ];
    let masked = [&inputs[..], &[("m", Tensor::new([2, 1, 1, 3], padding))]].concat();
    same(vec![node("com.microsoft::Attention", "x,w,b,n", "y", &heads)], apart.clone(), &masked);
    // The same from queries, keys and values of their own.
    apart.truncate(3);
    let split = &apart[2].clone();
    let mut fused = vec![node("MatMul", "x,w", "qkv", &[]), split.clone()];
    let multi = node("com.microsoft::MultiHeadAttention", "q,k,v,b,n", "y", &heads);
    fused.push(multi);
    apart.push(node("Attention", "q,k,v,m", "y", &shapes));
    same(fused, apart, &masked);
}
