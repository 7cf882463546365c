//! Products row by row: the portable form, which is also the one for few rows.

use super::K_CHUNK;
use super::columns::{Columns, Strided};
use super::facts::{Facts, Form, gather};
use super::out::Out;
use super::pack::narrow;
use crate::function::{self, PATIENCE};
#[cfg(target_arch = "x86_64")]
use crate::isa::{Isa, isa};
use crate::pa::{BIAS, INF, MAGNITUDE, MIN, Offset};
use crate::simd::{F2, multiversion};
use std::ops::Range;

/// Columns at a time.
const WIDTH: usize = 512;
/// Rows at a time.
const ROWS: usize = 4;

#[allow(clippy::too_many_arguments, reason = "a product has two operands, a place and a kind")]
pub(crate) fn product(
    block: &mut Vec<f32>,
    m: usize,
    columns: Range<usize>,
    k: usize,
    left: Strided<'_>,
    right: &impl Columns,
    out: Out,
    (offset, mantissa): (Offset, u32),
) {
    let bias = BIAS.wrapping_sub(offset as u32);
    let in_place = right.strided().filter(|_| mantissa >= 23);
    let (mut rows, mut sums, mut failures) = (Rows::default(), [[0f32; WIDTH]; ROWS], 0);
    for from in columns.clone().step_by(WIDTH) {
        let n = from..(from + WIDTH).min(columns.end);
        for start in (0..k).step_by(K_CHUNK) {
            let k = start..(start + K_CHUNK).min(k);
            let mut packed = None;
            for top in (0..m).step_by(ROWS) {
                let sums = &mut sums[..ROWS.min(m - top)];
                rows.read(left.skip(top), sums.len(), k.clone(), mantissa);
                let place = [k.clone(), n.clone()];
                let straight = in_place.filter(|_| packed.is_none() && failures < PATIENCE);
                let found = straight.and_then(|r| in_memory(bias, &rows.values, r, place, sums));
                let mut left = rows.facts[..sums.len()].iter();
                let raw = |right| left.all(|left| Form::of(*left, right, offset) == Form::Raw);
                if !found.is_some_and(raw) {
                    failures += u32::from(found.is_some());
                    let right = *packed
                        .get_or_insert_with(|| copy(right, k.clone(), n.clone(), mantissa, block));
                    rows.accumulate(offset, [k.len(), n.len()], (block, right), sums);
                }
                for (i, sums) in sums.iter().enumerate() {
                    // SAFETY: the caller hands over these rows and columns.
                    unsafe { out.store(top + i, from, &sums[..n.len()], start > 0) };
                }
            }
        }
    }
}

/// A chunk of k of some rows.
struct Rows {
    values: [[f32; K_CHUNK]; ROWS],
    /// What they hold.
    facts: [Facts; ROWS],
}

impl Default for Rows {
    fn default() -> Rows {
        Rows { values: [[0.0; K_CHUNK]; ROWS], facts: [Facts::default(); ROWS] }
    }
}

impl Rows {
    /// Reads the first rows of a matrix.
    fn read(&mut self, left: Strided<'_>, rows: usize, k: Range<usize>, mantissa: u32) {
        for (i, (row, facts)) in self.values.iter_mut().zip(&mut self.facts).take(rows).enumerate()
        {
            let row = &mut row[..k.len()];
            for (a, k) in row.iter_mut().zip(k.clone()) {
                *a = left.at(i, k);
            }
            if mantissa < 23 {
                narrow(row, mantissa);
            }
            gather(row, facts);
        }
    }

    /// Their products with a block of the right operand, by the form that is exact for what each and that hold.
    fn accumulate(
        &self,
        offset: Offset,
        [depth, width]: [usize; 2],
        (block, right): (&[f32], Facts),
        sums: &mut [[f32; WIDTH]],
    ) {
        for ((sums, row), left) in sums.iter_mut().zip(&self.values).zip(self.facts) {
            let (row, sums) = (&row[..depth], &mut sums[..width]);
            sums.fill(0.0);
            let bias = BIAS.wrapping_sub(offset as u32);
            match Form::of(left, right, offset) {
                Form::Raw => accumulate(function::Raw(bias), row, block, sums),
                Form::Zeros { .. } | Form::Compare => {
                    accumulate(function::Compared(bias), row, block, sums);
                }
                Form::Full | Form::Special => {
                    accumulate(function::Mul(offset), row, block, sums);
                }
            }
        }
    }
}

/// Copies a block of the right operand out; what it holds.
fn copy(
    right: &impl Columns,
    k: Range<usize>,
    n: Range<usize>,
    mantissa: u32,
    block: &mut Vec<f32>,
) -> Facts {
    block.resize(k.len() * n.len(), 0.0);
    let width = n.len();
    right.copy(k, n, width, block);
    if mantissa < 23 {
        narrow(block, mantissa);
    }
    let mut facts = Facts::default();
    gather(block, &mut facts);
    facts
}

