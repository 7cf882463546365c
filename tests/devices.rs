//! Devices as the command line names them.

mod common;

use common::{expect, model, refused};

#[test]
fn devices_that_are_not_there() {
    let step = model("mlp");
    let step = step.to_str().unwrap();
    let out = tempfile::tempdir().unwrap();
    let outputs = out.path().join("o.npz");
    let run = |device: &str| {
        refused(["run", step, "--outputs", outputs.to_str().unwrap(), "--device", device])
    };
    // An option that is wrong is said by every command, that which only compiles included.
    let compiled = out.path().join("m.onnx");
    let compile = ["-o", compiled.to_str().unwrap(), step, "--device", "gpu"];
    let run_there = ["run", step, "--outputs", outputs.to_str().unwrap(), "--device", "gpu"];
    for (_, message) in [expect(2, run_there), expect(2, compile)] {
        assert!(message.contains("there is no such device; use cpu, cuda or cuda:N"), "{message}");
    }
    // Either there is no driver, or it lists fewer devices; both are said before anything is planned.
    let message = run("cuda:4000");
    let reasons = ["no NVIDIA driver was found", "there is no CUDA device 4000"];
    assert!(reasons.iter().any(|r| message.contains(r)), "{message}");
    let message = refused(["audit", "--kernels", "--device", "tpu"]);
    assert!(message.contains("there are no kernels for it; use cpu or cuda"), "{message}");
    assert!(!outputs.exists() && !compiled.exists());
}
