//! The second engine on the fixtures, against what PyTorch computed.
#![cfg(feature = "tract")]

use pam_ir::tensor::Tensor;
use pam_runtime::engine::tract;
use std::path::{Path, PathBuf};

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(file)
}

/// The largest difference, relative to the largest magnitude.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_f64().unwrap(), b.to_f64().unwrap());
    let largest = b.iter().fold(1e-30f64, |m, x| m.max(x.abs()));
    a.iter().zip(&b).map(|(x, y)| (x - y).abs() / largest).fold(0.0, f64::max)
}

fn check(name: &str) -> Result<f64, String> {
    let path = fixture(&format!("{name}/{name}.onnx"));
    let inputs = pam_runtime::io::read(&fixture(&format!("{name}/inputs.npz"))).unwrap();
    let expected = pam_runtime::io::read(&fixture(&format!("{name}/expected.npz"))).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let outputs = tract::run(&path, &bytes, &inputs).map_err(|e| e.to_string())?;
    let mut worst = 0f64;
    for (name, value) in &expected {
        let (_, got) = outputs.iter().find(|(n, _)| n == name).unwrap();
        if value.dtype().is_float() {
            worst = worst.max(difference(got, value));
        } else {
            assert_eq!(got, value, "{name}");
        }
    }
    Ok(worst)
}

#[test]
fn it_agrees_with_pytorch_where_it_runs() {
    let mut ran = 0;
    for name in ["mlp", "lenet", "encoder"] {
        match check(name) {
            Ok(worst) => {
                assert!(worst < 1e-4, "{name}: {worst}");
                ran += 1;
            }
            // What it lacks it must name in one line.
            Err(message) => {
                println!("{message}");
                assert!(
                    message.contains("tract cannot run this model (") && !message.contains('\n')
                );
            }
        }
    }
    assert!(ran >= 1, "tract runs none of the fixtures");
}

#[test]
fn a_missing_input_and_a_broken_file_are_named() {
    let path = fixture("mlp/mlp.onnx");
    let bytes = std::fs::read(&path).unwrap();
    let error = tract::run(&path, &bytes, &[]).unwrap_err().to_string();
    assert!(error.ends_with("input `x` has no value; give it in the inputs"), "{error}");
    let error = tract::run(&path, b"\xff\xff", &[]).unwrap_err().to_string();
    assert!(error.contains("is not an ONNX model"), "{error}");
}
