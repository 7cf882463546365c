//! An evaluation of PA graphs that shares nothing with the kernels: each primitive is computed as
//! docs/numerics.md defines it, in real numbers where that is exact and in wide integers otherwise.

use pam_ir::eval::evaluate;
use pam_ir::graph::{Graph, Source};
use pam_ir::op::Op;
use pam_ir::tensor::Tensor;
use std::collections::BTreeMap;

const BIAS: i64 = 0x3F80_0000;
const MIN: i64 = 0x0080_0000;
const INF: i64 = 0x7F80_0000;

/// The outputs of a graph of elementwise ops for inputs of f32 and the shapes of the graph.
pub fn run(graph: &Graph, inputs: &BTreeMap<&str, Tensor>) -> Vec<Tensor> {
    let mut known: Vec<Option<Tensor>> = graph
        .values
        .iter()
        .map(|v| match v.source {
            Source::Input => inputs.get(v.name.as_str()).cloned().or_else(|| v.data.clone()),
            Source::Constant => v.data.clone(),
            Source::Node { .. } => None,
        })
        .collect();
    for node in &graph.nodes {
        let operands: Vec<Option<&Tensor>> =
            node.inputs.iter().map(|v| v.and_then(|v| known[v.index()].as_ref())).collect();
        let outputs = match primitive(node.op, &operands, node.int("exponent").unwrap_or(0)) {
            Some(t) => vec![t],
            None => graph
                .with_call(node, |call| evaluate(call, &operands))
                .unwrap_or_else(|| panic!("cannot evaluate {}", node.op.name())),
        };
        for (v, t) in node.outputs.iter().zip(outputs) {
            if let Some(v) = v {
                known[v.index()] = Some(t);
            }
        }
    }
    let outputs = graph.outputs.iter().map(|o| known[o.value.index()].clone());
    outputs.collect::<Option<_>>().expect("every output is computed")
}

fn primitive(op: Op, operands: &[Option<&Tensor>], exponent: i64) -> Option<Tensor> {
    let operand = |i: usize| operands.get(i).copied().flatten();
    let each = |f: &dyn Fn(f32) -> f32| {
        let x = operand(0)?;
        let y: Vec<f32> = x.slice::<f32>()?.iter().map(|&x| f(x)).collect();
        Some(Tensor::new(x.shape(), y))
    };
    // Scalars are the only broadcasting that elementwise rules need.
    let pairs = |f: &dyn Fn(f32, f32) -> f32| {
        let (a, b) = (operand(0)?, operand(1)?);
        let shape = if a.elements() >= b.elements() { a.shape() } else { b.shape() };
        let n = a.elements().max(b.elements());
        let (x, y) = (a.slice::<f32>()?, b.slice::<f32>()?);
        let z = (0..n).map(|i| f(x[i % x.len()], y[i % y.len()])).collect();
        Some(Tensor::new(shape, z))
    };
    match op {
        Op::PamMul => pairs(&mul),
        Op::PamDiv => pairs(&div),
        Op::PamExp2 => each(&exp2),
        Op::PamLog2 => each(&log2),
        Op::PamScale => each(&|x| scale(x, exponent)),
        _ => None,
    }
}

fn magnitude(x: f32) -> i64 {
    i64::from(x.to_bits() & 0x7FFF_FFFF)
}

fn is_zero(x: f32) -> bool {
    magnitude(x) < MIN
}

fn result(negative: bool, magnitude: i64) -> f32 {
    let kept = match magnitude {
        m if m < MIN => 0,
        m => m.min(INF),
    };
    let size = f32::from_bits(kept as u32);
    if negative { -size } else { size }
}

fn differ(a: f32, b: f32) -> bool {
    a.is_sign_negative() != b.is_sign_negative()
}

/// The PA product.
pub fn mul(a: f32, b: f32) -> f32 {
    let infinite = a.is_infinite() || b.is_infinite();
    let zero = is_zero(a) || is_zero(b);
    if a.is_nan() || b.is_nan() || infinite && zero {
        return f32::NAN;
    }
    let m = match (infinite, zero) {
        (true, _) => INF,
        (_, true) => 0,
        _ => magnitude(a) + magnitude(b) - BIAS,
    };
    result(differ(a, b), m)
}

/// The PA quotient.
pub fn div(a: f32, b: f32) -> f32 {
    let both = |f: fn(f32) -> bool| f(a) && f(b);
    if a.is_nan() || b.is_nan() || both(is_zero) || both(f32::is_infinite) {
        return f32::NAN;
    }
    let m = if a.is_infinite() || is_zero(b) {
        INF
    } else if is_zero(a) || b.is_infinite() {
        0
    } else {
        magnitude(a) - magnitude(b) + BIAS
    };
    result(differ(a, b), m)
}

/// The PA power of two.
fn exp2(x: f32) -> f32 {
    match x {
        x if x.is_nan() => f32::NAN,
        x if x >= 128.0 => f32::INFINITY,
        x if x < -126.0 => 0.0,
        x => result(false, (f64::from(x) * f64::from(1 << 23)).round_ties_even() as i64 + BIAS),
    }
}

/// The PA logarithm.
fn log2(x: f32) -> f32 {
    if x.is_nan() || x < 0.0 && !is_zero(x) {
        return f32::NAN;
    }
    match x {
        x if is_zero(x) => f32::NEG_INFINITY,
        x if x.is_infinite() => f32::INFINITY,
        x => ((magnitude(x) - BIAS) as f64 / f64::from(1 << 23)) as f32,
    }
}

/// The scaling by a power of two, subnormals kept.
fn scale(x: f32, exponent: i64) -> f32 {
    let power = 2f64.powi(exponent.clamp(-600, 600) as i32);
    (f64::from(x) * power) as f32
}
