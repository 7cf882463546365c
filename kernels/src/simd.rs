//! Loops compiled once for each vector extension and chosen at run time.
//!
//! The loops are plain Rust; a copy of them inside a function with target features vectorises with
//! these. All copies give the same bits, since additions are never fused or reordered.

use crate::memory::prefetch_ahead;

/// Declares a dispatcher to copies of one loop, which may be generic. With `pam` in front, all of it
/// lies in the link section of the PA kernels, whose machine code may not multiply.
macro_rules! multiversion {
    (pam $($rest:tt)*) => {
        $crate::simd::multiversion! {
            @[#[inline(never)] #[cfg_attr(target_os = "linux", unsafe(link_section = "pam_text"))]]
            $($rest)*
        }
    };
    (@$section:tt $(#[$doc:meta])*
     fn $name:ident $(<$($f:ident: $bound:path),+>)?($($arg:ident: $t:ty),* $(,)?) $body:block) => {
        $crate::simd::placed! { $section $(#[$doc])*
        pub(crate) fn $name$(<$($f: $bound),+>)?($($arg: $t),*) {
            #[inline(always)]
            fn body$(<$($f: $bound),+>)?($($arg: $t),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                $crate::simd::placed! { $section
                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
                fn avx512$(<$($f: $bound),+>)?($($arg: $t),*) {
                    body($($arg),*);
                } }
                $crate::simd::placed! { $section
                #[target_feature(enable = "avx2,fma")]
                fn avx2$(<$($f: $bound),+>)?($($arg: $t),*) {
                    body($($arg),*);
                } }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("fma")
                {
                    // SAFETY: the processor has the features the copy is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*);
        } }
    };
    ($($rest:tt)*) => { $crate::simd::multiversion! { @[] $($rest)* } };
}

/// Puts attributes in front of a function.
macro_rules! placed {
    ([$($attribute:tt)*] $($function:tt)*) => { $($attribute)* $($function)* };
}

pub(crate) use {multiversion, placed};

/// A function of one number, as a type so that each loop is compiled for it.
pub(crate) trait F1: Copy {
    fn call(self, x: f32) -> f32;
}

/// A function of two numbers.
pub(crate) trait F2: Copy {
    fn call(self, a: f32, b: f32) -> f32;
}

/// A function of three numbers.
pub(crate) trait F3: Copy {
    fn call(self, a: f32, b: f32, c: f32) -> f32;
}

impl<F: Fn(f32) -> f32 + Copy> F1 for F {
    #[inline(always)]
    fn call(self, x: f32) -> f32 {
        self(x)
    }
}

/// A function of two numbers whose first one stays the same.
#[derive(Clone, Copy)]
pub(crate) struct Left<F>(pub F, pub f32);

impl<F: F2> F1 for Left<F> {
    #[inline(always)]
    fn call(self, x: f32) -> f32 {
        self.0.call(self.1, x)
    }
}

/// A function of two numbers whose second one stays the same.
#[derive(Clone, Copy)]
pub(crate) struct Right<F>(pub F, pub f32);

impl<F: F2> F1 for Right<F> {
    #[inline(always)]
    fn call(self, x: f32) -> f32 {
        self.0.call(x, self.1)
    }
}

/// Goes over the numbers of the shorter operand and what belongs to each: as many neighbouring numbers
/// of the longer operand, which is what results are computed from, and of the result.
#[inline(always)]
pub(crate) fn repeated<S: Source, Y>(
    long: S,
    short: &[f32],
    y: &mut [Y],
    mut f: impl FnMut(f32, S, &mut [Y]),
) {
    let n = run(short, y);
    for (i, (&s, y)) in short.iter().zip(y.chunks_mut(n)).enumerate() {
        f(s, long.from(i * n).first(y.len()), y);
    }
}

/// How many neighbouring results belong to each number of the shorter operand.
#[inline(always)]
pub(crate) fn run<Y>(short: &[f32], y: &[Y]) -> usize {
    (y.len() / short.len().max(1)).max(1)
}

impl<F: Fn(f32, f32) -> f32 + Copy> F2 for F {
    #[inline(always)]
    fn call(self, a: f32, b: f32) -> f32 {
        self(a, b)
    }
}

/// What results are computed from: a slice of their length, or the numbers in whose place they are written.
pub(crate) trait Source: Copy {
    /// Those from here on.
    fn from(self, start: usize) -> Self;
    /// The first of them.
    fn first(self, n: usize) -> Self;
    /// Block i, in whose place y is.
    fn block<const N: usize>(self, i: usize, y: &[f32; N]) -> [f32; N];
    /// The last numbers, if they are still there when others of y are written.
    fn last<const N: usize>(&self) -> Option<&[f32; N]>;
    /// `y[i] = f(x[i])`, within a loop that is compiled for each extension.
    fn each<F: F1>(self, f: F, y: &mut [f32]);
}

impl Source for &[f32] {
    #[inline(always)]
    fn from(self, start: usize) -> Self {
        &self[start..]
    }
    #[inline(always)]
    fn first(self, n: usize) -> Self {
        &self[..n]
    }
    #[inline(always)]
    fn block<const N: usize>(self, i: usize, _: &[f32; N]) -> [f32; N] {
        let block = &self.as_chunks::<N>().0[i];
        prefetch_ahead(block);
        *block
    }
    #[inline(always)]
    fn last<const N: usize>(&self) -> Option<&[f32; N]> {
        self.last_chunk()
    }
    #[inline(always)]
    fn each<F: F1>(self, f: F, y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(self) {
            *y = f.call(x);
        }
    }
}

/// The numbers that are overwritten.
#[derive(Clone, Copy)]
pub(crate) struct Own;

impl Source for Own {
    #[inline(always)]
    fn from(self, _: usize) -> Own {
        Own
    }
    #[inline(always)]
    fn first(self, _: usize) -> Own {
        Own
    }
    #[inline(always)]
    fn block<const N: usize>(self, _: usize, y: &[f32; N]) -> [f32; N] {
        *y
    }
    #[inline(always)]
    fn last<const N: usize>(&self) -> Option<&[f32; N]> {
        None
    }
    #[inline(always)]
    fn each<F: F1>(self, f: F, y: &mut [f32]) {
        for y in y {
            *y = f.call(*y);
        }
    }
}

/// Declares functions as types. Unlike a closure or a function item, whose body the compiler may leave
/// outside of the loop and of its link section, their calls are always inlined.
macro_rules! functions {
    ($($name:ident $(($p:ident: $t:ty))? $f:ident($($arg:ident),*) => $body:expr;)*) => {
        $(#[derive(Clone, Copy)]
        pub(crate) struct $name$((pub $t))?;

        impl $crate::simd::$f for $name {
            #[inline(always)]
            fn call(self, $($arg: f32),*) -> f32 {
                $(let $name($p): $name = self; let _: $t = $p;)?
                $body
            }
        })*
    };
}
pub(crate) use functions;

/// The loops over functions of one and of two numbers.
macro_rules! loops {
    ($($section:ident)?) => {
        $crate::simd::multiversion! { $($section)?
            /// `y[i] = f(x[i])`.
            fn map1<F: F1, S: Source>(f: F, x: S, y: &mut [f32]) {
                x.each(f, y);
            }
        }

        $crate::simd::multiversion! { $($section)?
            fn pairs<F: F2>(f: F, a: &[f32], b: &[f32], y: &mut [f32]) {
                for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                    *y = f.call(a, b);
                }
            }
        }

        /// `y[i] = f(y[i], b[i])`; of a shorter operand, each number belongs to as many neighbours.
        pub(crate) fn overwrite<F: F2>(f: F, y: &mut [f32], b: &[f32]) {
            repeated(Own, b, y, |b, own, y| map1(Right(f, b), own, y));
        }

        /// `y[i] = f(a[i], b[i])`; of a shorter operand, each number belongs to as many neighbours.
        pub(crate) fn map2<F: F2>(f: F, a: &[f32], b: &[f32], y: &mut [f32]) {
            if b.len() < y.len() {
                repeated(a, b, y, |b, a, y| map1(Right(f, b), a, y));
            } else if a.len() < y.len() {
                repeated(b, a, y, |a, b, y| map1(Left(f, a), b, y));
            } else {
                pairs(f, a, b, y);
            }
        }
    };
}

/// The loops of the PA operations and of what else may not multiply.
pub(crate) mod pam {
    use super::{F1, F2, F3, Left, Own, Right, Source, repeated};

    loops!(pam);

    multiversion! { pam
        /// `y[i] = f(a[i], b[i], c[i])`.
        fn map3<F: F3>(f: F, a: &[f32], b: &[f32], c: &[f32], y: &mut [f32]) {
            for (((y, &a), &b), &c) in y.iter_mut().zip(a).zip(b).zip(c) {
                *y = f.call(a, b, c);
            }
        }
    }
}

/// The loops of all other operations.
pub(crate) mod native {
    use super::{F1, F2, Left, Own, Right, Source, repeated};

    loops!();
}
