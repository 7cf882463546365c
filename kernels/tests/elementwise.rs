//! Loops over slices against the operations on single numbers, whatever the lengths and the numbers.

use pam_kernels::choice::{Comparison, compare, select};
use pam_kernels::compound::{Compound, compute};
use pam_kernels::elementwise::{Binary, Unary, binary, overwrite, unary};
use pam_kernels::pa;
use pam_kernels::reduce::{Product, Reduction, reduce_rows, sum_products};
use proptest::prelude::*;

/// Numbers that stay normal under every operation, or anything.
fn number(seed: u64, tame: bool) -> f32 {
    let x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let bits = (x >> 32) as u32;
    let special =
        [0, 1, 0x007F_FFFF, 0x0080_0000, 0x3F80_0000, 0x7F7F_FFFF, 0x7F80_0000, 0x7FC0_0000];
    match x % 5 {
        _ if tame => f32::from_bits(bits & 0x807F_FFFF | (112 + (x as u32 >> 3) % 31) << 23),
        0 => f32::from_bits(special[(bits % 8) as usize] | bits & 0x8000_0000),
        _ => f32::from_bits(bits),
    }
}

fn numbers(n: usize, seed: u64, tame: bool) -> Vec<f32> {
    (0..n as u64).map(|i| number(seed.wrapping_add(i), tame)).collect()
}

/// Zeros, subnormals and other numbers whose products are zero.
fn vanish(x: &mut [f32], step: usize) {
    let tiny = [0.0, -0.0, 1e-45, -2e-38, 1e-30, -0.0];
    x.iter_mut().step_by(step).enumerate().for_each(|(i, x)| *x = tiny[i % 6]);
}

