//! The piecewise affine operations on single numbers: the specification every other form agrees with
//! bit for bit.
//!
//! Kosson & Jaggi, "Multiplication-Free Transformer Training via Piecewise Affine Operations"
//! (NeurIPS 2023), sections 2.2 to 2.7; the corners are those of docs/numerics.md. No function here
//! multiplies: scalings by powers of two are additions to the exponent. All are written without
//! branches so that loops over them vectorise.

use std::ops::Range;

const SIGN: u32 = 0x8000_0000;
pub(crate) const MAGNITUDE: u32 = 0x7FFF_FFFF;
pub(crate) const BIAS: u32 = 0x3F80_0000;
pub(crate) const MIN: u32 = 0x0080_0000;
pub(crate) const INF: u32 = 0x7F80_0000;
const MANTISSA: u32 = 0x007F_FFFF;
const NAN: u32 = 0x7FC0_0000;

/// The error compensation of the paper's section 2.7: `bits(α) − bits(1)`, 0 for plain PA.
pub type Offset = i32;

#[inline(always)]
pub(crate) fn magnitude(x: f32) -> u32 {
    x.to_bits() & MAGNITUDE
}

/// The mantissa; 0 for zeros, subnormals and infinities.
#[inline(always)]
fn mantissa(x: f32) -> u32 {
    let m = magnitude(x);
    if m < MIN { 0 } else { m & MANTISSA }
}

/// The PA product: the sum of the bit patterns.
#[inline(always)]
pub fn mul(a: f32, b: f32, offset: Offset) -> f32 {
    let (ma, mb) = (magnitude(a), magnitude(b));
    let sign = (a.to_bits() ^ b.to_bits()) & SIGN;
    let bias = BIAS.wrapping_sub(offset as u32);
    // Two magnitudes are below 2^31 each, so their sum fits 32 bits.
    let sum = ma + mb;
    let low = ma.min(mb);
    let high = ma.max(mb);
    let mut m = sum.wrapping_sub(bias);
    m = if sum < bias.wrapping_add(MIN) { 0 } else { m };
    m = if sum >= bias.wrapping_add(INF) { INF } else { m };
    m = if low < MIN { 0 } else { m };
    m = if high == INF { INF } else { m };
    let nan = (high > INF) | ((high == INF) & (low < MIN));
    f32::from_bits(if nan { NAN } else { sign | m })
}

/// The PA quotient: the difference of the bit patterns.
#[inline(always)]
pub fn div(a: f32, b: f32, offset: Offset) -> f32 {
    let (ma, mb) = (magnitude(a), magnitude(b));
    let sign = (a.to_bits() ^ b.to_bits()) & SIGN;
    let difference = ma as i32 - mb as i32;
    let shift = BIAS as i32 - offset;
    let mut m = difference.wrapping_add(shift) as u32;
    m = if difference < MIN as i32 - shift { 0 } else { m };
    // INF − shift fits, since α lies between one half and two.
    m = if difference >= INF as i32 - shift { INF } else { m };
    m = if (ma < MIN) | (mb == INF) { 0 } else { m };
    m = if (ma == INF) | (mb < MIN) { INF } else { m };
    let nan = (ma > INF) | (mb > INF) | ((ma < MIN) & (mb < MIN)) | ((ma == INF) & (mb == INF));
    f32::from_bits(if nan { NAN } else { sign | m })
}

/// What all products or quotients with one number have in common, for loops over the other.
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    /// What is added to a magnitude.
    shift: u32,
    /// Magnitudes below give zero.
    low: u32,
    /// Magnitudes from here on give infinity.
    high: u32,
    sign: u32,
}

impl Factor {
    /// `mul(·, b, offset)`; `None` where `b` is zero, subnormal, infinite or NaN.
    pub fn product(b: f32, offset: Offset) -> Option<Factor> {
        Factor::new(b, magnitude(b) as i32 - (BIAS as i32 - offset))
    }

    /// `div(·, b, offset)`; `None` as for products.
    pub fn quotient(b: f32, offset: Offset) -> Option<Factor> {
        Factor::new(b, (BIAS as i32 - offset) - magnitude(b) as i32)
    }

    fn new(b: f32, shift: i32) -> Option<Factor> {
        let bound =
            |m: u32| (i64::from(m) - i64::from(shift)).clamp(i64::from(MIN), i64::from(INF)) as u32;
        let ordinary = (MIN..INF).contains(&magnitude(b));
        let sign = b.to_bits() & SIGN;
        ordinary.then(|| Factor { shift: shift as u32, low: bound(MIN), high: bound(INF), sign })
    }

