//! Every fixture, from the exported step to the certified and executed one.

mod common;

use common::{STEPS, arrays, difference, expect, fixture, model, named, refused};
use pam_ir::onnx::load::load;
use pam_ir::onnx::proto::{StringStringEntryProto, tensor_shape_proto::dimension, type_proto};
use prost::Message;
use std::path::{Path, PathBuf};

/// Arguments of several kinds as one.
fn strings(args: &[&dyn AsRef<Path>]) -> Vec<PathBuf> {
    args.iter().map(|a| a.as_ref().to_owned()).collect()
}

/// Compiles, verifies and audits; written and source model give the same bits on any number of
/// threads.
fn certified_and_deterministic(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file);
    let (source, written, report) = (model(name), at("out.onnx"), at("report.json"));
    expect(0, strings(&[&source, &"-o", &written, &"--report", &report, &"-q"]));
    expect(0, strings(&[&"verify", &written, &"--certificate", &report]));
    expect(1, strings(&[&"audit", &source, &"-q"]));
    expect(0, strings(&[&"audit", &written, &"-q"]));
    let inputs = fixture(&format!("{name}/inputs.npz"));
    let mut bits = Vec::new();
    for (model, threads) in [(&source, "1"), (&source, "2"), (&written, "3")] {
        let outputs = at("out.npz");
        let args: [&dyn AsRef<Path>; 8] =
            [&"run", model, &"--inputs", &inputs, &"--outputs", &outputs, &"--threads", &threads];
        expect(0, strings(&args));
        bits.push(arrays(&outputs));
    }
    assert!(bits[0] == bits[1], "{name}: one and two threads differ");
    assert!(bits[0] == bits[2], "{name}: the source and the written model differ");
}

/// Native execution against what PyTorch computed.
fn native_is_pytorch(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let outputs = folder.path().join("out.npz");
    let inputs = fixture(&format!("{name}/inputs.npz"));
    let source = model(name);
    let args: [&dyn AsRef<Path>; 8] =
        [&"run", &source, &"--policy", &"native", &"--inputs", &inputs, &"--outputs", &outputs];
    expect(0, strings(&args));
    let manifest = std::fs::read(fixture("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let found = arrays(&outputs);
    for (output, value) in arrays(&fixture(&format!("{name}/expected.npz"))) {
        let noisy = manifest[name]["noise"].get(&output).is_some();
        let error = difference(named(&found, &output), &value);
        let bound = if noisy { 1e-2 } else { 1e-4 };
        assert!(error <= bound, "{name}: {output} is off by {error:e}");
    }
}

macro_rules! each_fixture {
    ($($name:ident)*) => {
        $(mod $name {
            #[test]
            fn is_certified_and_deterministic() {
                super::certified_and_deterministic(stringify!($name));
            }

            #[test]
            fn is_pytorch_natively() {
                super::native_is_pytorch(stringify!($name));
            }
        })*

        #[test]
        fn no_fixture_is_left_out() {
            assert_eq!(STEPS, [$(stringify!($name)),*]);
            let manifest = std::fs::read(fixture("manifest.json")).unwrap();
            let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
            assert_eq!(manifest.as_object().unwrap().len(), STEPS.len());
        }
    };
}

each_fixture!(mlp lenet resnet20 encoder encdec vit convmixer resnext vgg gpt);

#[test]
fn forward_graphs_compile_as_well() {
    for name in ["mlp", "lenet", "encoder"] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.onnx");
        expect(0, strings(&[&fixture(&format!("{name}/{name}_forward.onnx")), &"-o", &out]));
        expect(0, strings(&[&"audit", &out]));
    }
}

#[test]
fn a_report_says_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file);
    let (out, report, page) = (at("out.onnx"), at("report.json"), at("page.html"));
    let source = model("mlp");
    let args: [&dyn AsRef<Path>; 7] =
        [&source, &"-o", &out, &"--report", &report, &"--html", &page];
    let (printed, _) = expect(0, strings(&args));
    assert!(printed.lines().count() <= 24, "fits a screen:\n{printed}");
    assert!(printed.contains("certified  multiplication-free"), "{printed}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let keys = [
        "schema",
        "model",
        "policy",
        "roles",
        "census",
        "multiplies",
        "rewrites",
        "certificate",
        "kernels",
        "cost",
        "tool",
    ];
    assert!(keys.iter().all(|k| json.get(k).is_some()), "{json}");
    assert_eq!(json["schema"], 1);
    assert_eq!(json["multiplies"]["after"]["scalars"], 0);
    assert_eq!(json["certificate"]["holds"], true);
    // 32 samples through 64-64-32-10, forward and both gradients (none towards the data).
    let products = 32 * (64 * 64 * 2 + 64 * 32 * 3 + 32 * 10 * 3);
    let matmul = &json["multiplies"]["by_component"]["matmul"]["before"]["scalars"];
    assert_eq!(matmul.as_u64(), Some(products));
    let html = std::fs::read_to_string(&page).unwrap();
    for part in ["<h2>Ops</h2>", "<details>", "<h2>Certificate</h2>"] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("http") && !html.contains("<script"), "the page stands alone");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn the_kernels_of_this_program_do_not_multiply() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("kernels.json");
    let (printed, _) = expect(0, strings(&[&"audit", &"--kernels", &"--report", &report]));
    assert!(printed.contains(": 0 multiply or divide floats, 0 vectors of integers"), "{printed}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let kernels = json["kernels"].as_array().unwrap();
    let names: Vec<&str> = kernels.iter().map(|k| k["name"].as_str().unwrap()).collect();
    for part in ["pam::pairs", "avx512::compare", "avx512_grad::raw", "rows::accumulate"] {
        assert!(names.iter().any(|n| n.contains(part)), "no {part} among {names:?}");
    }
    assert!(kernels.iter().all(|k| k["float_multiplies"] == 0));
}

