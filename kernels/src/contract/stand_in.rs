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
    /// overflow. The bits are a multiple of the step, a power of two.
    pub(crate) fn left(left: Facts, right: Facts, offset: Offset, step: u32) -> Option<StandIn> {
        if !matches!(Form::of(left, right, offset), Form::Zeros { left: true, .. }) {
            return None;
        }
        let (sum, least) = sums(left, right, right.range() + step - 1, offset)?;
        // Less the bias they may be negative.
        let bits = sum.wrapping_sub(right.smallest).wrapping_add(step - 1) & !(step - 1);
        Some(StandIn { bits, least })
    }

    /// For zeros of a panel of the right operand, where the left one has none. The bits are a multiple of the step, a
    /// power of two.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn right(left: Facts, right: Facts, offset: Offset, step: u32) -> Option<StandIn> {
        if Form::of(left, right, offset) != (Form::Zeros { left: false, right: true }) {
            return None;
        }
        let (sum, least) = sums(left, right, left.range() + step - 1, offset)?;
        let bits = (bias(offset) + sum).checked_sub(left.smallest)?;
        Some(StandIn { bits: bits.next_multiple_of(step), least })
    }
}

#[cfg(target_arch = "x86_64")]
impl Form {
    /// The same where something may stand in the place of each operand's zeros, which then need no care.
    pub(crate) fn filled(self, stand_ins: [Option<StandIn>; 2]) -> Form {
        let Form::Zeros { left, right } = self else { return self };
        match (left && stand_ins[0].is_none(), right && stand_ins[1].is_none()) {
            (false, false) => Form::Raw,
            (left, right) => Form::Zeros { left, right },
        }
    }
}

fn bias(offset: Offset) -> u32 {
    BIAS.wrapping_sub(offset as u32)
}

/// The bits of the smallest sum of a stand-in and one of its partners, if these range so far, and the magnitude
/// below which a sum of products is zero.
fn sums(left: Facts, right: Facts, range: u32, offset: Offset) -> Option<(u32, u32)> {
    // Products do not underflow, so that this is the smallest, and its exponent.
    let exponent = (left.smallest + right.smallest - bias(offset)) >> 23;
    let limit = exponent.checked_sub(SMALLER)? << 23;
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{BIAS, StandIn};
    use crate::contract::facts::Facts;

    fn facts(smallest: f32, largest: f32, zero: bool) -> Facts {
        Facts { smallest: smallest.to_bits(), largest: largest.to_bits(), zero }
    }

    #[test]
    fn usual_ranges_have_stand_ins() {
        let weights = facts(1e-6, 0.3, false);
        for (smallest, largest) in [(1e-5, 8.0), (1e-9, 1e-3), (1e-12, 1e-5)] {
            let dropped = facts(smallest, largest, true);
            assert!(StandIn::left(dropped, weights, 0, 1).is_some(), "{smallest}");
            assert!(StandIn::right(weights, dropped, 0, 1).is_some(), "{smallest}");
        }
        let (slopes, power) = (facts(0.125, 4.0, true), 1 << 23);
        let slope = StandIn::right(weights, slopes, 0, power).unwrap();
        assert!(slope.bits.is_multiple_of(power) && slope.bits < slopes.smallest);
        let slope = StandIn::left(slopes, weights, 0, power).unwrap();
        assert!(slope.bits.is_multiple_of(power));
        assert!(slope.bits.wrapping_add(BIAS) < slopes.smallest);
    }

    #[test]
    fn some_zeros_have_none() {
        let (weights, zeros) = (facts(1e-6, 0.3, false), facts(1e-6, 0.3, true));
        // One of two zeros that meet is masked, and there is nothing to replace without any.
        assert!(
            StandIn::right(zeros, zeros, 0, 1).is_none()
                && StandIn::left(zeros, zeros, 0, 1).is_some()
        );
        assert!(StandIn::left(weights, weights, 0, 1).is_none());
        // Underflow, overflow, and partners of which some are too small beside others.
        for other in [facts(1e-35, 1.0, true), facts(1.0, 1e38, true), facts(1e-20, 1e20, true)] {
            let far = facts(1e-20, 1e20, false);
            assert!(
                StandIn::left(other, far, 0, 1).is_none()
                    && StandIn::right(far, other, 0, 1).is_none()
            );
        }
    }
}
