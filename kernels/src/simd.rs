//! Loops compiled once for each vector extension and chosen at run time.
//!
//! The loops are plain Rust; a copy of them inside a function with target features vectorises with
//! these. All copies give the same bits, since additions are never fused or reordered.

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
     fn $name:ident $(<$f:ident: $bound:path>)?($($arg:ident: $t:ty),* $(,)?) $body:block) => {
        $crate::simd::placed! { $section $(#[$doc])*
        pub(crate) fn $name$(<$f: $bound>)?($($arg: $t),*) {
            #[inline(always)]
            fn body$(<$f: $bound>)?($($arg: $t),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                $crate::simd::placed! { $section
                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
                fn avx512$(<$f: $bound>)?($($arg: $t),*) {
                    body($($arg),*);
                } }
                $crate::simd::placed! { $section
                #[target_feature(enable = "avx2")]
                fn avx2$(<$f: $bound>)?($($arg: $t),*) {
                    body($($arg),*);
                } }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor has the features the copy is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
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

impl<F: Fn(f32, f32) -> f32 + Copy> F2 for F {
    #[inline(always)]
    fn call(self, a: f32, b: f32) -> f32 {
        self(a, b)
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

/// The loops of the PA operations and of what else may not multiply.
pub(crate) mod pam {
    use super::{F1, F2, F3};

    multiversion! { pam
        /// `y[i] = f(x[i])`.
        fn map1<F: F1>(f: F, x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = f.call(x);
            }
        }
    }

    multiversion! { pam
        /// `y[i] = f(a[i], b[i])`.
        fn map2<F: F2>(f: F, a: &[f32], b: &[f32], y: &mut [f32]) {
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = f.call(a, b);
            }
        }
    }

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
    use super::{F1, F2};

    multiversion! {
        /// `y[i] = f(x[i])`.
        fn map1<F: F1>(f: F, x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = f.call(x);
            }
        }
    }

    multiversion! {
        /// `y[i] = f(a[i], b[i])`.
        fn map2<F: F2>(f: F, a: &[f32], b: &[f32], y: &mut [f32]) {
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = f.call(a, b);
            }
        }
    }
}
