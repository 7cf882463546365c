//! Products row by row: the portable form, which is also the one for few rows.

use super::K_CHUNK;
use super::columns::{Columns, Strided};
use super::facts::{Facts, Form, gather};
use super::out::Out;
use super::pack::narrow;
use crate::function;
use crate::pa::{BIAS, Offset};
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
    left: Strided<'_>,
    right: &impl Columns,
    out: Out,
    (offset, mantissa): (Offset, u32),
) {
    block.resize(K_CHUNK * WIDTH, 0.0);
    let (mut sums, mut row) = ([0f32; WIDTH], [0f32; K_CHUNK]);
    for from in columns.clone().step_by(WIDTH) {
        let width = WIDTH.min(columns.end - from);
        for start in (0..k).step_by(K_CHUNK) {
            let chunk = start..(start + K_CHUNK).min(k);
            let block = &mut block[..chunk.len() * width];
            right.copy(chunk.clone(), from..from + width, width, block);
            if mantissa < 23 {
                narrow(block, mantissa);
            }
            let mut right = Facts::default();
            gather(block, &mut right);
            for i in 0..m {
                let sums = &mut sums[..width];
                sums.fill(0.0);
                let row = &mut row[..chunk.len()];
                for (a, k) in row.iter_mut().zip(chunk.clone()) {
                    *a = left.at(i, k);
                }
                if mantissa < 23 {
                    narrow(row, mantissa);
                }
                let mut left = Facts::default();
                gather(row, &mut left);
                let bias = BIAS.wrapping_sub(offset as u32);
                match Form::of(left, right, offset) {
                    Form::Raw => {
                        accumulate(function::Raw(bias), row, block, sums);
                    }
                    Form::Zeros { .. } | Form::Compare => {
                        accumulate(function::Compared(bias), row, block, sums);
                    }
                    Form::Full | Form::Special => {
                        accumulate(function::Mul(offset), row, block, sums);
                    }
                }
                // SAFETY: the caller hands over these rows and columns.
                unsafe { out.store(i, from, sums, start > 0) };
            }
        }
    }
}

multiversion! { pam
    /// `sums[j] += f(a[k], b[k, j])` for all k.
    fn accumulate<F: F2>(f: F, a: &[f32], b: &[f32], sums: &mut [f32]) {
        let width = sums.len();
        // As many sums at a time as registers hold.
        for from in (0..width).step_by(64) {
            let part = 64.min(width - from);
            if let Ok(part) = <&mut [f32; 64]>::try_from(&mut sums[from..from + part]) {
                let mut sums = *part;
                for (&a, b) in a.iter().zip(b.chunks_exact(width)) {
                    let b = &b[from..from + 64];
                    sums.iter_mut().zip(b).for_each(|(s, &b)| *s += f.call(a, b));
                }
                *part = sums;
            } else {
                for (&a, b) in a.iter().zip(b.chunks_exact(width)) {
                    let sums = sums[from..].iter_mut().zip(&b[from..]);
                    sums.for_each(|(s, &b)| *s += f.call(a, b));
                }
            }
        }
    }
}
