//! AVX-512 micro-kernels: a tile of 12 by 32 sums in registers, or the first rows and half of the columns of one.
//!
//! The integer addition of two bit patterns carries the sign by itself, since the magnitudes leave
//! the top bit alone.

#![allow(clippy::wildcard_imports, reason = "the intrinsics are named one by one below")]

use super::unrolled;
use crate::contract::tile::{TILE_COLUMNS, TILE_ROWS, Tile};
use std::arch::asm;
use std::arch::x86_64::*;

const MAGNITUDE: i32 = 0x7FFF_FFFF;

/// Declares a kernel of the first `R` rows and the first `H` halves of a tile's columns. It goes over the panels
/// once for each of the listed first rows, and computes so many rows each time.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident[$($top:literal)*; $rows:literal: $($row:literal)*]
     ($($arg:ident: $t:ty),*) |$acc:ident, $b:ident, $size:ident| $body:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The processor must have AVX-512F.
        #[target_feature(enable = "avx512f")]
        #[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
        pub(crate) unsafe fn $name<const R: usize, const H: usize>(
            $($arg: $t,)*
            right: &[f32],
            out: &mut Tile,
        ) {
            let depth = right.len() / TILE_COLUMNS;
            $(debug_assert_eq!($arg.len(), depth * TILE_ROWS);)*
            let mask = _mm512_set1_epi32(MAGNITUDE);
            unrolled!(top in [$($top)*] {
                if top < R {
                    let mut acc = [[_mm512_setzero_ps(); H]; $rows];
                    for k in 0..depth {
                        // SAFETY: the panel holds `depth` rows.
                        let b = unsafe { load::<H>(right.as_ptr().add(k * TILE_COLUMNS)) };
                        let size = b.map(|b| _mm512_and_si512(b, mask));
                        unrolled!(row in [$($row)*] {
                            if top + row < R {
                                let at = k * TILE_ROWS + top + row;
                                // SAFETY: as above.
                                $(let $arg = unsafe { broadcast($arg, at) };)*
                                for half in 0..H {
                                    let ($acc, $b, $size) = (acc[row][half], b[half], size[half]);
                                    acc[row][half] = $body;
                                }
                            }
                        });
                    }
                    store::<_, R, H>(&acc, top, out);
                }
            });
        }
    };
}

kernel! {
    /// Sums of products that are neither zero nor out of range.
    raw[0; 12: 0 1 2 3 4 5 6 7 8 9 10 11](sums: &[i32]) |acc, b, _size| {
        _mm512_add_ps(acc, _mm512_castsi512_ps(_mm512_add_epi32(sums, b)))
    }
}

kernel! {
    /// Sums of products that may be zero or underflow.
    compare[0; 12: 0 1 2 3 4 5 6 7 8 9 10 11](sums: &[i32], floors: &[i32]) |acc, b, size| {
        let lives = _mm512_cmpge_epi32_mask(size, floors);
        add_where(acc, lives, _mm512_castsi512_ps(_mm512_add_epi32(sums, b)))
    }
}

kernel! {
    /// Sums of products of any finite numbers, for which the registers do not hold more rows.
    full[0 8; 8: 0 1 2 3 4 5 6 7](sizes: &[i32], signs: &[i32], floors: &[i32]) |acc, b, size| {
        let lives = _mm512_cmpge_epi32_mask(size, floors);
        // What underflows wraps to a large number, and does not live.
        let infinity = _mm512_set1_epi32(0x7F80_0000);
        let product = _mm512_min_epu32(_mm512_add_epi32(sizes, size), infinity);
        let sign = _mm512_andnot_si512(_mm512_set1_epi32(MAGNITUDE), b);
        // The first, or the others' exclusive or.
        let product = _mm512_ternarylogic_epi32::<0b1111_0110>(product, signs, sign);
        add_where(acc, lives, _mm512_castsi512_ps(product))
    }
}

