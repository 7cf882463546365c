//! Graphs written in the IR's text, run through plan and executor.
#![allow(dead_code, reason = "each test file uses its own part")]

use pam_ir::certify::{Certified, Target, certify};
use pam_ir::graph::Graph;
use pam_ir::tensor::Tensor;
use pam_ir::text::parse;
use pam_runtime::{Executor, PlanOptions, plan};

/// Certifies a graph that may multiply natively.
pub fn certified(graph: Graph) -> Certified {
    certify(graph, Target::Mixed).unwrap_or_else(|v| panic!("{}", v[0]))
}

/// Parses the lines of a graph.
pub fn graph(lines: &str) -> Graph {
    parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap()
}

/// Runs a graph of these lines on inputs, with each combination of plan options and threads, and
/// returns the outputs, which must be the same bits for all.
pub fn run(lines: &str, inputs: &[(&str, Tensor)]) -> Vec<Tensor> {
    let certified = certified(graph(lines));
    let mut results: Vec<Vec<Tensor>> = Vec::new();
    for (fuse, in_place, threads) in
        [(false, false, 1), (true, false, 1), (true, true, 1), (true, true, 3), (false, true, 2)]
    {
        let plan = plan(&certified, PlanOptions { fuse, in_place }).unwrap();
        let mut executor = Executor::new(plan, threads).unwrap();
        for _ in 0..2 {
            for (name, value) in inputs {
                executor.set(name, value).unwrap();
            }
            executor.step().unwrap();
            results.push(executor.outputs().unwrap().into_iter().map(|(_, t)| t).collect());
        }
    }
    for other in &results[1..] {
        assert_eq!(other.len(), results[0].len());
        for (a, b) in results[0].iter().zip(other) {
            assert_eq!(a, b);
        }
    }
    results.swap_remove(0)
}

/// A tensor of f32.
pub fn f(shape: &[usize], v: &[f32]) -> Tensor {
    Tensor::new(shape, v.to_vec())
}

/// A tensor of i64.
pub fn i(shape: &[usize], v: &[i64]) -> Tensor {
    Tensor::new(shape, v.to_vec())
}

/// The f32 elements.
pub fn floats(t: &Tensor) -> &[f32] {
    t.slice().unwrap()
}

/// The i64 elements.
pub fn ints(t: &Tensor) -> &[i64] {
    t.slice().unwrap()
}