    /// Magnitudes for which the result is a normal number.
    #[inline(always)]
    pub(crate) fn within(self) -> Range<u32> {
        self.low..self.high.max(self.low)
    }

    /// The product or quotient of a number of a magnitude within.
    #[inline(always)]
    pub(crate) fn apply_within(self, a: f32) -> f32 {
        // To add the bit of the sign changes the sign.
        f32::from_bits(a.to_bits().wrapping_add(self.shift ^ self.sign))
    }

    /// The product or quotient of a number whose magnitude is below the end of those within.
    #[inline(always)]
    pub(crate) fn apply_below(self, a: f32) -> f32 {
        let m = magnitude(a);
        let y = if m < self.low { 0 } else { m.wrapping_add(self.shift) };
        f32::from_bits(y | (a.to_bits() & SIGN) ^ self.sign)
    }

    /// The product or quotient of this number.
    #[inline(always)]
    pub fn apply(self, a: f32) -> f32 {
        let m = magnitude(a);
        let mut y = m.wrapping_add(self.shift);
        y = if m < self.low { 0 } else { y };
        y = if m >= self.high { INF } else { y };
        let signed = y | (a.to_bits() & SIGN) ^ self.sign;
        f32::from_bits(if m > INF { NAN } else { signed })
    }
}

/// The PA power of two: the bit pattern is the number, scaled.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let m = magnitude(x);
    // x · 2^23 by an addition to the exponent; below 2^−24, zeros and subnormals included, it rounds to
    // zero anyway.
    let scaled = x.to_bits().wrapping_add(23 << 23);
    // Within ±128; beyond, the result is zero or infinite.
    let inside = m <= BIAS + (7 << 23);
    let steps = to_int(f32::from_bits(if inside { scaled } else { 0 }).round_ties_even());
    let mut bits = (steps as u32).wrapping_add(BIAS);
    bits = if x < -126.0 { 0 } else { bits };
    bits = if x >= 128.0 { INF } else { bits };
    f32::from_bits(if m > INF { NAN } else { bits })
}

/// The PA binary logarithm: the number is the bit pattern, scaled.
#[inline(always)]
pub fn log2(x: f32) -> f32 {
    let bits = x.to_bits();
    let m = bits & MAGNITUDE;
    let steps = (bits as i32).wrapping_sub(BIAS as i32);
    let rounded = (steps as f32).to_bits();
    let mut y = if steps == 0 { 0 } else { rounded.wrapping_sub(23 << 23) };
    y = if bits == INF { INF } else { y };
    y = if m < MIN { INF | SIGN } else { y };
    let nan = (m > INF) | ((bits & SIGN != 0) & (m >= MIN));
    f32::from_bits(if nan { NAN } else { y })
}

/// The magnitude of 126, below which [`exp2_within`] is right.
pub(crate) const EXP2_WITHIN: u32 = 0x42FC_0000;

/// [`exp2`] of magnitudes below 126; of others some number.
#[inline(always)]
pub(crate) fn exp2_within(x: f32) -> f32 {
    let scaled = x.to_bits().wrapping_add(23 << 23);
    let scaled = f32::from_bits(if magnitude(x) < EXP2_WITHIN { scaled } else { 0 });
    f32::from_bits((to_int(scaled.round_ties_even()) as u32).wrapping_add(BIAS))
}

/// [`log2`] of a normal number above zero.
#[inline(always)]
pub(crate) fn log2_within(x: f32) -> f32 {
    let steps = (x.to_bits() as i32).wrapping_sub(BIAS as i32);
    let scaled = (steps as f32).to_bits().wrapping_sub(23 << 23);
    f32::from_bits(if steps == 0 { 0 } else { scaled })
}

/// Conversion of an integral float of at most 2^30 in magnitude.
#[inline(always)]
fn to_int(x: f32) -> i32 {
    debug_assert!(x.abs() <= 1_073_741_824.0);
    // SAFETY: all callers bound what they convert, NaN included. A checked conversion would look after
    // numbers that cannot occur.
    unsafe { x.to_int_unchecked() }
}

