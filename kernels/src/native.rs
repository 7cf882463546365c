//! Native functions that the standard library lacks, or has in no form that vectorises. Their fused
//! multiply-adds give the same bits on every processor; one that has none calls a function for each.

/// `erf(x) / x` as a polynomial in x² / 8 − 1, lowest power first: the interpolation in the Chebyshev
/// points of the interval [0, 4], whose relative error is below 4 · 10^−10.
#[allow(clippy::excessive_precision, reason = "the shortest decimals that give the doubles")]
const ERF: [f64; 19] = [
    0.3535309956434049,
    -0.17657623580039228,
    0.13167511777582963,
    -0.10771029288641266,
    0.09020894134279632,
    -0.07473048679705468,
    0.05988782958300683,
    -0.04574431267502724,
    0.033053291696067265,
    -0.022562558293108114,
    0.014381038744396328,
    -0.008384044276092753,
    0.0047749462205666495,
    -0.0029097129559724944,
    0.0014101528932398749,
    -0.00032551962727953547,
    0.0001732295034487736,
    -0.0002464220145300619,
    9.403816578637098e-05,
];

/// The error function, to about one unit in the last place of a float. Without branches, so that loops
/// over it vectorise; from 4 on a float is 1.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let z = f64::from(x).clamp(-4.0, 4.0);
    let s = z * z * 0.125 - 1.0;
    // Even and odd powers by themselves, since each addition waits for the one before. A plain loop, since a
    // fold over so many terms is not inlined.
    let s2 = s * s;
    let (mut even, mut odd, mut n) = (ERF[ERF.len() - 1], 0f64, ERF.len() - 1);
    while n > 0 {
        n -= 2;
        odd = odd.mul_add(s2, ERF[n + 1]);
        even = even.mul_add(s2, ERF[n]);
    }
    let value = (z * odd.mul_add(s, even)) as f32;
    if x.abs() >= 4.0 { 1f32.copysign(x) } else { value }
}

/// The exponential, to about one unit in the last place. Without branches and conversions: 2ⁿ is put
/// together from bits, in two factors, so that results may be subnormal.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these the result is infinite or zero.
    let (y, t) = exp_parts(x.clamp(-104.0, 89.0));
    let n = t.wrapping_sub(WHOLE.to_bits()) as i32;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    y * power(n >> 1) * power(n.wrapping_sub(n >> 1))
}

/// The magnitude below which [`exp_within`] is right.
pub(crate) const EXP_WITHIN: f32 = 87.0;

/// [`exp`] where the result is a normal number.
#[inline(always)]
pub(crate) fn exp_within(x: f32) -> f32 {
    let (y, t) = exp_parts(x);
    // All bits of `WHOLE` are shifted out.
    f32::from_bits(y.to_bits().wrapping_add(t << 23))
}

/// To a number of this size an addition leaves whole numbers, in its last bits.
const WHOLE: f32 = 12_582_912.0;

/// y of about one and the bits of `WHOLE + n`, where `exp(x)` is y · 2ⁿ. The polynomial and the two parts
/// of ln 2 are those of Cephes' `expf`.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "the decimals of the source")]
fn exp_parts(x: f32) -> (f32, u32) {
    let t = x.mul_add(std::f32::consts::LOG2_E, WHOLE);
    let n = t - WHOLE;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_375, x));
    // In pairs of terms, since a chain of additions would wait for each of them.
    let r2 = r * r;
    let low = 1.666_666_55e-1f32.mul_add(r, 5.000_000_12e-1);
    let middle = 8.333_451_9e-3f32.mul_add(r, 4.166_579_59e-2);
    let high = 1.987_569_15e-4f32.mul_add(r, 1.398_199_95e-3);
    let p = high.mul_add(r2, middle).mul_add(r2, low);
    (p.mul_add(r2, r) + 1.0, t.to_bits())
}

/// The hyperbolic tangent, to about two units in the last place: the polynomial of Cephes' `tanhf` near
/// zero, by the exponential elsewhere.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "the decimals of the source")]
pub(crate) fn tanh(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_73e-3f32;
    p = p.mul_add(z, 2.063_908_88e-2);
    p = p.mul_add(z, -5.373_971_56e-2);
    p = p.mul_add(z, 1.333_144_22e-1);
    p = p.mul_add(z, -3.333_328_19e-1);
    let near = (p * z).mul_add(x, x);
    let far = (1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)).copysign(x);
    // NaN is near, so that it stays.
    if x.abs() >= 0.625 { far } else { near }
}

/// `1 / (1 + exp(−x))` without overflow.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

#[cfg(test)]
mod tests {
    use super::{erf, exp, tanh};

    /// The largest distance to the function of doubles, in units in the last place of the result.
    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, from: f32, to: f32) -> f64 {
        let at = |i: u32| from + (to - from) * (i as f32 / 200_000.0);
        let error = |x: f32| {
            let y = exact(f64::from(x));
            let unit = f64::from((y as f32).abs().next_up()) - f64::from((y as f32).abs());
            (f64::from(f(x)) - y).abs() / unit
        };
        (0..=200_000).map(|i| error(at(i))).fold(0.0, f64::max)
    }

    #[test]
    fn exp_and_tanh_against_doubles() {
        let errors = [
            worst(exp, f64::exp, -87.0, 88.7),
            worst(exp, f64::exp, -1.0, 1.0),
            worst(exp, f64::exp, -103.9, -87.0),
            worst(tanh, f64::tanh, -12.0, 12.0),
            worst(tanh, f64::tanh, -0.7, 0.7),
        ];
        assert!(errors.iter().all(|e| *e < 2.5), "{errors:?}");
        assert_eq!([exp(0.0), exp(-0.0), exp(f32::NEG_INFINITY), exp(-1e9)], [1.0, 1.0, 0.0, 0.0]);
        assert_eq!([exp(89.0), exp(f32::INFINITY)], [f32::INFINITY; 2]);
        assert_eq!([tanh(f32::INFINITY), tanh(-50.0), tanh(0.0)], [1.0, -1.0, 0.0]);
        assert_eq!(tanh(-1e-30), -1e-30);
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }

    #[test]
    fn erf_at_known_points() {
        // Values of Abramowitz & Stegun, table 7.1.
        for (x, y) in
            [(0.5, 0.520_499_9), (1.0, 0.842_700_8), (1.99, 0.995_111_4), (2.0, 0.995_322_3)]
        {
            assert!((erf(x) - y).abs() < 1e-7, "{x}: {} {y}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        for (x, y) in [(1e-20, 1.128_379_2e-20), (2.5, 0.999_593), (3.5, 0.999_999_3)] {
            assert!((erf(x) - y).abs() <= y * 1.2e-7, "{x}: {} {y}", erf(x));
        }
        let steps = (0..=500).map(|i| erf(i as f32 / 100.0)).collect::<Vec<f32>>();
        assert!(steps.is_sorted());
        assert_eq!([erf(7.0), erf(-0.0), erf(f32::NEG_INFINITY)], [1.0, 0.0, -1.0]);
        assert!(erf(f32::NAN).is_nan());
    }
}
