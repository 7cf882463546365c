//! The kernels of this very test do not multiply, and a planted multiplication is found.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use pam_kernels::Pool;
use pam_kernels::audit::{KernelAudit, Kind, SECTION, audit_file, audit_self};
use pam_kernels::choice::{Comparison, compare, select};
use pam_kernels::compound::{Compound, compute};
use pam_kernels::contract::{Arithmetic, Matrices, matmul, matmul_grad_a};
use pam_kernels::elementwise::{Binary, Ternary, Unary, binary, overwrite, ternary, unary};
use pam_kernels::random::fill_uniform;
use pam_kernels::reduce::{Product, Reduction, reduce, sum_products};
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

#[inline(never)]
#[unsafe(link_section = "pam_text")]
fn planted_float(x: &mut [f32], c: f32) {
    x.iter_mut().for_each(|x| *x *= c);
}

#[inline(never)]
#[unsafe(link_section = "pam_text")]
fn planted_root(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = 1.0 / x.sqrt());
}

#[inline(never)]
#[unsafe(link_section = "pam_text")]
#[target_feature(enable = "avx2,fma")]
fn planted_fused(x: &mut [f32], c: f32) {
    x.iter_mut().for_each(|x| *x = x.mul_add(c, c));
}

#[inline(never)]
#[unsafe(link_section = "pam_text")]
#[target_feature(enable = "avx2")]
fn planted_vector(x: &mut [i32], c: i32) {
    x.iter_mut().for_each(|x| *x = x.wrapping_mul(c));
}

/// Hides a multiplication behind a pointer.
#[inline(never)]
#[unsafe(link_section = "pam_text")]
fn planted_pointer(f: fn(f32) -> f32, x: f32) -> f32 {
    f(x) + x
}

/// The same as its last act, which is a jump.
#[inline(never)]
#[unsafe(link_section = "pam_text")]
fn planted_jump(f: fn(f32) -> f32, x: f32) -> f32 {
    f(x)
}

/// Jumps through a table, which stays inside.
#[inline(never)]
#[unsafe(link_section = "pam_text")]
fn innocent_table(which: u32, x: &mut [u32; 8]) {
    match which {
        0 => x[0] ^= 5,
        1 => x[3] ^= x[1],
        2 => x.fill(9),
        3 => x.swap(1, 2),
        4 => x[7] = x[6] & x[5],
        5 => x[2] <<= x[1] & 7,
        6 => x.reverse(),
        7 => x[5] = x[4].rotate_left(3),
        _ => {}
    }
}

#[inline(never)]
#[unsafe(link_section = "pam_text")]
fn planted_integer(x: u64, y: u64) -> u64 {
    x.wrapping_mul(y)
}

#[inline(never)]
#[unsafe(link_section = "pam_text")]
fn planted_call(x: f32) -> f32 {
    x.sin()
}

/// Uses the kernels, so that the linker keeps them.
fn use_kernels() {
    let pool = Pool::new(2).unwrap();
    let a: Vec<f32> = (0..64 * 64).map(|i| i as f32 / 64.0 - 30.0).collect();
    let (mut y, mut z) = (a.clone(), a.clone());
    for op in [Unary::PaExp2, Unary::PaLog2, Unary::Scale(3), Unary::Round(4)] {
        unary(op, &a, &mut y);
    }
    for op in [
        Binary::PaMul(0),
        Binary::PaMul(5),
        Binary::PaDiv(0),
        Binary::PaExp2Grad,
        Binary::PaLog2Grad,
    ] {
        binary(op, &a, &y, &mut z);
        overwrite(op, &mut z, &a[..64]);
    }
    for op in [Ternary::PaMulGrad(0), Ternary::PaDivGradA(0), Ternary::PaDivGradB(0)] {
        ternary(op, &a, &a, &z, &mut y);
    }
    let m = Matrices { data: &a, offsets: &[0], row: 64, col: 1 };
    let arithmetic = Arithmetic::Pa { offset: 0, mantissa: 23 };
    matmul(&pool, arithmetic, [64, 64, 64], m, m, &mut y);
    matmul_grad_a(&pool, (0, 5), [64, 64, 64], m, m, m, &mut y);
    reduce(&pool, Reduction::Sum, [64, 64, 1], &a, &mut z[..64]);
    sum_products(Product::Pa, 64, &a, &a, &mut z[..64]);
    let mut sums = vec![0.0; 256];
    for row in [16, 64] {
        let sums = &mut sums[..a.len() / row];
        compute(Compound::PaExponentials, row, &a, [&a[..1]; 3], &mut z, sums);
    }
    compute(Compound::PaAffine, 64, &a, [&a[..1], &a, &a], &mut z, &mut []);
    let mut truths = vec![0; a.len()];
    compare(Comparison::Less, &a, &y, &mut truths);
    select(&truths, &a, &y, &mut z);
    fill_uniform([1, 2], 0, 0, &mut z);
    black_box((y, z));
}

