//! Every primitive against docs/numerics.md, written down a second time: wide integers, one corner a
//! line. All upper halves of the bit pattern meet 64 partners, bit for bit, number by number and
//! along slices.

use pam_kernels::elementwise::{Binary, Ternary, Unary, binary, ternary, unary};
use pam_kernels::pa;

const BIAS: i64 = 0x3F80_0000;
const MIN: i64 = 0x0080_0000;
const INF: i64 = 0x7F80_0000;
const MANTISSA: i64 = 0x007F_FFFF;
const NAN: u32 = 0x7FC0_0000;
const SIGN: u32 = 0x8000_0000;
/// α = 1, 1.0625, 0.75, and the ends of the range, 0.5 and the last float below 2.
const OFFSETS: [i32; 5] = [0, 0x0008_0000, -0x0040_0000, -0x0080_0000, 0x007F_FFFF];

fn magnitude(x: u32) -> i64 {
    i64::from(x & !SIGN)
}
fn nan(x: u32) -> bool {
    magnitude(x) > INF
}
fn infinite(x: u32) -> bool {
    magnitude(x) == INF
}
fn zero(x: u32) -> bool {
    magnitude(x) < MIN
}
fn mantissa(x: u32) -> i64 {
    if zero(x) { 0 } else { magnitude(x) & MANTISSA }
}
fn ranged(sign: u32, m: i64) -> u32 {
    match m {
        ..MIN => sign,
        INF.. => sign | INF as u32,
        _ => sign | m as u32,
    }
}

fn mul(a: u32, b: u32, offset: i64) -> u32 {
    let sign = (a ^ b) & SIGN;
    if nan(a) || nan(b) || infinite(a) && zero(b) || zero(a) && infinite(b) {
        return NAN;
    }
    if infinite(a) || infinite(b) {
        return sign | INF as u32;
    }
    if zero(a) || zero(b) {
        return sign;
    }
    ranged(sign, magnitude(a) + magnitude(b) - BIAS + offset)
}

fn div(a: u32, b: u32, offset: i64) -> u32 {
    let sign = (a ^ b) & SIGN;
    if nan(a) || nan(b) || zero(a) && zero(b) || infinite(a) && infinite(b) {
        return NAN;
    }
    if infinite(a) || zero(b) {
        return sign | INF as u32;
    }
    if zero(a) || infinite(b) {
        return sign;
    }
    ranged(sign, magnitude(a) - magnitude(b) + BIAS - offset)
}

/// The nearest integer to `n / 2^down`, ties to even; `down` may be negative.
fn nearest(n: i128, down: i32) -> i128 {
    if down <= 0 {
        return n << -down;
    }
    if down > 100 {
        return 0;
    }
    let unit = 1i128 << down;
    let (low, rest) = (n.div_euclid(unit), n.rem_euclid(unit));
    low + i128::from(rest * 2 > unit || rest * 2 == unit && low % 2 != 0)
}

/// A finite number as `significand · 2^exponent`.
fn parts(x: u32) -> (i128, i32) {
    if zero(x) {
        return (0, 0);
    }
    let size = (magnitude(x) & MANTISSA | MIN) as i128;
    (if x & SIGN != 0 { -size } else { size }, (magnitude(x) >> 23) as i32 - 150)
}

fn exp2(x: u32) -> u32 {
    if nan(x) {
        return NAN;
    }
    if infinite(x) {
        return if x & SIGN != 0 { 0 } else { INF as u32 };
    }
    let (significand, exponent) = parts(x);
    // A comparison with an integer, in exact arithmetic.
    let below = |n: i128| {
        if exponent >= 0 {
            significand << exponent < n
        } else if exponent < -100 {
            // Far below one.
            n > 0
        } else {
            significand < n << -exponent
        }
    };
    if exponent < 8 && below(-126) || exponent >= 8 && significand < 0 {
        return 0;
    }
    if exponent >= 8 || !below(128) {
        return INF as u32;
    }
    (nearest(significand, -(exponent + 23)) + i128::from(BIAS)) as u32
}