/// The sums of raw products of rows, as many as there are sums, and of neighbouring columns, read where they lie, and
/// what these hold; nothing where they lie otherwise.
fn in_memory(
    bias: u32,
    rows: &[[f32; K_CHUNK]; ROWS],
    right: Strided<'_>,
    [k, n]: [Range<usize>; 2],
    sums: &mut [[f32; WIDTH]],
) -> Option<Facts> {
    let source = &right.data[right.offset + k.start * right.row + n.start * right.col..];
    let mut facts = Facts::default();
    if right.col == 1 {
        dense(bias, rows, source, right.row, [k.len(), n.len()], sums, &mut facts);
        return Some(facts);
    }
    #[cfg(target_arch = "x86_64")]
    if let ([sums], 1, Isa::Avx512) = (sums, right.row, isa()) {
        let end = (n.len() - 1) * right.col + k.len();
        assert!(end <= source.len(), "the columns are there");
        let row = rows[0].map(|a| a.to_bits().wrapping_sub(bias) as i32);
        let (row, sums) = (&row[..k.len()], &mut sums[..n.len()]);
        // SAFETY: the processor has the extension, and the source the columns.
        let [smallest, largest] =
            unsafe { crate::x86::turned(row, source.as_ptr(), right.col, sums) };
        return Some(Facts { smallest, largest, zero: smallest < MIN });
    }
    None
}

multiversion! { pam
    /// The sums of raw products with lines of columns side by side, and what these hold.
    fn dense(
        bias: u32,
        rows: &[[f32; K_CHUNK]; ROWS],
        source: &[f32],
        stride: usize,
        size: [usize; 2],
        sums: &mut [[f32; WIDTH]],
        facts: &mut Facts,
    ) {
        let [depth, width] = size;
        let mut extremes = (INF, 0);
        let mut k = 0;
        while k < depth {
            // Four lines at a time, so that the sums are read and written less often, for all rows, so that these are
            // read once.
            for (i, (sums, row)) in sums.iter_mut().zip(rows).enumerate() {
                let sums = &mut sums[..width];
                if k == 0 {
                    sums.fill(0.0);
                }
                if k + 4 > depth {
                    for k in k..depth {
                        let line = &source[k * stride..][..width];
                        one_line(row[k].to_bits().wrapping_sub(bias), line, sums, &mut extremes);
                    }
                    continue;
                }
                let lines = [
                    &source[k * stride..][..width],
                    &source[(k + 1) * stride..][..width],
                    &source[(k + 2) * stride..][..width],
                    &source[(k + 3) * stride..][..width],
                ];
                let a = [
                    row[k].to_bits().wrapping_sub(bias),
                    row[k + 1].to_bits().wrapping_sub(bias),
                    row[k + 2].to_bits().wrapping_sub(bias),
                    row[k + 3].to_bits().wrapping_sub(bias),
                ];
                if i == 0 {
                    four_lines::<true>(a, lines, sums, &mut extremes);
                } else {
                    four_lines::<false>(a, lines, sums, &mut extremes);
                }
            }
            k += 4;
        }
        let (smallest, largest) = extremes;
        *facts = Facts { smallest, largest, zero: smallest < MIN };
    }
}

/// Adds raw products with the numbers of a line, and gathers their least and largest magnitudes.
#[inline(always)]
fn one_line(a: u32, line: &[f32], sums: &mut [f32], (least, most): &mut (u32, u32)) {
    for (sum, b) in sums.iter_mut().zip(line) {
        *sum += f32::from_bits(b.to_bits().wrapping_add(a));
        *least = (*least).min(b.to_bits() & MAGNITUDE);
        *most = (*most).max(b.to_bits() & MAGNITUDE);
    }
}

/// The same for four lines, which may be known already.
#[inline(always)]
fn four_lines<const NEW: bool>(
    a: [u32; 4],
    [b, c, d, e]: [&[f32]; 4],
    sums: &mut [f32],
    (least, most): &mut (u32, u32),
) {
    let (mut low, mut high) = (*least, *most);
    for j in 0..sums.len() {
        let [b, c, d, e] = [b[j].to_bits(), c[j].to_bits(), d[j].to_bits(), e[j].to_bits()];
        let mut sum = sums[j] + f32::from_bits(b.wrapping_add(a[0]));
        sum += f32::from_bits(c.wrapping_add(a[1]));
        sum += f32::from_bits(d.wrapping_add(a[2]));
        sums[j] = sum + f32::from_bits(e.wrapping_add(a[3]));
        if NEW {
            let ([b, c], [d, e]) = ([b & MAGNITUDE, c & MAGNITUDE], [d & MAGNITUDE, e & MAGNITUDE]);
            low = low.min(b.min(c)).min(d.min(e));
            high = high.max(b.max(c)).max(d.max(e));
        }
    }
    (*least, *most) = (low, high);
}

multiversion! { pam
    /// `sums[j] += f(a[k], b[k, j])` for all k.
    fn accumulate<F: F2>(f: F, a: &[f32], b: &[f32], sums: &mut [f32]) {
        let width = sums.len();
        // As many sums at a time as registers hold.
        for from in (0..width).step_by(64) {
            let part = 64.min(width - from);
            if let Ok(part) = <&mut [f32; 64]>::try_from(&mut sums[from..from + part]) {
                let mut sums = *part;
                for (&a, b) in a.iter().zip(b.chunks_exact(width)) {
                    let b = &b[from..from + 64];
                    sums.iter_mut().zip(b).for_each(|(s, &b)| *s += f.call(a, b));
                }
                *part = sums;
            } else {
                for (&a, b) in a.iter().zip(b.chunks_exact(width)) {
                    let sums = sums[from..].iter_mut().zip(&b[from..]);
                    sums.for_each(|(s, &b)| *s += f.call(a, b));
                }
            }
        }
    }
}