proptest! {
    #[test]
    fn pairs_are_what_single_numbers_are(
        n in 1usize..700, seed in any::<u64>(), wild in 0usize..900, at in 0usize..700,
        offset in prop_oneof![Just(0), Just(1 << 20)], vanishing in any::<bool>(),
    ) {
        // Tame, but for some neighbours; with more than `n` all of them are tame.
        let mut a = numbers(n, seed, true);
        let mut b = numbers(n, seed ^ 0xABCD, true);
        if vanishing {
            vanish(&mut a, 3);
            vanish(&mut b, 5);
        }
        let span = at.min(n)..(at + wild % 100).min(n);
        a[span.clone()].copy_from_slice(&numbers(span.len(), seed, false));
        b[span.clone()].copy_from_slice(&numbers(span.len(), !seed, false));
        let mut y = vec![0.0; n];
        binary(Binary::PaMul(offset), &a, &b, &mut y);
        for i in 0..n {
            let expected = pa::mul(a[i], b[i], offset);
            prop_assert_eq!(y[i].to_bits(), expected.to_bits(), "{:e} {:e}", a[i], b[i]);
        }
        binary(Binary::PaDiv(offset), &a, &b, &mut y);
        for i in 0..n {
            let expected = pa::div(a[i], b[i], offset);
            prop_assert_eq!(y[i].to_bits(), expected.to_bits(), "{:e} {:e}", a[i], b[i]);
        }
    }

    #[test]
    fn slices_are_what_single_numbers_are(
        n in 1usize..700, seed in any::<u64>(), wild in 0usize..900, at in 0usize..700,
        k in prop_oneof![-3i32..3, -300i32..300], vanishing in any::<bool>(),
    ) {
        let mut x = numbers(n, seed, true);
        if vanishing {
            vanish(&mut x, 3);
        }
        let span = at.min(n)..(at + wild % 100).min(n);
        x[span.clone()].copy_from_slice(&numbers(span.len(), seed, false));
        // Between the numbers that powers of two are taken of, and those that logarithms are.
        for (x, spread) in [(x.clone(), false), (x.iter().map(|x| x.abs()).collect(), true)] {
            let mut y = vec![0.0; n];
            let mut check = |op, one: &dyn Fn(f32) -> f32| {
                unary(op, &x, &mut y);
                let wrong = x.iter().zip(&y).find(|(x, y)| one(**x).to_bits() != y.to_bits());
                prop_assert!(wrong.is_none(), "{:?} of {:?}, {}", op, wrong, spread);
                Ok(())
            };
            check(Unary::PaExp2, &pa::exp2)?;
            check(Unary::PaLog2, &pa::log2)?;
            check(Unary::Scale(k), &|x| pa::scale_pow2(x, k))?;
        }
    }

    #[test]
    fn compound_loops_are_what_their_operations_are(
        row in prop_oneof![1usize..200, 700usize..800, 4090usize..4200], rows in 1usize..6,
        seed in any::<u64>(), wild in 0usize..900, at in 0usize..900, vanishing in any::<bool>(),
        single in any::<bool>(), softmax in any::<bool>(), summed in any::<bool>(),
    ) {
        let n = row * rows;
        let mut x = numbers(n, seed, true);
        let [mut b, mut c] = [1, 2].map(|i| numbers(n, seed ^ i, true));
        // As masks of attention have them.
        let masks = [f32::NEG_INFINITY, f32::MIN, -1e9, 0.0];
        if vanishing {
            x.iter_mut().step_by(3).enumerate().for_each(|(i, x)| *x = masks[i % 4]);
            vanish(&mut b, 5);
        }
        let span = at.min(n)..(at + wild % 100).min(n);
        for (i, all) in [&mut x, &mut b, &mut c].into_iter().enumerate() {
            all[span.clone()].copy_from_slice(&numbers(span.len(), seed.rotate_left(i as u32), false));
        }
        let tame = wild % 2 == 0;
        let mut per_row = [7, 8, 9].map(|i| numbers(if single { 1 } else { rows }, seed ^ i, tame));
        if softmax {
            let bounds = [f32::MIN, f32::NAN, -1e9, -3.5, f32::MIN];
            let scales = [std::f32::consts::LOG2_E, 1.0, 0.5, 1e18, 3e17];
            for (i, x) in x.iter_mut().enumerate().filter(|(_, x)| x.abs() < 1e5) {
                *x = *x / 256.0 + (i % 7) as f32;
            }
            for r in 0..per_row[0].len() {
                let [p, q, s] = [5, 7, 3].map(|n| (seed >> (n * r)) as usize % n);
                (per_row[0][r], per_row[1][r], per_row[2][r]) = (scales[p], bounds[q % 5], s as f32);
            }
        }
        let [p, q, s] = [&per_row[0][..], &per_row[1], &per_row[2]];
        let chain = |operations: &[(Binary, &[f32])], last: Option<Unary>| {
            let mut now = x.clone();
            let mut next = vec![0.0; n];
            for (op, by) in operations {
                binary(*op, &now, by, &mut next);
                std::mem::swap(&mut now, &mut next);
            }
            if let Some(op) = last {
                unary(op, &now, &mut next);
                std::mem::swap(&mut now, &mut next);
            }
            now
        };
        let mul = Binary::PaMul(0);
        let cases = [
            (
                Compound::PaExponentials,
                [p, q, s],
                chain(&[(mul, p), (Binary::Max, q), (Binary::Sub, s)], Some(Unary::PaExp2)),
            ),
            (Compound::Exponentials, [s, &[], &[]], chain(&[(Binary::Sub, s)], Some(Unary::Exp))),
            (
                Compound::PaAffine,
                [p, &b, &c],
                chain(&[(Binary::PaDiv(0), p), (mul, &b), (Binary::Add, &c)], None),
            ),
            (
                Compound::Affine,
                [p, &b, &c],
                chain(&[(Binary::Div, p), (Binary::Mul, &b), (Binary::Add, &c)], None),
            ),
        ];
        for (compound, by, expected) in cases {
            let mut y = vec![0.0; n];
            let mut sums = vec![0.0; if summed { rows } else { 0 }];
            compute(compound, row, &x, by, &mut y, &mut sums);
            let same = |y: f32, z: f32| y.to_bits() == z.to_bits() || y.is_nan() && z.is_nan();
            let wrong = (0..n).find(|&i| !same(y[i], expected[i]));
            prop_assert!(wrong.is_none(), "{compound:?}: {:?}", wrong.map(|i| (x[i], y[i], expected[i])));
            if matches!(compound, Compound::PaExponentials | Compound::Exponentials) {
                let mut expected = sums.clone();
                reduce_rows(Reduction::Sum, row, &y[..row * sums.len()], &mut expected);
                prop_assert!(sums.iter().zip(&expected).all(|(s, e)| same(*s, *e)), "{compound:?}");
            }
        }
    }

    #[test]
    fn sums_of_products_are_sums_of_stored_ones(
        row in prop_oneof![1usize..200, 4090usize..4200], rows in 1usize..6, seed in any::<u64>(),
        wild in 0usize..900, at in 0usize..900,
    ) {
        let n = row * rows;
        let mut a = numbers(n, seed, true);
        let mut b = numbers(n, !seed, true);
        let span = at.min(n)..(at + wild % 100).min(n);
        // Zeros and ends of the range, whose sums stay numbers, in one operand or in both.
        let ends = [0.0, -0.0, 1e-38, 1e-45, -3e38];
        for i in span {
            a[i] = ends[i % (4 + wild % 3 % 2)];
            b[i] = if wild % 2 == 0 { b[i] } else { ends[i % 3] };
        }
        let bits = |y: &[f32]| {
            let number = |x: &f32| if x.is_nan() { f32::NAN } else { *x };
            y.iter().map(|x| number(x).to_bits()).collect::<Vec<u32>>()
        };
        for (product, op) in [(Product::Native, Binary::Mul), (Product::Pa, Binary::PaMul(0))] {
            let mut products = vec![0.0; n];
            binary(op, &a, &b, &mut products);
            let (mut y, mut z) = (vec![0.0; rows], vec![0.0; rows]);
            reduce_rows(Reduction::Sum, row, &products, &mut y);
            sum_products(product, row, &a, &b, &mut z);
            prop_assert_eq!(bits(&y), bits(&z), "{:?}", product);
            binary(op, &a, &a, &mut products);
            reduce_rows(Reduction::Sum, row, &products, &mut y);
            sum_products(product, row, &a, &a, &mut z);
            prop_assert_eq!(bits(&y), bits(&z), "squares, {:?}", product);
        }
    }

    #[test]
    fn extremes_of_rows_are_folds(
        row in 1usize..90, rows in 1usize..6, seed in any::<u64>(), kind in 0usize..3,
    ) {
        let mut x = numbers(row * rows, seed, kind == 0);
        if kind == 1 {
            // Zeros of both signs, with nothing above them or nothing below.
            let sign = if seed % 2 == 0 { 1.0 } else { -1.0 };
            x.iter_mut().for_each(|x| *x = if x.to_bits() % 3 == 0 { x.abs() * sign } else { *x * 0.0 });
        }
        let greater = |a: f32, b: f32| if a > b { a } else { b };
        let smaller = |a: f32, b: f32| if a < b { a } else { b };
        let cases: [(_, _, &dyn Fn(f32, f32) -> f32); 2] = [
            (Reduction::Max, f32::NEG_INFINITY, &greater),
            (Reduction::Min, f32::INFINITY, &smaller),
        ];
        for (reduction, start, pick) in cases {
            let mut y = vec![0.0; rows];
            reduce_rows(reduction, row, &x, &mut y);
            for (x, y) in x.chunks(row).zip(y) {
                match x.iter().any(|x| x.is_nan()) {
                    true => prop_assert!(y.is_nan(), "{:?} of {:?}: {:?}", reduction, x, y),
                    false => {
                        let expected = x.iter().copied().fold(start, pick);
                        prop_assert_eq!(expected.to_bits(), y.to_bits(), "{:?} of {:?}", reduction, x);
                    }
                }
            }
        }
    }

    #[test]
    fn a_shorter_operand_is_repeated(
        row in 1usize..300, rows in 1usize..9, seed in any::<u64>(), tame in any::<bool>(),
        vanishing in any::<bool>(), wild in 0usize..2000,
    ) {
        let n = row * rows;
        let (mut a, b) = (numbers(n, seed, tame), numbers(rows, !seed, tame));
        if vanishing {
            vanish(&mut a, 7);
        }
        let some = wild.min(n)..(wild + 5).min(n);
        a[some.clone()].copy_from_slice(&numbers(some.len(), seed ^ 5, false));
        let wide: Vec<f32> = b.iter().flat_map(|&b| std::iter::repeat_n(b, row)).collect();
        let (mut y, mut z) = (vec![0.0; n], vec![0.0; n]);
        let bits = |y: &[f32]| {
            let number = |x: &f32| if x.is_nan() { f32::NAN } else { *x };
            y.iter().map(|x| number(x).to_bits()).collect::<Vec<u32>>()
        };
        for op in [Binary::PaMul(0), Binary::PaMul(3), Binary::PaDiv(0), Binary::PaDiv(-3),
            Binary::Add, Binary::Sub, Binary::Max, Binary::Min, Binary::Mul, Binary::Div,
            Binary::PaExp2Grad, Binary::PaLog2Grad, Binary::Pow, Binary::Rem]
        {
            binary(op, &a, &b, &mut y);
            binary(op, &a, &wide, &mut z);
            prop_assert_eq!(bits(&y), bits(&z), "{:?} on the right", op);
            z.copy_from_slice(&a);
            overwrite(op, &mut z, &b);
            prop_assert_eq!(bits(&y), bits(&z), "{:?} in place", op);
            binary(op, &b, &a, &mut y);
            binary(op, &wide, &a, &mut z);
            prop_assert_eq!(bits(&y), bits(&z), "{:?} on the left", op);
        }
    }
}

