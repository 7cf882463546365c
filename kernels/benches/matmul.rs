//! Matrix products against the `gemm` crate in one run: `cargo bench -p pam-kernels [-- FILTER]`.
//!
//! Prints one line per case and writes target/bench/matmul.json, a list of {shape, form, data,
//! threads, isa, gmacs, sgemm_gmacs, ratio}. Both sides take turns and the best time of each counts, since
//! other work on the machine only ever slows one down. `form` is `auto` (whatever the dispatcher
//! picks), `exact-derivative` or `native`; `data` is the kind of numbers that decides the pick. `isa` is
//! the vector extension of both sides: the processor's, or AVX2 on a processor that has more.

mod report;

use pam_kernels::contract::{Arithmetic, Matrices, matmul, matmul_grad_a, matmul_grad_b};
use pam_kernels::{Isa, Pool, isa, limit_isa};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

const PLAIN: Arithmetic = Arithmetic::Pa { offset: 0, mantissa: 23 };
/// Kinds of numbers.
const DATA: [&str; 6] =
    ["normal", "zeros-one", "zeros-both", "underflow", "overflow", "overflow-dense"];
/// Time that each side of a case gets.
const BUDGET: Duration = Duration::from_millis(250);
/// Time after which threads without work sleep.
const REST: Duration = Duration::from_millis(1);

fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let (mut cases, best) = (Vec::new(), isa());
    let big = [[256; 3], [512; 3], [1024; 3]];
    for threads in [1, 2] {
        for data in DATA {
            big.iter().for_each(|&shape| cases.push((shape, "auto", data, threads, best)));
        }
        for shape in [[2048, 768, 768], [2048, 768, 3072], [2048, 3072, 768]] {
            cases.push((shape, "auto", "normal", threads, best));
        }
        let thin = [[512, 512, 16], [512, 16, 512], [16, 512, 512]];
        let thinnest =
            [[512, 512, 1], [512, 1, 512], [1, 512, 512], [1024, 1, 1024], [1, 1024, 1024]];
        for shape in [[64; 3]].into_iter().chain(thin).chain(thinnest) {
            cases.push((shape, "auto", "normal", threads, best));
        }
        for form in ["exact-derivative-a", "exact-derivative-b", "native"] {
            big.iter().for_each(|&shape| cases.push((shape, form, "normal", threads, best)));
        }
    }
    if best == Isa::Avx512 {
        for data in DATA {
            big.iter().for_each(|&shape| cases.push((shape, "auto", data, 1, Isa::Avx2)));
        }
        for form in ["exact-derivative-a", "exact-derivative-b"] {
            big.iter().for_each(|&shape| cases.push((shape, form, "normal", 1, Isa::Avx2)));
        }
    }
    let mut lines = Vec::new();
    for case in cases {
        let ([m, n, k], form, data, threads, isa) = case;
        let isa = format!("{isa:?}").to_lowercase();
        let name = format!("{m}x{n}x{k} {form} {data} {threads} {isa}");
        if !filter.iter().all(|f| name.contains(f.as_str())) {
            continue;
        }
        let [ours, theirs] = measure(case);
        let ratio = ours / theirs;
        println!("{name:<52} {ours:8.2} GMAC/s  sgemm {theirs:8.2}  ratio {ratio:.3}");
        let mut line = String::new();
        let form = form.trim_end_matches("-a").trim_end_matches("-b");
        write!(
            line,
            "  {{\"shape\": [{m}, {n}, {k}], \"form\": \"{form}\", \"data\": \"{data}\", \
             \"threads\": {threads}, \"isa\": \"{isa}\", \"gmacs\": {ours:.3}, \"sgemm_gmacs\": {theirs:.3}, \
             \"ratio\": {ratio:.4}}}"
        )
        .expect("writing to a string succeeds");
        lines.push(line);
    }
    report::write("matmul.json", &lines);
}

/// Multiply-accumulates a second of both sides, in 10^9.
fn measure(
    ([m, n, k], form, data, threads, isa): ([usize; 3], &str, &str, usize, Isa),
) -> [f64; 2] {
    let pool = &Pool::new(threads).expect("threads start");
    let their_pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let their_pool = their_pool.expect("threads start");
    limit_isa(isa);
    let (a, b) = operands(data, m * k, k * n);
    let delta = numbers(m * n, 3, -1.0, 1.0);
    let dense = |data, row| Matrices { data, offsets: &[0], row, col: 1 };
    let (left, right, third) = (dense(&a, k), dense(&b, n), dense(&delta, n));
    let size = match form {
        "exact-derivative-a" => m * k,
        "exact-derivative-b" => k * n,
        _ => m * n,
    };
    let (mut out, mut reference) = (vec![0.0; size], vec![0.0; m * n]);
    let mut ours = || match form {
        "exact-derivative-a" => {
            matmul_grad_a(pool, (0, 23), [m, n, k], left, right, third, &mut out);
        }
        "exact-derivative-b" => {
            matmul_grad_b(pool, (0, 23), [m, n, k], left, right, third, &mut out);
        }
        "native" => matmul(pool, Arithmetic::Native, [m, n, k], left, right, &mut out),
        _ => matmul(pool, PLAIN, [m, n, k], left, right, &mut out),
    };
    // A kernel may never see the numbers that its competitor finds slow.
    let (plain_a, plain_b) = operands("normal", m * k, k * n);
    let mut theirs = || sgemm(isa, threads, [m, n, k], &plain_a, &plain_b, &mut reference);
    let repeats = repeats(&mut theirs);
    let (mut best, start) = ([f64::INFINITY; 2], Instant::now());
    time(1, &mut ours);
    while start.elapsed() < 2 * BUDGET || best[0].is_infinite() {
        // Both with their threads awake, as they are within a step, and the other side's asleep.
        best[0] = best[0].min(pool.run(|| time(repeats, &mut ours)));
        std::thread::sleep(REST);
        best[1] = best[1].min(their_pool.install(|| time(repeats, &mut theirs)));
        std::thread::sleep(REST);
    }
    best.map(|seconds| (m * n * k) as f64 / seconds * 1e-9)
}

