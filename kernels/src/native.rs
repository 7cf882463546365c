//! Native functions that the standard library lacks.

/// Terms of the series of the error function; at 4 the next one is below 10^−14.
const TERMS: usize = 64;

/// Coefficients of the series: (−1)^n / (n! (2n + 1)).
const SERIES: [f64; TERMS] = {
    let mut series = [0.0; TERMS];
    let (mut n, mut factor) = (0, 1.0);
    while n < TERMS {
        series[n] = factor / (2 * n + 1) as f64;
        n += 1;
        factor /= -(n as f64);
    }
    series
};

/// The error function, to about one unit in the last place of a float.
///
/// Its Maclaurin series in double precision, without branches so that loops over it vectorise: up to 4
/// the terms stay below 10^6, so that cancellation leaves nine digits, and above it a float is 1.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let z = f64::from(x).clamp(-4.0, 4.0);
    let square = z * z;
    let sum = SERIES.iter().rev().fold(0.0, |sum, c| sum * square + c);
    let value = (z * sum * std::f64::consts::FRAC_2_SQRT_PI) as f32;
    if x.abs() >= 4.0 { 1f32.copysign(x) } else { value }
}

/// `1 / (1 + exp(−x))` without overflow.
pub(crate) fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

#[cfg(test)]
mod tests {
    use super::erf;

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
