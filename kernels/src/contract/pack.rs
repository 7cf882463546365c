//! Packing operands into panels.
//!
//! A panel keeps a chunk of k in the order in which a register tile reads it. While packing, the
//! extremes of the magnitudes are gathered; from those of two panels follows which micro-kernel is
//! exact for them, and what else of the left operand it reads.

use super::columns::{Columns, Strided, interleave};
use super::facts::{Facts, Form, gather};
use super::tile::{TILE_COLUMNS, TILE_ROWS};
use crate::isa::{Isa, isa};
use crate::pa::{BIAS, INF, MAGNITUDE, MIN, Offset, round_mantissa};
use crate::simd::multiversion;
use std::ops::Range;

/// Numbers in a cache line.
const LINE: usize = 16;

/// Panels of the right operand: `[panel][k][TILE_COLUMNS]`, missing columns filled with ones.
#[derive(Default)]
pub(crate) struct RightPanel {
    data: Vec<f32>,
    /// Where the panels begin: at a cache line, since vectors that straddle two cost twice.
    start: usize,
    masks: Vec<i32>,
    pub facts: Vec<Facts>,
    depth: usize,
}

impl RightPanel {
    /// Panel `p`.
    pub(crate) fn panel(&self, p: usize) -> &[f32] {
        &self.data[self.start..][self.place(p)]
    }

    /// All bits for a number, none for a zero, in a panel that has zeros. AVX2 reads them from memory, as
    /// it has no registers for them.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn masks(&self, p: usize) -> &[i32] {
        &self.masks[self.place(p)]
    }

    fn place(&self, p: usize) -> Range<usize> {
        let size = self.depth * TILE_COLUMNS;
        p * size..(p + 1) * size
    }

    /// What all panels together are like.
    pub(crate) fn all(&self) -> Facts {
        self.facts.iter().copied().reduce(Facts::and).unwrap_or_default()
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
        let columns = n.clone().step_by(TILE_COLUMNS);
        for (p, (panel, j)) in data.chunks_exact_mut(size).zip(columns).enumerate() {
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
            if facts.zero && isa() == Isa::Avx2 {
                self.masks.resize(panels * size, 0);
                masks(panel, &mut self.masks[p * size..][..size]);
            }
        }
    }
}

multiversion! { pam
    /// What is added to the right operand's bits.
    fn sums(values: &[f32], bias: u32, sums: &mut [i32]) {
        for (x, sum) in values.iter().zip(sums) {
            *sum = x.to_bits().wrapping_sub(bias) as i32;
        }
    }
}

multiversion! { pam
    /// The magnitudes which the right operand must reach.
    fn floors(values: &[f32], bias: u32, floors: &mut [i32]) {
        for (x, floor) in values.iter().zip(floors) {
            let m = x.to_bits() & MAGNITUDE;
            let reach = (bias + MIN).saturating_sub(m).max(MIN) as i32;
            *floor = if m < MIN { i32::MAX } else { reach };
        }
    }
}

multiversion! { pam
    /// The magnitudes from which products overflow.
    fn ceilings(values: &[f32], bias: u32, ceilings: &mut [i32]) {
        for (x, ceiling) in values.iter().zip(ceilings) {
            let m = x.to_bits() & MAGNITUDE;
            *ceiling = (bias + INF).wrapping_sub(m).min(i32::MAX as u32) as i32;
        }
    }
}

multiversion! { pam
    /// All bits for a number, none for a zero.
    fn masks(values: &[f32], masks: &mut [i32]) {
        for (x, mask) in values.iter().zip(masks) {
            *mask = -i32::from(x.to_bits() & MAGNITUDE >= MIN);
        }
    }
}

multiversion! { pam
    fn narrow(values: &mut [f32], mantissa: u32) {
        values.iter_mut().for_each(|x| *x = round_mantissa(*x, mantissa));
    }
}

/// What a micro-kernel reads of the left operand besides the sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extras {
    /// The least magnitudes of the right operand.
    pub floors: bool,
    /// The magnitudes from which products overflow.
    pub ceilings: bool,
    /// Which are zeros.
    pub masks: bool,
}

impl Extras {
    /// What products need of a panel with these facts, if the right operand's panels, taken together, ask
    /// for this form. A single one of them may ask for a cheaper form.
    pub(crate) fn of(form: Form, facts: Facts) -> Extras {
        Extras {
            floors: form >= Form::Zeros { left: true, right: true },
            ceilings: form >= Form::Full,
            masks: facts.zero,
        }
    }
}

/// Panels of the left operand: `[panel][k][TILE_ROWS]`, missing rows filled with ones. What the
/// micro-kernels do not need is not there.
#[derive(Default)]
pub(crate) struct LeftPanel {
    /// The numbers of the panel that is being packed.
    panel: Vec<f32>,
    sums: Vec<i32>,
    floors: Vec<i32>,
    ceilings: Vec<i32>,
    masks: Vec<i32>,
    pub facts: Vec<Facts>,
    depth: usize,
}

impl LeftPanel {
    fn place(&self, q: usize) -> Range<usize> {
        let size = self.depth * TILE_ROWS;
        q * size..(q + 1) * size
    }

    /// Bit patterns less the bias: what is added to those of the right operand.
    pub(crate) fn sums(&self, q: usize) -> &[i32] {
        &self.sums[self.place(q)]
    }

    /// The magnitude that the right operand must reach for a product that is not zero.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn floors(&self, q: usize) -> &[i32] {
        &self.floors[self.place(q)]
    }

    /// The magnitude of the right operand from which a product overflows.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn ceilings(&self, q: usize) -> &[i32] {
        &self.ceilings[self.place(q)]
    }

    /// All bits for a number, none for a zero.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn masks(&self, q: usize) -> &[i32] {
        &self.masks[self.place(q)]
    }

    pub(crate) fn pack(
        &mut self,
        left: Strided<'_>,
        rows: Range<usize>,
        k: Range<usize>,
        (offset, mantissa): (Offset, u32),
        extras: impl Fn(Facts) -> Extras,
    ) {
        self.depth = k.len();
        let size = self.depth * TILE_ROWS;
        let panels = rows.len().div_ceil(TILE_ROWS);
        self.panel.resize(size, 0.0);
        self.sums.resize(panels * size, 0);
        self.facts.clear();
        let bias = BIAS.wrapping_sub(offset as u32);
        for (q, first) in rows.clone().step_by(TILE_ROWS).enumerate() {
            let height = TILE_ROWS.min(rows.end - first);
            let panel = &mut self.panel;
            if height < TILE_ROWS {
                panel.fill(1.0);
            }
            let from = left.offset + first * left.row + k.start * left.col;
            let strides = [left.row, left.col];
            interleave(&left.data[from..], strides, [height, k.len()], TILE_ROWS, panel);
            if mantissa < 23 {
                narrow(panel, mantissa);
            }
            let mut facts = Facts::default();
            gather(panel, &mut facts);
            self.facts.push(facts);
            let place = q * size..(q + 1) * size;
            sums(panel, bias, &mut self.sums[place.clone()]);
            let extras = extras(facts);
            if extras.floors {
                self.floors.resize(panels * size, 0);
                floors(panel, bias, &mut self.floors[place.clone()]);
            }
            if extras.ceilings {
                self.ceilings.resize(panels * size, 0);
                ceilings(panel, bias, &mut self.ceilings[place.clone()]);
            }
            if extras.masks {
                self.masks.resize(panels * size, 0);
                masks(panel, &mut self.masks[place]);
            }
        }
    }
}
