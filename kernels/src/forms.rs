//! Loops that compute a block by a simpler form before it is looked whether that was right.
//!
//! What few blocks need stands in functions of its own: within the loops it would take their registers, and rows
//! are short.

use crate::function::{Forms1, PATIENCE};
use crate::reduce::{LANES, SUM_CHUNK, add, tree};
use crate::simd::Source;
use std::hint::black_box;

/// Numbers of a block.
pub(crate) const BLOCK: usize = 64;

/// Computes a block by a form; whether that was right.
macro_rules! attempt {
    ($y:expr, |$i:ident| $form:expr) => {{
        let mut right = true;
        for $i in 0..BLOCK {
            let (value, fits) = $form;
            right &= fits;
            $y[$i] = value;
        }
        right
    }};
}
pub(crate) use attempt;

/// How often each form was wrong.
pub(crate) type Failures = [u32; 2];

/// A function for each row.
pub(crate) trait Rows: Copy {
    type Row: Forms1;
    fn row(self, r: usize) -> Self::Row;
}

/// `y[i] = f(x[i])`, within a loop that is compiled for each extension. `slowly` is that of the same section.
#[inline(always)]
pub(crate) fn by_forms<F: Forms1, S: Source>(
    f: F,
    slowly: impl Fn(F, S, &mut [f32], &mut Failures),
    x: S,
    y: &mut [f32],
    failures: &mut Failures,
) {
    let mut done = 0;
    if failures[0] < PATIENCE && f.applies() {
        let mut right = true;
        for (i, y) in y.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let x = x.block(i, y);
            right = attempt!(y, |i| f.ordinary(x[i]));
            if !right {
                *y = x;
                break;
            }
            done += BLOCK;
        }
        if right {
            return rest(f, x, y);
        }
        failures[0] += 1;
    }
    slowly(f, x.from(done), &mut y[done..], failures);
}

/// What is left after whole blocks.
#[inline(always)]
fn rest<F: Forms1, S: Source>(f: F, x: S, y: &mut [f32]) {
    let done = y.len() / BLOCK * BLOCK;
    if done == y.len() {
        return;
    }
    match (x.last::<BLOCK>(), y.last_chunk_mut::<BLOCK>()) {
        // Some numbers are computed again.
        (Some(x), Some(y)) => {
            if !f.applies() || !attempt!(y, |i| f.ordinary(x[i])) {
                x.each(f, y);
            }
        }
        _ => x.from(done).each(f, &mut y[done..]),
    }
}

/// The same for less than a block.
#[inline(always)]
fn short<F: Forms1>(f: F, x: &[f32], y: &mut [f32]) {
    let mut right = f.applies();
    for (y, &x) in y.iter_mut().zip(x) {
        let (value, fits) = f.ordinary(x);
        right &= fits;
        *y = value;
    }
    if !right {
        x.each(f, y);
    }
}

/// The same for at least one block, and the sum of the results in the order of [`reduce`](crate::reduce).
#[inline(always)]
fn summed<F: Forms1>(
    f: F,
    slowly: impl Fn(F, &[f32], &mut [f32], &mut Failures) -> f32,
    x: &[f32],
    y: &mut [f32],
    failures: &mut Failures,
) -> f32 {
    let mut sum = 0.0;
    if failures[0] < PATIENCE && f.applies() && x.len() <= SUM_CHUNK {
        if attempt_summed(f, x, y, &mut sum) {
            return sum;
        }
        failures[0] += 1;
    }
    slowly(f, x, y, failures)
}