/// The exact derivative of the PA product by `a`, times `delta`.
#[inline(always)]
pub fn mul_grad(a: f32, b: f32, delta: f32, offset: Offset) -> f32 {
    let mb = magnitude(b);
    // Fits 31 bits; with the offset it need not, so the range is checked before that is added.
    let sum = (mb + mantissa(a)) as i32;
    let slope = sum.wrapping_add(offset) as u32 & !MANTISSA;
    // INF − offset fits 32 bits without a sign, since α is at least one half.
    let slope = if sum as u32 >= INF.wrapping_sub(offset as u32) { INF } else { slope };
    let slope = if (sum < MIN as i32 - offset) | (mb < MIN) { 0 } else { slope };
    let nan = (magnitude(a) > INF) | (mb > INF);
    times_slope(delta, slope | (b.to_bits() & SIGN), nan)
}

/// The exact derivative of the PA quotient by `a`, times `delta`.
#[inline(always)]
pub fn div_grad_a(a: f32, b: f32, delta: f32, offset: Offset) -> f32 {
    let mb = magnitude(b);
    let one = BIAS + mantissa(a);
    let slope = slope_bits((one as i32 - mb as i32) + (BIAS as i32 - offset));
    let slope = if mb < MIN { INF } else { slope };
    let slope = if mb == INF { 0 } else { slope };
    let nan = (magnitude(a) > INF) | (mb > INF);
    times_slope(delta, slope | (b.to_bits() & SIGN), nan)
}

/// The exact derivative of the PA quotient by `b`, times `delta`.
#[inline(always)]
pub fn div_grad_b(a: f32, b: f32, delta: f32, offset: Offset) -> f32 {
    let q = div(a, b, offset);
    let (mq, mb) = (magnitude(q), magnitude(b));
    let exponents = (mq & !MANTISSA) as i32 - (mb & !MANTISSA) as i32;
    let slope = slope_bits(exponents.saturating_add(BIAS as i32));
    let slope = if (mq == INF) | (mb < MIN) { INF } else { slope };
    let slope = if mq == 0 { 0 } else { slope };
    let sign = (a.to_bits() & SIGN) ^ SIGN;
    times_slope(delta, slope | sign, mq > INF)
}

/// The exact derivative of the PA power of two, times `delta`.
#[inline(always)]
pub fn exp2_grad(x: f32, delta: f32) -> f32 {
    // A negative subnormal counts as a zero.
    let m = magnitude(x);
    let floor = if (MIN..=INF).contains(&m) { x.floor() } else { 0.0 };
    let exponent = to_int(floor.clamp(-127.0, 128.0));
    let slope = ((exponent + 127) << 23) as u32;
    times_slope(delta, slope, magnitude(x) > INF)
}

/// The exact derivative of the PA logarithm, times `delta`.
#[inline(always)]
pub fn log2_grad(x: f32, delta: f32) -> f32 {
    let m = magnitude(x);
    let slope = slope_bits((BIAS + BIAS) as i32 - (m & !MANTISSA) as i32);
    let slope = if m < MIN { INF } else { slope };
    let slope = if m == INF { 0 } else { slope };
    let nan = (m > INF) | ((x.to_bits() & SIGN != 0) & (m >= MIN));
    times_slope(delta, slope, nan)
}

/// The power of two at or below a bit pattern that may be out of range.
#[inline(always)]
fn slope_bits(pattern: i32) -> u32 {
    let inside = (pattern.max(0) as u32 & !MANTISSA).min(INF);
    if inside < MIN { 0 } else { inside }
}

#[inline(always)]
fn times_slope(delta: f32, slope: u32, nan: bool) -> f32 {
    mul(delta, f32::from_bits(if nan { NAN } else { slope }), 0)
}

/// Exact scaling by 2^exponent: the IEEE product, rounded to nearest even where it is subnormal.
#[inline(always)]
pub fn scale_pow2(x: f32, exponent: i32) -> f32 {
    let m = magnitude(x);
    let e = (m >> 23) as i32;
    let target = e.saturating_add(exponent);
    if (e == 0) | (e == 255) | (target <= 0) | (target >= 255) {
        return scale_slow(x, exponent);
    }
    f32::from_bits(x.to_bits().wrapping_add((exponent << 23) as u32))
}

