//! Packing operands into panels, and what the panels hold.
//!
//! A panel keeps a chunk of k in the order in which a register tile reads it. While packing, the
//! extremes of the magnitudes are gathered; from those of two panels follows which micro-kernel is
//! exact for them.

use super::columns::Columns;
use super::serial::{Left, TILE_COLUMNS, TILE_ROWS};
use crate::pa::{BIAS, INF, MAGNITUDE, MIN, Offset, round_mantissa};
use crate::simd::multiversion;
use std::ops::Range;

/// Numbers in a cache line.
const LINE: usize = 16;

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

/// Which micro-kernel is exact for two panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let underflow = u64::from(a.smallest) + u64::from(b.smallest) < bias + u64::from(MIN);
        match (a.zero, b.zero) {
            _ if underflow => Form::Compare,
            (false, false) => Form::Raw,
            (left, right) => Form::Zeros { left, right },
        }
    }
}

/// Panels of the right operand: `[panel][k][TILE_COLUMNS]`, missing columns filled with ones.
#[derive(Default)]
pub(crate) struct RightPanel {
    data: Vec<f32>,
    /// Where the panels begin: at a cache line, since vectors that straddle two cost twice.
    start: usize,
    pub facts: Vec<Facts>,
    pub depth: usize,
}

impl RightPanel {
    /// Panel `p`.
    pub(crate) fn panel(&self, p: usize) -> &[f32] {
        let size = self.depth * TILE_COLUMNS;
        &self.data[self.start + p * size..][..size]
    }

    pub(crate) fn pack(
        &mut self,
        source: &impl Columns,
        k: Range<usize>,
        n: Range<usize>,
        mantissa: u32,
    ) {
        let panels = n.len().div_ceil(TILE_COLUMNS);
        self.depth = k.len();
        let size = self.depth * TILE_COLUMNS;
        self.data.resize(panels * size + LINE, 0.0);
        self.start = self.data.as_ptr().align_offset(4 * LINE).min(LINE);
        self.facts.clear();
        let data = &mut self.data[self.start..][..panels * size];
        for (panel, j) in data.chunks_exact_mut(size).zip(n.clone().step_by(TILE_COLUMNS)) {
            let width = TILE_COLUMNS.min(n.end - j);
            source.copy(k.clone(), j..j + width, TILE_COLUMNS, panel);
            if width < TILE_COLUMNS {
                // Ones keep the panel's facts as they are.
                panel.chunks_mut(TILE_COLUMNS).for_each(|row| row[width..].fill(1.0));
            }
            if mantissa < 23 {
                narrow(panel, mantissa);
            }
            let mut facts = Facts::default();
            gather(panel, &mut facts);
            self.facts.push(facts);
        }
    }
}

multiversion! { pam
    /// Gathers what a panel holds.
    fn gather(values: &[f32], facts: &mut Facts) {
        // Sixteen of each side by side, so that the loop vectorises. Zeros wrap to large numbers.
        let (mut smallest, mut least, mut most) = ([INF; 16], [INF; 16], [0; 16]);
        let mut add = |lane: usize, x: f32| {
            let m = x.to_bits() & MAGNITUDE;
            smallest[lane] = smallest[lane].min(m.wrapping_sub(MIN));
            least[lane] = least[lane].min(m);
            most[lane] = most[lane].max(m);
        };
        let chunks = values.chunks_exact(16);
        chunks.remainder().iter().for_each(|&x| add(0, x));
        for chunk in chunks {
            (0..16).for_each(|lane| add(lane, chunk[lane]));
        }
        *facts = Facts {
            smallest: smallest.into_iter().fold(INF - MIN, u32::min) + MIN,
            largest: most.into_iter().fold(0, u32::max),
            zero: least.into_iter().fold(INF, u32::min) < MIN,
        };
    }
}

