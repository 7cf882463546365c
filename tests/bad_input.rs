//! Bad input: one line, exit code 2, nothing written.

mod common;

use common::nodes::{info, int, ints};
use common::{arrays, expect, fixture, model, refused};
use pam_ir::onnx::proto::{
    FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, tensor_proto::DataLocation, type_proto,
};
use pam_ir::tensor::Tensor;
use prost::Message;
use std::path::{Path, PathBuf};

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(op.to_owned()),
        name: Some(format!("node {op}")),
        input: inputs.iter().map(|&s| s.to_owned()).collect(),
        output: outputs.iter().map(|&s| s.to_owned()).collect(),
        ..NodeProto::default()
    }
}

/// A model that computes y from x, both of a shape.
fn graph(shape: &[usize], nodes: Vec<NodeProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(20) }],
        graph: Some(GraphProto {
            name: Some("g".to_owned()),
            node: nodes,
            input: vec![info("x", 1, shape)],
            output: vec![info("y", 1, shape)],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

/// Compiles bytes, which must be refused and leave nothing behind; the message.
fn refuse(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.onnx");
    std::fs::write(&path, bytes).unwrap();
    let report = folder.path().join("report.json");
    let message = refused([path.as_os_str(), "--report".as_ref(), report.as_os_str()]);
    assert!(message.contains("bad.onnx"), "names the file: {message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{message}");
    message
}

fn refuse_model(model: &ModelProto) -> String {
    refuse(&model.encode_to_vec())
}

fn contains(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing: {message}");
    }
}

#[test]
fn files_that_are_no_models() {
    let whole = std::fs::read(model("mlp")).unwrap();
    for bytes in
        [&b""[..], b"\x89PNG\r\n\x1a\n", b"hello", &whole[..100], &whole[..whole.len() / 2]]
    {
        contains(&refuse(bytes), &["not an ONNX model"]);
    }
    contains(&refused(["/nonexistent/model.onnx"]), &["/nonexistent/model.onnx", "cannot be read"]);
}

#[test]
fn graphs_that_are_broken() {
    let cycle = graph(&[2], vec![node("Add", &["x", "b"], &["a"]), node("Abs", &["a"], &["b"])]);
    contains(&refuse_model(&cycle), &["cycle"]);
    let dangling = graph(&[2], vec![node("Add", &["x", "nowhere"], &["y"])]);
    contains(&refuse_model(&dangling), &["node Add", "nowhere"]);
    let twice = graph(&[2], vec![node("Abs", &["x"], &["y"]), node("Neg", &["x"], &["y"])]);
    contains(&refuse_model(&twice), &["`y`"]);
    let mut missing = graph(&[2], vec![node("Abs", &["x"], &["z"])]);
    contains(&refuse_model(&missing), &["output `y`"]);
    missing.graph.as_mut().unwrap().input.push(info("x", 1, &[2]));
    contains(&refuse_model(&missing), &["`x`"]);
    let shapes =
        graph(&[2], vec![node("MatMul", &["x", "x"], &["a"]), node("MatMul", &["a", "x"], &["y"])]);
    contains(&refuse_model(&shapes), &["node MatMul", "opset 20"]);
}

#[test]
fn ops_and_opsets_that_are_not_known() {
    let unknown = graph(&[2], vec![node("Frobnicate", &["x"], &["y"])]);
    contains(
        &refuse_model(&unknown),
        &["node Frobnicate", "Frobnicate, opset 20", "pam-compile ops"],
    );
    let (out, _) = {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        std::fs::write(&path, unknown.encode_to_vec()).unwrap();
        expect(1, ["audit".as_ref(), path.as_os_str()])
    };
    contains(&out, &["unknown: node `node Frobnicate`"]);
    for version in [1, 6, 99] {
        let mut old = graph(&[2], vec![node("Abs", &["x"], &["y"])]);
        old.opset_import[0].version = Some(version);
        contains(&refuse_model(&old), &[&format!("opset {version}"), "7 to 28"]);
    }
}

#[test]
fn attributes_that_mean_nothing() {
    let mut turned = graph(&[2, 3], vec![node("Transpose", &["x"], &["y"])]);
    let g = turned.graph.as_mut().unwrap();
    g.node[0].attribute.push(ints("perm", &[-1, 0]));
    contains(&refuse_model(&turned), &["Transpose", "`perm` is [-1, 0]"]);
    let outputs = ["y", "k", "v", "z"];
    let mut shown = graph(&[1, 1, 2, 3], vec![node("Attention", &["x", "x", "x"], &outputs)]);
    let g = shown.graph.as_mut().unwrap();
    g.node[0].attribute.push(int("qk_matmul_output_mode", 4));
    shown.opset_import[0].version = Some(24);
    contains(&refuse_model(&shown), &["Attention", "`qk_matmul_output_mode` is 4"]);
}

#[test]
fn operands_of_another_rank() {
    let mut heads = graph(&[2, 4], vec![node("MultiHeadAttention", &["x", "x", "x"], &["y"])]);
    heads.graph.as_mut().unwrap().node[0].domain = Some("com.microsoft".to_owned());
    contains(&refuse_model(&heads), &["MultiHeadAttention", "supported"]);
    heads.graph.as_mut().unwrap().node[0].op_type = Some("Attention".to_owned());
    let w = Tensor::new([4, 12], vec![0.5f32; 48]);
    heads.graph.as_mut().unwrap().initializer.push(pam_ir::onnx::tensor::write("w", &w));
    heads.graph.as_mut().unwrap().node[0].input = vec!["x".to_owned(), "w".to_owned()];
    contains(&refuse_model(&heads), &["Attention", "not of rank 3 or 4"]);
}

#[test]
fn sizes_that_no_machine_has() {
    let huge = graph(&[1 << 40, 1 << 40], vec![node("Abs", &["x"], &["y"])]);
    contains(&refuse_model(&huge), &["`x`"]);
    let sizes =
        |name: &str, sizes: Vec<i64>| pam_ir::onnx::tensor::write(name, &Tensor::vector(sizes));
    let mut grid = graph(&[1, 2, 3], vec![node("AffineGrid", &["x", "s"], &["y"])]);
    grid.graph.as_mut().unwrap().initializer.push(sizes("s", vec![1, 1, 1 << 40, 6]));
    contains(&refuse_model(&grid), &["AffineGrid", "1099511627776"]);
    let mut frames = graph(&[1, 1 << 33, 1], vec![node("STFT", &["x", "s", "", "n"], &["y"])]);
    let constants = &mut frames.graph.as_mut().unwrap().initializer;
    constants.extend([sizes("s", vec![1]), sizes("n", vec![16])]);
    contains(&refuse_model(&frames), &["STFT", "frames of 16 samples"]);
    let states = |shape: &[usize]| {
        let mut layer = graph(shape, vec![node("GRU", &["x", "w", "w"], &["y"])]);
        let w = Tensor::new([1, 3, 1], vec![0.5f32; 3]);
        layer.graph.as_mut().unwrap().initializer.push(pam_ir::onnx::tensor::write("w", &w));
        layer
    };
    contains(&refuse_model(&states(&[1 << 33, 1, 1])), &["GRU", "parts along axis 0"]);
    let mut constant = graph(&[2], vec![node("Add", &["x", "w"], &["y"])]);
    constant.graph.as_mut().unwrap().initializer.push(TensorProto {
        name: Some("w".to_owned()),
        data_type: Some(1),
        dims: vec![1 << 40],
        ..TensorProto::default()
    });
    contains(&refuse_model(&constant), &["`w`"]);
    // A constant that a node would make when folding.
    let mut made = graph(
        &[2],
        vec![
            node("ConstantOfShape", &["n"], &["z"]),
            node("ReduceSum", &["z"], &["s"]),
            node("Add", &["x", "s"], &["y"]),
        ],
    );
    made.graph.as_mut().unwrap().initializer.push(TensorProto {
        name: Some("n".to_owned()),
        data_type: Some(7),
        dims: vec![2],
        int64_data: vec![1 << 30, 1 << 30],
        ..TensorProto::default()
    });
    refuse_model(&made);
    // A dimension that neither a file nor an address can hold.
    let mut tiled = graph(&[3], vec![node("Tile", &["x", "n"], &["y"])]);
    tiled.graph.as_mut().unwrap().initializer.push(TensorProto {
        name: Some("n".to_owned()),
        data_type: Some(7),
        dims: vec![1],
        int64_data: vec![1 << 62],
        ..TensorProto::default()
    });
    contains(&refuse_model(&tiled), &["Tile", "more elements than memory can address"]);
}

#[test]
fn functions_that_pose_as_primitives() {
    let call = NodeProto { domain: Some("pam".to_owned()), ..node("mul", &["x", "x"], &["y"]) };
    let mut model = graph(&[2], vec![call]);
    let pam = OperatorSetIdProto { domain: Some("pam".to_owned()), version: Some(1) };
    model.opset_import.push(pam);
    model.functions.push(FunctionProto {
        name: Some("mul".to_owned()),
        domain: Some("pam".to_owned()),
        input: vec!["a".to_owned(), "b".to_owned()],
        output: vec!["c".to_owned()],
        node: vec![node("Add", &["a", "b"], &["c"])],
        opset_import: model.opset_import.clone(),
        ..FunctionProto::default()
    });
    contains(&refuse_model(&model), &["pam.mul", "another domain"]);
}

#[test]
fn products_of_integers_are_not_certified() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("integers.onnx");
    for op in ["Gemm", "ReduceSumSquare", "ReduceProd", "ReduceMean"] {
        let inputs: &[&str] = if op == "Gemm" { &["x", "x"] } else { &["x"] };
        let mut model = graph(&[3, 3], vec![node(op, inputs, &["y"])]);
        let g = model.graph.as_mut().unwrap();
        g.output[0] = info("y", 1, if op == "Gemm" { &[3, 3] } else { &[1, 1] });
        for v in g.input.iter_mut().chain(&mut g.output) {
            if let Some(type_proto::Value::TensorType(t)) = &mut v.r#type.as_mut().unwrap().value {
                t.elem_type = Some(7);
            }
        }
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        let (_, message) = expect(1, [&path]);
        contains(&message, &["integer-multiply", op]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{message}");
    }
}

