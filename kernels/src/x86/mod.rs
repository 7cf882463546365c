//! Micro-kernels for x86-64, in the link section `pam_text` like every kernel of PA arithmetic, so that
//! their machine code can be disassembled and shown not to multiply.

mod avx2;
mod avx512;
mod avx512_grad;

use crate::contract::{Form, LeftPanel, Raises, RightPanel, TILE_COLUMNS, TILE_ROWS};
use crate::isa::{Isa, isa};
use crate::pa::{self, Offset};
use crate::simd::multiversion;

/// Whether there are micro-kernels that can run here.
pub(crate) fn available() -> bool {
    isa() >= Isa::Avx2
}

/// One register tile: panel `q` of the left operand times panel `p` of the right one. The callers have
/// asked [`available`].
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
    let ceilings = &left.ceilings[panel.clone()];
    let form = Form::of(left.facts[q], right.facts[p], offset);
    if form == Form::Special {
        return special(&left.data[panel], b, offset, out);
    }
    // SAFETY: `isa` says what the processor has, and there is AVX2 at least.
    unsafe {
        match (form, isa() == Isa::Avx512) {
            (Form::Raw, true) => avx512::raw(sums, b, out),
            (Form::Raw, false) => avx2::raw(sums, b, out),
            (Form::Zeros { left: true, right: true }, true) => {
                avx512::masked::<true, true>(sums, masks, b, out);
            }
            (Form::Zeros { left: true, .. }, true) => {
                avx512::masked::<true, false>(sums, masks, b, out);
            }
            (Form::Zeros { left: true, right: false }, false) => {
                avx2::masked(sums, masks, b, out);
            }
            (Form::Zeros { left: false, .. }, true) => {
                avx512::masked::<false, true>(sums, masks, b, out);
            }
            (Form::Compare, true) => avx512::compare(sums, floors, b, out),
            (Form::Zeros { .. } | Form::Compare, false) => avx2::compare(sums, floors, b, out),
            (Form::Full | Form::Special, true) => avx512::full(sums, floors, ceilings, b, out),
            (Form::Full | Form::Special, false) => avx2::full(sums, floors, ceilings, b, out),
        }
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
/// The callers have asked [`available`].
pub(crate) fn grad_tile(
    raises: &Raises,
    sums: &[i32],
    floors: Option<&[i32]>,
    right: &[f32],
    out: &mut [f32; TILE_ROWS * TILE_COLUMNS],
) {
    // SAFETY: `isa` says what the processor has, and there is AVX2 at least.
    unsafe {
        match (floors, isa() == Isa::Avx512) {
            (None, true) => avx512_grad::raw(raises, sums, right, out),
            (None, false) => avx2::grad_raw(sums, raises, right, out),
            (Some(floors), true) => avx512_grad::compare(raises, sums, floors, right, out),
            (Some(floors), false) => avx2::grad_compare(sums, raises, floors, right, out),
        }
    }
}