proptest! {
    #[test]
    fn comparisons_and_selections(
        row in 1usize..90, rows in 1usize..9, seed in any::<u64>(), lengths in (0usize..3, 0usize..3),
    ) {
        let n = row * rows;
        // Few different numbers, so that some are equal.
        let few = |seed, n| -> Vec<f32> {
            numbers(n, seed, false).iter().map(|x| [*x, 1.5, -0.0, 0.0][x.to_bits() as usize % 4]).collect()
        };
        let length = |which: usize| [n, rows, 1][which];
        let wide = |x: &[f32]| -> Vec<f32> { (0..n).map(|i| x[i / (n / x.len())]).collect() };
        let (a, b) = (few(seed, length(lengths.0)), few(!seed, length(lengths.1)));
        let (wide_a, wide_b) = (wide(&a), wide(&b));
        let condition: Vec<u8> = numbers(n, seed ^ 1, false).iter().map(|x| x.to_bits() as u8 & 3).collect();
        let mut y = vec![0.0; n];
        select(&condition, &a, &b, &mut y);
        for i in 0..n {
            let expected = if condition[i] != 0 { wide_a[i] } else { wide_b[i] };
            prop_assert_eq!(y[i].to_bits(), expected.to_bits());
        }
        for (comparison, holds) in [
            (Comparison::Equal, (|a, b| a == b) as fn(f32, f32) -> bool),
            (Comparison::Less, |a, b| a < b),
            (Comparison::LessOrEqual, |a, b| a <= b),
            (Comparison::Greater, |a, b| a > b),
            (Comparison::GreaterOrEqual, |a, b| a >= b),
        ] {
            let mut y = vec![9u8; n];
            let expected: Vec<u8> = (0..n).map(|i| holds(wide_a[i], wide_b[i]).into()).collect();
            compare(comparison, &a, &wide_b, &mut y);
            prop_assert_eq!(&y, &expected, "{:?}", comparison);
            compare(comparison, &wide_a, &b, &mut y);
            prop_assert_eq!(&y, &expected, "{:?}", comparison);
        }
    }
}

