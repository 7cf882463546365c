//! Devices as the command line names them.

mod common;

use common::{model, refused};

#[test]
fn devices_that_are_not_there() {
    let step = model("mlp");
    let step = step.to_str().unwrap();
    let out = tempfile::tempdir().unwrap();
    let outputs = out.path().join("o.npz");
    let run = |device: &str| {
        refused(["run", step, "--outputs", outputs.to_str().unwrap(), "--device", device])
    };
    let message = run("gpu");
    assert!(message.contains("--device gpu: there is no such device; use cpu, cuda or cuda:N"));
    // Either there is no driver, or it lists fewer devices; both are said before anything is planned.
    let message = run("cuda:4000");
    let reasons = ["no NVIDIA driver was found", "there is no CUDA device 4000"];
    assert!(reasons.iter().any(|r| message.contains(r)), "{message}");
    let message = refused(["audit", "--kernels", "--device", "tpu"]);
    assert!(message.contains("there are no kernels for it; use cpu or cuda"), "{message}");
    assert!(!outputs.exists());
}