#[test]
fn external_data() {
    let with = |location: &str| {
        let entry = |k: &str, v: &str| StringStringEntryProto {
            key: Some(k.to_owned()),
            value: Some(v.to_owned()),
        };
        let mut m = graph(&[2], vec![node("Add", &["x", "w"], &["y"])]);
        m.graph.as_mut().unwrap().initializer.push(TensorProto {
            name: Some("w".to_owned()),
            data_type: Some(1),
            dims: vec![2],
            data_location: Some(DataLocation::External as i32),
            external_data: vec![entry("location", location)],
            ..TensorProto::default()
        });
        m
    };
    contains(&refuse_model(&with("missing.bin")), &["`w`", "missing.bin"]);
    for outside in ["../secret.bin", "/etc/passwd", "a/../../b"] {
        contains(&refuse_model(&with(outside)), &["leaves the model's folder"]);
    }
    contains(&refuse_model(&with("")), &["`w`"]);
}

#[test]
fn arrays_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let (inputs, outputs) = (folder.path().join("in.npz"), folder.path().join("out.npz"));
    let whole = arrays(&fixture("mlp/inputs.npz"));
    let step = model("mlp");
    let run = |arrays: &[(String, Tensor)]| {
        pam_runtime::io::npz::write(&inputs, arrays).unwrap();
        let args = [
            "run",
            step.to_str().unwrap(),
            "--inputs",
            inputs.to_str().unwrap(),
            "--outputs",
            outputs.to_str().unwrap(),
        ];
        let message = refused(args);
        assert!(!outputs.exists());
        message
    };
    contains(&run(&whole[..1]), &["input `", "is missing"]);
    let mut extra = whole.clone();
    extra.push(("z".to_owned(), Tensor::scalar(1f32)));
    contains(&run(&extra), &["`z` is not an input", "`x`"]);
    let x = whole.iter().position(|(n, _)| n == "x").unwrap();
    let mut shape = whole.clone();
    shape[x].1 = Tensor::new([1, 64], vec![0f32; 64]);
    contains(&run(&shape), &["`x` is f32[1,64]", "f32[32,64]"]);
    let mut ty = whole.clone();
    ty[x].1 = Tensor::new([32, 64], vec![0f64; 32 * 64]);
    contains(&run(&ty), &["`x` is f64[32,64]"]);
    std::fs::write(&inputs, b"PK\x03\x04 no archive").unwrap();
    let args = ["run", step.to_str().unwrap(), "--inputs", inputs.to_str().unwrap(), "--outputs"];
    contains(&refused(args.into_iter().chain([outputs.to_str().unwrap()])), &["in.npz"]);
}