/// Computes a row by the first form and sums the results; whether that was right.
#[inline(always)]
fn attempt_summed<F: Forms1>(f: F, x: &[f32], y: &mut [f32], sum: &mut f32) -> bool {
    let mut lanes = [0f32; LANES];
    for (x, y) in x.as_chunks::<BLOCK>().0.iter().zip(y.as_chunks_mut::<BLOCK>().0) {
        // By itself, so that it is in registers still when it is summed.
        let mut block = [0.0; BLOCK];
        let right = attempt!(block, |i| f.ordinary(x[i]));
        *y = block;
        if !right {
            return false;
        }
        for part in block.as_chunks::<LANES>().0 {
            for i in 0..LANES {
                lanes[i] += part[i];
            }
        }
    }
    // Hidden from the compiler, which otherwise arranges the lanes for the sake of this, at every block.
    let mut lanes = black_box(lanes);
    if !x.len().is_multiple_of(BLOCK) {
        rest(f, x, y);
        add(&mut lanes, y.as_chunks::<BLOCK>().1);
    }
    *sum = tree(&mut lanes);
    true
}

/// What is compiled into each section.
macro_rules! loops {
    ($($section:ident)?) => {
        use super::{BLOCK, Failures, Rows, by_forms, rest, short, summed};
        use crate::function::{Forms1, PATIENCE};
        use crate::reduce::{self, Reduction};
        use crate::simd::{Source, multiversion};

        multiversion! { $($section)?
            /// `y[i] = f(x[i])`.
            fn map<F: Forms1>(f: F, x: &[f32], y: &mut [f32]) {
                by_forms(f, slowly, x, y, &mut [0, 0]);
            }
        }

        multiversion! { $($section)?
            /// `y[i] = f(x[i])` where the first form was wrong.
            fn slowly<F: Forms1, S: Source>(f: F, x: S, y: &mut [f32], failures: &mut Failures) {
                for (i, y) in y.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                    let x = x.block(i, y);
                    if failures[1] < PATIENCE && f.applies() {
                        if attempt!(y, |i| f.vanishing(x[i])) {
                            continue;
                        }
                        failures[1] += 1;
                    }
                    for i in 0..BLOCK {
                        y[i] = f.call(x[i]);
                    }
                }
                rest(f, x, y);
            }
        }

        multiversion! { $($section)?
            /// Rows of at least a block, and their sums.
            fn long_rows<R: Rows>(f: R, row: usize, x: &[f32], y: &mut [f32], sums: &mut [f32]) {
                let mut failures = [0, 0];
                for (r, (x, y)) in x.chunks_exact(row).zip(y.chunks_exact_mut(row)).enumerate() {
                    let sum = summed(f.row(r), summed_slowly, x, y, &mut failures);
                    if let Some(s) = sums.get_mut(r) {
                        *s = sum;
                    }
                }
            }
        }

        multiversion! { $($section)?
            /// Rows of less than a block.
            fn short_rows<R: Rows>(f: R, row: usize, x: &[f32], y: &mut [f32]) {
                for (r, (x, y)) in x.chunks_exact(row).zip(y.chunks_exact_mut(row)).enumerate() {
                    short(f.row(r), x, y);
                }
            }
        }

        /// `y[i] = f(x[i])` by the function of each row of `row` numbers; and the sums of the results along rows, if
        /// there is a place for them.
        pub(crate) fn rows<R: Rows>(
            f: R,
            row: usize,
            x: &[f32],
            y: &mut [f32],
            sums: &mut [f32],
        ) {
            if row >= BLOCK {
                return long_rows(f, row, x, y, sums);
            }
            short_rows(f, row, x, y);
            if !sums.is_empty() {
                reduce::rows(Reduction::Sum, row, y, sums);
            }
        }

        /// `y[i] = f(x[i])` and the sum of them, by the forms that may be right.
        #[inline(always)]
        fn summed_slowly<F: Forms1>(
            f: F,
            x: &[f32],
            y: &mut [f32],
            failures: &mut Failures,
        ) -> f32 {
            slowly(f, x, y, failures);
            let mut sum = [0.0];
            reduce::rows(Reduction::Sum, y.len(), y, &mut sum);
            sum[0]
        }
    };
}

/// The loops of functions that may not multiply.
pub(crate) mod pam {
    loops!(pam);
}

/// The loops of all other functions.
pub(crate) mod native {
    loops!();
}