fn kernel<'a>(kernels: &'a [KernelAudit], name: &str) -> &'a KernelAudit {
    let found = kernels.iter().find(|k| k.name.ends_with(name));
    found.unwrap_or_else(|| panic!("no kernel {name}"))
}

#[test]
fn kernels_are_clean_and_planted_multiplications_are_found() {
    use_kernels();
    let mut x = vec![2.0f32; black_box(37)];
    planted_float(&mut x, black_box(3.0));
    planted_root(&mut x);
    black_box(planted_integer(black_box(3), black_box(5)));
    black_box(planted_call(black_box(3.0)));
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has the features.
        unsafe {
            planted_fused(&mut x, black_box(3.0));
            planted_vector(black_box(&mut [3; 37]), black_box(5));
        }
    }
    black_box(planted_pointer(black_box(f32::sin), 3.0));
    black_box(planted_jump(black_box(f32::sin), 3.0));
    innocent_table(black_box(5), black_box(&mut [7; 8]));
    black_box(x);
    let start = Instant::now();
    let kernels = audit_self().unwrap();
    println!("audited {} kernels in {:?}", kernels.len(), start.elapsed());
    for k in kernels.iter().filter(|k| !k.name.contains("planted")) {
        assert!(k.is_clean(), "{} in {SECTION}: {:?}", k.name, k.findings);
        assert!(k.instructions > 0);
    }
    assert!(kernels.len() > 20, "{} kernels", kernels.len());
    for name in [
        "pam::map1",
        "pam::pairs",
        "pam::map3",
        "avx2::compare",
        "avx512::compare",
        "avx512_grad::raw",
        "rows::accumulate",
        "facts::gather",
        "pack::sums",
        "pack::floors",
        "pack::sizes",
        "pack::masks",
        "pack::narrow",
        "grad::raise",
        "reduce::rows",
        "products::pa_products",
        "choice::test_pairs",
        "choice::select_pairs",
        "stand_in::settle",
        "reduce::columns",
        "forms::pam::map",
        "elementwise::forms2",
        "random::fill",
        "store_rows",
    ] {
        let held = kernels.iter().any(|k| k.name.contains(name));
        assert!(held, "no {name} among {:?}", kernels.iter().map(|k| &k.name).collect::<Vec<_>>());
    }
    for (name, kind) in [
        ("planted_float", Kind::FloatMultiply),
        ("planted_root", Kind::SquareRoot),
        ("planted_root", Kind::FloatDivide),
        ("planted_fused", Kind::FusedMultiplyAdd),
        ("planted_vector", Kind::VectorIntegerMultiply),
        ("planted_call", Kind::Call),
        ("planted_pointer", Kind::Call),
        ("planted_jump", Kind::Call),
    ] {
        let kernel = kernel(&kernels, name);
        assert!(kernel.count(kind) > 0 && !kernel.is_clean(), "{kind:?} in {kernel:?}");
    }
    let integer = kernel(&kernels, "planted_integer");
    assert_eq!(integer.count(Kind::ScalarIntegerMultiply), 1);
    assert!(integer.is_clean(), "scalar integers may be addresses");
    let table = kernel(&kernels, "innocent_table");
    assert!(table.instructions > 20, "{table:?}");
}

#[test]
fn a_stripped_executable_is_refused() {
    let folder = std::env::temp_dir().join(format!("pam-audit-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let stripped = folder.join("stripped");
    let strip = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(std::env::current_exe().unwrap())
        .status();
    if strip.is_ok_and(|s| s.success()) {
        let error = audit_file(&stripped).unwrap_err().to_string();
        assert!(error.contains("do not strip it"), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
