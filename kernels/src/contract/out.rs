//! Where the outputs of a product go.

use super::tile::{TILE_COLUMNS, TILE_ROWS};
use crate::memory::prefetch_line;
use std::ops::Range;

/// Where an output goes. Column j lies at `j`, or, for the columns of a batch of images, at
/// `j / per · stride + j % per`.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    base: *mut f32,
    pub row: usize,
    per: usize,
    stride: usize,
}

// SAFETY: the threads of a product write different elements.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// A dense matrix.
    pub(crate) fn dense(out: &mut [f32], row: usize) -> Out {
        Out { base: out.as_mut_ptr(), row, per: usize::MAX, stride: 0 }
    }

    /// `[images, rows, per]`, where the columns run over images and positions.
    pub(crate) fn images(out: &mut [f32], per: usize, stride: usize) -> Out {
        Out { base: out.as_mut_ptr(), row: per, per, stride }
    }

    /// Whether its elements follow each other if it has one column.
    pub(crate) fn is_column(&self) -> bool {
        self.row == 1 && self.per == usize::MAX
    }

    /// The same from a later element on.
    ///
    /// # Safety
    /// The element must belong to the output.
    pub(crate) unsafe fn skip(self, elements: usize) -> Out {
        // SAFETY: the caller promises that the element exists.
        Out { base: unsafe { self.base.add(elements) }, ..self }
    }

    /// Asks for the columns of a tile from `j` on, which lie far apart in a dense matrix, before they
    /// are needed.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn fetch(&self, rows: Range<usize>, j: usize) {
        if self.per == usize::MAX {
            for i in rows {
                let at = self.base.wrapping_add(i * self.row + j);
                prefetch_line(at);
                prefetch_line(at.wrapping_add(TILE_COLUMNS / 2));
            }
        }
    }

    /// Writes, or adds to, elements of row `i` from column `j` on.
    ///
    /// # Safety
    /// The row and the columns must belong to the output, and no other thread may use them.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, i: usize, j: usize, values: &[f32], add: bool) {
        // SAFETY: the caller promises it.
        unsafe { self.store_rows(i..i + 1, j, values, values.len(), values.len(), add) };
    }

    /// Writes, or adds to, `width` columns from `j` on of some rows; `values` holds them row by row
    /// at a distance of `stride`.
    ///
    /// # Safety
    /// The rows and the columns must belong to the output, and no other thread may use them.
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]
    pub(crate) unsafe fn store_rows(
        &self,
        rows: Range<usize>,
        j: usize,
        values: &[f32],
        stride: usize,
        width: usize,
        add: bool,
    ) {
        let mut done = 0;
        while done < width {
            let column = j + done;
            // A division is dear, and a dense matrix needs none.
            let (image, position) = if self.per == usize::MAX {
                (0, column)
            } else {
                (column / self.per, column % self.per)
            };
            let n = (width - done).min(self.per - position);
            let place = image * self.stride + position;
            let mut from = done;
            for i in rows.clone() {
                // SAFETY: the caller promises that these elements exist and are its own.
                let out = unsafe {
                    std::slice::from_raw_parts_mut(self.base.add(i * self.row + place), n)
                };
                let values = &values[from..from + n];
                from += stride;
                // Most are a tile's rows or columns; a length that is known takes neither a call nor a loop.
                match n {
                    TILE_COLUMNS => put(&mut out[..TILE_COLUMNS], &values[..TILE_COLUMNS], add),
                    TILE_ROWS => put(&mut out[..TILE_ROWS], &values[..TILE_ROWS], add),
                    _ => put(out, values, add),
                }
            }
            done += n;
        }
    }
}

#[inline(always)]
fn put(out: &mut [f32], values: &[f32], add: bool) {
    if add {
        out.iter_mut().zip(values).for_each(|(o, v)| *o += v);
    } else {
        out.copy_from_slice(values);
    }
}
