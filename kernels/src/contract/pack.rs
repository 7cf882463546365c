//! Packing operands into panels.
//!
//! A panel keeps a chunk of k in the order in which a register tile reads it. While packing, the
//! extremes of the magnitudes are gathered; from those of two panels follows which micro-kernel is
//! exact for them, what else of the left operand it reads, and what may stand in the place of zeros.

use super::columns::{Columns, Strided, interleave};
use super::facts::{Facts, Form, gather, peaks};
#[cfg(target_arch = "x86_64")]
use super::stand_in::replace_zeros;
use super::stand_in::{StandIn, sums_with};
use super::tile::{TILE_COLUMNS, TILE_ROWS};
use crate::pa::{BIAS, MAGNITUDE, MIN, Offset, round_mantissa};
use crate::simd::multiversion;
use std::ops::Range;

/// Numbers in a cache line.
const LINE: usize = 16;
/// Less than all magnitudes less the bias, whatever mantissa and offset are added to it.
const NEVER: i32 = -0x6000_0000;

/// Panels of the right operand: `[panel][k][TILE_COLUMNS]`, missing columns filled with ones.
#[derive(Default)]
pub(crate) struct RightPanel {
    data: Vec<f32>,
    /// Where the panels begin: at a cache line, since vectors that straddle two cost twice.
    start: usize,
    pub facts: Vec<Facts>,
    zeros: Vec<Zeros>,
    masks: Vec<i32>,
    peaks: Vec<u32>,
    depth: usize,
}

/// How a panel of the right operand has its zeros.
#[derive(Clone, Copy, Default)]
struct Zeros {
    /// What is in their place.
    stand_in: Option<StandIn>,
    /// Whether there are masks.
    masked: bool,
}

impl RightPanel {
    /// Panel `p`.
    pub(crate) fn panel(&self, p: usize) -> &[f32] {
        &self.data[self.start..][self.place(p)]
    }

