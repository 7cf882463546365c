//! Products row by row: the portable form, which is also the one for few rows.

use super::K_CHUNK;
use super::columns::Columns;
use super::serial::{Left, Out};
use crate::pa::{self, Offset, round_mantissa};
use crate::simd::{F2, multiversion};
use std::ops::Range;

/// Columns at a time.
const WIDTH: usize = 256;

#[allow(clippy::too_many_arguments, reason = "a product has two operands, a place and a kind")]
pub(crate) fn product(
    block: &mut Vec<f32>,
    m: usize,
    columns: Range<usize>,
    k: usize,
    left: Left<'_>,
    right: &impl Columns,
    out: Out,
    (offset, mantissa): (Offset, u32),
) {
    block.resize(K_CHUNK * WIDTH, 0.0);
    let mut sums = [0f32; WIDTH];
    for from in columns.clone().step_by(WIDTH) {
        let width = WIDTH.min(columns.end - from);
        for start in (0..k).step_by(K_CHUNK) {
            let chunk = start..(start + K_CHUNK).min(k);
            right.copy(chunk.clone(), from..from + width, width, block);
            if mantissa < 23 {
                block.iter_mut().for_each(|x| *x = round_mantissa(*x, mantissa));
            }
            for i in 0..m {
                let sums = &mut sums[..width];
                sums.fill(0.0);
                for (k, b) in chunk.clone().zip(block.chunks(width)) {
                    let a = round_mantissa(left.at(i, k), mantissa);
                    accumulate(move |a, b| pa::mul(a, b, offset), a, b, sums);
                }
                // SAFETY: the caller hands over these rows and columns.
                unsafe { out.store(i, from, sums, start > 0) };
            }
        }
    }
}

multiversion! {
    /// `sums[j] += f(a, b[j])`.
    fn accumulate<F: F2>(f: F, a: f32, b: &[f32], sums: &mut [f32]) {
        for (s, &b) in sums.iter_mut().zip(b) {
            *s += f.call(a, b);
        }
    }
}
