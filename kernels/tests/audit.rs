//! The kernels of this very test do not multiply, and a planted multiplication is found.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use pam_kernels::Pool;
use pam_kernels::audit::{KernelAudit, Kind, SECTION, audit_self};
use pam_kernels::contract::{Arithmetic, Matrices, matmul};
use pam_kernels::elementwise::{Binary, Ternary, Unary, binary, ternary, unary};
use pam_kernels::reduce::{Reduction, reduce};
use std::hint::black_box;

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
    }
    for op in [Ternary::PaMulGrad(0), Ternary::PaDivGradA(0), Ternary::PaDivGradB(0)] {
        ternary(op, &a, &a, &z, &mut y);
    }
    let m = Matrices { data: &a, offsets: &[0], row: 64, col: 1 };
    let arithmetic = Arithmetic::Pa { offset: 0, mantissa: 23 };
    matmul(&pool, arithmetic, [64, 64, 64], m, m, &mut y);
    reduce(&pool, Reduction::Sum, [64, 64, 1], &a, &mut z[..64]);
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
    black_box(x);
    let kernels = audit_self().unwrap();
    for k in kernels.iter().filter(|k| !k.name.contains("planted")) {
        assert!(k.is_clean(), "{} in {SECTION}: {:?}", k.name, k.findings);
        assert!(k.instructions > 0);
    }
    assert!(kernels.len() > 20, "{} kernels", kernels.len());
    assert!(kernel(&kernels, "planted_float").count(Kind::FloatMultiply) > 0);
    let root = kernel(&kernels, "planted_root");
    assert!(root.count(Kind::SquareRoot) > 0 && root.count(Kind::FloatDivide) > 0);
    let integer = kernel(&kernels, "planted_integer");
    assert_eq!(integer.count(Kind::ScalarIntegerMultiply), 1);
    assert!(integer.is_clean(), "scalar integers may be addresses");
    assert!(!kernel(&kernels, "planted_call").is_clean(), "{kernels:?}");
}
