//! Contractions against the sum of scalar products in the documented order.

use pam_kernels::contract::{
    Arithmetic, ConvShape, K_CHUNK, Matrices, Spatial, conv, matmul, matmul_grad_a, matmul_grad_b,
};
use pam_kernels::{Isa, Pool, limit_isa, pa};
use proptest::prelude::*;
use std::sync::Mutex;

/// α = 0.5, 0.75, 1.0625 and the last float below 2, as offsets.
const OFFSETS: [i32; 4] = [-0x0080_0000, -0x0040_0000, 0x0008_0000, 0x007F_FFFF];

/// Runs a check on every vector extension that this processor has.
fn on_each_isa(check: impl Fn()) {
    // The limit holds for the whole process, in which tests run side by side.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
        limit_isa(isa);
        check();
    }
}

/// Numbers of one class.
fn number(class: usize, seed: u64) -> f32 {
    let bits = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32;
    let plain = f32::from_bits(bits & 0x807F_FFFF | (120 + bits % 14) << 23);
    match class {
        0 => plain,
        1 if bits.is_multiple_of(3) => f32::from_bits(bits & 0x8000_0000),
        2 => f32::from_bits(bits & 0x807F_FFFF | ((bits >> 8) % 120) << 23),
        3 => f32::from_bits(bits & 0x807F_FFFF | ((bits >> 8) % 255) << 23),
        4 if bits.is_multiple_of(7) => {
            [f32::INFINITY, f32::NAN, f32::NEG_INFINITY][bits as usize / 7 % 3]
        }
        _ => plain,
    }
}

fn numbers(class: usize, n: usize, seed: u64) -> Vec<f32> {
    (0..n as u64).map(|i| number(class, i + seed * 1_000_003)).collect()
}