#[test]
fn the_readme_shows_what_is_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, shown) = readme.split_once("-o encoder.pam.onnx\n").unwrap();
    let (shown, _) = shown.split_once("\nwrote ").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let output = common::program()
        .current_dir(root)
        .args(strings(&[&"fixtures/encoder/encoder.onnx", &"-o", &out]))
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.split_once("\nwrote ").unwrap().0, shown);
}

#[test]
fn compare_and_diff_name_outputs_and_rules() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let (source, inputs) = (model("mlp"), fixture("mlp/inputs.npz"));
    let (printed, _) = expect(0, strings(&[&"compare", &source, &"--inputs", &inputs]));
    let loss: Vec<&str> = printed.lines().nth(1).unwrap().split_whitespace().collect();
    let error: f64 = loss[1].parse().unwrap();
    assert!(loss[0] == "loss" && error > 1e-4 && error < 0.3, "{printed}");
    let args: [&dyn AsRef<Path>; 6] =
        [&"compare", &source, &"--inputs", &inputs, &"--policy", &"native"];
    let (printed, _) = expect(0, strings(&args));
    assert!(printed.lines().skip(1).all(|l| l.contains("0.000e0") || l.contains("equal")));
    expect(0, strings(&[&source, &"-o", &out, &"-q"]));
    let (printed, _) = expect(0, strings(&[&"diff", &source, &out]));
    assert!(printed.contains("(changed by gemm)"), "{printed}");
    assert!(printed.contains("  + ") && printed.contains("  - "), "{printed}");
    let (same, _) = expect(0, strings(&[&"diff", &source, &source]));
    assert_eq!(same.lines().count(), 1, "{same}");
}

#[cfg(feature = "tract")]
#[test]
fn the_second_engine_agrees_with_the_first() {
    let (source, inputs) = (model("mlp"), fixture("mlp/inputs.npz"));
    let args: [&dyn AsRef<Path>; 8] =
        [&"compare", &source, &"--inputs", &inputs, &"--policy", &"native", &"--engine", &"tract"];
    let (printed, _) = expect(0, strings(&args));
    for line in printed.lines().skip(1) {
        let largest = line.split_whitespace().nth(2).unwrap_or("0");
        assert!(largest.parse::<f64>().unwrap_or(0.0) < 1e-4, "{line}");
    }
}

#[test]
fn a_partly_native_policy_is_certified_mixed_and_lists_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file);
    let (source, out, report) = (model("encoder"), at("out.onnx"), at("report.json"));
    let args: [&dyn AsRef<Path>; 8] =
        [&source, &"-o", &out, &"--policy", &"matmul", &"--report", &report, &"-q"];
    expect(0, strings(&args));
    expect(0, strings(&[&"verify", &out, &"--certificate", &report]));
    expect(1, strings(&[&"audit", &out, &"-q"]));
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(json["certificate"]["target"], "mixed");
    let by = &json["multiplies"]["by_component"];
    assert_eq!(by["matmul"]["after"]["scalars"], 0);
    assert!(by["softmax"]["after"]["scalars"].as_u64().unwrap() > 0);
    let left: u64 = json["certificate"]["native"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["scalars"].as_u64().unwrap())
        .sum();
    assert_eq!(Some(left), json["multiplies"]["after"]["scalars"].as_u64());
}

#[test]
fn metadata_of_model_and_graph_survive() {
    let entry = |key: &str| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some("kept".to_owned()),
    };
    let mut source = load(&model("mlp")).unwrap();
    source.metadata_props.push(entry("of.model"));
    source.graph.as_mut().unwrap().metadata_props.push(entry("of.graph"));
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    std::fs::write(&path, source.encode_to_vec()).unwrap();
    expect(0, [path.as_os_str(), "-o".as_ref(), out.as_os_str()]);
    let written = load(&out).unwrap();
    assert!(written.metadata_props.contains(&entry("of.model")));
    assert_eq!(written.graph.unwrap().metadata_props, [entry("of.graph")]);
}

/// Symbolic sizes are those of what is fed, if nobody says otherwise.
#[test]
fn inputs_say_how_large_a_batch_is() {
    let mut source = load(&model("mlp")).unwrap();
    for input in &mut source.graph.as_mut().unwrap().input {
        let ty = input.r#type.as_mut().and_then(|t| t.value.as_mut());
        let Some(type_proto::Value::TensorType(t)) = ty else { continue };
        if let ("x" | "y", Some(first)) =
            (input.name.as_deref().unwrap_or(""), t.shape.as_mut().and_then(|s| s.dim.first_mut()))
        {
            first.value = Some(dimension::Value::DimParam("batch".to_owned()));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("in.onnx"), folder.path().join("out.npz"));
    std::fs::write(&path, source.encode_to_vec()).unwrap();
    assert!(refused(strings(&[&path, &"-o", &out])).contains("dimension `batch`"));
    let inputs = fixture("mlp/inputs.npz");
    for command in ["run", "compare"] {
        let mut args = strings(&[&command, &path, &"--inputs", &inputs]);
        if command == "run" {
            args.extend(strings(&[&"--outputs", &out]));
        }
        expect(0, args);
    }
}