/// The cases in which the exponent cannot simply be added to.
#[cold]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
fn scale_slow(x: f32, exponent: i32) -> f32 {
    let (bits, m) = (x.to_bits(), magnitude(x));
    if m >= INF {
        return if m > INF { f32::from_bits(NAN) } else { x };
    }
    if m == 0 {
        return x;
    }
    // The value is significand · 2^(power − 149).
    let (significand, power) =
        if m < MIN { (m, 0) } else { (m & MANTISSA | MIN, (m >> 23) as i32 - 1) };
    let up = significand.leading_zeros() as i32 - 8;
    let power = power.saturating_sub(up).saturating_add(exponent);
    let significand = significand << up;
    let magnitude = if power >= 254 {
        INF
    } else if power >= 0 {
        // The leading bit of the significand adds the last 1 to the exponent.
        ((power as u32) << 23) + significand
    } else {
        let down = (-power).min(31) as u32;
        let kept = significand.checked_shr(down).unwrap_or(0);
        let rest = significand & ((1u64 << down) - 1) as u32;
        let half = 1u32 << (down - 1);
        kept + u32::from(rest > half || (rest == half && kept & 1 == 1))
    };
    f32::from_bits(bits & SIGN | magnitude)
}

/// Rounds to `bits` mantissa bits, half to even on the bit pattern; 23 and more leave `x` as it is.
#[inline(always)]
pub fn round_mantissa(x: f32, bits: u32) -> f32 {
    let drop = 23u32.saturating_sub(bits);
    if drop == 0 {
        return x;
    }
    let pattern = x.to_bits();
    let odd = pattern >> drop & 1;
    let rounded = pattern.wrapping_add((1 << (drop - 1)) - 1 + odd) & !((1u32 << drop) - 1);
    f32::from_bits(if magnitude(x) >= INF { pattern } else { rounded })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paper_examples_hold() {
        assert_eq!(mul(1.5, 1.5, 0), 2.0);
        assert_eq!(mul(-3.0, 4.0, 0), -12.0);
        assert_eq!(div(2.0, 1.5, 0), 1.5);
        assert_eq!(exp2(1.5), 3.0);
        assert_eq!(log2(3.0), 1.5);
        assert_eq!(mul_grad(1.5, 1.75, 1.0, 0), 2.0);
        assert_eq!(mul_grad(1.25, 1.5, 1.0, 0), 1.0);
    }

    #[test]
    fn factors_are_products_and_quotients() {
        let ends = [0, 1, MIN - 1, MIN, MIN + 1, BIAS, INF - 1, INF, NAN, 0x7F80_0001];
        let mut bits = ends.to_vec();
        bits.extend((0..600u32).map(|i| i.wrapping_mul(0x9E37_79B9) >> 1));
        bits.extend(
            (1..255).flat_map(|e: u32| [e << 23, (e << 23) + MANTISSA, (e << 23) + 12_345]),
        );
        let numbers: Vec<f32> =
            bits.iter().flat_map(|&b| [b, b | SIGN]).map(f32::from_bits).collect();
        for offset in [0, 1 << 20, -(1 << 22), 1 << 22] {
            for &b in &numbers {
                let (product, quotient) = (Factor::product(b, offset), Factor::quotient(b, offset));
                assert_eq!(product.is_some(), b.is_normal());
                let (Some(product), Some(quotient)) = (product, quotient) else { continue };
                for &a in numbers.iter().step_by(3) {
                    let same = |x: f32, y: f32| x.to_bits() == y.to_bits();
                    assert!(same(product.apply(a), mul(a, b, offset)), "{a:e} {b:e} {offset}");
                    assert!(same(quotient.apply(a), div(a, b, offset)), "{a:e} {b:e} {offset}");
                }
            }
        }
    }

    #[test]
    fn scaling_is_the_ieee_product() {
        let numbers =
            [1.0f32, -1.5, 1e-40, 3e-39, f32::MIN_POSITIVE, f32::MAX, 0.0, -0.0, 1.1754942e-38];
        for x in numbers.into_iter().chain([
            f32::INFINITY,
            f32::from_bits(1),
            f32::from_bits(0x007F_FFFF),
        ]) {
            for k in -300..300 {
                // A double holds every step of the exact product up to the final rounding.
                let exact = (f64::from(x) * 2f64.powi(k)) as f32;
                assert_eq!(scale_pow2(x, k).to_bits(), exact.to_bits(), "{x:e} 2^{k}");
            }
        }
    }

    #[test]
    fn rounding_is_half_to_even() {
        let r = |bits: u32| round_mantissa(f32::from_bits(bits), 4).to_bits();
        assert_eq!(r(0x3F84_0000), 0x3F80_0000);
        assert_eq!(r(0x3F8C_0000), 0x3F90_0000);
        assert_eq!(r(0x3FFF_FFFF), 0x4000_0000);
        assert_eq!(r(INF), INF);
    }
}
