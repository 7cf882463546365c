//! docs/numerics.md once more, written for checking: wide integers, one corner a line.

use std::num::Wrapping;

const BIAS: i64 = 0x3F80_0000;
const MIN: i64 = 0x0080_0000;
const INF: i64 = 0x7F80_0000;
const MANT: i64 = 0x007F_FFFF;
const SIGN: u32 = 0x8000_0000;
/// The NaN of every operation.
pub const NAN: u32 = 0x7FC0_0000;

fn mag(x: u32) -> i64 {
    i64::from(x & !SIGN)
}

fn zero(x: u32) -> bool {
    mag(x) < MIN
}

fn ranged(sign: u32, m: i64) -> u32 {
    match m {
        m if m < MIN => sign,
        m if m >= INF => sign | INF as u32,
        m => sign | m as u32,
    }
}

/// pa.mul on bit patterns.
pub fn mul(a: u32, b: u32) -> u32 {
    let sign = (a ^ b) & SIGN;
    if mag(a) > INF || mag(b) > INF {
        return NAN;
    }
    if (mag(a) == INF && zero(b)) || (mag(b) == INF && zero(a)) {
        return NAN;
    }
    if mag(a) == INF || mag(b) == INF {
        return sign | INF as u32;
    }
    if zero(a) || zero(b) {
        return sign;
    }
    ranged(sign, mag(a) + mag(b) - BIAS)
}

/// pa.mul_grad: the exact derivative in `a` applied to `d`.
pub fn mul_grad(a: u32, b: u32, d: u32) -> u32 {
    if [a, b, d].iter().any(|&x| mag(x) > INF) {
        return NAN;
    }
    let slope = if zero(b) {
        b & SIGN
    } else {
        let mantissa = if zero(a) { 0 } else { i64::from(a) & MANT };
        ranged(b & SIGN, (mag(b) + mantissa) & !MANT)
    };
    mul(d, slope)
}

/// Whether two results agree: the same bits, or NaN both.
pub fn same(a: u32, b: u32) -> bool {
    a == b || (mag(a) > INF && mag(b) > INF)
}

/// Σ over k of `product(k)`, ascending inside chunks of 256, chunk sums ascending.
pub fn sum(depth: usize, product: impl Fn(usize) -> u32) -> u32 {
    let mut total = 0.0f32;
    for begin in (0..depth).step_by(256) {
        let mut chunk = 0.0f32;
        for k in begin..depth.min(begin + 256) {
            chunk += f32::from_bits(product(k));
        }
        total += chunk;
    }
    total.to_bits()
}

/// Which values a test draws; each calls for another form of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Magnitudes around one: the raw form.
    Normal,
    /// Zeros on the left.
    ZerosLeft,
    /// Zeros on the right.
    ZerosRight,
    /// Zeros in both: the compare form.
    ZerosBoth,
    /// Products that underflow: the compare form.
    Underflow,
    /// Products that overflow and underflow: the full form.
    Overflow,
    /// Infinities and NaN.
    Specials,
    /// Any bit pattern.
    Bits,
}

/// Every kind of data.
pub const DATA: [Data; 8] = [
    Data::Normal,
    Data::ZerosLeft,
    Data::ZerosRight,
    Data::ZerosBoth,
    Data::Underflow,
    Data::Overflow,
    Data::Specials,
    Data::Bits,
];

/// A xorshift generator.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (Wrapping(self.0) * Wrapping(0x9E37_79B9_7F4A_7C15)).0.wrapping_shr(32) as u32
    }

    /// `count` values of a kind, as bit patterns.
    pub fn values(&mut self, data: Data, left: bool, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.value(data, left)).collect()
    }

    fn value(&mut self, data: Data, left: bool) -> u32 {
        let r = self.next();
        let normal = (r & SIGN) | ((118 + (r >> 23) % 12) << 23) | (r & MANT as u32);
        let rare = self.next().is_multiple_of(5);
        match data {
            Data::ZerosLeft if left && rare => r & SIGN,
            Data::ZerosRight if !left && rare => r & (SIGN | MANT as u32),
            Data::ZerosBoth if rare => r & SIGN,
            Data::Underflow if rare => (r & 0x80FF_FFFF) | ((r % 90) << 23),
            Data::Overflow => (r & (SIGN | MANT as u32)) | ((self.next() % 255) << 23),
            Data::Specials if self.next().is_multiple_of(40) => {
                [0x7F80_0000, 0xFF80_0000, 0x7F80_0001, NAN, 0, 1][(r % 6) as usize]
            }
            Data::Bits => r,
            _ => normal,
        }
    }
}
