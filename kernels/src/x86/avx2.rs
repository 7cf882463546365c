//! AVX2 micro-kernels: a tile of 12 by 32 sums as four quarters of 6 by 16, which fit the registers; those of
//! them in which there is something of the `R` rows and `H` halves of the columns that are wanted.
//!
//! The panels are those of the AVX-512 forms; a quarter reads every second half of their rows, from the
//! first-level cache. What may not be added is masked to +0, which changes no sum, since none is −0.

#![allow(clippy::wildcard_imports, reason = "the intrinsics are named one by one below")]

use super::unrolled;
use crate::contract::tile::{Raises, TILE_COLUMNS, TILE_ROWS, Tile};
use crate::pa::BIAS;
use std::arch::asm;
use std::arch::x86_64::*;

const ROWS: usize = TILE_ROWS / 2;
const COLUMNS: usize = TILE_COLUMNS / 2;
/// First row and column of each quarter with some of the wanted rows and halves of columns.
fn quarters(rows: usize, halves: usize) -> impl Iterator<Item = (usize, usize)> {
    let tops = (0..rows).step_by(ROWS);
    (0..halves).flat_map(move |half| tops.clone().map(move |top| (top, half * COLUMNS)))
}

const MAGNITUDE: i32 = 0x7FFF_FFFF;
const MIN: i32 = 0x0080_0000;
const EXPONENT: i32 = !0x007F_FFFF;
/// Below every slope, whatever is added to it.
const NEVER: i32 = -0x4000_0000;

/// Declares a kernel by what it adds to a sum: `at` counts the left operand's numbers, `sum` is what
/// is added to the bits of `b`, and `place` is where the sum lies in the tile.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident $([$more:ident])? ($($arg:ident: $t:ty),*)
     |$at:ident, $sum:ident, $b:ident, $place:ident| $product:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The processor must have AVX2.
        #[target_feature(enable = "avx2")]
        #[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
        pub(crate) unsafe fn $name<const R: usize, const H: usize $(, const $more: bool)?>(
            sums: &[i32],
            $($arg: $t,)*
            right: &[f32],
            out: &mut Tile,
        ) {
            let depth = right.len() / TILE_COLUMNS;
            debug_assert_eq!(sums.len(), depth * TILE_ROWS);
            for (top, left) in quarters(R, H) {
                let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
                for k in 0..depth {
                    // SAFETY: the panel holds `depth` rows of 32 numbers.
                    let b = unsafe { load(right, k * TILE_COLUMNS + left) };
                    for row in 0..ROWS {
                        let $at = k * TILE_ROWS + top + row;
                        // SAFETY: the panel holds `depth` rows of 12 numbers.
                        let $sum = unsafe { broadcast(sums, $at) };
                        for half in 0..2 {
                            let $b = b[half];
                            let $place = (top + row) * TILE_COLUMNS + left + half * 8;
                            let product = _mm256_castsi256_ps($product);
                            acc[row][half] = _mm256_add_ps(acc[row][half], product);
                        }
                    }
                }
                for row in 0..ROWS {
                    for half in 0..2 {
                        let place = (top + row) * TILE_COLUMNS + left + half * 8;
                        // SAFETY: the tile has 12 rows of 32.
                        unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(place), acc[row][half]) };
                    }
                }
            }
        }
    };
}

kernel! {
    /// Sums of products that are neither zero nor out of range.
    raw() |_at, sum, b, _place| _mm256_add_epi32(sum, b)
}

kernel! {
    /// Sums of products that may be zero or underflow.
    compare(floors: &[i32]) |at, sum, b, _place| {
        // SAFETY: `floors` is as long as `sums`.
        let floor = unsafe { broadcast(floors, at) };
        _mm256_andnot_si256(_mm256_cmpgt_epi32(floor, size(b)), _mm256_add_epi32(sum, b))
    }
}

kernel! {
    /// Sums of products of any finite numbers, the left operand's magnitudes less the bias.
    full(signs: &[i32], floors: &[i32]) |at, size_a, b, _place| {
        // SAFETY: both are as long as the magnitudes.
        let (sign_a, floor) = unsafe { (broadcast(signs, at), broadcast(floors, at)) };
        let infinity = _mm256_set1_epi32(0x7F80_0000);
        // What underflows wraps to a large number, which the floor masks.
        let product = _mm256_min_epu32(_mm256_add_epi32(size_a, size(b)), infinity);
        let product = _mm256_or_si256(product, _mm256_xor_si256(sign_a, sign(b)));
        _mm256_andnot_si256(_mm256_cmpgt_epi32(floor, size(b)), product)
    }
}

