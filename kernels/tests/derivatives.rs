//! Exact derivatives of the primitives against finite differences, in float64, of the real piecewise
//! affine functions, on a million random points away from kinks.

use pam_kernels::pa;
use pam_kernels::random::threefry;

const POINTS: u32 = 1_000_000;

fn split(x: f64) -> (f64, f64) {
    let bits = x.to_bits();
    let e = ((bits >> 52) & 0x7FF) as f64 - 1023.0;
    (e, x.abs() / e.exp2() - 1.0)
}

fn log2(x: f64) -> f64 {
    let (e, m) = split(x);
    e + m
}

fn exp2(x: f64) -> f64 {
    x.floor().exp2() * (1.0 + x - x.floor())
}

fn mul(a: f64, b: f64) -> f64 {
    a.signum() * b.signum() * exp2(log2(a.abs()) + log2(b.abs()))
}

fn div(a: f64, b: f64) -> f64 {
    a.signum() * b.signum() * exp2(log2(a.abs()) - log2(b.abs()))
}

/// A float of either sign with an exponent in [−20, 20].
fn number(seed: u32, i: u32) -> f32 {
    let [a, b] = threefry([seed, 11], [i, 0]);
    let exponent = 107 + b % 41;
    f32::from_bits((b & 0x8000_0000) | (exponent << 23) | (a & 0x007F_FFFF))
}

/// The central difference by x, unless a kink lies within its reach: then the one-sided ones differ.
fn difference(f: impl Fn(f64) -> f64, x: f32, floor: f64) -> Option<f64> {
    let x = f64::from(x);
    // Powers near zero change by less than float64 resolves, so that their step has a floor.
    let h = x.abs().max(floor) * 1e-7;
    let (below, above) = ((f(x) - f(x - h)) / h, (f(x + h) - f(x)) / h);
    ((below - above).abs() <= 1e-5 * above.abs()).then_some((below + above) / 2.0)
}

/// Compares slopes, each times δ = 1, with differences; nearly all points must be away from kinks.
fn compare(name: &str, slope: impl Fn(u32) -> f32, difference: impl Fn(u32) -> Option<f64>) {
    let mut compared = 0;
    for i in 0..POINTS {
        let Some(expected) = difference(i) else { continue };
        let found = f64::from(slope(i));
        let error = (found - expected).abs();
        assert!(error <= 1e-5 * expected.abs(), "{name} at point {i}: {found}, not {expected}");
        compared += 1;
    }
    assert!(compared > POINTS / 100 * 99, "{name}: only {compared} points are away from kinks");
}

#[test]
fn products() {
    let at = |i: u32| (number(1, i), number(2, i));
    compare(
        "mul",
        |i| pa::mul_grad(at(i).0, at(i).1, 1.0, 0),
        |i| difference(|a| mul(a, f64::from(at(i).1)), at(i).0, 0.0),
    );
}

#[test]
fn quotients() {
    let at = |i: u32| (number(3, i), number(4, i));
    let negative = (0..POINTS).filter(|&i| at(i).1 < 0.0).count();
    assert!(negative > 400_000, "negative denominators are among the points");
    compare(
        "div by a",
        |i| pa::div_grad_a(at(i).0, at(i).1, 1.0, 0),
        |i| difference(|a| div(a, f64::from(at(i).1)), at(i).0, 0.0),
    );
    compare(
        "div by b",
        |i| pa::div_grad_b(at(i).0, at(i).1, 1.0, 0),
        |i| difference(|b| div(f64::from(at(i).0), b), at(i).1, 0.0),
    );
}

#[test]
fn powers_and_logarithms() {
    let x = |i: u32| number(5, i) % 60.0;
    compare("exp2", |i| pa::exp2_grad(x(i), 1.0), |i| difference(exp2, x(i), 1.0));
    let x = |i: u32| number(6, i).abs();
    compare("log2", |i| pa::log2_grad(x(i), 1.0), |i| difference(log2, x(i), 0.0));
}