    /// What is in the place of a panel's zeros.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn stand_in(&self, p: usize) -> Option<StandIn> {
        self.zeros[p].stand_in
    }

    /// All bits for a number, none for a zero, in a panel that has zeros and no stand-in.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn masks(&self, p: usize) -> &[i32] {
        &self.masks[self.place(p)]
    }

    /// The largest magnitudes of a panel for each k, once [`find_peaks`](Self::find_peaks) was called.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn peaks(&self, p: usize) -> &[u32] {
        &self.peaks[p * self.depth..][..self.depth]
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
        for (panel, j) in data.chunks_exact_mut(size).zip(columns) {
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
        self.zeros.clear();
        self.zeros.resize(panels, Zeros::default());
        self.peaks.clear();
    }

    /// Finds the largest magnitudes for each k, which products that may overflow are looked at with.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn find_peaks(&mut self) {
        if self.peaks.is_empty() {
            let panels = self.facts.len();
            self.peaks.resize(panels * self.depth, 0);
            peaks(&self.data[self.start..][..panels * self.depth * TILE_COLUMNS], &mut self.peaks);
        }
    }

    /// Puts what `stand_in` says in the place of zeros. With `masked`, panels without it get masks.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn prepare(&mut self, masked: bool, stand_in: impl Fn(Facts) -> Option<StandIn>) {
        for p in 0..self.facts.len() {
            let (facts, place) = (self.facts[p], self.place(p));
            if !facts.zero {
                continue;
            }
            let zeros = &mut self.zeros[p];
            let stand_in = stand_in(facts);
            let panel = &mut self.data[self.start..][place.clone()];
            if masked && stand_in.is_none() && !zeros.masked {
                zeros.masked = true;
                self.masks.resize(self.masks.len().max(place.end), 0);
                masks(panel, facts.smallest, &mut self.masks[place.clone()]);
            }
            if stand_in != zeros.stand_in {
                zeros.stand_in = stand_in;
                replace_zeros(panel, facts.smallest, stand_in.map_or(0, |s| s.bits));
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
    /// The magnitudes which the right operand must reach, rounded up to multiples of a power of two.
    fn floors(values: &[f32], bias: u32, step: u32, floors: &mut [i32]) {
        let rest = step - 1;
        for (x, floor) in values.iter().zip(floors) {
            let m = x.to_bits() & MAGNITUDE;
            let reach = (((bias + MIN).saturating_sub(m).max(MIN) + rest) & !rest) as i32;
            *floor = if m < MIN { i32::MAX } else { reach };
        }
    }
}

multiversion! { pam
    /// Magnitudes less the bias; zeros have none.
    fn sizes(values: &[f32], bias: u32, sizes: &mut [i32]) {
        for (x, size) in values.iter().zip(sizes) {
            let m = x.to_bits() & MAGNITUDE;
            *size = if m < MIN { NEVER } else { m.wrapping_sub(bias) as i32 };
        }
    }
}

multiversion! { pam
    /// The sign bits.
    fn signs(values: &[f32], signs: &mut [i32]) {
        for (x, sign) in values.iter().zip(signs) {
            *sign = (x.to_bits() & !MAGNITUDE) as i32;
        }
    }
}

multiversion! { pam
    /// All bits for a number, none for a zero or what stands in its place, below all numbers.
    fn masks(values: &[f32], smallest: u32, masks: &mut [i32]) {
        for (x, mask) in values.iter().zip(masks) {
            *mask = -i32::from(x.to_bits() & MAGNITUDE >= smallest);
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
    /// The least magnitudes of the right operand, rounded up to multiples of this.
    pub floors: Option<u32>,
    /// Magnitudes and signs apart.
    pub parts: bool,
    /// The largest magnitudes for each k.
    pub peaks: bool,
    /// Which are zeros.
    pub masks: bool,
    /// What is in the place of zeros, or nothing.
    pub stand_in: Option<StandIn>,
}

impl Extras {
    /// What products need of a panel with these facts, if the right operand's panels, taken together, are
    /// such. A single one of them may ask for a cheaper form.
    pub(crate) fn of(left: Facts, right: Facts, offset: Offset) -> Extras {
        let form = Form::of(left, right, offset);
        let stand_in = StandIn::left(left, right, offset, 1);
        let zeros = Form::Zeros { left: true, right: true };
        Extras {
            floors: (form >= zeros && stand_in.is_none()).then_some(1),
            parts: form >= Form::Full,
            peaks: form >= Form::Full,
            masks: left.zero && stand_in.is_none(),
            stand_in,
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
    sizes: Vec<i32>,
    signs: Vec<i32>,
    peaks: Vec<u32>,
    masks: Vec<i32>,
    pub facts: Vec<Facts>,
    stand_ins: Vec<Option<StandIn>>,
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

    /// Magnitudes less the bias, and less than all of them for zeros.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn sizes(&self, q: usize) -> &[i32] {
        &self.sizes[self.place(q)]
    }

    /// Sign bits.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn signs(&self, q: usize) -> &[i32] {
        &self.signs[self.place(q)]
    }

    /// The largest magnitude for each k, where products may overflow.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn peaks(&self, q: usize) -> &[u32] {
        &self.peaks[q * self.depth..][..self.depth]
    }

    /// All bits for a number, none for a zero.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn masks(&self, q: usize) -> &[i32] {
        &self.masks[self.place(q)]
    }

    /// What is in the place of a panel's zeros.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn stand_in(&self, q: usize) -> Option<StandIn> {
        self.stand_ins[q]
    }

    /// What all panels together are like.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn all(&self) -> Facts {
        self.facts.iter().copied().reduce(Facts::and).unwrap_or_default()
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
        self.stand_ins.clear();
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
            let extras = extras(facts);
            self.stand_ins.push(extras.stand_in);
            let to = &mut self.sums[place.clone()];
            match extras.stand_in {
                Some(StandIn { bits, .. }) => sums_with(panel, bias, facts.smallest, bits, to),
                None => sums(panel, bias, to),
            }
            if let Some(step) = extras.floors {
                self.floors.resize(panels * size, 0);
                floors(panel, bias, step, &mut self.floors[place.clone()]);
            }
            if extras.parts {
                self.sizes.resize(panels * size, 0);
                self.signs.resize(panels * size, 0);
                sizes(panel, bias, &mut self.sizes[place.clone()]);
                signs(panel, &mut self.signs[place.clone()]);
            }
            if extras.peaks {
                self.peaks.resize(panels * self.depth, 0);
                peaks(panel, &mut self.peaks[q * self.depth..][..self.depth]);
            }
            if extras.masks {
                self.masks.resize(panels * size, 0);
                masks(panel, facts.smallest, &mut self.masks[place]);
            }
        }
    }
}
