//! AVX-512 micro-kernels of the exact derivatives: a tile of 12 by 32 sums in registers, the
//! mantissas of the operand by which the derivative is taken in the first-level cache. `R` is how many
//! rows and `H` how many halves of the columns are wanted.

#![allow(clippy::wildcard_imports, reason = "the intrinsics are named one by one below")]

use super::avx512::{add_where, broadcast, load, store};
use super::{in_place, unrolled};
use crate::contract::tile::{Raises, TILE_COLUMNS, TILE_ROWS, Tile};
use std::arch::x86_64::*;

const MAGNITUDE: i32 = 0x7FFF_FFFF;
const EXPONENT: i32 = !0x007F_FFFF;

/// Sums of products with slopes; none is zero or out of range. A sum of bit patterns carries the sign
/// by itself.
///
/// # Safety
/// The processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
pub(crate) unsafe fn raw<const R: usize, const H: usize>(
    raises: &Raises,
    sums: &[i32],
    right: &[f32],
    out: &mut Tile,
) {
    let mut acc = [[_mm512_setzero_ps(); H]; TILE_ROWS];
    let slope = _mm512_set1_epi32(EXPONENT);
    for (sums, b) in sums.as_chunks::<TILE_ROWS>().0.iter().zip(right.as_chunks::<32>().0) {
        // SAFETY: 32 numbers are two vectors.
        let b = unsafe { load::<H>(b.as_ptr()) };
        let raises = in_place(raises);
        for row in 0..R {
            let delta = _mm512_set1_epi32(sums[row]);
            for half in 0..H {
                let raise = raised(raises, row, half);
                let s = _mm512_and_si512(_mm512_add_epi32(b[half], raise), slope);
                let product = _mm512_castsi512_ps(_mm512_add_epi32(s, delta));
                acc[row][half] = _mm512_add_ps(acc[row][half], product);
            }
        }
    }
    store::<_, R, H>(&acc, 0, out);
}

/// The same with zeros and underflow.
///
/// # Safety
/// The processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
pub(crate) unsafe fn compare<const R: usize, const H: usize>(
    raises: &Raises,
    sums: &[i32],
    floors: &[i32],
    right: &[f32],
    out: &mut Tile,
) {
    let slope = _mm512_set1_epi32(EXPONENT);
    let mask = _mm512_set1_epi32(MAGNITUDE);
    // The registers do not hold more rows.
    unrolled!(top in [0 8] {
        if top < R {
            let mut acc = [[_mm512_setzero_ps(); H]; 8];
            for (k, b) in right.as_chunks::<TILE_COLUMNS>().0.iter().enumerate() {
                // SAFETY: 32 numbers are two vectors.
                let b = unsafe { load::<H>(b.as_ptr()) };
                let size = b.map(|b| _mm512_and_si512(b, mask));
                let sign = b.map(|b| _mm512_andnot_si512(mask, b));
                let least = _mm512_set1_epi32(0x0080_0000);
                let raises = in_place(raises);
                let normal = size.map(|m| _mm512_cmpge_epi32_mask(m, least));
                unrolled!(row in [0 1 2 3 4 5 6 7] {
                    if top + row < R {
                        let at = k * TILE_ROWS + top + row;
                        // SAFETY: the panel holds twelve of each for every k.
                        let [delta, floor] = unsafe { [broadcast(sums, at), broadcast(floors, at)] };
                        for half in 0..H {
                            let raise = raised(raises, top + row, half);
                            // Negative where the slope underflows far, and then below every floor.
                            let s = _mm512_and_si512(_mm512_add_epi32(size[half], raise), slope);
                            let lives = _mm512_mask_cmpge_epi32_mask(normal[half], s, floor);
                            let product = _mm512_xor_si512(_mm512_add_epi32(s, delta), sign[half]);
                            let product = _mm512_castsi512_ps(product);
                            acc[row][half] = add_where(acc[row][half], lives, product);
                        }
                    }
                });
            }
            store::<_, R, H>(&acc, top, out);
        }
    });
}

#[inline]
#[target_feature(enable = "avx512f")]
fn raised(raises: &Raises, row: usize, half: usize) -> __m512i {
    debug_assert!(row < TILE_ROWS && half < 2);
    // SAFETY: a row of the tile is two vectors.
    unsafe { _mm512_loadu_si512(raises.0.as_ptr().add(row * TILE_COLUMNS + half * 16).cast()) }
}