kernel! {
    /// Sums of products with slopes, the exact derivatives; none is zero or out of range. The slopes come from the left
    /// operand if `LEFT`, and else from the right one.
    grad_raw[LEFT](raises: &Raises) |_at, sum, b, place| {
        // SAFETY: the place lies in the tile.
        slope_product::<LEFT>(sum, b, unsafe { raise(raises, place) })
    }
}

kernel! {
    /// The same with zeros in the right operand.
    grad_masked[LEFT](raises: &Raises) |_at, sum, b, place| {
        // SAFETY: as above.
        let product = slope_product::<LEFT>(sum, b, unsafe { raise(raises, place) });
        _mm256_and_si256(product, normal(b))
    }
}

kernel! {
    /// The same with zeros and underflow. What is read of the left operand are the magnitudes of the slopes and their
    /// signs, or what is added to the slopes and what they must reach.
    grad_compare[LEFT](raises: &Raises, others: &[i32]) |at, x, b, place| {
        // SAFETY: `others` are as many as the first numbers, and the place lies in the tile.
        let (y, raise) = unsafe { (broadcast(others, at), raise(raises, place)) };
        let (size, sign, floor, delta) =
            if LEFT { (x, y, reached_by(b), b) } else { (size_or_never(b), sign(b), y, x) };
        // Negative where the slope underflows far or is zero, and then below every floor.
        let sum = _mm256_add_epi32(size, raise);
        let slope = _mm256_and_si256(sum, _mm256_set1_epi32(EXPONENT));
        let product = _mm256_xor_si256(_mm256_add_epi32(slope, delta), sign);
        _mm256_andnot_si256(_mm256_cmpgt_epi32(floor, slope), product)
    }
}

/// Sums of products that may be zero because of the left operand, if `LEFT`, and else because of the right one.
/// `masks` has all bits for the numbers that are not zeros.
///
/// # Safety
/// The processor must have AVX2.
#[target_feature(enable = "avx2")]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
pub(crate) unsafe fn masked<const R: usize, const H: usize, const LEFT: bool>(
    sums: &[i32],
    masks: &[i32],
    right: &[f32],
    out: &mut Tile,
) {
    let depth = right.len() / TILE_COLUMNS;
    debug_assert_eq!(masks.len(), if LEFT { sums.len() } else { right.len() });
    for (top, left) in quarters(R, H) {
        let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
        for k in 0..depth {
            let column = k * TILE_COLUMNS + left;
            // SAFETY: the panel holds `depth` rows of 32 numbers.
            let vectors = unsafe { load(right, column) };
            unrolled!(row in [0 1 2 3 4 5] {
                let at = k * TILE_ROWS + top + row;
                // SAFETY: the panels hold `depth` rows of 12 and of 32 numbers, and the masks are as
                // many as those they belong to.
                unsafe {
                    let sum = broadcast(sums, at);
                    let [first, second] = &mut acc[row];
                    if LEFT {
                        let b = right.as_ptr().add(column);
                        let mask = broadcast(masks, at);
                        *first = add_left(*first, sum, b, mask);
                        *second = add_left(*second, sum, b.add(8), mask);
                    } else {
                        let mask = masks.as_ptr().add(column);
                        *first = add_right(*first, sum, vectors[0], mask);
                        *second = add_right(*second, sum, vectors[1], mask.add(8));
                    }
                }
            });
        }
        for (row, acc) in acc.iter().enumerate() {
            for (half, acc) in acc.iter().enumerate() {
                let place = (top + row) * TILE_COLUMNS + left + half * 8;
                // SAFETY: the tile has 12 rows of 32.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(place), *acc) };
            }
        }
    }
}

