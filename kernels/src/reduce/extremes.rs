//! The largest and smallest numbers of rows and of columns.

use super::{COLUMNS, LANES};
use crate::memory::prefetch_ahead;

/// The number of a row that beats all others, found in lanes side by side: in which order numbers are compared
/// shows for nothing but NaN, of which that of the first lane is taken, and zeros of both signs, of which
/// the last is.
#[inline(always)]
pub(super) fn extreme_row(x: &[f32], start: f32, beats: impl Fn(f32, f32) -> bool) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut last = [start; LANES];
    last[..rest.len()].copy_from_slice(rest);
    // Two at a time, since each waits for its comparison before.
    let nothing = Extremes { lanes: [start; LANES], nan: [0; LANES] };
    let (mut found, mut other) = (nothing, nothing);
    let (pairs, odd) = blocks.as_chunks::<2>();
    for [even, odd] in pairs {
        prefetch_ahead(even);
        prefetch_ahead(odd);
        found = found.beaten(even, &beats);
        other = other.beaten(odd, &beats);
        // One comparison tells of both.
        for (nan, (x, y)) in found.nan.iter_mut().zip(even.iter().zip(odd)) {
            *nan |= if x.is_nan() | y.is_nan() { u32::MAX } else { 0 };
        }
    }
    for block in odd {
        found = found.with(block, &beats);
    }
    found = found.with(&last, &beats).and(&other, &beats);
    if found.nan.contains(&u32::MAX) {
        return first_nan(x);
    }
    let extreme = found.extreme(&beats);
    if extreme == 0.0 {
        let mut n = x.len();
        while n > 0 {
            n -= 1;
            if x[n] == 0.0 {
                return x[n];
            }
        }
    }
    extreme
}

/// The first NaN of the first lane that has one.
#[cold]
#[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
fn first_nan(x: &[f32]) -> f32 {
    for lane in 0..LANES {
        let mut i = lane;
        while i < x.len() {
            if x[i].is_nan() {
                return x[i];
            }
            i += LANES;
        }
    }
    f32::NAN
}

/// What has been found in a row.
#[derive(Clone, Copy)]
struct Extremes {
    /// What beats all others of its lane.
    lanes: [f32; LANES],
    /// Where there was a NaN, as masks, which need no conversion.
    nan: [u32; LANES],
}

impl Extremes {
    #[inline(always)]
    fn with(mut self, block: &[f32; LANES], beats: &impl Fn(f32, f32) -> bool) -> Extremes {
        for (nan, x) in self.nan.iter_mut().zip(block) {
            *nan |= if x.is_nan() { u32::MAX } else { 0 };
        }
        self.beaten(block, beats)
    }

    /// The same of the numbers alone.
    #[inline(always)]
    fn beaten(mut self, block: &[f32; LANES], beats: &impl Fn(f32, f32) -> bool) -> Extremes {
        for (lane, &x) in self.lanes.iter_mut().zip(block) {
            *lane = if beats(x, *lane) { x } else { *lane };
        }
        self
    }

    /// What has been found in two parts of a row.
    #[inline(always)]
    fn and(mut self, other: &Extremes, beats: &impl Fn(f32, f32) -> bool) -> Extremes {
        self = self.with(&other.lanes, beats);
        self.nan.iter_mut().zip(other.nan).for_each(|(nan, other)| *nan |= other);
        self
    }

    /// The lane that beats all others. A function that is called, since the compiler otherwise arranges the lanes
    /// for its sake, at every block of the row.
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
    fn extreme(mut self, beats: &impl Fn(f32, f32) -> bool) -> f32 {
        let mut half = LANES / 2;
        while half > 0 {
            let (low, high) = self.lanes.split_at_mut(half);
            for (x, &y) in low.iter_mut().zip(&high[..half]) {
                *x = if beats(y, *x) { y } else { *x };
            }
            half /= 2;
        }
        self.lanes[0]
    }
}

/// In an array of its own, since choosing between what is in memory and something else would become stores of
/// some lanes only, which are slow on some processors.
#[inline(always)]
pub(super) fn extreme_columns<'x>(
    rows: impl Iterator<Item = &'x [f32]>,
    start: f32,
    pick: impl Fn(f32, f32) -> f32,
    out: &mut [f32],
) {
    let mut extremes = [start; COLUMNS];
    for row in rows {
        match <&[f32; COLUMNS]>::try_from(row) {
            Ok(row) => (0..COLUMNS).for_each(|i| extremes[i] = pick(extremes[i], row[i])),
            Err(_) => {
                let mut wide = [start; COLUMNS];
                wide[..row.len()].copy_from_slice(row);
                (0..COLUMNS).for_each(|i| extremes[i] = pick(extremes[i], wide[i]));
            }
        }
    }
    out.copy_from_slice(&extremes[..out.len()]);
}
