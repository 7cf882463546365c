//! Comparisons and selections along slices of floats. As elsewhere, an operand may be shorter by a whole factor:
//! each of its numbers then belongs to as many neighbouring results.

use crate::simd::{multiversion, repeated};

/// What is asked about two numbers; of a NaN nothing is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// a = b.
    Equal,
    /// a < b.
    Less,
    /// a ≤ b.
    LessOrEqual,
    /// a > b.
    Greater,
    /// a ≥ b.
    GreaterOrEqual,
}

/// A comparison as a type, so that each loop is compiled for it.
pub(crate) trait Test: Copy {
    fn holds(self, a: f32, b: f32) -> bool;
}

macro_rules! tests {
    ($($name:ident($a:ident, $b:ident) => $body:expr;)*) => {
        $(#[derive(Clone, Copy)]
        struct $name;

        impl Test for $name {
            #[inline(always)]
            fn holds(self, $a: f32, $b: f32) -> bool {
                $body
            }
        })*
    };
}

tests! {
    Equal(a, b) => a == b;
    Less(a, b) => a < b;
    LessOrEqual(a, b) => a <= b;
}

/// The same with its operands exchanged.
#[derive(Clone, Copy)]
struct Exchanged<T>(T);

impl<T: Test> Test for Exchanged<T> {
    #[inline(always)]
    fn holds(self, a: f32, b: f32) -> bool {
        self.0.holds(b, a)
    }
}

/// `y[i]` is 1 where the comparison holds for `a[i]` and `b[i]`, else 0. One of the operands may be shorter.
pub fn compare(comparison: Comparison, a: &[f32], b: &[f32], y: &mut [u8]) {
    match comparison {
        Comparison::Equal => test(Equal, a, b, y),
        Comparison::Less => test(Less, a, b, y),
        Comparison::LessOrEqual => test(LessOrEqual, a, b, y),
        Comparison::Greater => test(Less, b, a, y),
        Comparison::GreaterOrEqual => test(LessOrEqual, b, a, y),
    }
}

fn test(f: impl Test, a: &[f32], b: &[f32], y: &mut [u8]) {
    if b.len() < y.len() {
        repeated(a, b, y, |b, a, y| test_each(f, a, b, y));
    } else if a.len() < y.len() {
        repeated(b, a, y, |a, b, y| test_each(Exchanged(f), b, a, y));
    } else {
        test_pairs(f, a, b, y);
    }
}

multiversion! { pam
    fn test_each<T: Test>(f: T, a: &[f32], b: f32, y: &mut [u8]) {
        for (y, &a) in y.iter_mut().zip(a) {
            *y = u8::from(f.holds(a, b));
        }
    }
}

multiversion! { pam
    fn test_pairs<T: Test>(f: T, a: &[f32], b: &[f32], y: &mut [u8]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = u8::from(f.holds(a, b));
        }
    }
}

/// `y[i]` is `a[i]` where `condition[i]` is not 0, else `b[i]`. Both numbers may be fewer.
pub fn select(condition: &[u8], a: &[f32], b: &[f32], y: &mut [f32]) {
    let n = y.len();
    // Runs for which a shorter operand has one number; both have if both are shorter.
    let run = |x: &[f32]| if x.len() < n { n / x.len().max(1) } else { n };
    let step = run(a).min(run(b)).max(1);
    for (i, (c, y)) in condition.chunks(step).zip(y.chunks_mut(step)).enumerate() {
        let at = i * step;
        let part = |x| -> Result<&[f32], f32> {
            let x: &[f32] = x;
            if x.len() < n { Err(x[at / run(x)]) } else { Ok(&x[at..at + y.len()]) }
        };
        match (part(a), part(b)) {
            (Ok(a), Ok(b)) => select_pairs(c, a, b, y),
            (Ok(a), Err(b)) => select_first(c, a, b, y),
            (Err(a), Ok(b)) => select_second(c, a, b, y),
            (Err(a), Err(b)) => select_one(c, a, b, y),
        }
    }
}

/// By arithmetic, for which both numbers are read: the compiler would choose between their addresses, number by
/// number.
#[inline(always)]
fn choose(c: u8, a: f32, b: f32) -> f32 {
    let first = u32::from(c != 0).wrapping_neg();
    f32::from_bits(a.to_bits() & first | b.to_bits() & !first)
}

multiversion! { pam
    fn select_pairs(c: &[u8], a: &[f32], b: &[f32], y: &mut [f32]) {
        for (((y, &c), &a), &b) in y.iter_mut().zip(c).zip(a).zip(b) {
            *y = choose(c, a, b);
        }
    }
}

multiversion! { pam
    fn select_first(c: &[u8], a: &[f32], b: f32, y: &mut [f32]) {
        for ((y, &c), &a) in y.iter_mut().zip(c).zip(a) {
            *y = choose(c, a, b);
        }
    }
}

multiversion! { pam
    fn select_second(c: &[u8], a: f32, b: &[f32], y: &mut [f32]) {
        for ((y, &c), &b) in y.iter_mut().zip(c).zip(b) {
            *y = choose(c, a, b);
        }
    }
}

multiversion! { pam
    fn select_one(c: &[u8], a: f32, b: f32, y: &mut [f32]) {
        for (y, &c) in y.iter_mut().zip(c) {
            *y = choose(c, a, b);
        }
    }
}
