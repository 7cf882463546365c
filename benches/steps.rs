//! Whole training steps of the fixtures under each policy: `cargo bench --bench steps`.
//!
//! Each step is executed many times on its own batch; the median is printed and written to
//! `bench/steps.json` in the target folder as a list of {fixture, policy, threads, ms, ratio, bytes}, the
//! ratio being that to the native step of the same run, the bytes those of intermediate values at their
//! peak.

use pam_ir::certify::{Target, certify};
use pam_ir::graph::Graph;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_passes::{Policy, compile, expand};
use pam_runtime::{Executor, PlanOptions, plan};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FIXTURES: [&str; 10] =
    ["mlp", "lenet", "encoder", "encdec", "vit", "gpt", "resnet20", "convmixer", "resnext", "vgg"];
const POLICIES: [&str; 3] = ["native", "approx", "exact"];
/// How long a step is repeated.
const TIME: Duration = Duration::from_millis(700);

fn executor(graph: &Graph, policy: &str, threads: usize) -> Result<Executor, Box<dyn Error>> {
    let policy = Policy::preset(policy).ok_or("no such policy")?;
    let compiled = compile(graph, &policy)?;
    let certified = certify(expand(&compiled.graph)?, Target::Mixed)
        .map_err(|v| v.first().map_or(String::new(), ToString::to_string))?;
    Ok(Executor::new(plan(&certified, PlanOptions::default())?, threads)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test --benches` only wants to know whether it runs.
    let once = std::env::args().any(|a| a == "--test");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut rows = Vec::new();
    println!(
        "{:10} {:7} {:>7} {:>10} {:>7} {:>12}",
        "fixture", "policy", "threads", "ms", "ratio", "bytes"
    );
    for name in FIXTURES {
        let path = root.join(format!("fixtures/{name}/{name}.onnx"));
        let file = ModelFile { model: load(&path)?, path };
        let graph = import(&[file], &ImportOptions::default())?.graph;
        let inputs = pam_runtime::io::read(&root.join(format!("fixtures/{name}/inputs.npz")))?;
        for threads in [1, 2] {
            let mut native = None;
            for policy in POLICIES {
                let mut executor = executor(&graph, policy, threads)?;
                for (input, value) in &inputs {
                    executor.set(input, value)?;
                }
                let ms = median(&mut executor, once)?;
                let ratio = ms / *native.get_or_insert(ms);
                let bytes = executor.plan().report.arena;
                println!("{name:10} {policy:7} {threads:>7} {ms:>10.3} {ratio:>7.2} {bytes:>12}");
                rows.push(serde_json::json!({
                    "fixture": name, "policy": policy, "threads": threads, "ms": ms,
                    "ratio": ratio, "bytes": bytes,
                }));
            }
        }
        if once {
            return Ok(());
        }
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    std::fs::create_dir_all(target.join("bench"))?;
    std::fs::write(target.join("bench/steps.json"), serde_json::to_vec_pretty(&rows)?)?;
    Ok(())
}

/// The median time of a step in milliseconds.
fn median(executor: &mut Executor, once: bool) -> Result<f64, Box<dyn Error>> {
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