#[test]
fn options_that_mean_nothing() {
    let step = model("mlp");
    let step = step.to_str().unwrap();
    let out = std::env::temp_dir().join("pam-never-written.onnx");
    let with = |more: &[&str]| {
        let mut args = vec![step, "-o", out.to_str().unwrap()];
        args.extend(more);
        let message = refused(args);
        assert!(!out.exists());
        message
    };
    contains(&with(&["--policy", "fast"]), &["fast", "native, approx"]);
    contains(&with(&["--policy", "missing.toml"]), &["missing.toml"]);
    contains(&with(&["--set", "atention=native"]), &["atention", "softmax"]);
    contains(&with(&["--set", "loss=slow"]), &["slow", "native, approx and exact"]);
    contains(&with(&["--set", "/(/=native"]), &["regular expression"]);
    contains(&with(&["--set", "loss=native", "--set", "loss=approx"]), &["contradicts"]);
    contains(&with(&["--mantissa", "24"]), &["24"]);
    contains(&with(&["--offset", "2"]), &["2"]);
    contains(&with(&["--dim", "batch"]), &["NAME=SIZE"]);
    contains(&with(&["--dim", "b=2", "--dim", "b=3"]), &["`b` has another size already"]);
    contains(&with(&["--bind", "nothing=x"]), &["no output is named `nothing`"]);
    let loss = with(&["--loss", "cross-entropy:axis=first", "--optimizer", "sgd"]);
    contains(&loss, &["`axis`", "`first`"]);
    // Usage errors come with the usage line.
    let run = ["run", step, "--outputs", "never.npz", "--threads", "1000000"];
    contains(&expect(2, run).1, &["at most 1024 threads"]);
    let train = ["train", step, "--data", "none.npz", "--batch-size", "0"];
    contains(&expect(2, train).1, &["a step needs a sample"]);
    expect(2, ["--no-such-option"]);
    expect(2, Vec::<&str>::new());
    let idle = ["--set", "/no such/=native", "--dim", "bach=2"];
    let (_, warning) = expect(0, [&[step, "-o", out.to_str().unwrap()], &idle[..]].concat());
    contains(&warning, &["warning: the rule /no such/=native caught no node"]);
    contains(&warning, &["--dim bach: no input has a symbolic dimension of that name"]);
    std::fs::remove_file(&out).unwrap();
}

