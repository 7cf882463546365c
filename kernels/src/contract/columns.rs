//! Where the right operand of a product comes from.

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

impl Columns for Strided<'_> {
    fn copy(&self, k: Range<usize>, n: Range<usize>, stride: usize, out: &mut [f32]) {
        let width = n.len();
        if self.col == 1 {
            for (k, out) in k.zip(out.chunks_mut(stride)) {
                let at = self.offset + k * self.row + n.start;
                out[..width].copy_from_slice(&self.data[at..at + width]);
            }
        } else {
            // A transposed operand is read along its memory.
            for (j, n) in n.enumerate() {
                let at = self.offset + n * self.col;
                for (i, k) in k.clone().enumerate() {
                    out[i * stride + j] = self.data[at + k * self.row];
                }
            }
        }
    }
}
