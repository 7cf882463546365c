//! Compile time on chains of 1,000 to 100,000 nodes: it is to grow linearly.
//!
//! `cargo bench -p pam-passes` prints one line a chain.

use pam_ir::build::Builder;
use pam_ir::graph::Graph;
use pam_ir::op::Op;
use pam_ir::types::{DType, Type};
use pam_passes::{Policy, compile};
use std::time::Instant;

fn chain(nodes: usize) -> Graph {
    let mut b = Builder::new("chain");
    let x = b.input("x", Type::new(DType::F32, [4, 8]), None);
    let w = b.input("w", Type::new(DType::F32, [8, 8]), None);
    let mut v = x;
    for i in 0..nodes {
        let (op, operands) = match i % 5 {
            0 => (Op::MatMul, vec![v, w]),
            1 => (Op::Softmax, vec![v]),
            2 => (Op::Gelu, vec![v]),
            3 => (Op::Add, vec![v, x]),
            _ => (Op::Mul, vec![v, x]),
        };
        v = b.node(op, &operands, &[]).expect("the operands fit");
    }
    b.output("y", v);
    b.finish()
}

fn main() {
    let policy = Policy::preset("approx").expect("a preset");
    for nodes in [1_000, 10_000, 100_000] {
        let graph = chain(nodes);
        let start = Instant::now();
        let compiled = compile(&graph, &policy).expect("the chain compiles");
        let seconds = start.elapsed().as_secs_f64();
        let micros = seconds * 1e6 / nodes as f64;
        let made = compiled.graph.nodes.len();
        println!("{nodes} nodes to {made}: {seconds:.3} s, {micros:.0} µs a node");
    }
}
