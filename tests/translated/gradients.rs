//! Gradients as onnxruntime's training graphs have them, against the compiler's own derivatives.

use crate::common::nodes::{float, info, int, ints, node, opset, random, strings, text};
use crate::common::{difference, executor, named};
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};
use pam_ir::tensor::Tensor;

/// A model of inputs (name, shape), integer constants, forward nodes that end in y, and a node of
/// onnxruntime that gives the gradients `v.<x>` of the inputs `by` from d, the cotangent of y. Both
/// gradients are computed natively and compared.
fn agree(
    inputs: &[(&str, &[usize])],
    constants: &[(&str, &[usize], &[i64])],
    forward: Vec<NodeProto>,
    gradient: NodeProto,
    by: &[&str],
) {
    let name = gradient.op_type().to_owned();
    let mut nodes = forward;
    nodes.push(node("Mul", "y,d", "p", &[]));
    nodes.push(node("ReduceSum", "p", "l", &[int("keepdims", 0)]));
    let outputs: Vec<String> = by.iter().map(|x| format!("g.{x}")).collect();
    nodes.push(node(
        "ai.onnx.preview.training::Gradient",
        &by.join(","),
        &outputs.join(","),
        &[strings("xs", by), text("y", "l")],
    ));
    nodes.push(gradient);
    let model = ModelProto {
        ir_version: Some(10),
        opset_import: vec![
            opset("", 20),
            opset("com.microsoft", 1),
            opset("ai.onnx.preview.training", 1),
        ],
        graph: Some(GraphProto {
            name: Some(name.clone()),
            node: nodes,
            input: inputs.iter().map(|(n, s)| info(n, 1, s)).collect(),
            initializer: constants
                .iter()
                .map(|(n, s, v)| TensorProto {
                    name: Some((*n).to_owned()),
                    data_type: Some(7),
                    dims: s.iter().map(|&d| d as i64).collect(),
                    int64_data: v.to_vec(),
                    ..TensorProto::default()
                })
                .collect(),
            output: by
                .iter()
                .flat_map(|x| [format!("g.{x}"), format!("v.{x}")])
                .map(|n| ValueInfoProto { name: Some(n), ..ValueInfoProto::default() })
                .collect(),
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    let file = ModelFile { model, path: "gradient.onnx".into() };
    let graph =
        import(&[file], &ImportOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}")).graph;
    let fed: Vec<(String, Tensor)> = inputs
        .iter()
        .enumerate()
        .map(|(i, (n, s))| ((*n).to_owned(), random(i as u32 + 1, s)))
        .collect();
    for policy in ["native", "approx"] {
        let outputs = executor(&graph, policy).run(&fed).unwrap();
        for x in by {
            let (own, given) =
                (named(&outputs, &format!("g.{x}")), named(&outputs, &format!("v.{x}")));
            let error = difference(given, own);
            // Under PA arithmetic the two differ in form, but not by much.
            let bound = if policy == "native" { 2e-5 } else { 0.5 };
            assert!(error < bound, "{name} by {x} under {policy}: {error:e}");
        }
    }
}

fn elementwise(
    op: &str,
    forward: &[AttributeProto],
    grad: &str,
    attrs: &[AttributeProto],
    of: &str,
) {
    let shape: &[usize] = &[4, 5];
    agree(
        &[("x", shape), ("d", shape)],
        &[],
        vec![node(op, "x", "y", forward)],
        node(&format!("com.microsoft::{grad}"), &format!("d,{of}"), "v.x", attrs),
        &["x"],
    );
}

#[test]
fn gradients_of_activations() {
    elementwise("Relu", &[], "ReluGrad", &[], "x");
    elementwise("Tanh", &[], "TanhGrad", &[], "y");
    elementwise("Sigmoid", &[], "SigmoidGrad", &[], "y");
    elementwise("Gelu", &[], "GeluGrad", &[], "x");
    elementwise("Gelu", &[text("approximate", "tanh")], "FastGeluGrad", &[], "x");
    elementwise("com.microsoft::QuickGelu", &[], "QuickGeluGrad", &[], "x");
    let alpha = [float("alpha", 0.2)];
    elementwise("LeakyRelu", &alpha, "LeakyReluGrad", &alpha, "y");
    elementwise("Softmax", &[], "SoftmaxGrad_13", &[int("axis", -1)], "y");
    elementwise("LogSoftmax", &[], "LogSoftmaxGrad_13", &[int("axis", -1)], "y");
}

#[test]
fn gradients_of_quotients() {
    for (a, b) in [([4, 5], vec![4, 5]), ([4, 5], vec![5]), ([1, 5], vec![4, 1]), ([4, 5], vec![])]
    {
        agree(
            &[("a", &a), ("b", &b), ("d", &[4, 5])],
            &[],
            vec![node("Div", "a,b", "y", &[])],
            node("com.microsoft::DivGrad", "d,a,b", "v.a,v.b", &[]),
            &["a", "b"],
        );
    }
}

#[test]
fn gradients_of_norms() {
    agree(
        &[("x", &[3, 4, 6]), ("s", &[6]), ("b", &[6]), ("d", &[3, 4, 6])],
        &[],
        vec![node("LayerNormalization", "x,s,b", "y,m,i", &[])],
        node(
            "com.microsoft::LayerNormalizationGrad",
            "d,x,s,m,i",
            "v.x,v.s,v.b",
            &[int("axis", -1)],
        ),
        &["x", "s", "b"],
    );
    agree(
        &[("x", &[3, 4, 6]), ("s", &[6]), ("d", &[3, 4, 6])],
        &[],
        vec![node("SimplifiedLayerNormalization", "x,s", "y,i", &[int("axis", -1)])],
        node(
            "com.microsoft::SimplifiedLayerNormalizationGrad",
            "d,x,s,i",
            "v.x,v.s",
            &[int("axis", -1)],
        ),
        &["x", "s"],
    );
    agree(
        &[("x", &[3, 4, 5]), ("s", &[4]), ("b", &[4]), ("m", &[4]), ("v", &[4]), ("d", &[3, 4, 5])],
        &[],
        vec![node(
            "com.microsoft::BatchNormInternal",
            "x,s,b,m,v",
            "y,rm,rv,sm,si",
            &[int("training_mode", 1)],
        )],
        node("com.microsoft::BatchNormalizationGrad", "d,x,s,sm,si", "v.x,v.s,v.b", &[]),
        &["x", "s", "b"],
    );
}

#[test]
fn gradients_of_convolutions_and_pooling() {
    let attrs = [
        ints("kernel_shape", &[3, 2]),
        ints("strides", &[2, 3]),
        ints("pads", &[1, 0, 1, 1]),
        int("group", 2),
    ];
    agree(
        &[("x", &[2, 4, 8, 9]), ("w", &[6, 2, 3, 2]), ("b", &[6]), ("d", &[2, 6, 4, 3])],
        &[],
        vec![node("Conv", "x,w,b", "y", &attrs)],
        node("com.microsoft::ConvGrad", "d,x,w", "v.x,v.w,v.b", &attrs),
        &["x", "w", "b"],
    );
    let attrs = [ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    agree(
        &[("x", &[2, 3, 4, 6]), ("d", &[2, 3, 2, 3])],
        &[],
        vec![node("MaxPool", "x", "y,i", &attrs)],
        node("MaxPoolGrad", "d,i", "v.x", &attrs),
        &["x"],
    );
}

#[test]
fn gradients_of_losses_and_indexing() {
    let labels: &[i64] = &[2, 0, 3, 1];
    let variants = [text("reduction", "mean"), text("reduction", "sum"), int("ignore_index", 3)];
    for attrs in variants.map(|attribute| [attribute]) {
        agree(
            &[("x", &[4, 5]), ("d", &[])],
            &[("t", &[4], labels)],
            vec![node("SoftmaxCrossEntropyLoss", "x,t", "y,log", &attrs)],
            node("com.microsoft::SoftmaxCrossEntropyLossGrad", "d,log,t", "v.x", &attrs),
            &["x"],
        );
    }
    agree(
        &[("x", &[6, 5, 2]), ("d", &[6, 2, 2, 2])],
        &[("i", &[2, 2], &[4, 0, 0, 1]), ("s", &[3], &[6, 5, 2])],
        vec![node("Gather", "x,i", "y", &[int("axis", 1)])],
        node("com.microsoft::GatherGrad", "s,i,d", "v.x", &[int("axis", 1)]),
        &["x"],
    );
}
