//! AVX-512 micro-kernels: a tile of 12 by 32 sums in registers.
//!
//! The integer addition of two bit patterns carries the sign by itself, since the magnitudes leave
//! the top bit alone.

#![allow(clippy::wildcard_imports, reason = "the intrinsics are named one by one below")]

use crate::contract::{TILE_COLUMNS, TILE_ROWS};
use std::arch::asm;
use std::arch::x86_64::*;

type Tile = [f32; TILE_ROWS * TILE_COLUMNS];

const MAGNITUDE: i32 = 0x7FFF_FFFF;

/// Repeats a block for every row of a tile; the compiler does not unroll loops around assembly, and
/// sums that an index reaches lie in memory.
macro_rules! unrolled {
    ($row:ident in [$($i:literal)*] $body:block) => { $({ let $row: usize = $i; $body })* };
}

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident($floors:ident, $offset:ident; $($arg:ident: $t:ty),*)
     |$acc:ident, $sum:ident, $b:ident, $size:ident, $i:ident| $body:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The processor must have AVX-512F.
        #[target_feature(enable = "avx512f")]
        #[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
        pub(crate) unsafe fn $name(sums: &[i32], $($arg: $t,)* right: &[f32], out: &mut Tile) {
            let mut acc = [[_mm512_setzero_ps(); 2]; TILE_ROWS];
            let depth = right.len() / TILE_COLUMNS;
            debug_assert_eq!(sums.len(), depth * TILE_ROWS);
            let mask = _mm512_set1_epi32(MAGNITUDE);
            for k in 0..depth {
                // SAFETY: both panels hold `depth` rows.
                let (b, a) = unsafe {
                    let at = right.as_ptr().add(k * TILE_COLUMNS).cast::<__m512i>();
                    let b = [_mm512_loadu_si512(at), _mm512_loadu_si512(at.add(1))];
                    (b, sums.as_ptr().add(k * TILE_ROWS))
                };
                let size = b.map(|b| _mm512_and_si512(b, mask));
                for row in 0..TILE_ROWS {
                    // SAFETY: as above.
                    let $sum = _mm512_set1_epi32(unsafe { *a.add(row) });
                    let $i = k * TILE_ROWS + row;
                    for half in 0..2 {
                        let ($acc, $b, $size) = (acc[row][half], b[half], size[half]);
                        acc[row][half] = $body;
                    }
                }
            }
            for row in 0..TILE_ROWS {
                // SAFETY: the tile has 12 rows of 32.
                unsafe {
                    let at = out.as_mut_ptr().add(row * TILE_COLUMNS);
                    _mm512_storeu_ps(at, acc[row][0]);
                    _mm512_storeu_ps(at.add(16), acc[row][1]);
                }
            }
        }
    };
}

kernel! {
    /// Sums of products that are neither zero nor out of range.
    raw(_f, _o;) |acc, sum, b, _size, _i| {
        _mm512_add_ps(acc, _mm512_castsi512_ps(_mm512_add_epi32(sum, b)))
    }
}

kernel! {
    /// Sums of products that may be zero or underflow.
    compare(floors, _o; floors: &[i32]) |acc, sum, b, size, i| {
        // SAFETY: `floors` is as long as `sums`.
        let floor = _mm512_set1_epi32(unsafe { *floors.get_unchecked(i) });
        let lives = _mm512_cmpge_epi32_mask(size, floor);
        let product = _mm512_castsi512_ps(_mm512_add_epi32(sum, b));
        _mm512_mask_add_ps(acc, lives, acc, product)
    }
}

kernel! {
    /// Sums of products of any finite numbers.
    full(_f, _o; floors: &[i32], ceilings: &[i32]) |acc, sum, b, size, i| {
        // SAFETY: both are as long as `sums`.
        let floor = _mm512_set1_epi32(unsafe { *floors.get_unchecked(i) });
        let lives = _mm512_cmpge_epi32_mask(size, floor);
        // SAFETY: as above.
        let ceiling = _mm512_set1_epi32(unsafe { *ceilings.get_unchecked(i) });
        let over = _mm512_cmpge_epi32_mask(size, ceiling);
        // Where it overflows, the left magnitude exceeds the bias, so that the sign survived.
        let sign = _mm512_set1_epi32(i32::MIN);
        let sign = _mm512_ternarylogic_epi32::<0b0010_1000>(sum, b, sign);
        let infinity = _mm512_set1_epi32(0x7F80_0000);
        let product = _mm512_add_epi32(sum, b);
        let product = _mm512_mask_or_epi32(product, over, sign, infinity);
        _mm512_mask_add_ps(acc, lives, acc, _mm512_castsi512_ps(product))
    }
}

/// Sums of products that may be zero but not underflow: `A` where there are zeros in the left operand,
/// which `masks` tells of, `B` where there are in the right one.
///
/// # Safety
/// The processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
pub(crate) unsafe fn masked<const A: bool, const B: bool>(
    sums: &[i32],
    masks: &[u16],
    right: &[f32],
    out: &mut Tile,
) {
    let mut acc = [[_mm512_setzero_ps(); 2]; TILE_ROWS];
    let magnitude = _mm512_set1_epi32(MAGNITUDE);
    let least = _mm512_set1_epi32(0x0080_0000);
    let left = sums.as_chunks::<TILE_ROWS>().0.iter().zip(masks.as_chunks::<TILE_ROWS>().0);
    for ((sums, masks), b) in left.zip(right.as_chunks::<TILE_COLUMNS>().0) {
        // SAFETY: 32 numbers are two vectors.
        let b = unsafe {
            let at = b.as_ptr().cast::<__m512i>();
            [_mm512_loadu_si512(at), _mm512_loadu_si512(at.add(1))]
        };
        // A subnormal number counts as a zero.
        let lives = b.map(|b| _mm512_cmpge_epi32_mask(_mm512_and_si512(b, magnitude), least));
        unrolled!(row in [0 1 2 3 4 5 6 7 8 9 10 11] {
            let sum = _mm512_set1_epi32(sums[row]);
            for half in 0..2 {
                let product = match (A, B) {
                    // Nothing is changed by adding +0, since no sum is −0.
                    (true, true) => sum_where(lives[half], sum, b[half]),
                    _ => _mm512_add_epi32(sum, b[half]),
                };
                let lives = if A { masks[row] } else { lives[half] };
                let product = _mm512_castsi512_ps(product);
                acc[row][half] = add_where(acc[row][half], lives, product);
            }
        });
    }
    for (acc, out) in acc.iter().zip(out.as_chunks_mut::<TILE_COLUMNS>().0) {
        // SAFETY: a row of the tile is two vectors.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), acc[0]);
            _mm512_storeu_ps(out.as_mut_ptr().add(16), acc[1]);
        }
    }
}

/// `acc + x` where the mask has a bit, in one instruction: left to itself, the compiler turns masks
/// that are shared by many additions into selections after them.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_where(acc: __m512, mask: __mmask16, x: __m512) -> __m512 {
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