/// Calls that take about ten milliseconds together.
fn repeats(f: &mut (dyn FnMut() + Send)) -> usize {
    time(1, f);
    ((0.01 / time(1, f)) as usize).clamp(1, 10_000)
}

fn time(repeats: usize, f: &mut (dyn FnMut() + Send)) -> f64 {
    let start = Instant::now();
    (0..repeats).for_each(|_| f());
    start.elapsed().as_secs_f64() / repeats as f64
}

fn sgemm(isa: Isa, threads: usize, [m, n, k]: [usize; 3], a: &[f32], b: &[f32], out: &mut [f32]) {
    let parallelism = match threads {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    let (n_, k_) = (n as isize, k as isize);
    assert!(a.len() == m * k && b.len() == k * n && out.len() == m * n);
    let (a, b, out, no) = (a.as_ptr(), b.as_ptr(), out.as_mut_ptr(), false);
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx2 {
        use gemm_common::simd::{MixedSimd, V3};
        use gemm_f32::microkernel::fma::f32::{H_M, H_N, H_UKR, MR_DIV_N, NR, UKR};
        let simd =
            <V3 as MixedSimd<f32, f32, f32, f32>>::try_new().expect("AVX2 and FMA are there");
        let fused = |a: f32, b: f32, c: f32| a * b + c;
        // SAFETY: the slices are dense matrices of these shapes.
        return unsafe {
            gemm_common::gemm::gemm_basic_generic::<
                _,
                f32,
                8,
                { MR_DIV_N * 8 },
                NR,
                MR_DIV_N,
                H_M,
                H_N,
            >(
                simd,
                m,
                n,
                k,
                out,
                1,
                n_,
                no,
                a,
                1,
                k_,
                b,
                1,
                n_,
                0.0,
                1.0,
                no,
                no,
                no,
                fused,
                &UKR,
                &H_UKR,
                no,
                parallelism,
            );
        };
    }
    // SAFETY: the slices are dense matrices of these shapes.
    unsafe {
        gemm::gemm(m, n, k, out, 1, n_, no, a, 1, k_, b, 1, n_, 0.0, 1.0, no, no, no, parallelism);
    }
}

/// Operands whose products have the named corner.
fn operands(data: &str, a: usize, b: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut x, mut y) = (numbers(a, 1, -1.0, 1.0), numbers(b, 2, -1.0, 1.0));
    let zeros = |x: &mut [f32]| x.iter_mut().step_by(3).for_each(|x| *x = 0.0);
    let scale = |x: &mut [f32], by: f32| x.iter_mut().for_each(|x| *x *= by);
    match data {
        "zeros-one" => zeros(&mut y),
        "zeros-both" => [&mut x, &mut y].into_iter().for_each(|x| zeros(x)),
        "underflow" => [&mut x, &mut y].into_iter().for_each(|x| scale(x, 2f32.powi(-63))),
        // Large numbers everywhere, so that many products overflow.
        "overflow-dense" => [&mut x, &mut y].into_iter().for_each(|x| scale(x, 2f32.powi(65))),
        // A few large numbers that would overflow together, the sums of the others within the range.
        "overflow" => {
            x[0] = 2f32.powi(120);
            y[0] = 2f32.powi(120);
            let [stride_x, stride_y] = [1009, 1013];
            x.iter_mut().step_by(stride_x).for_each(|x| *x = 2f32.powi(120));
            y.iter_mut().step_by(stride_y).for_each(|y| *y = 2f32.powi(120));
        }
        _ => {}
    }
    (x, y)
}

/// Numbers of both signs between the bounds, none near zero.
fn numbers(n: usize, seed: u32, low: f32, high: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        low + (high - low) * (state >> 8) as f32 / (1 << 24) as f32
    };
    let keep = |x: f32| if x.abs() < 1e-4 { 0.5 } else { x };
    (0..n).map(|_| keep(next())).collect()
}
