//! Whole training steps under each policy, and single row operations: `cargo bench -p pam-runtime
//! --bench steps [-- --python PYTHON | --profile | --device cuda] [-- FILTER]`.
//!
//! Measured are the fixtures and, where `python fixtures/make.py deit_tiny iwslt` has written them to
//! target/models, the models at full size. Each step is executed many times on its own batch; the
//! median is printed and written to `bench/steps.json` in the target folder as a list of {model,
//! policy, threads, ms, ratio, arena, live, onnxruntime_ms}: the ratio is that to the native step of the
//! same run, `arena` the bytes of intermediate values, `live` the largest sum of them that exists at
//! the same time. With `--python` (one that has onnxruntime) the same file is timed there as well; with `--profile` it is shown instead where the
//! time goes. With `--device cuda` [--nvrtc PATH] every step is first compared with the CPU, bit for bit
//! over three steps, and then timed on the GPU alone. `--root DIR` says where fixtures/ lies, if not in
//! the source that this was built from.

use pam_ir::attr::Attr;
use pam_ir::build::Builder;
use pam_ir::certify::{Target, certify};
use pam_ir::graph::Graph;
use pam_ir::onnx::export::export;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_ir::op::Op;
use pam_ir::tensor::Tensor;
use pam_ir::types::{DType, Type};
use pam_passes::{Policy, compile, expand};
use pam_runtime::cuda::{Device, Machine};
use pam_runtime::{Executor, Plan, PlanOptions, plan};
use prost::Message;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const FIXTURES: [&str; 10] =
    ["mlp", "lenet", "encoder", "encdec", "vit", "gpt", "resnet20", "convmixer", "resnext", "vgg"];
const LARGE: [&str; 2] = ["deit_tiny", "iwslt"];
const ROWS: [(&str, Op, [usize; 2]); 4] = [
    ("softmax_rows", Op::Softmax, [2048, 768]),
    ("layer_norm_rows", Op::LayerNormalization, [2048, 768]),
    ("gelu_rows", Op::Gelu, [2048, 768]),
    // 64 MiB a tensor, more than caches hold.
    ("large_mul", Op::Mul, [16384, 1024]),
];
const POLICIES: [&str; 3] = ["native", "approx", "exact"];
/// How long a step is repeated.
const TIME: Duration = Duration::from_millis(700);

/// A model file and a batch for it.
struct Case {
    name: &'static str,
    model: PathBuf,
    inputs: PathBuf,
}

fn main() -> Result<()> {
    let mut python = None;
    // `cargo test --benches` only wants to know whether it runs.
    let mut once = false;
    let mut profile = false;
    let (mut cuda, mut nvrtc) = (false, None);
    let mut root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut filter = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {}
            "--test" => once = true,
            "--profile" => profile = true,
            "--device" => cuda = words.next().as_deref() == Some("cuda"),
            "--nvrtc" => nvrtc = words.next().map(PathBuf::from),
            "--root" => root = words.next().ok_or("--root needs a value")?.into(),
            "--python" => python = Some(words.next().ok_or("--python needs a value")?),
            _ => filter.push(word),
        }
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let folder = tempfile::tempdir()?;
    let mut cases = Vec::new();
    for (name, op, shape) in ROWS {
        cases.push(rows(name, op, shape, folder.path())?);
    }
    let fixture = |name, at: PathBuf| Case {
        name,
        model: at.join(format!("{name}.onnx")),
        inputs: at.join("inputs.npz"),
    };
    cases.extend(FIXTURES.map(|name| fixture(name, root.join("fixtures").join(name))));
    for name in LARGE {
        let case = fixture(name, root.join("target/models").join(name));
        match case.model.exists() {
            true => cases.push(case),
            false => println!("{name}: not there; `python fixtures/make.py {name}` exports it"),
        }
    }
    cases.retain(|c| filter.iter().all(|f| c.name.contains(f.as_str())));
    if once {
        cases.truncate(1);
    }
    if cuda {
        return on_gpu(&cases, nvrtc.as_deref(), &target);
    }
    println!(
        "{:16} {:7} {:>7} {:>10} {:>7} {:>12} {:>10} {:>7}",
        "model", "policy", "threads", "ms", "ratio", "arena", "ort ms", "ratio"
    );
    let mut lines = Vec::new();
    for case in &cases {
        for threads in [1, 2] {
            if profile {
                profile_of(case, threads)?;
                continue;
            }
            lines.extend(measure(case, threads, python.as_deref(), once)?);
        }
    }
    if !once && !profile {
        std::fs::create_dir_all(target.join("bench"))?;
        std::fs::write(target.join("bench/steps.json"), serde_json::to_vec_pretty(&lines)?)?;
    }
    Ok(())
}