#[test]
fn outputs_that_would_destroy_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("m.onnx");
    std::fs::copy(model("mlp"), &copy).unwrap();
    let before = std::fs::read(&copy).unwrap();
    let dotted = folder.path().join(".").join("m.onnx");
    for out in [&copy, &dotted] {
        let message = refused([copy.as_os_str(), "-o".as_ref(), out.as_os_str()]);
        contains(&message, &["is also an input"]);
    }
    let report = folder.path().join("r");
    let args = [copy.as_os_str(), "--report".as_ref(), report.as_os_str(), "--html".as_ref()];
    contains(&refused(args.into_iter().chain([report.as_os_str()])), &["two outputs"]);
    contains(&refused([copy.as_os_str(), "-o".as_ref(), folder.path().as_os_str()]), &["folder"]);
    assert!(std::fs::read(&copy).unwrap() == before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("missing/out.onnx");
    let step = model("mlp");
    contains(
        &refused([step.as_os_str(), "-o".as_ref(), out.as_os_str()]),
        &["missing/out.onnx", "No such file", "create its folder first"],
    );
    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o555)).unwrap();
    // The superuser may write anywhere; /proc takes files from nobody.
    let is_root = std::fs::write(locked.join("probe"), b"").is_ok();
    let out = if is_root { PathBuf::from("/proc/out.onnx") } else { locked.join("out.onnx") };
    let message = refused([step.as_os_str(), "-o".as_ref(), out.as_os_str()]);
    contains(&message, &["out.onnx: "]);
    assert!(!message.contains(".part"), "{message}");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A disk that is full after the first blocks: the shell limits the size of files, and ignoring the
