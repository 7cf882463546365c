//! Composed ops, compiled and executed, against an evaluation of docs/numerics.md that shares nothing
//! with the program: every upper half of the bit pattern, for binary ops against partners that include
//! every corner, bit for bit.

use pam_ir::certify::{Target, certify};
use pam_ir::tensor::Tensor;
use pam_ir::text::parse;
use pam_passes::{Policy, compile};
use pam_runtime::{Executor, PlanOptions, plan};

const BIAS: i64 = 0x3F80_0000;
const MIN: i64 = 0x0080_0000;
const INF: i64 = 0x7F80_0000;
const LOG2E: f32 = f32::from_bits(0x3FB8_AA3B);

// --- the definitions ---------------------------------------------------------------------------

/// Sign bit and magnitude; a subnormal is a zero of its sign.
fn parts(x: f32) -> (u32, i64) {
    let magnitude = i64::from(x.to_bits() & 0x7FFF_FFFF);
    (x.to_bits() & 0x8000_0000, if magnitude < MIN { 0 } else { magnitude })
}

fn signed(sign: u32, magnitude: i64) -> f32 {
    let magnitude = if magnitude < MIN { 0 } else { magnitude.min(INF) };
    f32::from_bits(sign | magnitude as u32)
}

fn mul(a: f32, b: f32) -> f32 {
    let ((sa, ma), (sb, mb)) = (parts(a), parts(b));
    let sign = sa ^ sb;
    match () {
        () if ma > INF || mb > INF => f32::NAN,
        () if ma == INF && mb == 0 || mb == INF && ma == 0 => f32::NAN,
        () if ma == INF || mb == INF => signed(sign, INF),
        () if ma == 0 || mb == 0 => signed(sign, 0),
        () => signed(sign, ma + mb - BIAS),
    }
}

fn div(a: f32, b: f32) -> f32 {
    let ((sa, ma), (sb, mb)) = (parts(a), parts(b));
    let sign = sa ^ sb;
    match () {
        () if ma > INF || mb > INF || ma == 0 && mb == 0 || ma == INF && mb == INF => f32::NAN,
        () if ma == INF || mb == 0 => signed(sign, INF),
        () if ma == 0 || mb == INF => signed(sign, 0),
        () => signed(sign, ma - mb + BIAS),
    }
}

fn exp2(x: f32) -> f32 {
    match () {
        () if x.is_nan() => f32::NAN,
        () if x >= 128.0 => f32::INFINITY,
        () if x < -126.0 => 0.0,
        // The product with 2^23 is exact in f64, and so is its rounding.
        () => f32::from_bits(((f64::from(x) * 8_388_608.0).round_ties_even() as i64 + BIAS) as u32),
    }
}

fn log2(x: f32) -> f32 {
    match parts(x) {
        (_, m) if m > INF => f32::NAN,
        (_, 0) => f32::NEG_INFINITY,
        (0x8000_0000, _) => f32::NAN,
        (_, INF) => f32::INFINITY,
        (_, m) => ((m - BIAS) as f64 / 8_388_608.0) as f32,
    }
}

fn exp(x: f32) -> f32 {
    exp2(mul(x, LOG2E))
}

fn log(x: f32) -> f32 {
    div(log2(x), LOG2E)
}

fn sqrt(x: f32) -> f32 {
    // Halving is an addition to the exponent and exact above the subnormals.
    exp2(div(log2(x), 2.0))
}

/// `pow(x, y)` for a `y` that is not constant.
fn pow(x: f32, y: f32) -> f32 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    let whole = y.fract() == 0.0 || y.is_infinite();
    let odd = whole && y.is_finite() && (f64::from(y) / 2.0).fract() != 0.0;
    let size = exp2(mul(log2(x.abs()), y));
    match () {
        () if x.is_nan() || y.is_nan() => f32::NAN,
        // −1 to an infinite power is 1 in magnitude, which log2 = 0 times inf does not say.
        () if x == -1.0 && y.is_infinite() => 1.0,
        () if x < 0.0 && x.is_finite() && !whole && parts(x).1 != 0 => f32::NAN,
        () if x.is_sign_negative() && odd => -size,
        () => size,
    }
}

// --- the comparison ----------------------------------------------------------------------------

/// Every upper half of the bit pattern.
fn upper_halves() -> Vec<f32> {
    (0..=0xFFFFu32).map(|h| f32::from_bits(h << 16)).collect()
}

