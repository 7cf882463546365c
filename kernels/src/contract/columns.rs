//! Where the right operand of a product comes from.

use super::tile::{TILE_COLUMNS, TILE_ROWS};
use crate::simd::multiversion;
use std::ops::Range;

/// A `[k, n]` matrix that can be copied out block by block.
pub(crate) trait Columns: Sync {
    /// Writes rows `k` and columns `n` to `out`, row after row at a distance of `stride`.
    fn copy(&self, k: Range<usize>, n: Range<usize>, stride: usize, out: &mut [f32]);

    /// The matrix as it lies in memory, if it does.
    fn strided(&self) -> Option<Strided<'_>> {
        None
    }
}

/// A strided matrix.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a> {
    pub data: &'a [f32],
    pub offset: usize,
    pub row: usize,
    pub col: usize,
}

impl Strided<'_> {
    #[inline(always)]
    pub(crate) fn at(&self, i: usize, k: usize) -> f32 {
        self.data[self.offset + i * self.row + k * self.col]
    }

    /// The same without the first rows.
    pub(crate) fn skip(self, rows: usize) -> Self {
        Strided { offset: self.offset + rows * self.row, ..self }
    }

    /// Its transpose.
    pub(crate) fn turned(self) -> Self {
        Strided { row: self.col, col: self.row, ..self }
    }
}

impl Columns for Strided<'_> {
    fn copy(&self, k: Range<usize>, n: Range<usize>, stride: usize, out: &mut [f32]) {
        let first = self.offset + k.start * self.row + n.start * self.col;
        let source = self.data.get(first..).unwrap_or_default();
        interleave(source, [self.col, self.row], [n.len(), k.len()], stride, out);
    }

    fn strided(&self) -> Option<Strided<'_>> {
        Some(*self)
    }
}

/// The side of the squares that are transposed in registers.
const SIDE: usize = 4;
/// Columns that are read of some rows before other rows: a cache line.
const LINE: usize = 16;

/// Lays a matrix at `row` and `col` strides out with its columns at a distance of `stride`:
/// `out[c · stride + r] = source[r · row + c · col]`.
pub(crate) fn interleave(
    source: &[f32],
    [row, col]: [usize; 2],
    [rows, columns]: [usize; 2],
    stride: usize,
    out: &mut [f32],
) {
    if row == 1 {
        return match rows {
            TILE_ROWS => lines::<TILE_ROWS>(source, col, columns, stride, out),
            TILE_COLUMNS => lines::<TILE_COLUMNS>(source, col, columns, stride, out),
            _ => (0..columns).for_each(|c| {
                out[c * stride..][..rows].copy_from_slice(&source[c * col..][..rows]);
            }),
        };
    }
    let mut copy = |r: usize, c: usize| out[c * stride + r] = source[r * row + c * col];
    if col != 1 {
        // A few rows at a time stay in the cache, however far apart they lie.
        for left in (0..columns).step_by(LINE) {
            for r in 0..rows {
                (left..(left + LINE).min(columns)).for_each(|c| copy(r, c));
            }
        }
        return;
    }
    let [inner_rows, inner_columns] = [rows, columns].map(|n| n / SIDE * SIDE);
    for r in 0..rows {
        let from = if r < inner_rows { inner_columns } else { 0 };
        (from..columns).for_each(|c| copy(r, c));
    }
    squares(source, row, [inner_rows, inner_columns], stride, out);
}

/// Columns that lie together, of a length that is known, so that copying one takes no call.
#[inline(always)]
fn lines<const N: usize>(
    source: &[f32],
    col: usize,
    columns: usize,
    stride: usize,
    out: &mut [f32],
) {
    for c in 0..columns {
        out[c * stride..][..N].copy_from_slice(&source[c * col..][..N]);
    }
}

multiversion! { pam
    /// Lays out rows that are dense, of whole squares.
    fn squares(source: &[f32], row: usize, size: [usize; 2], stride: usize, out: &mut [f32]) {
        let [rows, columns] = size;
        if rows == 0 || columns == 0 {
            return;
        }
        let end = |lines: usize, line: usize, n: usize| {
            (lines - 1).saturating_mul(line).saturating_add(n)
        };
        assert!(end(rows, row, columns) <= source.len(), "the source holds the last square");
        assert!(end(columns, stride, rows) <= out.len(), "so does the output");
        for left in (0..columns).step_by(LINE) {
            for r in (0..rows).step_by(SIDE) {
                for c in (left..(left + LINE).min(columns)).step_by(SIDE) {
                    // SAFETY: the squares before the last one lie before it, and so do those of both sides.
                    unsafe {
                        let from = source.as_ptr().add(r * row + c);
                        square(from, row, out.as_mut_ptr().add(c * stride + r), stride);
                    }
                }
            }
        }
    }
}

/// Transposes a square.
///
/// # Safety
/// Both sides must have their four rows of four numbers.
#[inline(always)]
unsafe fn square(from: *const f32, row: usize, to: *mut f32, stride: usize) {
    // SAFETY: the caller promises the rows.
    let rows = std::array::from_fn(|i| unsafe { from.add(i * row).cast::<[f32; SIDE]>().read() });
    for (i, column) in transposed(rows).into_iter().enumerate() {
        // SAFETY: as above.
        unsafe { to.add(i * stride).cast::<[f32; SIDE]>().write(column) };
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transposed(mut rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
    // SAFETY: every x86-64 processor has these instructions, and a row is a vector.
    unsafe {
        let mut a = _mm_loadu_ps(rows[0].as_ptr());
        let mut b = _mm_loadu_ps(rows[1].as_ptr());
        let mut c = _mm_loadu_ps(rows[2].as_ptr());
        let mut d = _mm_loadu_ps(rows[3].as_ptr());
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (row, x) in rows.iter_mut().zip([a, b, c, d]) {
            _mm_storeu_ps(row.as_mut_ptr(), x);
        }
    }
    rows
}

#[cfg(not(target_arch = "x86_64"))]
fn transposed(rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    std::array::from_fn(|i| rows.map(|row| row[i]))
}
