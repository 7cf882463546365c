//! Files that multiply and do not look like it: no audit may call them clean.

mod common;

use common::nodes::{info, node, opset, text};
use common::{expect, refused};
use pam_ir::onnx::proto::{
    FunctionProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TrainingInfoProto,
    ValueInfoProto, tensor_shape_proto::dimension, type_proto,
};
use prost::Message;
use std::path::PathBuf;

/// A model that computes y from x, three numbers each.
fn model(nodes: Vec<NodeProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![opset("", 20), opset("my", 1), opset("com.microsoft", 1)],
        graph: Some(GraphProto {
            name: Some("g".to_owned()),
            node: nodes,
            input: vec![info("x", 1, &[3])],
            output: vec![ValueInfoProto { name: Some("y".to_owned()), ..Default::default() }],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

/// A function of a and b.
fn function(domain: &str, name: &str, body: NodeProto) -> FunctionProto {
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some(domain.to_owned()),
        input: body.input.clone(),
        output: body.output.clone(),
        node: vec![body],
        opset_import: vec![opset("", 20)],
        ..FunctionProto::default()
    }
}

fn written(folder: &tempfile::TempDir, model: &ModelProto) -> PathBuf {
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

fn audit_refuses(model: &ModelProto, part: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = written(&folder, model);
    let message = refused(["audit".as_ref(), path.as_os_str()]);
    assert!(message.contains(part), "{message}");
}

#[test]
fn functions_named_as_ops() {
    let sum = || node("Add", "a,b", "c", &[]);
    let relu = || node("Relu", "a", "c", &[]);
    for (domain, name, body, call) in [
        ("", "Mul", sum(), node("Mul", "x,x", "y", &[])),
        ("ai.onnx", "Mul", sum(), node("Mul", "x,x", "y", &[])),
        ("com.microsoft", "QuickGelu", relu(), node("com.microsoft::QuickGelu", "x", "y", &[])),
        ("ai.onnx.ml", "Scaler", relu(), node("ai.onnx.ml::Scaler", "x", "y", &[])),
    ] {
        let mut model = model(vec![call]);
        model.functions = vec![function(domain, name, body)];
        audit_refuses(&model, "may be taken for an op of the runtime");
    }
    // Of two of one name, each runtime takes the one it likes.
    let mut twice = model(vec![node("my::f", "x,x", "y", &[])]);
    let product = node("Mul", "a,b", "c", &[]);
    twice.functions = vec![function("my", "f", product), function("my", "f", sum())];
    audit_refuses(&twice, "two functions have the name `my::f`");
    // So it is with attributes.
    let directions = [text("direction", "LEFT"), text("direction", "RIGHT")];
    audit_refuses(&model(vec![node("BitShift", "x,x", "y", &directions)]), "is given twice");
}

#[test]
fn sizes_that_are_not_given() {
    let one = |name: &str, value: i64| {
        node("Constant", "", name, &[common::nodes::ints("value_ints", &[value])])
    };
    let nodes = vec![
        one("from", 1),
        one("to", 99),
        node("Slice", "x,from,to", "rest", &[]),
        node("Mul", "rest,rest", "y", &[]),
    ];
    let mut model = model(nodes);
    let input = &mut model.graph.as_mut().unwrap().input[0];
    let Some(type_proto::Value::TensorType(tensor)) =
        input.r#type.as_mut().and_then(|t| t.value.as_mut())
    else {
        panic!("the input is a tensor");
    };
    tensor.shape.as_mut().unwrap().dim[0].value = Some(dimension::Value::DimParam("N".to_owned()));
    audit_refuses(&model, "give the size of N with --dim");
    let folder = tempfile::tempdir().unwrap();
    let path = written(&folder, &model);
    let args = ["audit".as_ref(), path.as_os_str(), "--dim".as_ref(), "N=3".as_ref()];
    let (out, _) = expect(1, args);
    assert!(out.contains("2 native multiplications"), "{out}");
}

/// Only a file that this program has written has a `training_info` that is a record.
#[test]
fn training_that_calls_itself_done() {
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    let mut model = model(vec![node("Relu", "x", "y", &[])]);
    let algorithm = GraphProto {
        name: Some("step".to_owned()),
        node: vec![node("Mul", "y,y", "next", &[])],
        output: vec![ValueInfoProto { name: Some("y".to_owned()), ..Default::default() }],
        ..GraphProto::default()
    };
    model.training_info = vec![TrainingInfoProto {
        algorithm: Some(algorithm),
        update_binding: vec![entry("x", "next")],
        ..TrainingInfoProto::default()
    }];
    let folder = tempfile::tempdir().unwrap();
    let path = written(&folder, &model);
    let (out, _) = expect(1, ["audit".as_ref(), path.as_os_str()]);
    assert!(out.contains("Mul: 3 scalars in 1 node"), "{out}");
}

/// A compiled file is checked for the functions that it calls and for an opset that has their bodies.
#[test]
fn written_files_define_what_they_call() {
    let folder = tempfile::tempdir().unwrap();
    let source = written(&folder, &model(vec![node("Mul", "x,x", "y", &[])]));
    let [out, report] = ["out.onnx", "report.json"].map(|name| folder.path().join(name));
    let args = [&source, &PathBuf::from("-o"), &out, &PathBuf::from("--report"), &report];
    expect(0, args);
    let honest = ModelProto::decode(&*std::fs::read(&out).unwrap()).unwrap();
    let mut bare = honest.clone();
    bare.functions.clear();
    let mut old = honest.clone();
    old.opset_import.iter_mut().filter(|o| o.domain() == "").for_each(|o| o.version = Some(13));
    for (forged, part) in [(bare, "nothing defines pam.mul"), (old, "which need 26")] {
        let bytes = forged.encode_to_vec();
        std::fs::write(&out, &bytes).unwrap();
        let text = std::fs::read(&report).unwrap();
        let mut claims: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let hash = pam_ir::onnx::external::sha256_hex(&bytes);
        claims["certificate"]["output_sha256"] = hash.into();
        std::fs::write(&report, claims.to_string()).unwrap();
        let args = ["verify".as_ref(), out.as_os_str(), "--certificate".as_ref()];
        let (said, _) = expect(1, args.into_iter().chain([report.as_os_str()]));
        assert!(said.contains(part), "{said}");
    }
}