fn chunked(k: usize, term: impl Fn(usize) -> f32) -> f32 {
    let chunk = |s: usize| (s..(s + K_CHUNK).min(k)).fold(0f32, |sum, i| sum + term(i));
    (K_CHUNK..k).step_by(K_CHUNK).fold(chunk(0), |sum, s| sum + chunk(s))
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn check([m, n, k]: [usize; 3], classes: [usize; 2], offset: i32, mantissa: u32, transposed: bool) {
    let (a, b) = (numbers(classes[0], 2 * m * k, 1), numbers(classes[1], 2 * k * n, 2));
    let (row, col) = if transposed { (1, k) } else { (n, 1) };
    let mut out = vec![f32::NAN; 2 * m * n];
    let mut results = Vec::new();
    for threads in [1, 3] {
        let pool = Pool::new(threads).unwrap();
        let left = Matrices { data: &a, offsets: &[0, m * k], row: k, col: 1 };
        let right = Matrices { data: &b, offsets: &[0, k * n], row, col };
        matmul(&pool, Arithmetic::Pa { offset, mantissa }, [m, n, k], left, right, &mut out);
        results.push(out.clone());
    }
    let round = |x| pa::round_mantissa(x, mantissa);
    for (i, (&x, &y)) in results[0].iter().zip(&results[1]).enumerate() {
        let (batch, r, c) = (i / (m * n), i / n % m, i % n);
        let expected = chunked(k, |p| {
            let b = b[batch * k * n + p * row + c * col];
            pa::mul(round(a[batch * m * k + r * k + p]), round(b), offset)
        });
        assert!(same(x, expected), "[{r},{c}] of {m}x{n}x{k} {classes:?}: {x:e} {expected:e}");
        assert!(same(y, expected), "with threads");
    }
}

#[test]
fn every_form_gives_the_specified_bits() {
    on_each_isa(|| {
        for a in 0..5 {
            for b in 0..5 {
                check([13, 40, 300], [a, b], 0, 23, false);
                // Few rows go without tiles.
                check([3, 70, 300], [a, b], 0, 23, true);
                for offset in OFFSETS {
                    check([2, 130, 9], [a, b], offset, 23, false);
                    check([12, 32, 9], [a, b], offset, 23, false);
                }
            }
        }
        check([24, 64, 513], [0, 0], 0, 23, true);
        check([24, 64, 70], [3, 3], 0x0008_0000, 23, false);
        check([24, 64, 70], [2, 2], -0x0010_0000, 23, false);
        check([24, 64, 70], [3, 1], 0, 5, true);
        check([3, 70, 257], [3, 3], 0, 23, false);
        check([5, 1, 1], [1, 1], 0, 23, false);
    });
}

/// Each block of rows meets each block of columns, so that the panels of one product ask for every form.
#[test]
fn panels_of_different_kinds_meet() {
    let [m, n, k] = [60, 160, 270];
    let a: Vec<f32> = (0..m * k).map(|i| number(i / k / 12, i as u64)).collect();
    let b: Vec<f32> = (0..k * n).map(|i| number(i % n / 32, 7 + i as u64)).collect();
    on_each_isa(|| {
        let mut out = vec![0.0; m * n];
        for classes in [[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]] {
            // Only these classes, or the dearest of all would prepare for the others.
            let kept = |x: &[f32], class: &dyn Fn(usize) -> usize| -> Vec<f32> {
                let plain = |i: usize| number(0, i as u64);
                let keep = |i: usize| classes[0] <= class(i) && class(i) <= classes[1];
                (0..x.len()).map(|i| if keep(i) { x[i] } else { plain(i) }).collect()
            };
            let (a, b) = (kept(&a, &|i| i / k / 12), kept(&b, &|i| i % n / 32));
            let left = Matrices { data: &a, offsets: &[0], row: k, col: 1 };
            let right = Matrices { data: &b, offsets: &[0], row: n, col: 1 };
            let plain = Arithmetic::Pa { offset: 0, mantissa: 23 };
            matmul(&Pool::new(1).unwrap(), plain, [m, n, k], left, right, &mut out);
            for (i, &x) in out.iter().enumerate() {
                let expected = chunked(k, |p| pa::mul(a[i / n * k + p], b[p * n + i % n], 0));
                assert!(same(x, expected), "{i} of {classes:?}: {x:e} {expected:e}");
            }
        }
    });
}

/// Tiles of every height and of both widths, in every form.
#[test]
fn parts_of_tiles_give_the_specified_bits() {
    on_each_isa(|| {
        for m in 4..=17 {
            for classes in [[0, 0], [0, 1], [1, 0], [1, 1], [2, 2], [3, 3], [4, 1]] {
                check([m, 35, 20], classes, 0, 23, false);
                check([m, 17, 20], classes, 0, 23, true);
            }
        }
    });
}

/// Large numbers of both operands that overflow together, at the same k or not.
#[test]
fn large_numbers_meet_or_do_not() {
    let [m, n, k] = [29, 50, 300];
    on_each_isa(|| {
        for (class, apart) in [(0, 1), (0, 0), (1, 1), (1, 0), (2, 1), (2, 0)] {
            let large = |i| f32::from_bits(number(0, i as u64).to_bits() & 0x807F_FFFF | 240 << 23);
            let number = |i: usize, k: usize| {
                if k.is_multiple_of(50) { large(i) } else { number(class, i as u64) }
            };
            let a: Vec<f32> = (0..m * k).map(|i| number(i, i % k)).collect();
            let b: Vec<f32> = (0..k * n).map(|i| number(i, i / n + apart)).collect();
            for offset in [0, OFFSETS[1], OFFSETS[2]] {
                let mut out = vec![0.0; m * n];
                let left = Matrices { data: &a, offsets: &[0], row: k, col: 1 };
                let right = Matrices { data: &b, offsets: &[0], row: n, col: 1 };
                let plain = Arithmetic::Pa { offset, mantissa: 23 };
                matmul(&Pool::new(1).unwrap(), plain, [m, n, k], left, right, &mut out);
                let infinite = out.iter().filter(|x| !x.is_finite()).count();
                assert_eq!(infinite == 0, apart == 1, "{infinite} overflow");
                for (i, &x) in out.iter().enumerate() {
                    let term = |p| pa::mul(a[i / n * k + p], b[p * n + i % n], offset);
                    assert!(same(x, chunked(k, term)), "{i} of {class}, {apart}, {offset}");
                }
            }
        }
    });
}

fn sign(i: usize, x: f32) -> f32 {
    if i.is_multiple_of(3) { -x } else { x }
}

/// Operands whose products lie at an end of the range: one step below it, at it, one step above it.
fn at_an_end(end: i64, offset: i32) -> (Vec<f32>, Vec<f32>) {
    let exponents = if end > 0x4000_0000 { 132 } else { 4 };
    let a: Vec<f32> = (0..12)
        .map(|i| {
            sign(
                i,
                f32::from_bits(
                    number(0, i as u64).to_bits() & 0x007F_FFFF | (exponents + 9 * i as u32) << 23,
                ),
            )
        })
        .collect();
    let b = (0..32).map(|j| {
        let a = i64::from(a[j % 12].abs().to_bits());
        let bits = 0x3F80_0000 - i64::from(offset) + end - a + (j / 12) as i64 - 1;
        assert!((0x0080_0000..0x7F80_0000).contains(&bits), "{bits:x} is a number");
        sign(j, f32::from_bits(bits as u32))
    });
    let b = b.collect();
    (a, b)
}

/// The derivative by the left operand, which that of the transposed product by its right operand must equal.
fn derivative(
    numbers: (i32, u32),
    [m, n, k]: [usize; 3],
    [a, b, delta]: [Matrices<'_>; 3],
) -> Vec<f32> {
    let pool = Pool::new(1).unwrap();
    let [mut by_a, mut by_b] = [(); 2].map(|()| vec![f32::NAN; m * k]);
    matmul_grad_a(&pool, numbers, [m, n, k], a, b, delta, &mut by_a);
    matmul_grad_b(&pool, numbers, [n, m, k], turn(b), turn(a), turn(delta), &mut by_b);
    for (i, &x) in by_a.iter().enumerate() {
        let y = by_b[i % k * m + i / k];
        assert!(same(x, y), "{i} of {m}x{n}x{k}: {x:e} {y:e}");
    }
    by_a
}

fn turn(x: Matrices<'_>) -> Matrices<'_> {
    Matrices { row: x.col, col: x.row, ..x }
}

#[test]
fn ends_of_the_range_are_exact() {
    let pool = Pool::new(1).unwrap();
    on_each_isa(|| {
        for (end, offset) in
            [0x0080_0000, 0x7F80_0000].into_iter().flat_map(|e| OFFSETS.map(|o| (e, o)))
        {
            let (a, b) = at_an_end(end, offset);
            let matrices = |data, row| Matrices { data, offsets: &[0], row, col: 1 };
            let (x, y) = (matrices(&a, 1), matrices(&b, 32));
            let mut out = [f32::NAN; 12 * 32];
            matmul(&pool, Arithmetic::Pa { offset, mantissa: 23 }, [12, 32, 1], x, y, &mut out);
            for (i, z) in out.iter().enumerate() {
                // A sum begins at +0, which a product of −0 leaves.
                let expected = 0.0 + pa::mul(a[i / 32], b[i % 32], offset);
                assert!(same(*z, expected), "{end:x} {offset:x} {i}: {z:e} {expected:e}");
            }
            let ones = [1.5f32; 12 * 32];
            let d = matrices(&ones, 32);
            let by_a = derivative((offset, 23), [12, 32, 1], [x, y, d]);
            for (i, z) in by_a.iter().enumerate() {
                let e = chunked(32, |j| pa::mul_grad(a[i], b[j], 1.5, offset));
                assert!(same(*z, e), "by a {end:x} {offset:x} {i}: {z:e} {e:e}");
            }
            // The least numbers with gradients that lift their slopes.
            let least: Vec<f32> =
                (0..32).map(|j| sign(j, f32::from_bits(0x007F_FFFE + j as u32 % 5))).collect();
            let large = [2f32.powi(100); 12 * 32];
            let (y, d) = (matrices(&least, 32), matrices(&large, 32));
            let by_a = derivative((offset, 23), [12, 32, 1], [x, y, d]);
            for (i, z) in by_a.iter().enumerate() {
                let e = chunked(32, |j| pa::mul_grad(a[i], least[j], large[0], offset));
                assert!(same(*z, e), "least {offset:x} {i}: {z:e} {e:e}");
            }
        }
    });
}

#[test]
fn left_operands_may_be_transposed_or_repeated() {
    let (m, n, k) = (29, 33, 300);
    let b = numbers(0, k * n, 2);
    for (class, row, col) in [(0, 1, m), (2, 1, m), (3, 2, 2 * m), (0, 1, 0), (1, 0, 1)] {
        let a = numbers(class, (m + k) * 2 * m, 1);
        let (left, right) = (
            Matrices { data: &a, offsets: &[3], row, col },
            Matrices { data: &b, offsets: &[0], row: n, col: 1 },
        );
        let mut out = vec![f32::NAN; m * n];
        let pool = Pool::new(1).unwrap();
        matmul(&pool, Arithmetic::Pa { offset: 0, mantissa: 23 }, [m, n, k], left, right, &mut out);
        for (i, &x) in out.iter().enumerate() {
            let (r, c) = (i / n, i % n);
            let e = chunked(k, |p| pa::mul(a[3 + r * row + p * col], b[p * n + c], 0));
            assert!(same(x, e), "[{r},{c}] of strides {row}, {col}: {x:e} {e:e}");
        }
    }
}

/// Numbers of so many exponents from a first one on, of few mantissas so that sums cancel, and zeros of both
/// kinds where the pattern of bits says so.
fn cancelling(n: usize, seed: u64, first: i32, exponents: u32, zeros: u32) -> Vec<f32> {
    let one = |i: usize| {
        let x = (i as u64 ^ seed << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bits = (x >> 32) as u32 ^ (x >> 17) as u32;
        let exponent = (127 + first) as u32 + (bits >> 8) % exponents;
        let mantissa = [0, 0, 1, 0x40_0000, 0x7F_FFFF][(bits >> 20) as usize % 5];
        match bits % 8 {
            k if zeros >> k & 1 == 1 => f32::from_bits(bits & 0x8000_0000 | u32::from(k == 0)),
            _ => f32::from_bits(bits << 3 & 0x8000_0000 | exponent << 23 | mantissa),
        }
    };
    (0..n).map(one).collect()
}

/// A sum that cancels down to its last bit, 2^−63, before the largest number there is beside a zero that may
/// have a stand-in; and before the next larger one.
#[test]
fn what_stands_for_zeros_is_small_enough() {
    let smallest = f32::from_bits((127 - 40) << 23);
    let largest = f32::from_bits(((127 - 1) << 23) - 1);
    for large in [largest, largest.next_up(), 1e-3] {
        // Whole tiles, since they are filled up with ones.
        let [some, others] =
            [[1f32.next_up(), -1.0, 0.0], [smallest, smallest, -large]].map(|x| x.repeat(12));
        let columns = |x: &[f32]| (0..3).flat_map(|i| [x[i]; 32]).collect::<Vec<f32>>();
        on_each_isa(|| {
            for (a, b) in [(&some, columns(&others)), (&others, columns(&some))] {
                let left = Matrices { data: a, offsets: &[0], row: 3, col: 1 };
                let right = Matrices { data: &b, offsets: &[0], row: 32, col: 1 };
                let mut out = vec![0.0; 12 * 32];
                let plain = Arithmetic::Pa { offset: 0, mantissa: 23 };
                matmul(&Pool::new(1).unwrap(), plain, [12, 32, 3], left, right, &mut out);
                assert_eq!(out, [2f32.powi(-63); 12 * 32]);
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Numbers that stand in the place of zeros must change no sum, least of all one that cancels.
    #[test]
    fn zeros_change_no_sum(
        m in 4usize..30, n in 1usize..70, k in 1usize..300, seed in any::<u64>(),
        first in -60i32..30, spans in (1u32..40, 1u32..40), zeros in (0u32..256, 0u32..256),
        one in 0usize..4, offset in prop_oneof![Just(0), Just(1 << 20), Just(-(1 << 22))],
    ) {
        // Often only one of the operands has zeros.
        let zeros = (if one == 0 { 0 } else { zeros.0 }, if one == 1 { 0 } else { zeros.1 });
        let a = cancelling(m * k, seed, first, spans.0, zeros.0);
        let b = cancelling(k * n, !seed, first / 2, spans.1, zeros.1);
        let left = Matrices { data: &a, offsets: &[0], row: k, col: 1 };
        let right = Matrices { data: &b, offsets: &[0], row: n, col: 1 };
        let arithmetic = Arithmetic::Pa { offset, mantissa: 23 };
        on_each_isa(|| {
            let mut out = vec![f32::NAN; m * n];
            matmul(&Pool::new(1).unwrap(), arithmetic, [m, n, k], left, right, &mut out);
            for (i, &x) in out.iter().enumerate() {
                let expected = chunked(k, |p| pa::mul(a[i / n * k + p], b[p * n + i % n], offset));
                assert!(same(x, expected), "[{},{}]: {x:e} {expected:e}", i / n, i % n);
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn zeros_change_no_sum_of_derivatives(
        m in 1usize..30, n in 1usize..300, k in 1usize..70, seed in any::<u64>(),
        first in -60i32..30, spans in (1u32..40, 1u32..40), zeros in (0u32..256, 0u32..256),
        one in 0usize..4, offset in prop_oneof![Just(0), Just(1 << 20), Just(-(1 << 22))],
    ) {
        let zeros = (if one == 0 { 0 } else { zeros.0 }, if one == 1 { 0 } else { zeros.1 });
        let mut a = cancelling(m * k, seed ^ 7, -3, 6, 1);
        a[seed as usize % (m * k)] = f32::NAN;
        let b = cancelling(k * n, !seed, first / 2, spans.1, zeros.1);
        let d = cancelling(m * n, seed, first, spans.0, zeros.0);
        let dense = |data, row| Matrices { data, offsets: &[0], row, col: 1 };
        on_each_isa(|| {
            let (a, b, d) = (dense(&a, k), dense(&b, n), dense(&d, n));
            let out = derivative((offset, 23), [m, n, k], [a, b, d]);
            for (i, &x) in out.iter().enumerate() {
                let (r, c) = (i / k, i % k);
                let expected = chunked(n, |j| {
                    pa::mul_grad(a.data[i], b.data[c * n + j], d.data[r * n + j], offset)
                });
                assert!(same(x, expected), "[{r},{c}]: {x:e} {expected:e}");
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn random_shapes(m in 1usize..40, n in 1usize..90, k in 1usize..530,
                     a in 0usize..5, b in 0usize..5, t: bool) {
        on_each_isa(|| check([m, n, k], [a, b], 0, 23, t));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Few rows, and a single column, are read where they lie as long as that is exact.
    #[test]
    fn thin_shapes(few in 1usize..6, many in prop_oneof![1usize..70, 480usize..560], k in 1usize..530,
                   a in 0usize..5, b in 0usize..5, t: bool, upright: bool, whole: bool) {
        let shape = if upright { [many, 1, k] } else { [few, many, k] };
        let mantissa = if whole { 23 } else { 7 };
        on_each_isa(|| check(shape, [a, b], 0, mantissa, t));
    }
}

fn conv_reference(s: &ConvShape, x: &[f32], w: &[f32]) -> Vec<f32> {
    let [h, v] = [s.spatial[0], s.spatial[1]];
    let mut out = Vec::new();
    for n in 0..s.batch {
        for o in 0..s.groups * s.outputs {
            for y in 0..h.output {
                for z in 0..v.output {
                    let read = |a: Spatial, out: usize, tap: usize| {
                        let at = (out * a.stride + tap * a.dilation) as i64 - a.before;
                        let d = a.input_dilation as i64;
                        (at >= 0 && at % d == 0 && at / d < a.input as i64)
                            .then(|| (at / d) as usize)
                    };
                    let taps = h.kernel * v.kernel;
                    out.push(chunked(s.channels * taps, |k| {
                        let (c, ky, kx) = (k / taps, k % taps / v.kernel, k % v.kernel);
                        let channel = o / s.outputs * s.channels + c;
                        let pixel = match (read(h, y, ky), read(v, z, kx)) {
                            (Some(i), Some(j)) => {
                                let image = (n * s.groups * s.channels + channel) * h.input;
                                x[(image + i) * v.input + j]
                            }
                            _ => 0.0,
                        };
                        pa::mul(w[o * s.channels * taps + k], pixel, 0)
                    }));
                }
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_convolutions(
        sizes in proptest::collection::vec((1usize..12, 1usize..12, 1usize..4, 1usize..4, 1usize..4,
            -2i64..5, -2i64..5), 2),
        batch in 1usize..3, groups in 1usize..3, channels in 1usize..4, outputs in 1usize..4,
    ) {
        let mut spatial = Vec::new();
        for (input, kernel, stride, dilation, input_dilation, before, after) in sizes {
            let extent = (input as i64 - 1) * input_dilation as i64 + 1;
            let room = extent + before + after - ((kernel as i64 - 1) * dilation as i64 + 1);
            prop_assume!(room >= 0);
            let output = room as usize / stride + 1;
            spatial.push(Spatial { input, kernel, output, stride, dilation, input_dilation, before });
        }
        let s = ConvShape { batch, groups, channels, outputs, spatial };
        let count = |f: fn(&Spatial) -> usize| s.spatial.iter().map(f).product::<usize>();
        prop_assume!(count(|a| a.output) * count(|a| a.kernel) < 20_000);
        let x = numbers(0, batch * groups * channels * count(|a| a.input), 5);
        let w = numbers(0, groups * outputs * channels * count(|a| a.kernel), 6);
        let expected = conv_reference(&s, &x, &w);
        let mut out = vec![f32::NAN; expected.len()];
        let pa = Arithmetic::Pa { offset: 0, mantissa: 23 };
        conv(&Pool::new(1).unwrap(), pa, &s, &x, &w, &mut out);
        prop_assert!(out.iter().zip(&expected).all(|(a, b)| same(*a, *b)), "{:?}", s);
    }
}

#[test]
fn convolutions_sum_their_windows() {
    let axis = |input, kernel, stride, dilation, input_dilation, before: i64, after: i64| {
        let extent = (input as i64 - 1) * input_dilation as i64 + 1;
        let room = extent + before + after - ((kernel as i64 - 1) * dilation as i64 + 1);
        let output = (room / stride as i64 + 1) as usize;
        Spatial { input, kernel, output, stride, dilation, input_dilation, before }
    };
    let cases = [
        (2, 1, 3, 5, axis(9, 3, 1, 1, 1, 1, 1), axis(8, 3, 1, 1, 1, 1, 1)),
        (2, 2, 3, 4, axis(9, 3, 2, 1, 1, 1, 1), axis(8, 2, 3, 2, 1, 0, 2)),
        (1, 6, 1, 1, axis(9, 5, 1, 1, 1, 2, 2), axis(40, 5, 1, 1, 1, 2, 2)),
        (3, 1, 20, 14, axis(5, 3, 1, 1, 2, 2, 2), axis(5, 3, 1, 1, 3, -1, 2)),
        (4, 1, 4, 14, axis(16, 14, 1, 1, 1, 1, 1), axis(16, 14, 1, 1, 1, 1, 1)),
    ];
    for (batch, groups, channels, outputs, y, z) in cases {
        let s = ConvShape { batch, groups, channels, outputs, spatial: vec![y, z] };
        let x = numbers(1, batch * groups * channels * y.input * z.input, 5);
        let w = numbers(0, groups * outputs * channels * y.kernel * z.kernel, 6);
        let expected = conv_reference(&s, &x, &w);
        let mut out = vec![f32::NAN; expected.len()];
        for threads in [1, 2] {
            let pool = Pool::new(threads).unwrap();
            conv(&pool, Arithmetic::Pa { offset: 0, mantissa: 23 }, &s, &x, &w, &mut out);
            assert!(out.iter().zip(&expected).all(|(a, b)| same(*a, *b)), "{s:?}");
        }
        conv(&Pool::new(2).unwrap(), Arithmetic::Native, &s, &x, &w, &mut out);
        let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        // A PA product is at most a ninth too small.
        assert!(out.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 0.4 * largest), "{s:?}");
    }
}

fn check_grad(
    [m, n, k]: [usize; 3],
    classes: [usize; 3],
    (offset, mantissa): (i32, u32),
    transposed: bool,
) {
    let (a, b) = (numbers(classes[0], 2 * m * k, 1), numbers(classes[1], 2 * k * n, 2));
    let d = numbers(classes[2], 2 * m * n, 3);
    let round = |x| pa::round_mantissa(x, mantissa);
    let lie = |rows: usize, cols: usize| if transposed { (1, rows) } else { (cols, 1) };
    let read = |x: &[f32], batch: usize, rows: usize, cols: usize, i: usize, j: usize| {
        let (row, col) = lie(rows, cols);
        x[batch * rows * cols + i * row + j * col]
    };
    let offsets = [m * k, k * n, m * n].map(|size| [0, size]);
    let matrices = |data, which: usize, rows, cols| {
        let (row, col) = lie(rows, cols);
        Matrices { data, offsets: &offsets[which], row, col }
    };
    let operands = (matrices(&a, 0, m, k), matrices(&b, 1, k, n), matrices(&d, 2, m, n));
    for threads in [1, 3, 5] {
        let (pool, numbers) = (Pool::new(threads).unwrap(), (offset, mantissa));
        let mut by_a = vec![f32::NAN; 2 * m * k];
        let (x, y, z) = operands;
        matmul_grad_a(&pool, numbers, [m, n, k], x, y, z, &mut by_a);
        for (i, &g) in by_a.iter().enumerate() {
            let (batch, r, c) = (i / (m * k), i / k % m, i % k);
            let x = round(read(&a, batch, m, k, r, c));
            let e = chunked(n, |j| {
                let y = round(read(&b, batch, k, n, c, j));
                pa::mul_grad(x, y, read(&d, batch, m, n, r, j), offset)
            });
            assert!(same(g, e), "by a {m}x{n}x{k} {classes:?} {offset}: {g:e} {e:e}");
        }
        let mut by_b = vec![f32::NAN; 2 * k * n];
        matmul_grad_b(&pool, numbers, [m, n, k], x, y, z, &mut by_b);
        for (i, &g) in by_b.iter().enumerate() {
            let (batch, r, c) = (i / (k * n), i / n % k, i % n);
            let x = round(read(&b, batch, k, n, r, c));
            let e = chunked(m, |j| {
                let y = round(read(&a, batch, m, k, j, r));
                pa::mul_grad(x, y, read(&d, batch, m, n, j, c), offset)
            });
            assert!(same(g, e), "by b {m}x{n}x{k} {classes:?} {offset}: {g:e} {e:e}");
        }
    }
}

#[test]
fn exact_derivatives_sum_over_the_other_index() {
    on_each_isa(|| {
        for class in 0..125 {
            let classes = [class / 25, class / 5 % 5, class % 5];
            check_grad([7, 35, 5], classes, (0, 23), false);
            check_grad([13, 5, 40], classes, (0, 23), false);
            for offset in OFFSETS {
                check_grad([7, 35, 5], classes, (offset, 23), class % 2 == 0);
            }
        }
    });
    check_grad([30, 300, 40], [0, 0, 0], (0, 23), false);
    check_grad([300, 30, 40], [1, 2, 0], (0, 23), true);
    check_grad([265, 40, 70], [0, 1, 1], (0, 5), false);
    check_grad([1, 1, 1], [0, 0, 0], (0, 23), false);
    check_grad([3, 0, 2], [0, 0, 0], (0, 23), false);
}
