//! Micro-kernels for x86-64, in the link section `pam_text` like every kernel of PA arithmetic, so that
//! their machine code can be disassembled and shown not to multiply.

mod avx512;
mod avx512_grad;

use crate::contract::{Form, LeftPanel, Raises, RightPanel, TILE_COLUMNS, TILE_ROWS};
use crate::pa::{self, Offset};
use crate::simd::multiversion;

/// Whether the AVX-512 micro-kernels can run here.
pub(crate) fn avx512_available() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// One register tile: panel `q` of the left operand times panel `p` of the right one.
pub(crate) fn tile(
    left: &LeftPanel,
    q: usize,
    right: &RightPanel,
    p: usize,
    offset: Offset,
    out: &mut [f32; TILE_ROWS * TILE_COLUMNS],
) {
    let depth = left.depth;
    let b = right.panel(p);
    let panel = q * depth * TILE_ROWS..(q + 1) * depth * TILE_ROWS;
    let sums = &left.sums[panel.clone()];
    let floors = &left.floors[panel.clone()];
    let masks = &left.masks[panel.clone()];
    match Form::of(left.facts[q], right.facts[p], offset) {
        // SAFETY: the callers have asked `avx512_available`, here and below.
        Form::Raw => unsafe { avx512::raw(sums, b, out) },
        Form::Zeros { left: true, right: true } => {
            // SAFETY: as above.
            unsafe { avx512::masked::<true, true>(sums, masks, b, out) }
        }
        Form::Zeros { left: true, right: false } => {
            // SAFETY: as above.
            unsafe { avx512::masked::<true, false>(sums, masks, b, out) }
        }
        Form::Zeros { left: false, .. } => {
            // SAFETY: as above.
            unsafe { avx512::masked::<false, true>(sums, masks, b, out) }
        }
        // SAFETY: as above.
        Form::Compare => unsafe { avx512::compare(sums, floors, b, out) },
        // SAFETY: as above.
        Form::Full => unsafe { avx512::full(sums, floors, &left.ceilings[panel], b, out) },
        Form::Special => special(&left.data[panel], b, offset, out),
    }
}

multiversion! { pam
    /// The specification itself, for panels with infinities and NaNs.
    fn special(a: &[f32], b: &[f32], offset: Offset, out: &mut [f32; TILE_ROWS * TILE_COLUMNS]) {
        out.fill(0.0);
        for (a, b) in a.chunks_exact(TILE_ROWS).zip(b.chunks_exact(TILE_COLUMNS)) {
            for (&a, out) in a.iter().zip(out.chunks_exact_mut(TILE_COLUMNS)) {
                out.iter_mut().zip(b).for_each(|(o, &b)| *o += pa::mul(a, b, offset));
            }
        }
    }
}

/// One register tile of an exact derivative; `floors` are needed where there are zeros or underflow.
/// The callers have asked [`avx512_available`].
pub(crate) fn grad_tile(
    raises: &Raises,
    sums: &[i32],
    floors: Option<&[i32]>,
    right: &[f32],
    out: &mut [f32; TILE_ROWS * TILE_COLUMNS],
) {
    match floors {
        // SAFETY: the callers have asked `avx512_available`.
        None => unsafe { avx512_grad::raw(raises, sums, right, out) },
        // SAFETY: as above.
        Some(floors) => unsafe { avx512_grad::compare(raises, sums, floors, right, out) },
    }
}
