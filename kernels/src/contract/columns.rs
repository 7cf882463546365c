//! Where the right operand of a product comes from.

use super::tile::{TILE_COLUMNS, TILE_ROWS};
use std::ops::Range;

/// A `[k, n]` matrix that can be copied out block by block.
pub(crate) trait Columns: Sync {
    /// Writes rows `k` and columns `n` to `out`, row after row at a distance of `stride`.
    fn copy(&self, k: Range<usize>, n: Range<usize>, stride: usize, out: &mut [f32]);
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
}

impl Columns for Strided<'_> {
    fn copy(&self, k: Range<usize>, n: Range<usize>, stride: usize, out: &mut [f32]) {
        let first = self.offset + k.start * self.row + n.start * self.col;
        let source = self.data.get(first..).unwrap_or_default();
        interleave(source, [self.col, self.row], [n.len(), k.len()], stride, out);
    }
}

/// Rows that are read side by side.
const SIDE: usize = 4;
/// Columns of them: a cache line.
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
    // A few rows and a line of each at a time stay in the cache, however far apart the rows lie.
    for left in (0..columns).step_by(LINE) {
        let line = LINE.min(columns - left);
        for top in (0..rows).step_by(SIDE) {
            let side = SIDE.min(rows - top);
            let source = &source[top * row + left * col..];
            let out = &mut out[left * stride + top..];
            let squares = if col == 1 && side == SIDE { line / SIDE } else { 0 };
            if squares == LINE / SIDE {
                // The usual case, of a length that is known.
                square::<LINE>(source, row, stride, out);
                continue;
            }
            for c in (0..squares).map(|c| c * SIDE) {
                square::<SIDE>(&source[c..], row, stride, &mut out[c * stride..]);
            }
            for r in 0..side {
                for c in squares * SIDE..line {
                    out[c * stride + r] = source[r * row + c * col];
                }
            }
        }
    }
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

/// As many numbers of four rows, in squares.
#[inline(always)]
fn square<const N: usize>(source: &[f32], row: usize, stride: usize, out: &mut [f32]) {
    let rows: [&[[f32; SIDE]]; SIDE] =
        std::array::from_fn(|r| source[r * row..][..N].as_chunks::<SIDE>().0);
    for c in 0..N / SIDE {
        let columns = transposed(rows.map(|row| row[c]));
        for (i, column) in columns.iter().enumerate() {
            out[(c * SIDE + i) * stride..][..SIDE].copy_from_slice(column);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transposed(mut rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
    // SAFETY: every x86-64 processor has these instructions, and a row is a vector.
    unsafe {
        let [mut a, mut b, mut c, mut d] = rows.map(|row| _mm_loadu_ps(row.as_ptr()));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        rows.iter_mut().zip([a, b, c, d]).for_each(|(row, x)| _mm_storeu_ps(row.as_mut_ptr(), x));
    }
    rows
}

#[cfg(not(target_arch = "x86_64"))]
fn transposed(rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    std::array::from_fn(|i| rows.map(|row| row[i]))
}