multiversion! { pam
    /// What is added to the right operand's bits, and the magnitude which those must reach.
    fn prepare(values: &[f32], bias: u32, sums: &mut [i32], floors: &mut [i32], masks: &mut [u16]) {
        for (((x, sum), floor), mask) in values.iter().zip(sums).zip(floors).zip(masks) {
            let m = x.to_bits() & MAGNITUDE;
            *sum = x.to_bits().wrapping_sub(bias) as i32;
            let reach = (bias + MIN).saturating_sub(m).max(MIN) as i32;
            *floor = if m < MIN { i32::MAX } else { reach };
            *mask = if m < MIN { 0 } else { u16::MAX };
        }
    }
}

multiversion! { pam
    /// The magnitudes from which products overflow, for numbers one of which can make that happen.
    fn limit(values: &[f32], bias: u32, ceilings: &mut [i32]) {
        for (x, ceiling) in values.iter().zip(ceilings) {
            let m = x.to_bits() & MAGNITUDE;
            *ceiling = (bias + INF).wrapping_sub(m).min(i32::MAX as u32) as i32;
        }
    }
}

multiversion! { pam
    fn narrow(values: &mut [f32], mantissa: u32) {
        values.iter_mut().for_each(|x| *x = round_mantissa(*x, mantissa));
    }
}

/// Panels of the left operand: `[panel][k][TILE_ROWS]`, missing rows filled with ones.
#[derive(Default)]
pub(crate) struct LeftPanel {
    /// The numbers, for special values.
    pub data: Vec<f32>,
    /// Bit patterns less the bias: what is added to those of the right operand.
    pub sums: Vec<i32>,
    /// The magnitude that the right operand must reach for a product that is not zero.
    pub floors: Vec<i32>,
    /// The magnitude of the right operand from which a product overflows.
    pub ceilings: Vec<i32>,
    /// All bits for a number, none for a zero.
    pub masks: Vec<u16>,
    pub facts: Vec<Facts>,
    pub depth: usize,
}

impl LeftPanel {
    pub(crate) fn pack(
        &mut self,
        left: Left<'_>,
        rows: Range<usize>,
        k: Range<usize>,
        mantissa: u32,
        offset: Offset,
    ) {
        self.depth = k.len();
        let size = self.depth * TILE_ROWS;
        let panels = rows.len().div_ceil(TILE_ROWS);
        self.data.resize(panels * size, 0.0);
        self.sums.resize(panels * size, 0);
        self.floors.resize(panels * size, 0);
        self.masks.resize(panels * size, 0);
        self.ceilings.resize(panels * size, 0);
        self.facts.clear();
        let bias = BIAS.wrapping_sub(offset as u32);
        for (p, first) in rows.clone().step_by(TILE_ROWS).enumerate() {
            let height = TILE_ROWS.min(rows.end - first);
            let panel = &mut self.data[p * size..][..size];
            if height < TILE_ROWS {
                panel.fill(1.0);
            }
            let from = left.offset + first * left.row + k.start * left.col;
            if left.row == 1 && height == TILE_ROWS {
                // A transposed operand lies as the panel does.
                for (i, places) in panel.chunks_exact_mut(TILE_ROWS).enumerate() {
                    places.copy_from_slice(&left.data[from + i * left.col..][..TILE_ROWS]);
                }
            } else {
                for r in 0..height {
                    let values = &left.data[from + r * left.row..];
                    let places = panel.iter_mut().skip(r).step_by(TILE_ROWS);
                    match left.col {
                        0 => places.for_each(|y| *y = values[0]),
                        1 => places.zip(values).for_each(|(y, x)| *y = *x),
                        col => places.zip(values.iter().step_by(col)).for_each(|(y, x)| *y = *x),
                    }
                }
            }
            if mantissa < 23 {
                narrow(panel, mantissa);
            }
            let mut facts = Facts::default();
            gather(panel, &mut facts);
            self.facts.push(facts);
            let sums = &mut self.sums[p * size..][..size];
            let floors = &mut self.floors[p * size..][..size];
            let masks = &mut self.masks[p * size..][..size];
            prepare(panel, bias, sums, floors, masks);
            if facts.largest > bias {
                limit(panel, bias, &mut self.ceilings[p * size..][..size]);
            }
        }
    }
}