/// Sums of products that may be zero but not underflow: `A` where there are zeros in the left operand,
/// which `masks` tells of, `B` where there are in the right one, for the first `R` rows and the first `H` halves of
/// the columns.
///
/// # Safety
/// The processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
pub(crate) unsafe fn masked<const R: usize, const H: usize, const A: bool, const B: bool>(
    sums: &[i32],
    masks: &[i32],
    right: &[f32],
    out: &mut Tile,
) {
    let mut acc = [[_mm512_setzero_ps(); H]; TILE_ROWS];
    let magnitude = _mm512_set1_epi32(MAGNITUDE);
    let least = _mm512_set1_epi32(0x0080_0000);
    let masks = masks.as_chunks::<TILE_ROWS>().0;
    let left = sums.as_chunks::<TILE_ROWS>().0.iter().enumerate();
    for ((k, sums), b) in left.zip(right.as_chunks::<TILE_COLUMNS>().0) {
        // SAFETY: where there are masks, they are as many as the sums.
        let masks = if A { unsafe { masks.get_unchecked(k) } } else { &[0; TILE_ROWS] };
        // SAFETY: 32 numbers are two vectors.
        let b = unsafe { load::<H>(b.as_ptr()) };
        // A subnormal number counts as a zero.
        let lives = b.map(|b| _mm512_cmpge_epi32_mask(_mm512_and_si512(b, magnitude), least));
        unrolled!(row in [0 1 2 3 4 5 6 7 8 9 10 11] {
            if row < R {
                let sum = _mm512_set1_epi32(sums[row]);
                for half in 0..H {
                    let product = match (A, B) {
                        // Nothing is changed by adding +0, since no sum is −0.
                        (true, true) => sum_where(lives[half], sum, b[half]),
                        _ => _mm512_add_epi32(sum, b[half]),
                    };
                    let lives = if A { masks[row] as u16 } else { lives[half] };
                    let product = _mm512_castsi512_ps(product);
                    acc[row][half] = add_where(acc[row][half], lives, product);
                }
            }
        });
    }
    store::<_, R, H>(&acc, 0, out);
}

/// Vectors that lie side by side.
///
/// # Safety
/// There must be as many.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn load<const H: usize>(at: *const f32) -> [__m512i; H] {
    let mut vectors = [_mm512_setzero_si512(); H];
    for (half, vector) in vectors.iter_mut().enumerate() {
        // SAFETY: the caller promises it.
        *vector = unsafe { _mm512_loadu_si512(at.add(half * 16).cast()) };
    }
    vectors
}

/// # Safety
/// The slice must be longer than `at`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn broadcast(numbers: &[i32], at: usize) -> __m512i {
    // SAFETY: the caller promises it.
    _mm512_set1_epi32(unsafe { *numbers.get_unchecked(at) })
}

/// Writes rows of a tile from `top` on, of which the first `R` are wanted.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store<const N: usize, const R: usize, const H: usize>(
    acc: &[[__m512; H]; N],
    top: usize,
    out: &mut Tile,
) {
    for (acc, out) in acc.iter().zip(&mut out.as_chunks_mut::<TILE_COLUMNS>().0[top..R]) {
        for (half, acc) in acc.iter().enumerate() {
            // SAFETY: a row of the tile is two vectors.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(half * 16), *acc) };
        }
    }
}

/// `acc + x` where the mask has a bit, in one instruction: left to itself, the compiler turns masks
/// that are shared by many additions into selections after them.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add_where(acc: __m512, mask: __mmask16, x: __m512) -> __m512 {
    let mut sum = acc;
    // SAFETY: the instruction only reads and writes its operands.
    unsafe {
        asm!("vaddps {sum}{{{mask}}}, {sum}, {x}", sum = inout(zmm_reg) sum, mask = in(kreg) mask,
             x = in(zmm_reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `a + b` where the mask has a bit, else zero.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_where(mask: __mmask16, a: __m512i, b: __m512i) -> __m512i {
    let sum: __m512i;
    // SAFETY: as above.
    unsafe {
        asm!("vpaddd {sum}{{{mask}}}{{z}}, {a}, {b}", sum = lateout(zmm_reg) sum,
             mask = in(kreg) mask, a = in(zmm_reg) a, b = in(zmm_reg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    sum
}
