//! AVX-512 micro-kernels of the exact derivatives: a tile of 12 by 32 sums in registers, the
//! mantissas of the operand by which the derivative is taken in the first-level cache. `R` is how many
//! rows and `H` how many halves of the columns are wanted. Slopes come from the left operand if `LEFT`, and else from
//! the right one.

#![allow(clippy::wildcard_imports, reason = "the intrinsics are named one by one below")]

use super::avx512::{add_where, broadcast, load, store};
use super::{in_place, unrolled};
use crate::contract::tile::{Raises, TILE_COLUMNS, TILE_ROWS, Tile};
use crate::pa::BIAS;
use std::arch::x86_64::*;

const MAGNITUDE: i32 = 0x7FFF_FFFF;
const EXPONENT: i32 = !0x007F_FFFF;
const MIN: i32 = 0x0080_0000;
/// Below every slope, whatever is added to it.
const NEVER: i32 = -0x4000_0000;

/// Sums of products with slopes, none of which underflows. A sum of bit patterns carries the sign by itself. With
/// `MASKED` there may be zeros in the right operand.
///
/// # Safety
/// The processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
pub(crate) unsafe fn raw<const R: usize, const H: usize, const LEFT: bool, const MASKED: bool>(
    raises: &Raises,
    sums: &[i32],
    right: &[f32],
    out: &mut Tile,
) {
    let mut acc = [[_mm512_setzero_ps(); H]; TILE_ROWS];
    let exponent = _mm512_set1_epi32(EXPONENT);
    for (sums, b) in sums.as_chunks::<TILE_ROWS>().0.iter().zip(right.as_chunks::<32>().0) {
        // SAFETY: 32 numbers are two vectors.
        let b = unsafe { load::<H>(b.as_ptr()) };
        let lives = b.map(|b| normal(b));
        let raises = in_place(raises);
        unrolled!(row in [0 1 2 3 4 5 6 7 8 9 10 11] {
            if row < R {
                let sum = _mm512_set1_epi32(sums[row]);
                for half in 0..H {
                    let raise = raised(raises, row, half);
                    // The sum's bias has no mantissa and stays out of the way.
                    let (x, delta) = if LEFT { (sum, b[half]) } else { (b[half], sum) };
                    let slope = _mm512_and_si512(_mm512_add_epi32(x, raise), exponent);
                    let product = _mm512_castsi512_ps(_mm512_add_epi32(slope, delta));
                    acc[row][half] = if MASKED {
                        add_where(acc[row][half], lives[half], product)
                    } else {
                        _mm512_add_ps(acc[row][half], product)
                    };
                }
            }
        });
    }
    store::<_, R, H>(&acc, 0, out);
}

/// The same with zeros and underflow. Of the left operand, the first numbers are the magnitudes of the slopes, or else
/// what is added to them; the second ones are their signs, or else what the slopes must reach.
///
/// # Safety
/// The processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
pub(crate) unsafe fn compare<const R: usize, const H: usize, const LEFT: bool>(
    raises: &Raises,
    [first, second]: [&[i32]; 2],
    right: &[f32],
    out: &mut Tile,
) {
    let exponent = _mm512_set1_epi32(EXPONENT);
    let mask = _mm512_set1_epi32(MAGNITUDE);
    // The registers do not hold more rows.
    unrolled!(top in [0 8] {
        if top < R {
            let mut acc = [[_mm512_setzero_ps(); H]; 8];
            for (k, b) in right.as_chunks::<TILE_COLUMNS>().0.iter().enumerate() {
                // SAFETY: 32 numbers are two vectors.
                let b = unsafe { load::<H>(b.as_ptr()) };
                let sizes = b.map(|b| if LEFT { reached_by(b) } else { size(b) });
                let signs = b.map(|b| _mm512_andnot_si512(mask, b));
                let raises = in_place(raises);
                unrolled!(row in [0 1 2 3 4 5 6 7] {
                    if top + row < R {
                        let at = k * TILE_ROWS + top + row;
                        // SAFETY: the panel holds twelve of each for every k.
                        let [x, y] = unsafe { [broadcast(first, at), broadcast(second, at)] };
                        for half in 0..H {
                            let (size, sign, floor, delta) = if LEFT {
                                (x, y, sizes[half], b[half])
                            } else {
                                (sizes[half], signs[half], y, x)
                            };
                            let sum = _mm512_add_epi32(size, raised(raises, top + row, half));
                            // A floor is a power of two: the mantissa makes no difference.
                            let lives = _mm512_cmpge_epi32_mask(sum, floor);
                            // The exponent of the first, with the last one's sign.
                            let slope =
                                _mm512_ternarylogic_epi32::<0b0110_1010>(sum, exponent, sign);
                            let product = _mm512_castsi512_ps(_mm512_add_epi32(slope, delta));
                            acc[row][half] = add_where(acc[row][half], lives, product);
                        }
                    }
                });
            }
            store::<_, R, H>(&acc, top, out);
        }
    });
}

/// Which numbers are no zeros; a subnormal one counts as zero.
#[inline]
#[target_feature(enable = "avx512f")]
fn normal(b: __m512i) -> __mmask16 {
    let size = _mm512_and_si512(b, _mm512_set1_epi32(MAGNITUDE));
    _mm512_cmpge_epi32_mask(size, _mm512_set1_epi32(MIN))
}

/// The magnitudes, and less than any for zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn size(b: __m512i) -> __m512i {
    let size = _mm512_and_si512(b, _mm512_set1_epi32(MAGNITUDE));
    _mm512_mask_blend_epi32(normal(b), _mm512_set1_epi32(NEVER), size)
}

/// What magnitudes of slopes, less the bias, must reach for products with these numbers that are not zero.
#[inline]
#[target_feature(enable = "avx512f")]
fn reached_by(b: __m512i) -> __m512i {
    let size = _mm512_and_si512(b, _mm512_set1_epi32(MAGNITUDE));
    let reach = _mm512_sub_epi32(_mm512_set1_epi32(MIN), size);
    let reach = _mm512_max_epi32(reach, _mm512_set1_epi32(MIN - BIAS as i32));
    // Rounded up to a power of two.
    let up = _mm512_add_epi32(reach, _mm512_set1_epi32(!EXPONENT));
    let reach = _mm512_and_si512(up, _mm512_set1_epi32(EXPONENT));
    _mm512_mask_blend_epi32(normal(b), _mm512_set1_epi32(i32::MAX), reach)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn raised(raises: &Raises, row: usize, half: usize) -> __m512i {
    debug_assert!(row < TILE_ROWS && half < 2);
    // SAFETY: a row of the tile is two vectors.
    unsafe { _mm512_loadu_si512(raises.0.as_ptr().add(row * TILE_COLUMNS + half * 16).cast()) }
}