/// One line a policy.
fn measure(
    case: &Case,
    threads: usize,
    python: Option<&str>,
    once: bool,
) -> Result<Vec<serde_json::Value>> {
    let Case { name, model, inputs } = case;
    let file = ModelFile { model: load(model)?, path: model.clone() };
    let graph = import(&[file], &ImportOptions::default())?.graph;
    let batch = pam_runtime::io::read(inputs)?;
    let reference = python.map(|p| onnxruntime(p, case, threads)).transpose()?;
    let (mut native, mut lines) = (None, Vec::new());
    for policy in POLICIES {
        let mut executor = executor(&graph, policy, threads)?;
        for (input, value) in &batch {
            executor.set(input, value)?;
        }
        let ms = median(&mut executor, once)?;
        let ratio = ms / *native.get_or_insert(ms);
        let report = executor.plan().report;
        let versus = reference.map_or(String::new(), |r| format!("{r:>10.3} {:>7.2}", ms / r));
        println!(
            "{name:16} {policy:7} {threads:>7} {ms:>10.3} {ratio:>7.2} {:>12} {versus}",
            report.arena
        );
        lines.push(serde_json::json!({
            "model": name, "policy": policy, "threads": threads, "ms": ms, "ratio": ratio,
            "arena": report.arena, "live": report.live, "onnxruntime_ms": reference,
        }));
    }
    Ok(lines)
}

/// Compares every case with the CPU and times it on the GPU.
fn on_gpu(cases: &[Case], nvrtc: Option<&Path>, target: &Path) -> Result<()> {
    let (mut passed, mut failed, mut lines) = (0, 0, Vec::new());
    for Case { name, model, inputs } in cases {
        let file = ModelFile { model: load(model)?, path: model.clone() };
        let graph = import(&[file], &ImportOptions::default())?.graph;
        let batch = pam_runtime::io::read(inputs)?;
        for policy in ["approx", "exact"] {
            let device = Device::open(0, nvrtc)?;
            let about = (device.name()?, device.arch().to_owned());
            let mut gpu = Executor::cuda(planned(&graph, policy)?, Box::new(device))?;
            let mut cpu = executor(&graph, policy, 0)?;
            let mut wrong = Vec::new();
            for _ in 0..3 {
                let (expected, got) = (cpu.run(&batch)?, gpu.run(&batch)?);
                let pairs = expected.iter().zip(&got);
                wrong
                    .extend(pairs.filter(|((_, a), (_, b))| !same(a, b)).map(|(a, _)| a.0.clone()));
            }
            if wrong.is_empty() {
                passed += 1
            } else {
                failed += 1
            }
            for output in &wrong {
                println!("FAILED {name} {policy}: `{output}` differs from the CPU");
            }
            let output = gpu.plan().outputs[0].name.clone();
            let mut times = Vec::new();
            for _ in 0..21 {
                let began = Instant::now();
                gpu.step()?;
                gpu.output(&output)?;
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            times.sort_by(f64::total_cmp);
            let ms = times[times.len() / 2];
            println!("{name:16} {policy:7} {ms:>10.3} ms on {}", about.0);
            lines.push(serde_json::json!({
                "model": name, "policy": policy, "device": about.0, "arch": about.1, "ms": ms,
                "same_bits": wrong.is_empty(),
            }));
        }
    }
    std::fs::create_dir_all(target.join("bench"))?;
    std::fs::write(target.join("bench/cuda_steps.json"), serde_json::to_vec_pretty(&lines)?)?;
    println!("{passed} passed, {failed} failed");
    if failed == 0 { Ok(()) } else { Err("the GPU's bits are not the CPU's".into()) }
}

/// Whether two tensors have the same bits; any NaN equals any other.
fn same(a: &Tensor, b: &Tensor) -> bool {
    match (a.slice::<f32>(), b.slice::<f32>()) {
        (Some(a), Some(b)) => {
            a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan())
        }
        _ => a.to_le_bytes() == b.to_le_bytes(),
    }
}