/// Blocks of one pair of numbers each, at the ends of what goes the quick way.
#[test]
fn ends_of_the_quick_ranges() {
    let bits = |e: i32| ((e + 127) as u32) << 23;
    let mut ends: Vec<u32> = [-126, -62, -63, 0, 1, 63, 64, 127, 128].map(bits).into();
    ends.extend([1, 0x7F80_0000, 126f32.to_bits()]);
    let mut numbers = Vec::new();
    for end in ends {
        numbers.extend([end - 1, end, end + 1].map(f32::from_bits));
    }
    // Partners whose product or quotient is at an end of the range.
    for b in numbers.clone() {
        for end in [1u32 << 23, 0x7F80_0000] {
            let (bias, b) = (0x3F80_0000u32, b.to_bits());
            let product = end.wrapping_add(bias).wrapping_sub(b);
            for partner in [product, end.wrapping_add(b).wrapping_sub(bias)] {
                let near = [partner.wrapping_sub(1), partner, partner.wrapping_add(1)];
                numbers.extend(near.map(|p| f32::from_bits(p & 0x7FFF_FFFF)));
            }
        }
    }
    numbers.dedup_by_key(|x| x.to_bits());
    let signed: Vec<f32> = numbers.iter().flat_map(|&x| [x, -x]).collect();
    let mut y = [0f32; 64];
    for (i, &b) in signed.iter().enumerate() {
        for &a in signed.iter().skip(i % 5).step_by(5) {
            let (product, quotient) = (pa::mul(a, b, 0).to_bits(), pa::div(a, b, 0).to_bits());
            for row in [&[b][..], &[b; 64]] {
                binary(Binary::PaMul(0), &[a; 64], row, &mut y);
                assert!(y.iter().all(|y| y.to_bits() == product), "{a:e} · {b:e}");
                binary(Binary::PaDiv(0), &[a; 64], row, &mut y);
                assert!(y.iter().all(|y| y.to_bits() == quotient), "{a:e} / {b:e}");
            }
        }
        for (op, expected) in [
            (Unary::PaExp2, pa::exp2(b)),
            (Unary::PaLog2, pa::log2(b)),
            (Unary::Scale(3), pa::scale_pow2(b, 3)),
            (Unary::Scale(-300), pa::scale_pow2(b, -300)),
        ] {
            unary(op, &[b; 64], &mut y);
            assert!(y.iter().all(|y| y.to_bits() == expected.to_bits()), "{op:?} of {b:e}");
        }
    }
}
