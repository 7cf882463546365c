//! What operands hold, and which micro-kernel is exact for them.

use crate::pa::{BIAS, INF, MAGNITUDE, MIN, Offset};
use crate::simd::multiversion;

/// What the magnitudes of a panel are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The smallest that is not zero; subnormals count as zeros.
    pub smallest: u32,
    /// The largest.
    pub largest: u32,
    /// Whether there are zeros.
    pub zero: bool,
}

impl Facts {
    /// How far the magnitudes that are not zero range.
    pub(crate) fn range(self) -> u32 {
        self.largest.saturating_sub(self.smallest)
    }

    /// What two panels together are like.
    pub(crate) fn and(self, other: Facts) -> Facts {
        Facts {
            smallest: self.smallest.min(other.smallest),
            largest: self.largest.max(other.largest),
            zero: self.zero || other.zero,
        }
    }
}

/// Which micro-kernel is exact for two panels, the cheaper ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// Neither zeros nor underflow nor overflow.
    Raw,
    /// Zeros, neither underflow nor overflow.
    Zeros {
        /// In the left operand.
        left: bool,
        /// In the right operand.
        right: bool,
    },
    /// Zeros or underflow, no overflow.
    Compare,
    /// All finite numbers.
    Full,
    /// Infinities or NaNs.
    Special,
}

impl Form {
    pub(crate) fn of(a: Facts, b: Facts, offset: Offset) -> Form {
        let bias = u64::from(BIAS.wrapping_sub(offset as u32));
        if a.largest >= INF || b.largest >= INF {
            return Form::Special;
        }
        if u64::from(a.largest) + u64::from(b.largest) >= bias + u64::from(INF) {
            return Form::Full;
        }
        Form::within(a, b, offset)
    }

    /// The same for finite numbers of which no product overflows.
    pub(crate) fn within(a: Facts, b: Facts, offset: Offset) -> Form {
        let bias = u64::from(BIAS.wrapping_sub(offset as u32));
        let underflow = u64::from(a.smallest) + u64::from(b.smallest) < bias + u64::from(MIN);
        match (a.zero, b.zero) {
            _ if underflow => Form::Compare,
            (false, false) => Form::Raw,
            (left, right) => Form::Zeros { left, right },
        }
    }
}

multiversion! { pam
    /// Gathers what a panel holds.
    fn gather(values: &[f32], facts: &mut Facts) {
        let (mut least, mut most) = (INF, 0);
        for x in values {
            let m = x.to_bits() & MAGNITUDE;
            least = least.min(m);
            most = most.max(m);
        }
        *facts = Facts { smallest: least, largest: most, zero: least < MIN };
        if facts.zero {
            // Zeros wrap to large numbers.
            let mut smallest = INF - MIN;
            for x in values {
                smallest = smallest.min((x.to_bits() & MAGNITUDE).wrapping_sub(MIN));
            }
            facts.smallest = smallest + MIN;
        }
    }
}

multiversion! { pam
    /// The largest magnitude of each row, of which there are as many as peaks.
    fn peaks(values: &[f32], peaks: &mut [u32]) {
        let width = values.len() / peaks.len();
        for (row, peak) in values.chunks_exact(width).zip(peaks) {
            *peak = row.iter().fold(0, |most, x| most.max(x.to_bits() & MAGNITUDE));
        }
    }
}

#[cfg(target_arch = "x86_64")]
multiversion! { pam
    /// The largest sum of two peaks that meet.
    fn highest(left: &[u32], right: &[u32], highest: &mut u32) {
        *highest = left.iter().zip(right).fold(0, |most, (a, b)| most.max(a + b));
    }
}

/// Whether no product of finite panels with these peaks overflows. Large numbers are few where there are any,
/// and those of two panels seldom meet.
#[cfg(target_arch = "x86_64")]
pub(crate) fn apart(left: &[u32], right: &[u32], offset: Offset) -> bool {
    let mut most = 0;
    highest(left, right, &mut most);
    u64::from(most) < u64::from(BIAS.wrapping_sub(offset as u32)) + u64::from(INF)
}
