//! Whole plans of the CUDA backend, executed on the CPU by the kernels' own sources, against the CPU
//! backend: the same bits, forward, backward and optimizer, step after step.

#[path = "../common/mod.rs"]
mod common;
mod emulator;
mod nodes;

use common::{STEPS, arrays, fixture, graph, planned};
use emulator::{Emulator, Kernels};
use pam_ir::graph::Graph;
use pam_ir::tensor::Tensor;
use pam_runtime::Executor;
use std::time::Instant;

/// One on each half of the state.
const RUNS: usize = 2;

/// A fixture's step and its batch.
fn step(name: &str) -> (Graph, Vec<(String, Tensor)>) {
    (graph(name), arrays(&fixture(&format!("{name}/inputs.npz"))))
}

/// Whether two tensors have the same bits; any NaN equals any other.
pub fn same(a: &Tensor, b: &Tensor) -> bool {
    match (a.slice::<f32>(), b.slice::<f32>()) {
        (Some(a), Some(b)) => {
            let equal =
                |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
            a.len() == b.len() && a.iter().zip(b).all(equal)
        }
        _ => a.to_le_bytes() == b.to_le_bytes(),
    }
}

#[test]
fn every_fixture_has_the_bits_of_the_cpu() {
    let kernels = Kernels::new();
    let cases = STEPS.map(|name| (name, "approx")).into_iter();
    let cases = cases.chain(["mlp", "lenet", "vit"].map(|name| (name, "exact")));
    for (name, policy) in cases.chain([("mlp", "paper")]) {
        let began = Instant::now();
        let (graph, inputs) = step(name);
        let mut cpu = Executor::new(planned(&graph, policy), 1).unwrap();
        let machine = Box::new(Emulator::new(&kernels));
        let mut device = Executor::cuda(planned(&graph, policy), machine).unwrap();
        let compiled = began.elapsed();
        let (_, sources) = device.kernels().expect("a device has kernels");
        let generated: String = sources
            .iter()
            .filter(|s| s.name.starts_with("plan_"))
            .map(|s| s.text.as_ref())
            .collect();
        if name == "encoder" {
            assert!(generated.contains("\"rows.cuh\""), "no softmax is one program");
        }
        // The updates of weights share launches.
        assert!(generated.contains("item_of_block("), "{name}: every program is launched alone");
        for step in 0..RUNS {
            let (expected, got) = (cpu.run(&inputs).unwrap(), device.run(&inputs).unwrap());
            for ((output, expected), (_, got)) in expected.iter().zip(&got) {
                assert!(same(expected, got), "{name} under {policy}, step {step}: `{output}`");
            }
        }
        if (name, policy) == ("lenet", "approx") {
            kernels.keep_generated();
        }
        println!("{name} {policy}: {compiled:.1?} to compile, {:.1?} in all", began.elapsed());
    }
}

/// Native arithmetic is as exact as the device's own functions: it is compared with a tolerance.
#[test]
fn native_steps_agree_closely() {
    let kernels = Kernels::new();
    for name in ["mlp", "lenet", "vit"] {
        let (graph, inputs) = step(name);
        let mut cpu = Executor::new(planned(&graph, "native"), 1).unwrap();
        let machine = Box::new(Emulator::new(&kernels));
        let mut device = Executor::cuda(planned(&graph, "native"), machine).unwrap();
        let (expected, got) = (cpu.run(&inputs).unwrap(), device.run(&inputs).unwrap());
        for ((output, expected), (_, got)) in expected.iter().zip(&got) {
            let (Some(a), Some(b)) = (expected.to_f64(), got.to_f64()) else { continue };
            let scale = a.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
            let worst = a.iter().zip(&b).fold(0f64, |m, (x, y)| m.max((x - y).abs()));
            assert!(worst <= 2e-4 * scale, "{name}, `{output}`: off by {worst} of {scale}");
        }
    }
}