fn log2(x: u32) -> u32 {
    if nan(x) || x & SIGN != 0 && !zero(x) {
        return NAN;
    }
    if zero(x) {
        return SIGN | INF as u32;
    }
    if infinite(x) {
        return x;
    }
    let steps = i64::from(x) - BIAS;
    if steps == 0 {
        return 0;
    }
    let sign = if steps < 0 { SIGN } else { 0 };
    let size = i128::from(steps.abs());
    let length = 128 - size.leading_zeros() as i32;
    let significand = nearest(size, length - 24);
    // significand · 2^(length − 24 − 23); a carry into the exponent adds up by itself.
    sign | (((length - 24 - 23 + 149) << 23) as u32 + significand as u32)
}

fn mul_grad(a: u32, b: u32, delta: u32, offset: i64) -> u32 {
    if nan(a) || nan(b) {
        return NAN;
    }
    let slope = if zero(b) { 0 } else { (magnitude(b) + mantissa(a) + offset) & !MANTISSA };
    mul(delta, ranged(b & SIGN, slope), 0)
}

fn div_grad_a(a: u32, b: u32, delta: u32, offset: i64) -> u32 {
    if nan(a) || nan(b) {
        return NAN;
    }
    let slope = (BIAS + mantissa(a) - magnitude(b) + BIAS - offset) & !MANTISSA;
    let slope = if zero(b) { INF } else { slope };
    mul(delta, ranged(b & SIGN, if infinite(b) { 0 } else { slope }), 0)
}

fn div_grad_b(a: u32, b: u32, delta: u32, offset: i64) -> u32 {
    let q = div(a, b, offset);
    if nan(q) {
        return NAN;
    }
    let exponent = |x: u32| magnitude(x) >> 23;
    let slope = if zero(q) {
        0
    } else if infinite(q) || zero(b) {
        INF
    } else {
        (exponent(q) - exponent(b) + 127) * MIN
    };
    mul(delta, ranged((a & SIGN) ^ SIGN, slope), 0)
}

fn exp2_grad(x: u32, delta: u32) -> u32 {
    if nan(x) {
        return NAN;
    }
    let (significand, exponent) = parts(x);
    let floor = if infinite(x) || exponent > 0 {
        if x & SIGN != 0 { -1000 } else { 1000 }
    } else {
        (significand >> (-exponent).min(120)).clamp(-1000, 1000) as i64
    };
    mul(delta, ranged(0, (floor + 127) * MIN), 0)
}

fn log2_grad(x: u32, delta: u32) -> u32 {
    if nan(x) || x & SIGN != 0 && !zero(x) {
        return NAN;
    }
    let slope = if zero(x) {
        INF
    } else if infinite(x) {
        0
    } else {
        (127 - (magnitude(x) / MIN - 127)) * MIN
    };
    mul(delta, ranged(0, slope), 0)
}

/// Corners first, then numbers of all sizes.
fn partners() -> Vec<u32> {
    let mut all = vec![
        0,
        1,
        0x007F_FFFF,
        0x0080_0000,
        0x0080_0001,
        0x3F7F_FFFF,
        0x3F80_0000,
        0x3F80_0001,
        0x4000_0000,
        0x3FFF_FFFF,
        0x3FC0_0000,
        0x7F7F_FFFF,
        0x7F00_0000,
        0x7F80_0000,
        0x7F80_0001,
        0x7FC0_0000,
        0x7FFF_FFFF,
        0x3FB8_AA3B,
        0x3F31_7218,
    ];
    all.extend(all.clone().iter().map(|x| x | SIGN));
    let mut state = 0x2545_F491u32;
    while all.len() < 64 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        all.push(state ^ state >> 15);
    }
    all
}

fn numbers() -> Vec<f32> {
    let lower = [0, 0x8001, 0xFFFF, 1];
    let bits = (0..=0xFFFFu32).flat_map(|upper| lower.map(|low| upper << 16 | low));
    bits.map(f32::from_bits).collect()
}

fn check(name: &str, operands: &[u32], given: f32, expected: u32) {
    // Every NaN of a PA operation is the same one.
    assert_eq!(
        given.to_bits(),
        expected,
        "{name}({operands:08x?}) = {:08x}, expected {expected:08x}",
        given.to_bits()
    );
}

