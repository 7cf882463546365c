//! Micro-kernels for x86-64, in the link section `pam_text` like every kernel of PA arithmetic, so that
//! their machine code can be disassembled and shown not to multiply.

mod avx2;
mod avx512;
mod avx512_grad;
mod avx512_turned;

use crate::contract::facts::{Form, apart};
use crate::contract::pack::{LeftPanel, RightPanel};
use crate::contract::stand_in::{StandIn, settle};
use crate::contract::tile::{Raises, Slopes, TILE_COLUMNS, TILE_ROWS, Tile};
use crate::isa::Isa;
use crate::pa::{self, BIAS, Offset};
use crate::simd::multiversion;

pub(crate) use avx512_turned::turned;

/// Repeats a block for every row of a tile; the compiler does not unroll loops around assembly, and
/// sums that an index reaches lie in memory.
macro_rules! unrolled {
    ($row:ident in [$($i:literal)*] $body:block) => { $({ let $row: usize = $i; $body })* };
}
use unrolled;

/// Calls a function with the least `R` and `H` so that `R` rows and `H` halves of the columns hold a shape, and with
/// a parameter of its own.
macro_rules! shaped {
    ($shape:ident, $function:ident$([$more:literal])?($($arg:expr),*)) => {
        match ($shape[0].div_ceil(TILE_ROWS / 3), $shape[1] > TILE_COLUMNS / 2) {
            (..=1, false) => $function::<4, 1$(, $more)?>($($arg),*),
            (..=1, true) => $function::<4, 2$(, $more)?>($($arg),*),
            (2, false) => $function::<8, 1$(, $more)?>($($arg),*),
            (2, true) => $function::<8, 2$(, $more)?>($($arg),*),
            (_, false) => $function::<TILE_ROWS, 1$(, $more)?>($($arg),*),
            (_, true) => $function::<TILE_ROWS, 2$(, $more)?>($($arg),*),
        }
    };
}

/// The same, of which the compiler knows nothing, so that loops read what they need of it each time. It would load
/// all before a loop, for lack of registers, onto the stack, where vectors straddle cache lines.
#[inline(always)]
fn in_place(raises: &Raises) -> &Raises {
    std::hint::black_box(raises)
}

/// One register tile: panel `q` of the left operand times panel `p` of the right one, of which the first rows and
/// columns are wanted. The extension is at least AVX2, one that the processor has, and that which the panels were
/// prepared for.
pub(crate) fn tile(
    left: (&LeftPanel, usize),
    right: (&RightPanel, usize),
    shape: [usize; 2],
    numbers: (Offset, Isa),
    out: &mut Tile,
) {
    shaped!(shape, part(left, right, numbers, out));
}

fn part<const R: usize, const H: usize>(
    (left, q): (&LeftPanel, usize),
    (right, p): (&RightPanel, usize),
    (offset, isa): (Offset, Isa),
    out: &mut Tile,
) {
    let b = right.panel(p);
    let sums = left.sums(q);
    let stand_ins = [left.stand_in(q), right.stand_in(p)];
    let facts = (left.facts[q], right.facts[p]);
    let mut form = Form::of(facts.0, facts.1, offset);
    if form == Form::Full && apart(left.peaks(q), right.peaks(p), offset) {
        form = Form::within(facts.0, facts.1, offset);
    }
    if form == Form::Special {
        return special(sums, b, offset, out);
    }
    let (floors, masks) = (|| left.floors(q), || left.masks(q));
    let (sizes, signs) = (|| left.sizes(q), || left.signs(q));
    // SAFETY: the caller promises that the processor has the extension, AVX2 at least.
    unsafe {
        match (form.filled(stand_ins), isa == Isa::Avx512) {
            (Form::Raw, true) => avx512::raw::<R, H>(sums, b, out),
            (Form::Raw, false) => avx2::raw::<R, H>(sums, b, out),
            (Form::Zeros { left: true, right: true }, true) => {
                avx512::masked::<R, H, true, true>(sums, masks(), b, out);
            }
            (Form::Zeros { left: true, right: false }, true) => {
                avx512::masked::<R, H, true, false>(sums, masks(), b, out);
            }
            (Form::Zeros { left: true, right: false }, false) => {
                avx2::masked::<R, H, true>(sums, masks(), b, out);
            }
            (Form::Zeros { left: false, .. }, true) => {
                avx512::masked::<R, H, false, true>(sums, &[], b, out);
            }
            (Form::Zeros { left: false, .. }, false) => {
                avx2::masked::<R, H, false>(sums, right.masks(p), b, out);
            }
            (Form::Compare, true) => avx512::compare::<R, H>(sums, floors(), b, out),
            (Form::Zeros { .. } | Form::Compare, false) => {
                avx2::compare::<R, H>(sums, floors(), b, out)
            }
            (Form::Full | Form::Special, true) => {
                avx512::full::<R, H>(sizes(), signs(), floors(), b, out);
            }
            (Form::Full | Form::Special, false) => {
                avx2::full::<R, H>(sizes(), signs(), floors(), b, out)
            }
        }
    }
    if let [Some(StandIn { least, .. }), _] | [_, Some(StandIn { least, .. })] = stand_ins {
        settle(out, least);
    }
}