/// signal makes the limit an error of the write.
#[cfg(unix)]
#[test]
fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (out, report) = (folder.path().join("out.onnx"), folder.path().join("report.json"));
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec '{}' '{}' -o '{}' --report '{}'",
        env!("CARGO_BIN_EXE_pam-compile"),
        model("mlp").display(),
        out.display(),
        report.display()
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{err}");
}

/// Ten thousand mutants: nothing panics, whatever passes the decoder.
#[test]
fn mutated_fixtures_do_not_panic() {
    let sources: Vec<Vec<u8>> =
        ["mlp/mlp_forward.onnx", "mlp/mlp.onnx", "lenet/lenet_forward.onnx"]
            .iter()
            .map(|f| without_weights(&std::fs::read(fixture(f)).unwrap()))
            .collect();
    let (mut refused, mut accepted) = (0, 0);
    for i in 0..10_000u32 {
        let mut bytes = sources[i as usize % sources.len()].clone();
        mutate(&mut bytes, i);
        match compile(&bytes) {
            Ok(()) => accepted += 1,
            Err(message) => {
                assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
                refused += 1;
            }
        }
    }
    println!("{refused} refused, {accepted} still compiled");
    assert!(refused > 1000 && accepted > 100, "{refused} refused, {accepted} compiled");
}

/// A model whose large weights are zeros made of nothing, so that mutations hit structure.
fn without_weights(bytes: &[u8]) -> Vec<u8> {
    let mut model = ModelProto::decode(bytes).unwrap();
    for t in &mut model.graph.as_mut().unwrap().initializer {
        if t.raw_data.as_ref().is_some_and(|r| r.len() > 64) {
            t.raw_data = Some(vec![0; t.raw_data.as_ref().unwrap().len().min(64)]);
            t.dims = vec![t.raw_data.as_ref().unwrap().len() as i64 / 4];
        }
    }
    let small = model.encode_to_vec();
    // Half of the mutants should start from a model that compiles.
    if compile(&small).is_ok() { small } else { bytes.to_vec() }
}

fn mutate(bytes: &mut Vec<u8>, seed: u32) {
    let mut words = (0u32..).map(|i| pam_kernels::random::threefry([seed, 7], [i, 0])[0] as usize);
    let mut next = || words.next().unwrap();
    match next() % 5 {
        0 => {
            for _ in 0..=next() % 8 {
                let at = next() % bytes.len();
                bytes[at] ^= 1 << (next() % 8);
            }
        }
        1 => bytes.truncate(next() % bytes.len()),
        2 => {
            let at = next() % bytes.len();
            bytes[at] = next() as u8;
        }
        3 => {
            let (from, to) = (next() % bytes.len(), next() % bytes.len());
            let n = (next() % 64).min(bytes.len() - from.max(to));
            let piece = bytes[from..from + n].to_vec();
            bytes[to..to + n].copy_from_slice(&piece);
        }
        _ => {
            let at = next() % bytes.len();
            bytes.splice(at..at, (0..next() % 16).map(|i| (i * 37 + seed as usize) as u8));
        }
    }
}

fn compile(bytes: &[u8]) -> Result<(), String> {
    use pam_ir::certify::{Target, certify};
    use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
    let path = Path::new("mutant.onnx");
    let mut model = pam_ir::onnx::load::decode(path, bytes).map_err(|e| e.to_string())?;
    pam_ir::onnx::load::load_external(path, &mut model).map_err(|e| e.to_string())?;
    let file = ModelFile { path: path.to_owned(), model };
    let imported = import(&[file], &ImportOptions::default()).map_err(|e| e.to_string())?;
    let policy = pam_passes::Policy::preset("approx").unwrap();
    let compiled = pam_passes::compile(&imported.graph, &policy).map_err(|e| e.to_string())?;
    let certified = certify(compiled.graph, Target::MultiplicationFree)
        .map_err(|v| v[0].to_string().replace('\n', " "))?;
    let expanded = pam_passes::expand(certified.graph()).map_err(|e| e.to_string())?;
    let certified = certify(expanded, Target::MultiplicationFree).map_err(|v| v[0].to_string())?;
    pam_runtime::plan(&certified, pam_runtime::PlanOptions::default())
        .map(|_| ())
        .map_err(|e| e.to_string().replace('\n', " "))
}