#[test]
fn functions_of_one_number() {
    let x = numbers();
    let mut y = vec![0.0; x.len()];
    type Case = (&'static str, Unary, fn(f32) -> f32, fn(u32) -> u32);
    let cases: [Case; 2] =
        [("exp2", Unary::PaExp2, pa::exp2, exp2), ("log2", Unary::PaLog2, pa::log2, log2)];
    for (name, op, scalar, spec) in cases {
        unary(op, &x, &mut y);
        for (&x, &y) in x.iter().zip(&y) {
            check(name, &[x.to_bits()], scalar(x), spec(x.to_bits()));
            check(name, &[x.to_bits()], y, spec(x.to_bits()));
        }
    }
}

#[test]
fn functions_of_two_numbers() {
    let x = numbers();
    let mut y = vec![0.0; x.len()];
    type Case<'a> = (&'a str, Binary, &'a dyn Fn(f32, f32) -> f32, &'a dyn Fn(u32, u32) -> u32);
    for offset in OFFSETS {
        let o = i64::from(offset);
        let cases: [Case<'_>; 4] = [
            ("mul", Binary::PaMul(offset), &|a, b| pa::mul(a, b, offset), &|a, b| mul(a, b, o)),
            ("div", Binary::PaDiv(offset), &|a, b| pa::div(a, b, offset), &|a, b| div(a, b, o)),
            ("exp2_grad", Binary::PaExp2Grad, &pa::exp2_grad, &exp2_grad),
            ("log2_grad", Binary::PaLog2Grad, &pa::log2_grad, &log2_grad),
        ];
        for (name, op, scalar, spec) in cases {
            for partner in partners() {
                let other = f32::from_bits(partner);
                for swap in [false, true] {
                    let others = vec![other; x.len()];
                    let (a, b) = if swap { (&others, &x) } else { (&x, &others) };
                    binary(op, a, b, &mut y);
                    for ((&a, &b), &y) in a.iter().zip(b).zip(&y) {
                        let operands = [a.to_bits(), b.to_bits()];
                        let expected = spec(operands[0], operands[1]);
                        check(name, &operands, scalar(a, b), expected);
                        check(name, &operands, y, expected);
                    }
                }
            }
        }
    }
}

#[test]
fn functions_of_three_numbers() {
    // The third operand only meets a power of two, so that few of them tell everything.
    let deltas = [0, 0x3FC1_2345, 0xBF80_0000, 0x0091_2345, 0xFF7F_FFFF, 0x7F80_0000, 0x7FA0_0000];
    let x: Vec<f32> = numbers().into_iter().step_by(2).collect();
    let mut y = vec![0.0; x.len()];
    type Case<'a> =
        (&'a str, Ternary, &'a dyn Fn(f32, f32, f32) -> f32, &'a dyn Fn(u32, u32, u32) -> u32);
    for offset in OFFSETS {
        let o = i64::from(offset);
        let cases: [Case<'_>; 3] = [
            (
                "mul_grad",
                Ternary::PaMulGrad(offset),
                &|a, b, d| pa::mul_grad(a, b, d, offset),
                &|a, b, d| mul_grad(a, b, d, o),
            ),
            (
                "div_grad_a",
                Ternary::PaDivGradA(offset),
                &|a, b, d| pa::div_grad_a(a, b, d, offset),
                &|a, b, d| div_grad_a(a, b, d, o),
            ),
            (
                "div_grad_b",
                Ternary::PaDivGradB(offset),
                &|a, b, d| pa::div_grad_b(a, b, d, offset),
                &|a, b, d| div_grad_b(a, b, d, o),
            ),
        ];
        for (name, op, scalar, spec) in cases {
            for (i, partner) in partners().into_iter().enumerate() {
                let other = vec![f32::from_bits(partner); x.len()];
                // Corners meet every delta, the rest one each.
                let all = if i < 38 { 0..deltas.len() } else { i % 7..i % 7 + 1 };
                for delta in all.map(|d| f32::from_bits(deltas[d])) {
                    for swap in [false, true] {
                        let (a, b) = if swap { (&other, &x) } else { (&x, &other) };
                        ternary(op, a, b, &vec![delta; x.len()], &mut y);
                        for ((&a, &b), &y) in a.iter().zip(b).zip(&y) {
                            let operands = [a.to_bits(), b.to_bits(), delta.to_bits()];
                            let expected = spec(operands[0], operands[1], operands[2]);
                            check(name, &operands, scalar(a, b, delta), expected);
                            check(name, &operands, y, expected);
                        }
                    }
                }
            }
        }
    }
}
