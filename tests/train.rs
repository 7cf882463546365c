//! The training loop as users start it.

mod common;

use common::{expect, fixture, model, refused};
use pam_ir::tensor::Tensor;
use std::path::Path;

/// Trains ten epochs on the digits; the test accuracy in percent.
fn accuracy(name: &str, policy: &str) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let metrics = folder.path().join("metrics.jsonl");
    let (step, data) = (model(name), fixture("digits/digits.npz"));
    let state = folder.path().join("state.safetensors");
    let args = [
        "train",
        step.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
        "--epochs",
        "10",
        "--batch-size",
        "32",
        "--schedule",
        "cosine",
        "--policy",
        policy,
        "--metrics",
        metrics.to_str().unwrap(),
        "--state",
        state.to_str().unwrap(),
        "-q",
    ];
    expect(0, args);
    let lines = std::fs::read_to_string(&metrics).unwrap();
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    last["test_accuracy"].as_f64().unwrap() * 100.0
}

fn piecewise_affine_training_keeps_up(name: &str) {
    let (approx, native) = (accuracy(name, "approx"), accuracy(name, "native"));
    println!("{name}: {approx:.1} % under approx, {native:.1} % natively");
    assert!(native > 94.0, "{name}: {native} natively");
    assert!(approx > native - 2.0, "{name}: {approx} under approx, {native} natively");
}

#[test]
fn the_mlp_reaches_native_accuracy() {
    piecewise_affine_training_keeps_up("mlp");
}

#[test]
fn the_encoder_reaches_native_accuracy() {
    piecewise_affine_training_keeps_up("encoder");
}

#[test]
fn an_interrupted_run_goes_on_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
    let (step, data) = (model("mlp"), fixture("digits/digits.npz"));
    let base = ["train", step.to_str().unwrap(), "--data", data.to_str().unwrap(), "-q"];
    let base: Vec<String> = base.iter().map(|s| (*s).to_owned()).collect();
    let with = |more: &[&str]| -> Vec<String> {
        base.iter().cloned().chain(more.iter().map(|s| (*s).to_owned())).collect()
    };
    expect(0, with(&["--epochs", "2", "--state", &at("whole.safetensors")]));
    expect(0, with(&["--epochs", "2", "--state", &at("part.safetensors"), "--stop-after", "57"]));
    expect(
        0,
        with(&[
            "--epochs",
            "2",
            "--state",
            &at("rest.safetensors"),
            "--resume",
            &at("part.safetensors"),
        ]),
    );
    let read = |file: &str| std::fs::read(folder.path().join(file)).unwrap();
    assert!(read("whole.safetensors") == read("rest.safetensors"));
    assert!(read("whole.safetensors") != read("part.safetensors"));
    // The state is what the next command starts from.
    let inputs = fixture("mlp/inputs.npz");
    let args = [
        "run",
        step.to_str().unwrap(),
        "--init",
        &at("whole.safetensors"),
        "--inputs",
        inputs.to_str().unwrap(),
        "--outputs",
        &at("out.npz"),
    ];
    expect(0, args);
}

/// Random numbers are those of the step, and the same ones after a resumption.
#[test]
fn each_step_drops_out_other_elements() {
    let text = "graph g {
        in x: f32[4,16]
        in w: f32[16] = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        const c: f32[] = 0.5
        p: f32[4,16] = Mul(x, w)
        d: f32[4,16] = Dropout(p) {ratio=f32[] 0.5, seed=3, training_mode=bool[] true}
        l: f32[] = ReduceSum(d) {keepdims=0}
        n: f32[16] = Mul(w, c)
        out loss = l
        out new.w = n
        bind new.w -> w
    }";
    let graph = pam_ir::text::parse(text, &[]).unwrap();
    let model = pam_ir::onnx::export::export(&graph, &Default::default(), &Default::default());
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
    std::fs::write(at("step.onnx"), prost::Message::encode_to_vec(&model.unwrap())).unwrap();
    let ones = Tensor::new([24, 16], vec![1f32; 24 * 16]);
    pam_runtime::io::npz::write(at("data.npz").as_ref(), &[("x".to_owned(), ones)]).unwrap();
    let losses = |stop: &str, metrics: &str, resume: &[&str]| {
        let (step, data, state) = (at("step.onnx"), at("data.npz"), at("state.safetensors"));
        let metrics = at(metrics);
        let args = ["train", &step, "--data", &data, "-q", "--stop-after", stop];
        let more = ["--metrics", &metrics, "--state", &state];
        expect(0, [&args[..], &more, resume].concat());
        let lines = std::fs::read_to_string(metrics).unwrap();
        let lines = lines.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        // The state halves in each step.
        let scaled =
            |l: serde_json::Value| l["loss"].as_f64().map(|loss| (l["step"].clone(), loss));
        lines.filter_map(scaled).map(|(n, l)| l * 2f64.powi(n.as_i64().unwrap() as i32)).collect()
    };
    let whole: Vec<f64> = losses("6", "whole.jsonl", &[]);
    let distinct: std::collections::BTreeSet<u64> = whole.iter().map(|l| l.to_bits()).collect();
    assert!(whole.len() == 6 && distinct.len() > 2, "{whole:?}");
    let mut parts: Vec<f64> = losses("2", "first.jsonl", &[]);
    parts.extend(losses("6", "second.jsonl", &["--resume", &at("state.safetensors")]));
    assert_eq!(parts, whole);
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.safetensors");
    let (step, data) = (model("mlp"), fixture("digits/digits.npz"));
    let train = |step: &Path, more: &[&str]| {
        let mut args = vec!["train", step.to_str().unwrap(), "--data", data.to_str().unwrap()];
        args.extend(["--state", state.to_str().unwrap()]);
        args.extend(more);
        refused(args)
    };
    assert!(train(&step, &["--batch-size", "33"]).contains("exported for batches of 32"));
    assert!(train(&fixture("mlp/mlp_forward.onnx"), &[]).contains("carries no state"));
    assert!(train(&step, &["--lr", "nan"]).contains("no number"));
    assert!(train(&step, &["--resume", "/nonexistent"]).contains("/nonexistent"));
    assert!(train(&step, &["--loss-output", "logits"]).contains("no scalar float output"));
    assert!(!state.exists());
}
