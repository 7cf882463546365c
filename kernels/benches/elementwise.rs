//! Elementwise operations against a native product: `cargo bench -p pam-kernels --bench elementwise`.
//!
//! Prints one line per case and writes target/bench/elementwise.json, a list of {op, data, place, gbps,
//! native_gbps, ratio}: bytes read and written a second on one thread, in 10^9, of the operation and of
//! `a · b`, which take turns; the best time of each counts. `place` is `memory`, where three tensors
//! exceed every cache, or `cache`, where they stay in the first level; `data` is `normal`, or `zeros`
//! where one number in ten is one.

mod report;

use pam_kernels::elementwise::{Binary, Unary, binary, unary};
use pam_kernels::reduce::{Reduction, reduce_rows};
use std::time::{Duration, Instant};

/// Time that each case gets.
const BUDGET: Duration = Duration::from_millis(600);
/// Numbers of a tile, as programs use them.
const TILE: usize = 2048;
/// Numbers of a row.
const ROW: usize = 512;
/// Numbers of a tensor in memory: 64 MiB.
const LARGE: usize = 16 << 20;

#[derive(Clone, Copy)]
enum Op {
    Two(Binary),
    One(Unary),
    /// Of rows.
    Fold(Reduction),
    /// With a number for each row.
    Row(Binary),
}

fn main() {
    let cases = [
        ("pa.mul", Op::Two(Binary::PaMul(0))),
        ("pa.div", Op::Two(Binary::PaDiv(0))),
        ("pa.exp2", Op::One(Unary::PaExp2)),
        ("pa.log2", Op::One(Unary::PaLog2)),
        ("div", Op::Two(Binary::Div)),
        ("exp", Op::One(Unary::Exp)),
        ("sum", Op::Fold(Reduction::Sum)),
        ("max", Op::Fold(Reduction::Max)),
        ("row mul", Op::Row(Binary::PaMul(0))),
        ("row div", Op::Row(Binary::PaDiv(0))),
        ("row sub", Op::Row(Binary::Sub)),
    ];
    let mut lines = Vec::new();
    for (place, n) in [("memory", LARGE), ("cache", TILE)] {
        let mut y = vec![0f32; n];
        for data in ["normal", "zeros"] {
            let (a, b) = (numbers(n, 1, data), numbers(n, 7, data));
            for (name, op) in cases {
                let [ours, native] = measure(op, &a, &b, &mut y);
                let ratio = ours / native;
                println!(
                    "{name:<8} {data:<7} {place:<7} {ours:8.1} GB/s  native product {native:8.1}  ratio {ratio:.3}"
                );
                lines.push(format!(
                    "  {{\"op\": \"{name}\", \"data\": \"{data}\", \"place\": \"{place}\", \"gbps\": {ours:.2}, \
                     \"native_gbps\": {native:.2}, \"ratio\": {ratio:.4}}}"
                ));
            }
        }
    }
    report::write("elementwise.json", &lines);
}

/// Bytes a second of an operation and of the native product, in 10^9.
fn measure(op: Op, a: &[f32], b: &[f32], y: &mut [f32]) -> [f64; 2] {
    let native = Op::Two(Binary::Mul);
    let repeats = if a.len() == TILE { 2000 } else { 1 };
    let mut best = [f64::INFINITY; 2];
    run(op, a, b, y);
    let start = Instant::now();
    while start.elapsed() < BUDGET || best[0].is_infinite() {
        for (best, op) in best.iter_mut().zip([op, native]) {
            let began = Instant::now();
            (0..repeats).for_each(|_| run(op, a, b, y));
            *best = best.min(began.elapsed().as_secs_f64());
        }
    }
    let bytes = |op| match op {
        Op::Two(_) => 12,
        Op::One(_) | Op::Row(_) => 8,
        Op::Fold(_) => 4,
    };
    let total = |op| (bytes(op) * a.len() * repeats) as f64 * 1e-9;
    [total(op) / best[0], total(native) / best[1]]
}

fn run(op: Op, a: &[f32], b: &[f32], y: &mut [f32]) {
    let tiles = a.chunks(TILE).zip(b.chunks(TILE)).zip(y.chunks_mut(TILE));
    for ((a, b), y) in tiles {
        match op {
            Op::Two(op) => binary(op, a, b, y),
            Op::One(op) => unary(op, a, y),
            Op::Fold(op) => reduce_rows(op, ROW, a, &mut y[..a.len() / ROW]),
            Op::Row(op) => binary(op, a, &b[..a.len() / ROW], y),
        }
    }
}

fn numbers(n: usize, seed: u32, data: &str) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let zeros = data == "zeros";
    (0..n)
        .map(|_| match next() {
            x if zeros && x % 10 == 0 => 0.0,
            x => x as f32 / (1 << 22) as f32 - 2.0,
        })
        .collect()
}