/// Sixty-four partners: corners, powers of two and ordinary numbers of both signs.
fn partners() -> Vec<f32> {
    let corners = [
        0x0000_0000u32,
        0x0000_0001,
        0x007F_FFFF,
        0x0080_0000,
        0x0080_0001,
        0x3EFF_FFFF,
        0x3F00_0000,
        0x3F7F_FFFF,
        0x3F80_0000,
        0x3F80_0001,
        0x3FB8_AA3B,
        0x3FC0_0000,
        0x4000_0000,
        0x4040_0000,
        0x4049_0FDB,
        0x40A0_0000,
        0x42F6_E979,
        0x3DCC_CCCD,
        0x3C23_D70A,
        0x2F00_0000,
        0x4E80_0000,
        0x5F00_0000,
        0x7E80_0000,
        0x7EFF_FFFF,
        0x7F00_0000,
        0x7F7F_FFFF,
        0x7F80_0000,
        0x7FC0_0000,
        0x1E3C_E508,
        0x3F31_7218,
        0x4640_E400,
        0x4B80_0001,
    ];
    corners.iter().flat_map(|&b| [f32::from_bits(b), f32::from_bits(b | 0x8000_0000)]).collect()
}

/// Compiles a graph written in the IR's text and runs it once on each number of threads.
fn run(text: &str, inputs: &[(&str, Tensor)]) -> Vec<f32> {
    let graph = parse(text, &[]).unwrap();
    let compiled = compile(&graph, &Policy::preset("approx").unwrap()).unwrap();
    let certified = certify(compiled.graph, Target::MultiplicationFree).unwrap();
    let run = |threads: usize| {
        let plan = plan(&certified, PlanOptions::default()).unwrap();
        let mut executor = Executor::new(plan, threads).unwrap();
        let inputs: Vec<(String, Tensor)> =
            inputs.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
        executor.run(&inputs).unwrap()[0].1.slice::<f32>().unwrap().to_vec()
    };
    let result = run(1);
    assert!(result.iter().zip(run(2)).all(|(a, b)| a.to_bits() == b.to_bits()));
    result
}

/// Equal bits; NaNs are equal.
#[track_caller]
fn assert_bits(what: &str, found: &[f32], expected: impl Iterator<Item = (f32, String)>) {
    let mut n = 0;
    for (f, (e, at)) in found.iter().zip(expected) {
        let same = f.to_bits() == e.to_bits() || f.is_nan() && e.is_nan();
        assert!(
            same,
            "{what} at {at}: {f:?} ({:08x}), not {e:?} ({:08x})",
            f.to_bits(),
            e.to_bits()
        );
        n += 1;
    }
    assert_eq!(n, found.len());
}

fn unary(op: &str, f: fn(f32) -> f32) {
    let x = upper_halves();
    let text = format!("graph g {{\n in x: f32[65536]\n y: f32[65536] = {op}(x)\n out y = y\n}}");
    let found = run(&text, &[("x", Tensor::vector(x.clone()))]);
    assert_bits(op, &found, x.iter().map(|&x| (f(x), format!("{x:?}"))));
}

fn binary(op: &str, f: fn(f32, f32) -> f32) {
    let (x, y) = (upper_halves(), partners());
    assert_eq!(y.len(), 64);
    let text = format!(
        "graph g {{\n in x: f32[65536,1]\n in y: f32[64]\n z: f32[65536,64] = {op}(x, y)\n out z = z\n}}"
    );
    let inputs = [("x", Tensor::new([65536, 1], x.clone())), ("y", Tensor::vector(y.clone()))];
    let found = run(&text, &inputs);
    let pairs = x.iter().flat_map(|&x| y.iter().map(move |&y| (x, y)));
    assert_bits(op, &found, pairs.map(|(x, y)| (f(x, y), format!("{x:?}, {y:?}"))));
}

#[test]
fn elementwise_ops() {
    binary("Mul", mul);
    binary("Div", div);
    unary("Exp", exp);
    unary("Log", log);
    unary("Sqrt", sqrt);
    unary("Reciprocal", |x| div(1.0, x));
}

#[test]
fn powers() {
    binary("Pow", pow);
    let constant = |c: f32, f: fn(f32) -> f32| {
        let x = upper_halves();
        let text = format!(
            "graph g {{\n in x: f32[65536]\n const c: f32[] = {c:?}\n y: f32[65536] = Pow(x, c)\n out y = y\n}}"
        );
        let found = run(&text, &[("x", Tensor::vector(x.clone()))]);
        assert_bits(&format!("Pow {c}"), &found, x.iter().map(|&x| (f(x), format!("{x:?}"))));
    };
    constant(0.0, |_| 1.0);
    constant(1.0, |x| x);
    constant(2.0, |x| mul(x, x));
    constant(3.0, |x| mul(mul(x, x), x));
    constant(0.5, sqrt);
    constant(-1.0, |x| div(1.0, x));
    constant(-0.5, |x| div(1.0, sqrt(x)));
    constant(-2.0, |x| div(1.0, mul(x, x)));
    constant(1.5, |x| pow(x, 1.5));
}

