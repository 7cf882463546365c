//! onnxruntime's training artifacts, and its ops.

mod common;

use common::{arrays, difference, expect, fixture, named};
use pam_ir::certify::{Target, certify};
use pam_ir::graph::Graph;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_ir::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TrainingInfoProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use pam_ir::tensor::Tensor;
use pam_kernels::random::threefry;
use pam_passes::{Policy, compile, expand};
use pam_runtime::{Executor, PlanOptions, plan};

fn executor(graph: &Graph, policy: &str) -> Executor {
    let compiled =
        compile(graph, &Policy::preset(policy).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    let certified = certify(expand(&compiled.graph).unwrap(), Target::Mixed).unwrap();
    Executor::new(plan(&certified, PlanOptions::default()).unwrap(), 0).unwrap()
}

#[test]
fn linked_models_do_what_onnxruntime_does() {
    for name in ["mlp_adamw", "lenet_sgd"] {
        let files = ["training_model.onnx", "optimizer_model.onnx"].map(|f| {
            let path = fixture(&format!("ort/{name}/{f}"));
            ModelFile { model: load(&path).unwrap(), path }
        });
        let graph = import(&files, &ImportOptions::default()).unwrap().graph;
        let steps = arrays(&fixture(&format!("ort/{name}/steps.npz")));
        let mut executor = executor(&graph, "native");
        for (input, array) in [("x", "x"), ("labels", "labels"), ("learning_rate", "lr")] {
            executor.set(input, named(&steps, array)).unwrap();
        }
        if name == "lenet_sgd" {
            executor.set("step", &Tensor::new([1], vec![1i64])).unwrap();
        }
        let parameters: Vec<&str> =
            steps.iter().filter_map(|(n, _)| n.strip_prefix("init.")).collect();
        for p in &parameters {
            executor.set(p, named(&steps, &format!("init.{p}"))).unwrap();
        }
        let losses = named(&steps, "losses").to_f64().unwrap();
        let loss = executor.plan().outputs[0].name.clone();
        for expected in losses {
            executor.step().unwrap();
            let found = executor.output(&loss).unwrap().as_scalar_f64().unwrap();
            assert!((found - expected).abs() < 1e-6 * expected, "{name}: {found}, not {expected}");
        }
        for p in parameters {
            let error =
                difference(&executor.value(p).unwrap(), named(&steps, &format!("after.{p}")));
            assert!(error < 1e-5, "{name}: {p} is off by {error:e}");
        }
    }
}

#[test]
fn linked_models_are_certified_and_name_new_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("step.onnx");
    let files = ["training_model.onnx", "optimizer_model.onnx"]
        .map(|f| fixture(&format!("ort/mlp_adamw/{f}")));
    for policy in ["approx", "exact"] {
        let args = [
            files[0].as_os_str(),
            files[1].as_os_str(),
            "-o".as_ref(),
            out.as_os_str(),
            "--policy".as_ref(),
            policy.as_ref(),
        ];
        let (printed, _) = expect(0, args);
        assert!(printed.contains("certified  multiplication-free"), "{printed}");
        if policy == "exact" {
            assert!(printed.contains("6 computed anew, found by names"), "{printed}");
        }
    }
    let written = load(&out).unwrap();
    let outputs: Vec<String> =
        written.graph.unwrap().output.iter().map(|o| o.name().to_owned()).collect();
    for name in ["new.layers.0.weight", "new.first_order_moments.layers.0.weight", "new.step"] {
        assert!(outputs.iter().any(|o| o == name), "{name} is not among {outputs:?}");
    }
}

// --- ops of onnxruntime against the compiler's own derivatives --------------------------------------

