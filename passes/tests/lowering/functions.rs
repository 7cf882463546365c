//! What elementwise rules compute, against the functions they stand for: the largest errors that
//! docs/numerics.md states, and the corners.

use super::{cases, compiled, eval, parsed};
use pam_ir::tensor::Tensor;
use std::collections::BTreeMap;
use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};

const POINTS: usize = 20_001;

/// The error function by its power series, to 1e-8.
fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 4.0 {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    FRAC_2_SQRT_PI * sum
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p() + if x.is_nan() { x } else { 0.0 }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn elu(x: f64, alpha: f64) -> f64 {
    if x < 0.0 { alpha * x.exp_m1() } else { x }
}

/// The function that an op stands for.
fn reference(name: &str) -> Option<fn(f64) -> f64> {
    let f: fn(f64) -> f64 = match name {
        "exp" => f64::exp,
        "log" => f64::ln,
        "sqrt" => f64::sqrt,
        "reciprocal" => f64::recip,
        "tanh" => f64::tanh,
        "sigmoid" => sigmoid,
        "erf" => erf,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "softplus" => softplus,
        "softsign" => |x| x / (1.0 + x.abs()),
        "gelu" => |x| x / 2.0 * (1.0 + erf(x / SQRT_2)),
        "gelu approximate=\"tanh\"" => {
            |x| x / 2.0 * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        "elu" => |x| elu(x, 1.0),
        "selu" => |x| 1.050_701 * elu(x, 1.673_263_2),
        "hardsigmoid" => |x| (0.2 * x + 0.5).clamp(0.0, 1.0),
        "hardswish" => |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        "swish" => |x| x * sigmoid(x),
        "mish" => |x| x * softplus(x).tanh(),
        _ => return None,
    };
    Some(f)
}

fn evaluate(name: &str, x: &[f32]) -> Vec<f32> {
    let (op, attrs) = name.split_once(' ').unwrap_or((name, ""));
    let all = pam_ir::op::Op::all();
    let op = all.map(|op| op.name()).find(|o| o.eq_ignore_ascii_case(op)).unwrap();
    let attrs = if attrs.is_empty() { String::new() } else { format!(" {{{attrs}}}") };
    let n = x.len();
    let text = cases::graph(&format!("in x: f32[{n}]\ny: f32[{n}] = {op}(x){attrs}"));
    let graph = compiled(name, &parsed(name, &text), "approx");
    let input = BTreeMap::from([("x", Tensor::vector(x.to_vec()))]);
    eval::run(&graph, &input)[0].slice::<f32>().unwrap().to_vec()
}

/// Points of a domain, spaced by ratios where it spans orders of magnitude above 0.
fn points(low: f64, high: f64) -> Vec<f32> {
    let part = |i: usize| i as f64 / (POINTS - 1) as f64;
    let by_ratio = low > 0.0 && high / low >= 1000.0;
    let point = |t: f64| {
        if by_ratio { low * (high / low).powf(t) } else { low + (high - low) * t }
    };
    (0..POINTS).map(|i| point(part(i)) as f32).collect()
}

/// The largest error of a function on a domain.
fn largest_error(name: &str, low: f64, high: f64, relative: bool) -> f64 {
    let f = reference(name).unwrap_or_else(|| panic!("{name} has no reference"));
    let x = points(low, high);
    let errors = x.iter().zip(evaluate(name, &x)).map(|(&x, y)| {
        let right = f(f64::from(x));
        let error = (f64::from(y) - right).abs();
        if relative && right != 0.0 { error / right.abs() } else { error }
    });
    errors.fold(0.0, |a: f64, e| if e.is_nan() { f64::INFINITY } else { a.max(e) })
}

/// The rows of docs/numerics.md that state an error: function, domain, error, kind.
fn stated() -> Vec<(String, [f64; 2], f64, bool)> {
    let text = include_str!("../../../docs/numerics.md").replace("\\|", "!");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, _, domain, error, _] = cells[..] else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?.to_lowercase();
        let (low, high) = domain.strip_prefix('[')?.strip_suffix(']')?.split_once(',')?;
        let number = |s: &str| s.trim().parse::<f64>().ok();
        let (error, kind) = error.split_once(' ')?;
        Some((name, [number(low)?, number(high)?], number(error)?, kind == "relative"))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn errors_are_as_stated() {
    let stated = stated();
    assert!(stated.len() >= 25, "{}", stated.len());
    let mut wrong = Vec::new();
    for (name, [low, high], error, relative) in stated {
        let measured = largest_error(&name, low, high, relative);
        if measured > error || measured < 0.97 * error {
            wrong.push(format!("{name} on [{low}, {high}]: {measured:.5}, stated {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where a function gives NaN, an infinity or a zero at a corner, the rule does.
#[test]
fn corners_are_those_of_the_functions() {
    let corners = [
        0.0,
        -0.0,
        1e-40,
        -1e-40,
        f32::MIN_POSITIVE,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN,
    ];
    let mut wrong = Vec::new();
    for (name, _) in cases::all() {
        let Some(f) = reference(name.trim()) else { continue };
        for (x, y) in corners.into_iter().zip(evaluate(name.trim(), &corners)) {
            // The phase of so large a number is lost.
            if matches!(name.trim(), "sin" | "cos" | "tan") && x.abs() == f32::MAX {
                continue;
            }
            // A subnormal operand counts as a zero.
            let x = if x.is_subnormal() { 0f32.copysign(x) } else { x };
            let right = f(f64::from(x)) as f32;
            let class = |v: f32| {
                let sign = if v.is_infinite() { v.signum() } else { 0.0 };
                (v.is_nan(), v.is_infinite(), sign)
            };
            if class(right) != class(y) {
                wrong.push(format!("{} of {x:e} is {y}, not {right}", name.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