/// The documented order of a sum: sixteen lanes, then a halving tree (one chunk suffices here).
fn sum(x: &[f32]) -> f32 {
    assert!(x.len() <= 4096);
    let mut lanes = [0f32; 16];
    for (i, v) in x.iter().enumerate() {
        lanes[i % 16] += v;
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

fn mean(x: &[f32]) -> f32 {
    div(sum(x), x.len() as f32)
}

/// Rows of 37 elements made of the upper halves in an order that mixes magnitudes, limited to a range
/// that training sees, with a few rows of infinities and zeros.
fn rows() -> Vec<Vec<f32>> {
    let ordinary: Vec<f32> = (0..=0xFFFFu32)
        .map(|i| f32::from_bits((i.wrapping_mul(40503) & 0xFFFF) << 16))
        .filter(|x| x.is_finite() && x.abs() < 100.0 && (x.abs() > 1e-6 || *x == 0.0))
        .collect();
    let mut rows: Vec<Vec<f32>> = ordinary.chunks_exact(37).map(<[f32]>::to_vec).collect();
    rows.push(vec![0.0; 37]);
    let mut masked = vec![f32::NEG_INFINITY; 37];
    rows.push(masked.clone());
    masked[5] = 1.5;
    rows.push(masked);
    rows
}

fn by_row(op: &str, operands: &str, f: impl Fn(&[f32]) -> Vec<f32>) {
    let rows = rows();
    let n = rows.len();
    let x = Tensor::new([n, 37], rows.concat());
    let width = f(&rows[0]).len();
    let shape = if width == 37 { format!("[{n},37]") } else { format!("[{n},1]") };
    let text = format!(
        "graph g {{\n in x: f32[{n},37]\n in w: f32[37]\n in b: f32[37]\n y: f32{shape} = {op}(x{operands}\n out y = y\n}}"
    );
    let w: Vec<f32> = (0..37).map(|i| 0.7 + i as f32 / 50.0).collect();
    let b: Vec<f32> = (0..37).map(|i| i as f32 / 9.0 - 2.0).collect();
    let found = run(&text, &[("x", x), ("w", Tensor::vector(w)), ("b", Tensor::vector(b))]);
    let expected: Vec<f32> = rows.iter().flat_map(|r| f(r)).collect();
    let at = |i: usize| format!("row {}", i / width);
    assert_bits(op, &found, expected.into_iter().enumerate().map(|(i, e)| (e, at(i))));
}

fn exponentials(x: &[f32]) -> (f32, Vec<f32>) {
    let z: Vec<f32> = x.iter().map(|&x| mul(x, LOG2E)).collect();
    let s = z.iter().copied().fold(f32::NEG_INFINITY, f32::max).floor();
    (s, z.iter().map(|z| exp2(z - s)).collect())
}

fn log_sum_exp(x: &[f32]) -> f32 {
    let (s, e) = exponentials(x);
    div(s + log2(sum(&e)), LOG2E)
}

#[test]
fn row_ops() {
    by_row("ReduceMean", ") {axes=[1]}", |x| vec![mean(x)]);
    by_row("ReduceSumSquare", ") {axes=[1]}", |x| {
        vec![sum(&x.iter().map(|&x| mul(x, x)).collect::<Vec<_>>())]
    });
    by_row("ReduceL2", ") {axes=[1]}", |x| {
        vec![sqrt(sum(&x.iter().map(|&x| mul(x, x)).collect::<Vec<_>>()))]
    });
    by_row("Softmax", ") {axis=1}", |x| {
        let (_, e) = exponentials(x);
        let total = sum(&e);
        e.iter().map(|&e| div(e, total)).collect()
    });
    by_row("ReduceLogSumExp", ") {axes=[1]}", |x| vec![log_sum_exp(x)]);
    by_row("LogSoftmax", ") {axis=1}", |x| {
        let l = log_sum_exp(x);
        x.iter().map(|x| x - l).collect()
    });
    by_row("LayerNormalization", ", w, b) {axis=1, epsilon=1e-5}", |x| {
        let m = mean(x);
        let c: Vec<f32> = x.iter().map(|x| x - m).collect();
        let v = mean(&c.iter().map(|&c| mul(c, c)).collect::<Vec<_>>());
        let s = sqrt(v + 1e-5);
        let each = c.iter().enumerate();
        each.map(|(i, &c)| {
            let (w, b) = (0.7 + i as f32 / 50.0, i as f32 / 9.0 - 2.0);
            mul(div(c, s), w) + b
        })
        .collect()
    });
}

// --- approximate derivatives -----------------------------------------------------------------------

const LN2: f32 = f32::from_bits(0x3F31_7218);

/// The derivative by x of an op of one operand, times δ, at every upper half of the bit pattern.
fn derivative(op: &str, f: impl Fn(f32, f32, f32) -> f32, y: fn(f32) -> f32) {
    let x = upper_halves();
    let delta: Vec<f32> = (0..x.len()).map(|i| partners()[(i * 7 + i / 64) % 64]).collect();
    // The sum of y · δ has δ as the cotangent of y: mul(δ, 1).
    let text = format!(
        "graph g {{\n in x: f32[65536]\n in d: f32[65536]\n y: f32[65536] = {op}\n \
         p: f32[65536] = Mul(y, d)\n l: f32[] = ReduceSum(p) {{keepdims=0}}\n \
         g: f32[65536] = Gradient(l, x)\n out g = g\n}}"
    );
    let inputs = [("x", Tensor::vector(x.clone())), ("d", Tensor::vector(delta.clone()))];
    let found = run(&text, &inputs);
    let all = x.iter().zip(&delta);
    let expected = all.map(|(&x, &d)| (f(x, y(x), d), format!("{x:?}, {d:?}")));
    assert_bits(op, &found, expected);
}

/// What arrives as δ: a product with 1 flushes subnormals to zero.
fn arriving(d: f32) -> f32 {
    mul(d, 1.0)
}

#[test]
fn approximate_derivatives() {
    derivative("Exp(x)", |_, y, d| mul(y, arriving(d)), exp);
    derivative("Log(x)", |x, _, d| div(arriving(d), x), log);
    derivative(
        "PamExp2(x) //@ e forward other approx",
        |_, y, d| mul(mul(y, LN2), arriving(d)),
        exp2,
    );
    derivative(
        "PamLog2(x) //@ l forward other approx",
        |x, _, d| div(arriving(d), mul(x, LN2)),
        log2,
    );
    // Quotients by each operand.
    let (x, y) = (upper_halves(), partners());
    let text = "graph g {
        in a: f32[65536,1]
        in b: f32[64]
        q: f32[65536,64] = Div(a, b)
        l: f32[] = ReduceSum(q) {keepdims=0}
        w: f32[65536,64] = Expand(b) {shape=[65536, 64]}
        r: f32[65536,64] = Div(a, w)
        m: f32[] = ReduceSum(r) {keepdims=0}
        g: f32[65536,64] = Gradient(m, w)
        out g = g
    }";
    let inputs = [("a", Tensor::new([65536, 1], x.clone())), ("b", Tensor::vector(y.clone()))];
    let found = run(text, &inputs);
    let pairs = x.iter().flat_map(|&a| y.iter().map(move |&b| (a, b)));
    let by_b = |a: f32, b: f32| -div(mul(a, 1.0), mul(b, b));
    assert_bits("Div by b", &found, pairs.map(|(a, b)| (by_b(a, b), format!("{a:?}, {b:?}"))));
}

/// Natively, composites give what the ops give that they stand for.
#[test]
fn native_corners() {
    let inf = f32::INFINITY;
    let lines = "in x: f32[3,2]\nin n: i64[2,3]\ny: f32[3,1] = ReduceLogSumExp(x) {axes=[1]}\n\
                 m: i64[2,1] = ReduceMean(n) {axes=[1]}\nout y = y\nout m = m";
    let graph = parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap();
    let compiled = compile(&graph, &Policy::preset("native").unwrap()).unwrap();
    let expanded = pam_passes::expand(&compiled.graph).unwrap();
    let plan = plan(&certify(expanded, Target::Mixed).unwrap(), PlanOptions::default()).unwrap();
    let mut executor = Executor::new(plan, 1).unwrap();
    let x = Tensor::new([3, 2], vec![inf, 1.0, -inf, -inf, 0.0, 0.0]);
    let n = Tensor::new([2, 3], vec![1i64, 2, 6, -1, -2, -6]);
    let found = executor.run(&[("x".to_owned(), x), ("n".to_owned(), n)]).unwrap();
    let y = found[0].1.slice::<f32>().unwrap();
    assert_eq!(y[..2], [inf, -inf]);
    assert!((y[2] - 2f32.ln()).abs() < 1e-6, "{}", y[2]);
    assert_eq!(found[1].1, Tensor::new([2, 1], vec![3i64, -3]));
}
