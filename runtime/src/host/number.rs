//! The element types as Rust numbers: what generic code may ask of them.
//!
//! Halves compute in f32 and round after each operation; booleans are bytes of 0 or 1.

use bytemuck::Pod;
use half::{bf16, f16};

/// An element of a tensor in memory.
pub trait Number: Pod + PartialEq + PartialOrd + Send + Sync {
    /// Whether it is a float.
    const FLOAT: bool;
    /// As a double; exact for floats and for integers below 2^53.
    fn f64(self) -> f64;
    /// As an integer; floats are cut towards zero and saturate.
    fn i128(self) -> i128;
    /// The nearest value to a double; integers are cut towards zero and saturate.
    fn from_f64(x: f64) -> Self;
    /// From an integer: floats round, integers wrap.
    fn from_i128(x: i128) -> Self;
    /// Sum; integers wrap.
    fn add(self, o: Self) -> Self;
    /// Difference; integers wrap.
    fn sub(self, o: Self) -> Self;
    /// Product; integers wrap.
    fn mul(self, o: Self) -> Self;
    /// Quotient; integers are cut towards zero, and a division by zero gives 0.
    fn div(self, o: Self) -> Self;
    /// Whether it is NaN.
    fn is_nan(self) -> bool;
    /// The least value of the type.
    fn lowest() -> Self;
    /// The greatest value of the type.
    fn highest() -> Self;

    /// From another number, as ONNX Cast.
    fn convert<S: Number>(x: S) -> Self {
        if S::FLOAT { Self::from_f64(x.f64()) } else { Self::from_i128(x.i128()) }
    }

    /// The greater; NaN if either is NaN.
    fn greater(self, o: Self) -> Self {
        if self.is_nan() || !(o > self || o.is_nan()) { self } else { o }
    }

    /// The lesser; NaN if either is NaN.
    fn lesser(self, o: Self) -> Self {
        if self.is_nan() || !(o < self || o.is_nan()) { self } else { o }
    }
}

macro_rules! ints {
    ($($t:ty),*) => {$(
        impl Number for $t {
            const FLOAT: bool = false;
            fn f64(self) -> f64 { self as f64 }
            fn i128(self) -> i128 { self as i128 }
            fn from_f64(x: f64) -> Self { x as $t }
            fn from_i128(x: i128) -> Self { x as $t }
            fn add(self, o: Self) -> Self { self.wrapping_add(o) }
            fn sub(self, o: Self) -> Self { self.wrapping_sub(o) }
            fn mul(self, o: Self) -> Self { self.wrapping_mul(o) }
            fn div(self, o: Self) -> Self {
                if o == 0 { 0 } else { self.wrapping_div(o) }
            }
            fn is_nan(self) -> bool { false }
            fn lowest() -> Self { <$t>::MIN }
            fn highest() -> Self { <$t>::MAX }
        }
    )*};
}
ints!(i64, i32, i16, i8, u64, u32, u16, u8);

macro_rules! floats {
    ($($t:ty),*) => {$(
        impl Number for $t {
            const FLOAT: bool = true;
            fn f64(self) -> f64 { self as f64 }
            fn i128(self) -> i128 { self as i128 }
            fn from_f64(x: f64) -> Self { x as $t }
            fn from_i128(x: i128) -> Self { x as $t }
            fn add(self, o: Self) -> Self { self + o }
            fn sub(self, o: Self) -> Self { self - o }
            fn mul(self, o: Self) -> Self { self * o }
            fn div(self, o: Self) -> Self { self / o }
            fn is_nan(self) -> bool { self != self }
            fn lowest() -> Self { <$t>::NEG_INFINITY }
            fn highest() -> Self { <$t>::INFINITY }
        }
    )*};
}
floats!(f32, f64);

macro_rules! halves {
    ($($t:ty),*) => {$(
        impl Number for $t {
            const FLOAT: bool = true;
            fn f64(self) -> f64 { self.to_f64() }
            fn i128(self) -> i128 { self.to_f32() as i128 }
            fn from_f64(x: f64) -> Self { <$t>::from_f64(x) }
            fn from_i128(x: i128) -> Self { <$t>::from_f64(x as f64) }
            fn add(self, o: Self) -> Self { <$t>::from_f32(self.to_f32() + o.to_f32()) }
            fn sub(self, o: Self) -> Self { <$t>::from_f32(self.to_f32() - o.to_f32()) }
            fn mul(self, o: Self) -> Self { <$t>::from_f32(self.to_f32() * o.to_f32()) }
            fn div(self, o: Self) -> Self { <$t>::from_f32(self.to_f32() / o.to_f32()) }
            fn is_nan(self) -> bool { <$t>::is_nan(self) }
            fn lowest() -> Self { <$t>::NEG_INFINITY }
            fn highest() -> Self { <$t>::INFINITY }
        }
    )*};
}
halves!(f16, bf16);

