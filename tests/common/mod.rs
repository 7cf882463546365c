//! Running the program on the fixtures.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod nodes;

use pam_ir::certify::{Target, certify};
use pam_ir::graph::Graph;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_ir::tensor::Tensor;
use pam_passes::{Policy, compile, expand};
use pam_runtime::{Executor, Plan, PlanOptions, plan};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Every training step under fixtures/.
pub const STEPS: [&str; 10] =
    ["mlp", "lenet", "resnet20", "encoder", "encdec", "vit", "convmixer", "resnext", "vgg", "gpt"];

/// A file under fixtures/.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// The model of a fixture.
pub fn model(name: &str) -> PathBuf {
    fixture(&format!("{name}/{name}.onnx"))
}

/// The program, ready to be given arguments.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pam-compile"))
}

/// Runs the program.
pub fn pam<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    program().args(args).output().unwrap()
}

/// Runs the program, which must end with this code; its stdout and stderr.
pub fn expect<S: AsRef<OsStr>>(code: i32, args: impl IntoIterator<Item = S>) -> (String, String) {
    let args: Vec<S> = args.into_iter().collect();
    let output = pam(&args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let line: Vec<String> =
        args.iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect();
    assert_eq!(output.status.code(), Some(code), "{}\n{out}\n{err}", line.join(" "));
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

/// Runs the program, which must refuse its input in one line; that line.
pub fn refused<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let (out, err) = expect(2, args);
    assert_eq!(out, "");
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.starts_with("error: "), "{err}");
    err.trim_end().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The arrays of an archive.
pub fn arrays(path: &Path) -> Vec<(String, Tensor)> {
    pam_runtime::io::npz::read(path).unwrap()
}

/// The array of a name.
pub fn named<'a>(arrays: &'a [(String, Tensor)], name: &str) -> &'a Tensor {
    &arrays.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
}

/// The largest difference over the largest magnitude of the reference; infinite where types differ
/// or one is not finite where the other is.
pub fn difference(value: &Tensor, reference: &Tensor) -> f64 {
    if value.ty() != reference.ty() {
        return f64::INFINITY;
    }
    if !value.dtype().is_float() {
        return if value == reference { 0.0 } else { f64::INFINITY };
    }
    let (a, b) = (value.to_f64().unwrap(), reference.to_f64().unwrap());
    let gap = |x: f64, y: f64| {
        let same = x == y || x.is_nan() && y.is_nan();
        if same {
            0.0
        } else if x.is_finite() && y.is_finite() {
            (x - y).abs()
        } else {
            f64::INFINITY
        }
    };
    let largest = b.iter().filter(|x| x.is_finite()).fold(0f64, |m, x| m.max(x.abs()));
    let gap = a.iter().zip(&b).map(|(&x, &y)| gap(x, y)).fold(0f64, f64::max);
    if gap == 0.0 { 0.0 } else { gap / largest }
}

/// The imported graph of a fixture.
pub fn graph(name: &str) -> Graph {
    let path = model(name);
    let file = ModelFile { model: load(&path).unwrap(), path };
    import(&[file], &ImportOptions::default()).unwrap().graph
}

/// The plan of a graph under a policy.
pub fn planned(graph: &Graph, policy: &str) -> Plan {
    let compiled = compile(graph, &Policy::preset(policy).unwrap()).unwrap();
    let certified = certify(expand(&compiled.graph).unwrap(), Target::Mixed).unwrap();
    plan(&certified, PlanOptions::default()).unwrap()
}

/// What runs a graph under a preset, whatever stays native.
pub fn executor(graph: &Graph, policy: &str) -> Executor {
    let compiled =
        compile(graph, &Policy::preset(policy).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    let certified = certify(expand(&compiled.graph).unwrap(), Target::Mixed).unwrap();
    Executor::new(plan(&certified, PlanOptions::default()).unwrap(), 0).unwrap()
}
