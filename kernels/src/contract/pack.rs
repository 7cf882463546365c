//! Packing operands into panels, and what the panels hold.
//!
//! A panel keeps a chunk of k in the order in which a register tile reads it. While packing, the
//! extremes of the magnitudes are gathered; from those of two panels follows which micro-kernel is
//! exact for them.

use super::columns::Columns;
use super::serial::{Left, TILE_COLUMNS, TILE_ROWS};
use crate::pa::{Offset, round_mantissa};
use std::ops::Range;

const MAGNITUDE: u32 = 0x7FFF_FFFF;
const MIN: u32 = 0x0080_0000;
const INF: u32 = 0x7F80_0000;
const BIAS: u32 = 0x3F80_0000;

/// What the magnitudes of a panel are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The smallest that is not zero; subnormals count as zeros.
    pub smallest: u32,
    /// The largest.
    pub largest: u32,
    /// Whether there are zeros.
    pub zero: bool,
}

impl Facts {
    const NONE: Facts = Facts { smallest: INF, largest: 0, zero: false };

    #[inline(always)]
    fn add(&mut self, x: f32) {
        let m = x.to_bits() & MAGNITUDE;
        self.largest = self.largest.max(m);
        let zero = m < MIN;
        self.smallest = self.smallest.min(if zero { INF } else { m });
        self.zero |= zero;
    }
}

/// Which micro-kernel is exact for two panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Neither zeros nor underflow nor overflow.
    Raw,
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
        if a.zero || b.zero || underflow { Form::Compare } else { Form::Raw }
    }
}

/// Panels of the right operand: `[panel][k][TILE_COLUMNS]`, missing columns filled with ones.
#[derive(Default)]
pub(crate) struct RightPanel {
    pub data: Vec<f32>,
    pub facts: Vec<Facts>,
    pub depth: usize,
}

impl RightPanel {
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
        self.data.resize(panels * size, 0.0);
        self.facts.clear();
        for (panel, j) in self.data.chunks_exact_mut(size).zip(n.clone().step_by(TILE_COLUMNS)) {
            let width = TILE_COLUMNS.min(n.end - j);
            source.copy(k.clone(), j..j + width, TILE_COLUMNS, panel);
            if width < TILE_COLUMNS {
                // Ones keep the panel's facts as they are.
                panel.chunks_mut(TILE_COLUMNS).for_each(|row| row[width..].fill(1.0));
            }
            if mantissa < 23 {
                panel.iter_mut().for_each(|x| *x = round_mantissa(*x, mantissa));
            }
            self.facts.push(gather(panel));
        }
    }
}

fn gather(values: &[f32]) -> Facts {
    // Sixteen facts side by side, so that the loop vectorises.
    let mut lanes = [Facts::NONE; 16];
    let chunks = values.chunks_exact(16);
    chunks.remainder().iter().for_each(|&x| lanes[0].add(x));
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(f, &x)| f.add(x));
    }
    lanes.into_iter().fold(Facts::NONE, |a, b| Facts {
        smallest: a.smallest.min(b.smallest),
        largest: a.largest.max(b.largest),
        zero: a.zero | b.zero,
    })
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
        self.facts.clear();
        let bias = BIAS.wrapping_sub(offset as u32);
        for (p, first) in rows.clone().step_by(TILE_ROWS).enumerate() {
            let height = TILE_ROWS.min(rows.end - first);
            let panel = &mut self.data[p * size..][..size];
            if height < TILE_ROWS {
                panel.fill(1.0);
            }
            for r in 0..height {
                for (i, k) in k.clone().enumerate() {
                    panel[i * TILE_ROWS + r] = left.at(first + r, k);
                }
            }
            if mantissa < 23 {
                panel.iter_mut().for_each(|x| *x = round_mantissa(*x, mantissa));
            }
            self.facts.push(gather(panel));
            let sums = &mut self.sums[p * size..][..size];
            let floors = &mut self.floors[p * size..][..size];
            for ((x, sum), floor) in panel.iter().zip(sums).zip(floors) {
                let m = x.to_bits() & MAGNITUDE;
                *sum = x.to_bits().wrapping_sub(bias) as i32;
                let reach = (bias + MIN).saturating_sub(m).max(MIN) as i32;
                *floor = if m < MIN { i32::MAX } else { reach };
            }
        }
    }
}
