//! Numbers in the place of zeros, for which the cheapest micro-kernel is exact.
//!
//! The sum of the bit patterns of a zero and a number is not their product. It need not be zero either: it
//! only has to be so small that it changes no sum. Let e be the exponent of the smallest product that is
//! not zero. All products, and therefore all sums of them, rounded or not, are multiples of 2^(e − 23). A
//! sum that is not zero is at least as large, its neighbours are at least 2^(e − 47) away, and adding less
//! than half of that leaves it as it is. A sum of zero becomes, in the [`K_CHUNK`](super::K_CHUNK)
//! additions of a chunk, at most something below 2^(e − 39); adding a product gives the product, whose
//! neighbours are at least 2^(e − 24) away. What is below 2^(e − 23) in the end is a sum of zero.
//!
//! So zeros of one operand get such a number where the magnitudes of the other one do not range too far. The
//! sum of two of these numbers would not be small: where both operands have zeros, one of them is masked.

use super::facts::{Facts, Form};
use crate::pa::{BIAS, INF, MAGNITUDE, Offset};
use crate::simd::multiversion;

/// 2^e over what may be added to a sum.
const SMALLER: u32 = 48;
/// 2^e over the number of which all sums are multiples.
const MULTIPLE: u32 = 23;
/// What is added is not smaller than this if it need not be: differences of such numbers are not
/// subnormal, with which some processors are slow.
const COMFORTABLE: u32 = 24 << 23;

/// What stands in the place of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StandIn {
    /// Its bits, or for the left operand its bits less the bias.
    pub bits: u32,
    /// Sums of a smaller magnitude are zero.
    pub least: u32,
}

impl StandIn {
    /// For zeros of a panel of the left operand, where products with the right one neither underflow nor
    /// overflow.
    pub(crate) fn left(left: Facts, right: Facts, offset: Offset) -> Option<StandIn> {
        if !matches!(Form::of(left, right, offset), Form::Zeros { left: true, .. }) {
            return None;
        }
        let (sum, least) = sums(left, right, right, offset)?;
        Some(StandIn { bits: sum.wrapping_sub(right.smallest), least })
    }

    /// For zeros of a panel of the right operand, where the left one has none.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn right(left: Facts, right: Facts, offset: Offset) -> Option<StandIn> {
        if Form::of(left, right, offset) != (Form::Zeros { left: false, right: true }) {
            return None;
        }
        let (sum, least) = sums(left, right, left, offset)?;
        let bits = (bias(offset) + sum).checked_sub(left.smallest)?;
        Some(StandIn { bits, least })
    }
}

fn bias(offset: Offset) -> u32 {
    BIAS.wrapping_sub(offset as u32)
}

/// The bits of the smallest sum of a stand-in and one of the partners, and the magnitude below which a sum of
/// products is zero.
fn sums(left: Facts, right: Facts, partners: Facts, offset: Offset) -> Option<(u32, u32)> {
    // Products do not underflow, so that this is the smallest, and its exponent.
    let exponent = (left.smallest + right.smallest - bias(offset)) >> 23;
    let limit = exponent.checked_sub(SMALLER)? << 23;
    let range = partners.largest.saturating_sub(partners.smallest);
    let room = limit.checked_sub(range + 1)?;
    // With zeros alone there is no smallest product, and no sum but zero.
    Some((room.min(COMFORTABLE), ((exponent - MULTIPLE) << 23).min(INF)))
}

// A choice between something and what is there already would become a store of some lanes only, which is
// slow on some processors; the operations that follow the choices below prevent that.

#[cfg(target_arch = "x86_64")]
multiversion! { pam
    /// Puts these bits, which belong to a smaller number, in the place of numbers below a magnitude: of
    /// zeros, whose signs stay, and of what stood there.
    fn replace_zeros(values: &mut [f32], smallest: u32, bits: u32) {
        for x in values {
            let m = x.to_bits() & MAGNITUDE;
            let m = if m < smallest { 0 } else { m };
            *x = f32::from_bits(x.to_bits() & !MAGNITUDE | m.max(bits));
        }
    }
}

multiversion! { pam
    /// What is added to the right operand's bits for numbers, and these bits for those below a magnitude.
    fn sums_with(values: &[f32], bias: u32, smallest: u32, bits: u32, sums: &mut [i32]) {
        for (x, sum) in values.iter().zip(sums) {
            let x = x.to_bits();
            let zero = x & MAGNITUDE < smallest;
            *sum = if zero { bits } else { x.wrapping_sub(bias) } as i32;
        }
    }
}

#[cfg(target_arch = "x86_64")]
multiversion! { pam
    /// Makes sums below a magnitude zero, which is never −0.
    fn settle(sums: &mut [f32], least: u32) {
        for x in sums {
            let sum = if x.to_bits() & MAGNITUDE < least { 0.0 } else { *x };
            *x = sum + 0.0;
        }
    }
}
