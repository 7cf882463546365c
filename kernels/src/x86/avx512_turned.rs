//! Products of a row and of columns that lie one after the other: sixteen of them are transposed in registers.

#![allow(clippy::wildcard_imports, reason = "the intrinsics are named one by one below")]

use super::unrolled;
use crate::pa::{INF, MAGNITUDE};
use std::arch::x86_64::*;

/// Numbers of a vector.
const LANES: usize = 16;

/// The sums of raw products of a row, given as bits less the bias, and of columns that begin `stride` apart, and the
/// least and the largest of these columns' magnitudes.
///
/// # Safety
/// The processor must have AVX-512F, and as many columns as sums must be there, each as long as the row.
#[target_feature(enable = "avx512f")]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
pub(crate) unsafe fn turned(
    row: &[i32],
    source: *const f32,
    stride: usize,
    sums: &mut [f32],
) -> [u32; 2] {
    let mut extremes = [_mm512_set1_epi32(INF as i32), _mm512_setzero_si512()];
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut last = [0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    // Not more columns at a time, since processors follow few that are so far apart.
    for (part, sums) in sums.chunks_mut(LANES).enumerate() {
        let mut sum = _mm512_setzero_ps();
        // SAFETY: the caller promises the columns.
        let at = unsafe { source.add(part * LANES * stride) };
        let rest = (!rest.is_empty()).then_some((&last, rest.len()));
        let blocks = blocks.iter().map(|block| (block, LANES)).chain(rest);
        for (i, (block, depth)) in blocks.enumerate() {
            let size = [depth, sums.len()];
            // SAFETY: as above.
            sum = unsafe {
                let at = at.add(i * LANES);
                // Each is called here only, so that it becomes a part of this.
                if size == [LANES; 2] {
                    square::<true>(block, at, stride, size, sum, &mut extremes)
                } else {
                    square::<false>(block, at, stride, size, sum, &mut extremes)
                }
            };
        }
        let mask = __mmask16::MAX >> (LANES - sums.len());
        // SAFETY: only what is there of the sums is written.
        unsafe { _mm512_mask_storeu_ps(sums.as_mut_ptr(), mask, sum) };
    }
    [_mm512_reduce_min_epu32(extremes[0]), _mm512_reduce_max_epu32(extremes[1])]
}

/// Adds the products of sixteen numbers and of as many columns, or of so many as are there.
///
/// # Safety
/// The processor must have AVX-512F, and the columns must be there.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn square<const WHOLE: bool>(
    row: &[i32; LANES],
    at: *const f32,
    stride: usize,
    [depth, columns]: [usize; 2],
    mut sum: __m512,
    [least, most]: &mut [__m512i; 2],
) -> __m512 {
    let here = if WHOLE { __mmask16::MAX } else { __mmask16::MAX >> (LANES - depth) };
    let magnitude = _mm512_set1_epi32(MAGNITUDE as i32);
    let mut x = [_mm512_setzero_si512(); LANES];
    unrolled!(i in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
        // The last one stands for those that are not there.
        let column = if WHOLE { i } else { i.min(columns - 1) };
        // SAFETY: the caller promises the columns; what is behind their ends is not read.
        x[i] = unsafe { _mm512_maskz_loadu_epi32(here, at.add(column * stride).cast()) };
    });
    let x = transposed(x);
    unrolled!(k in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
        if WHOLE || k < depth {
            let m = _mm512_and_si512(x[k], magnitude);
            *least = _mm512_min_epu32(*least, m);
            *most = _mm512_max_epu32(*most, m);
            let product = _mm512_add_epi32(x[k], _mm512_set1_epi32(row[k]));
            sum = _mm512_add_ps(sum, _mm512_castsi512_ps(product));
        }
    });
    sum
}

/// Transposes a square: within the four parts of each vector, then the parts.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(mut x: [__m512i; LANES]) -> [__m512i; LANES] {
    unrolled!(quarter in [0 1 2 3] {
        let (a, b) = (_mm512_castsi512_ps(x[4 * quarter]), _mm512_castsi512_ps(x[4 * quarter + 1]));
        let (c, d) =
            (_mm512_castsi512_ps(x[4 * quarter + 2]), _mm512_castsi512_ps(x[4 * quarter + 3]));
        let (low, high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (low_too, high_too) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let pairs = [
            _mm512_shuffle_ps::<0x44>(low, low_too),
            _mm512_shuffle_ps::<0xEE>(low, low_too),
            _mm512_shuffle_ps::<0x44>(high, high_too),
            _mm512_shuffle_ps::<0xEE>(high, high_too),
        ];
        for (i, pair) in pairs.into_iter().enumerate() {
            x[4 * quarter + i] = _mm512_castps_si512(pair);
        }
    });
    let mut turned = x;
    unrolled!(j in [0 1 2 3] {
        let [a, b, c, d] = [x[j], x[4 + j], x[8 + j], x[12 + j]];
        let (low, high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xEE>(a, b));
        let (low_too, high_too) =
            (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xEE>(c, d));
        turned[j] = _mm512_shuffle_i32x4::<0x88>(low, low_too);
        turned[4 + j] = _mm512_shuffle_i32x4::<0xDD>(low, low_too);
        turned[8 + j] = _mm512_shuffle_i32x4::<0x88>(high, high_too);
        turned[12 + j] = _mm512_shuffle_i32x4::<0xDD>(high, high_too);
    });
    turned
}