/// `acc + ((sum + b) & mask)`, of which `b` stays in memory: the compiler would keep more in registers than
/// there are.
///
/// # Safety
/// There must be eight numbers at `b`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_left(acc: __m256, sum: __m256i, b: *const f32, mask: __m256i) -> __m256 {
    let mut acc = acc;
    // SAFETY: the caller promises the numbers; nothing else is read, and only registers are written.
    unsafe {
        asm!("vpaddd {t}, {sum}, [{b}]", "vpand {t}, {t}, {mask}", "vaddps {acc}, {acc}, {t}",
             t = out(ymm_reg) _, sum = in(ymm_reg) sum, b = in(reg) b, mask = in(ymm_reg) mask,
             acc = inout(ymm_reg) acc, options(pure, readonly, nostack, preserves_flags));
    }
    acc
}

/// The same with the masks in memory.
///
/// # Safety
/// There must be eight numbers at `mask`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_right(acc: __m256, sum: __m256i, b: __m256i, mask: *const i32) -> __m256 {
    let mut acc = acc;
    // SAFETY: as above.
    unsafe {
        asm!("vpaddd {t}, {sum}, {b}", "vpand {t}, {t}, [{mask}]", "vaddps {acc}, {acc}, {t}",
             t = out(ymm_reg) _, sum = in(ymm_reg) sum, b = in(ymm_reg) b, mask = in(reg) mask,
             acc = inout(ymm_reg) acc, options(pure, readonly, nostack, preserves_flags));
    }
    acc
}

/// The magnitudes' bits.
#[inline]
#[target_feature(enable = "avx2")]
fn size(b: __m256i) -> __m256i {
    _mm256_and_si256(b, _mm256_set1_epi32(MAGNITUDE))
}

/// All bits where a number is not zero; a subnormal one counts as zero.
#[inline]
#[target_feature(enable = "avx2")]
fn normal(b: __m256i) -> __m256i {
    _mm256_cmpgt_epi32(size(b), _mm256_set1_epi32(MIN - 1))
}

/// The signs' bits.
#[inline]
#[target_feature(enable = "avx2")]
fn sign(b: __m256i) -> __m256i {
    _mm256_andnot_si256(_mm256_set1_epi32(MAGNITUDE), b)
}

/// The magnitudes, and less than any for zeros.
#[inline]
#[target_feature(enable = "avx2")]
fn size_or_never(b: __m256i) -> __m256i {
    _mm256_blendv_epi8(_mm256_set1_epi32(NEVER), size(b), normal(b))
}

/// What magnitudes of slopes, less the bias, must reach for products with these numbers that are not zero.
#[inline]
#[target_feature(enable = "avx2")]
fn reached_by(b: __m256i) -> __m256i {
    let reach = _mm256_sub_epi32(_mm256_set1_epi32(MIN), size(b));
    let reach = _mm256_max_epi32(reach, _mm256_set1_epi32(MIN - BIAS as i32));
    // Rounded up to a power of two.
    let up = _mm256_add_epi32(reach, _mm256_set1_epi32(!EXPONENT));
    let reach = _mm256_and_si256(up, _mm256_set1_epi32(EXPONENT));
    _mm256_blendv_epi8(_mm256_set1_epi32(i32::MAX), reach, normal(b))
}

/// The product of a slope and a number, one of which is the left operand, less the bias, which has no mantissa and stays
/// out of the way.
#[inline]
#[target_feature(enable = "avx2")]
fn slope_product<const LEFT: bool>(sum: __m256i, b: __m256i, raise: __m256i) -> __m256i {
    let (x, delta) = if LEFT { (sum, b) } else { (b, sum) };
    let slope = _mm256_and_si256(_mm256_add_epi32(x, raise), _mm256_set1_epi32(EXPONENT));
    _mm256_add_epi32(slope, delta)
}

/// # Safety
/// The slice must hold 16 numbers from there on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(right: &[f32], at: usize) -> [__m256i; 2] {
    // SAFETY: the caller promises it.
    unsafe {
        let at = right.as_ptr().add(at).cast::<__m256i>();
        [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))]
    }
}

/// # Safety
/// The slice must be longer than `at`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn broadcast(numbers: &[i32], at: usize) -> __m256i {
    // SAFETY: the caller promises it.
    _mm256_set1_epi32(unsafe { *numbers.get_unchecked(at) })
}

/// # Safety
/// The tile must hold 8 numbers from there on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn raise(raises: &Raises, place: usize) -> __m256i {
    // SAFETY: the caller promises it.
    unsafe { _mm256_loadu_si256(raises.0.as_ptr().add(place).cast()) }
}