/// Prints where the time of a step goes, by op and kernel.
fn profile_of(case: &Case, threads: usize) -> Result<()> {
    let file = ModelFile { model: load(&case.model)?, path: case.model.clone() };
    let graph = import(&[file], &ImportOptions::default())?.graph;
    let batch = pam_runtime::io::read(&case.inputs)?;
    for policy in POLICIES {
        let mut executor = executor(&graph, policy, threads)?;
        for (input, value) in &batch {
            executor.set(input, value)?;
        }
        executor.step()?;
        executor.measure();
        (0..3).try_for_each(|_| executor.step())?;
        let mut sums: BTreeMap<(&str, &str), (Duration, usize)> = BTreeMap::new();
        for (_, op, kernel, time) in executor.times() {
            let sum = sums.entry((kernel, if kernel == "Program" { "" } else { op })).or_default();
            *sum = (sum.0 + time, sum.1 + 1);
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, (time, _))| std::cmp::Reverse(*time));
        println!("{} {policy}, {threads} threads:", case.name);
        for ((kernel, op), (time, steps)) in sums.into_iter().take(12) {
            println!("  {:>10.3} ms  {steps:>5} × {kernel} {op}", time.as_secs_f64() * 1e3 / 3.0);
        }
        let mut slow: Vec<_> = executor.times().collect();
        slow.sort_by_key(|(.., time)| std::cmp::Reverse(*time));
        for (name, op, kernel, time) in slow.into_iter().take(8) {
            println!("  {:>10.3} ms  {kernel} {op} {name}", time.as_secs_f64() * 1e3 / 3.0);
        }
    }
    Ok(())
}

fn planned(graph: &Graph, policy: &str) -> Result<Plan> {
    let policy = Policy::preset(policy).ok_or("no such policy")?;
    let compiled = compile(graph, &policy)?;
    let certified = certify(expand(&compiled.graph)?, Target::Mixed)
        .map_err(|v| v.first().map_or(String::new(), ToString::to_string))?;
    Ok(plan(&certified, PlanOptions::default())?)
}

fn executor(graph: &Graph, policy: &str, threads: usize) -> Result<Executor> {
    Ok(Executor::new(planned(graph, policy)?, threads)?)
}

/// The median time of a step in milliseconds.
fn median(executor: &mut Executor, once: bool) -> Result<f64> {
    executor.step()?;
    let (began, mut times) = (Instant::now(), Vec::new());
    while times.len() < 5 || began.elapsed() < TIME && !once {
        let began = Instant::now();
        executor.step()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn onnxruntime(python: &str, case: &Case, threads: usize) -> Result<f64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/steps/reference.py");
    let output = Command::new(python)
        .arg(script)
        .args([&case.model, &case.inputs])
        .args([threads.to_string(), TIME.as_secs_f64().to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        format!("onnxruntime on {}: {}", case.name, String::from_utf8_lossy(&output.stderr)).into()
    })
}

/// A model of one operation on rows, and its inputs.
fn rows(name: &'static str, op: Op, shape: [usize; 2], folder: &Path) -> Result<Case> {
    let ty = |shape: &[usize]| Type::new(DType::F32, shape.to_vec());
    let mut b = Builder::new(name);
    let mut inputs = vec![b.input("x", ty(&shape), None)];
    if op == Op::LayerNormalization {
        for (name, value) in [("scale", 1.25f32), ("bias", 0.5)] {
            inputs.push(b.constant(name, Tensor::new([shape[1]], vec![value; shape[1]])));
        }
    }
    let values =
        |scale: f32| (0..shape[0] * shape[1]).map(move |i| (i as f32 * 0.37).sin() * scale);
    let mut batch = vec![("x".to_owned(), Tensor::new(shape, values(3.0).collect()))];
    if op == Op::Mul {
        inputs.push(b.input("z", ty(&shape), None));
        batch.push(("z".to_owned(), Tensor::new(shape, values(0.5).collect())));
    }
    let attrs = match op {
        Op::Softmax | Op::LayerNormalization => vec![("axis", Attr::Int(-1))],
        _ => vec![],
    };
    let y = b.node(op, &inputs, &attrs)?;
    b.output("y", y);
    let model = folder.join(format!("{name}.onnx"));
    let exported = export(&b.finish(), &Default::default(), &Default::default())?;
    std::fs::write(&model, exported.encode_to_vec())?;
    let inputs = folder.join(format!("{name}.npz"));
    pam_runtime::io::npz::write(&inputs, &batch)?;
    Ok(Case { name, model, inputs })
}