fn info(name: &str, dtype: i32, shape: &[usize]) -> ValueInfoProto {
    let dim = |&d: &usize| Dimension {
        value: Some(dimension::Value::DimValue(d as i64)),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(dtype),
        shape: Some(TensorShapeProto { dim: shape.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: v.to_vec(),
        r#type: Some(AttributeType::Ints as i32),
        ..AttributeProto::default()
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(i),
        r#type: Some(AttributeType::Int as i32),
        ..AttributeProto::default()
    }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        f: Some(f),
        r#type: Some(AttributeType::Float as i32),
        ..AttributeProto::default()
    }
}

fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        s: Some(s.as_bytes().to_vec()),
        r#type: Some(AttributeType::String as i32),
        ..AttributeProto::default()
    }
}

fn node(op: &str, inputs: &str, outputs: &str, attribute: &[AttributeProto]) -> NodeProto {
    let (domain, op) = op.split_once("::").unwrap_or(("", op));
    let list = |s: &str| s.split(',').map(|n| n.trim().to_owned()).collect();
    NodeProto {
        op_type: Some(op.to_owned()),
        domain: Some(domain.to_owned()),
        input: list(inputs),
        output: list(outputs),
        attribute: attribute.to_vec(),
        ..NodeProto::default()
    }
}

fn random(seed: u32, shape: &[usize]) -> Tensor {
    let word = |i: u32| threefry([seed, 5], [i, 0])[0] as i32;
    let n = shape.iter().product::<usize>() as u32;
    Tensor::new(shape, (0..n).map(|i| word(i) as f32 / 2f32.powi(30)).collect::<Vec<f32>>())
}

/// A model of inputs (name, shape), integer constants, forward nodes that end in y, and a node of
/// onnxruntime that gives the gradients `v.<x>` of the inputs `by` from d, the cotangent of y. Both
/// gradients are computed natively and compared.
fn agree(
    inputs: &[(&str, &[usize])],
    constants: &[(&str, &[usize], &[i64])],
    forward: Vec<NodeProto>,
    vendor: NodeProto,
    by: &[&str],
) {
    let name = vendor.op_type().to_owned();
    let mut nodes = forward;
    nodes.push(node("Mul", "y,d", "p", &[]));
    nodes.push(node("ReduceSum", "p", "l", &[int("keepdims", 0)]));
    let outputs: Vec<String> = by.iter().map(|x| format!("g.{x}")).collect();
    let mut gradient = node(
        "ai.onnx.preview.training::Gradient",
        &by.join(","),
        &outputs.join(","),
        &[text("y", "l")],
    );
    gradient.attribute.push(AttributeProto {
        name: Some("xs".to_owned()),
        strings: by.iter().map(|x| x.as_bytes().to_vec()).collect(),
        r#type: Some(AttributeType::Strings as i32),
        ..AttributeProto::default()
    });
    nodes.push(gradient);
    nodes.push(vendor);
    let opset = |domain: &str, version: i64| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
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
    let file = ModelFile { model, path: "vendor.onnx".into() };
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
            let (own, vendor) =
                (named(&outputs, &format!("g.{x}")), named(&outputs, &format!("v.{x}")));
            let error = difference(vendor, own);
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
    for reduction in ["mean", "sum"] {
        let attrs = [text("reduction", reduction)];
        agree(
            &[("x", &[4, 5]), ("d", &[])],
            &[("t", &[4], labels)],
            vec![node("SoftmaxCrossEntropyLoss", "x,t", "y,log", &attrs)],
            node("com.microsoft::SoftmaxCrossEntropyLossGrad", "d,log,t", "v.x", &attrs),
            &["x"],
        );
    }
    let attrs = [int("ignore_index", 3)];
    agree(
        &[("x", &[4, 5]), ("d", &[])],
        &[("t", &[4], labels)],
        vec![node("SoftmaxCrossEntropyLoss", "x,t", "y,log", &attrs)],
        node("com.microsoft::SoftmaxCrossEntropyLossGrad", "d,log,t", "v.x", &attrs),
        &["x"],
    );
    agree(
        &[("x", &[6, 5, 2]), ("d", &[6, 2, 2, 2])],
        &[("i", &[2, 2], &[4, 0, 0, 1]), ("s", &[3], &[6, 5, 2])],
        vec![node("Gather", "x,i", "y", &[int("axis", 1)])],
        node("com.microsoft::GatherGrad", "s,i,d", "v.x", &[int("axis", 1)]),
        &["x"],
    );
}