multiversion! { pam
    /// The specification itself, for panels with infinities and NaNs.
    fn special(sums: &[i32], b: &[f32], offset: Offset, out: &mut Tile) {
        out.fill(0.0);
        let bias = BIAS.wrapping_sub(offset as u32);
        for (sums, b) in sums.chunks_exact(TILE_ROWS).zip(b.chunks_exact(TILE_COLUMNS)) {
            for (&sum, out) in sums.iter().zip(out.chunks_exact_mut(TILE_COLUMNS)) {
                let a = f32::from_bits((sum as u32).wrapping_add(bias));
                out.iter_mut().zip(b).for_each(|(o, &b)| *o += pa::mul(a, b, offset));
            }
        }
    }
}

/// One register tile of an exact derivative, of which the first rows and columns are wanted: panel `q` of the left
/// operand and one of the right one. The form is not [`Form::Full`] and not [`Form::Special`]; the extension is as
/// for [`tile`].
pub(crate) fn grad_tile(
    raises: &Raises,
    left: (&LeftPanel, usize),
    right: &[f32],
    (shape, numbers): ([usize; 2], (Form, Slopes, Isa)),
    out: &mut Tile,
) {
    match numbers {
        (form, Slopes::Left, isa) => {
            shaped!(shape, grad_part[true](raises, left, right, (form, isa), out));
        }
        (form, Slopes::Right, isa) => {
            shaped!(shape, grad_part[false](raises, left, right, (form, isa), out));
        }
    }
}

/// `LEFT` says that the slopes come from the left operand.
fn grad_part<const R: usize, const H: usize, const LEFT: bool>(
    raises: &Raises,
    (left, q): (&LeftPanel, usize),
    right: &[f32],
    (form, isa): (Form, Isa),
    out: &mut Tile,
) {
    let sums = left.sums(q);
    let parts = || if LEFT { [left.sizes(q), left.signs(q)] } else { [sums, left.floors(q)] };
    // SAFETY: the caller promises that the processor has the extension, AVX2 at least.
    unsafe {
        match (form, isa == Isa::Avx512) {
            (Form::Raw, true) => avx512_grad::raw::<R, H, LEFT, false>(raises, sums, right, out),
            (Form::Raw, false) => avx2::grad_raw::<R, H, LEFT>(sums, raises, right, out),
            (Form::Zeros { left: false, .. }, true) => {
                avx512_grad::raw::<R, H, LEFT, true>(raises, sums, right, out);
            }
            (Form::Zeros { left: false, .. }, false) => {
                avx2::grad_masked::<R, H, LEFT>(sums, raises, right, out);
            }
            (_, true) => avx512_grad::compare::<R, H, LEFT>(raises, parts(), right, out),
            (_, false) => {
                let [first, second] = parts();
                avx2::grad_compare::<R, H, LEFT>(first, raises, second, right, out);
            }
        }
    }
}
