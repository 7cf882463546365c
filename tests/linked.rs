//! Steps of several parts: onnxruntime's training artifacts, and training_info.

mod common;

use common::nodes::{info, int, node, opset, random, strings, text};
use common::{arrays, difference, executor, expect, fixture, named};
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_ir::onnx::proto::{
    GraphProto, ModelProto, StringStringEntryProto, TensorProto, TrainingInfoProto,
};
use pam_ir::tensor::Tensor;

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

#[test]
fn training_info_is_a_step() {
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
    let (_, note) = expect(0, ["audit".as_ref(), out.as_os_str()]);
    assert!(note.contains("`training_info` is a record of the source (6 nodes"), "{note}");
    // The algorithm may name outputs of the graph again; with one that is not there, it is part of the step.
    let mut again = model;
    let algorithm = again.training_info[0].algorithm.as_mut().unwrap();
    algorithm.output.push(info("y", 1, &[4]));
    let file = ModelFile { model: again.clone(), path: "again.onnx".into() };
    let repeated = import(&[file], &ImportOptions::default()).unwrap().graph;
    assert_eq!(repeated.outputs.len(), graph.outputs.len());
    assert_eq!(repeated.nodes.len(), graph.nodes.len());
    std::fs::write(&path, prost::Message::encode_to_vec(&again)).unwrap();
    expect(1, ["audit".as_ref(), path.as_os_str()]);
}