/// A boolean in memory: a byte, of which any value but 0 means true.
#[derive(Clone, Copy, PartialEq, PartialOrd, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(transparent)]
pub struct Flag(pub u8);

impl Number for Flag {
    const FLOAT: bool = false;
    fn f64(self) -> f64 {
        f64::from(self.0 != 0)
    }
    fn i128(self) -> i128 {
        (self.0 != 0).into()
    }
    fn from_f64(x: f64) -> Self {
        Flag((x != 0.0).into())
    }
    fn from_i128(x: i128) -> Self {
        Flag((x != 0).into())
    }
    fn add(self, o: Self) -> Self {
        Flag(self.0 | o.0)
    }
    fn sub(self, o: Self) -> Self {
        Flag(self.0 ^ o.0)
    }
    fn mul(self, o: Self) -> Self {
        Flag(self.0 & o.0)
    }
    fn div(self, o: Self) -> Self {
        Flag(self.0 & o.0)
    }
    fn is_nan(self) -> bool {
        false
    }
    fn lowest() -> Self {
        Flag(0)
    }
    fn highest() -> Self {
        Flag(1)
    }
}

/// Calls generic code with the Rust type of an element type: `with_type!(dtype, T => expression)`.
macro_rules! with_type {
    ($dtype:expr, $t:ident => $e:expr) => {{
        use pam_ir::types::DType;
        match $dtype {
            DType::F32 => {
                type $t = f32;
                $e
            }
            DType::F64 => {
                type $t = f64;
                $e
            }
            DType::F16 => {
                type $t = half::f16;
                $e
            }
            DType::BF16 => {
                type $t = half::bf16;
                $e
            }
            DType::I64 => {
                type $t = i64;
                $e
            }
            DType::I32 => {
                type $t = i32;
                $e
            }
            DType::I16 => {
                type $t = i16;
                $e
            }
            DType::I8 => {
                type $t = i8;
                $e
            }
            DType::U64 => {
                type $t = u64;
                $e
            }
            DType::U32 => {
                type $t = u32;
                $e
            }
            DType::U16 => {
                type $t = u16;
                $e
            }
            DType::U8 => {
                type $t = u8;
                $e
            }
            DType::Bool => {
                type $t = $crate::host::number::Flag;
                $e
            }
        }
    }};
}
/// Calls generic code with an unsigned type of a size in bytes.
macro_rules! with_size {
    ($size:expr, $t:ident => $e:expr) => {
        match $size {
            1 => { type $t = u8; $e }
            2 => { type $t = u16; $e }
            4 => { type $t = u32; $e }
            _ => { type $t = u64; $e }
        }
    };
}
pub(crate) use {with_size, with_type};

/// Bytes as elements.
pub fn of<T: Pod>(bytes: &[u8]) -> &[T] {
    // An empty slice may lie anywhere, even where no element could.
    if bytes.is_empty() { &[] } else { bytemuck::cast_slice(bytes) }
}

/// Bytes as elements for writing.
pub fn of_mut<T: Pod>(bytes: &mut [u8]) -> &mut [T] {
    if bytes.is_empty() { &mut [] } else { bytemuck::cast_slice_mut(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extrema_propagate_nan() {
        assert!(Number::greater(f32::NAN, 1.0).is_nan() && Number::greater(1.0, f32::NAN).is_nan());
        assert!(Number::lesser(f32::NAN, 1.0).is_nan() && Number::lesser(1.0, f32::NAN).is_nan());
        assert_eq!((Number::greater(1i64, 2), Number::lesser(1i64, 2)), (2, 1));
    }

    #[test]
    fn conversions_round_once_and_saturate() {
        assert_eq!(<f32 as Number>::convert(16_777_217i64), 16_777_216.0);
        assert_eq!(<i8 as Number>::convert(300.7f32), 127);
        assert_eq!(<u8 as Number>::convert(-1i64), 255);
        assert_eq!(<Flag as Number>::convert(0.5f32).0, 1);
        assert_eq!(<i64 as Number>::convert(Flag(1)), 1);
    }
}