#[test]
fn training_info_is_a_step() {
    let strings = |name: &str, v: &[&str]| AttributeProto {
        name: Some(name.to_owned()),
        strings: v.iter().map(|s| s.as_bytes().to_vec()).collect(),
        r#type: Some(AttributeType::Strings as i32),
        ..AttributeProto::default()
    };
    let tensor = |name: &str, dims: &[i64], data: &[f32]| TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(1),
        dims: dims.to_vec(),
        float_data: data.to_vec(),
        ..TensorProto::default()
    };
    let algorithm = GraphProto {
        name: Some("algorithm".to_owned()),
        node: vec![
            node("Sub", "y,t", "e", &[]),
            node("Mul", "e,e", "q", &[]),
            node("ReduceSum", "q", "cost", &[int("keepdims", 0)]),
            node(
                "ai.onnx.preview.training::Gradient",
                "w",
                "g",
                &[strings("xs", &["w"]), text("y", "cost")],
            ),
            node("Mul", "g,rate", "s", &[]),
            node("Sub", "w,s", "w_next", &[]),
        ],
        initializer: vec![tensor("rate", &[], &[0.05])],
        input: vec![info("t", 1, &[4])],
        output: vec![info("cost", 1, &[]), info("w_next", 1, &[3])],
        ..GraphProto::default()
    };
    let binding =
        StringStringEntryProto { key: Some("w".to_owned()), value: Some("w_next".to_owned()) };
    let opset = |domain: &str, version: i64| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    let model = ModelProto {
        ir_version: Some(10),
        opset_import: vec![opset("", 20), opset("ai.onnx.preview.training", 1)],
        graph: Some(GraphProto {
            name: Some("inference".to_owned()),
            node: vec![node("MatMul", "x,w", "y", &[])],
            input: vec![info("x", 1, &[4, 3])],
            output: vec![info("y", 1, &[4])],
            initializer: vec![tensor("w", &[3], &[0.5, -0.25, 1.0])],
            ..GraphProto::default()
        }),
        training_info: vec![TrainingInfoProto {
            algorithm: Some(algorithm),
            update_binding: vec![binding],
            ..TrainingInfoProto::default()
        }],
        ..ModelProto::default()
    };
    let file = ModelFile { model: model.clone(), path: "training.onnx".into() };
    let graph = import(&[file], &ImportOptions::default()).unwrap().graph;
    assert_eq!((graph.bindings[0].new.as_str(), graph.bindings[0].old.as_str()), ("w_next", "w"));
    for policy in ["native", "approx", "exact"] {
        let mut executor = executor(&graph, policy);
        executor.set("x", &random(1, &[4, 3])).unwrap();
        executor.set("t", &random(2, &[4])).unwrap();
        let mut cost = || {
            executor.step().unwrap();
            executor.output("cost").unwrap().as_scalar_f64().unwrap()
        };
        let first = cost();
        let last = (0..20).map(|_| cost()).last().unwrap();
        assert!(last < first * 0.9, "{policy}: from {first} to {last}");
    }
    // What is written holds the algorithm in its graph, and still in its training_info.
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("t.onnx"), folder.path().join("t.pam.onnx"));
    std::fs::write(&path, prost::Message::encode_to_vec(&model)).unwrap();
    expect(0, [path.as_os_str(), "-o".as_ref(), out.as_os_str()]);
    assert_eq!(load(&out).unwrap().training_info, model.training_info);
    expect(0, ["audit".as_ref(), out.as_os_str()]);
}
