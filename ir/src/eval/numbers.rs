//! Elements as exact integers or doubles.

use crate::tensor::{Data, Tensor};
use crate::types::{DType, Type};
use half::{bf16, f16};

/// Elements of any integer type (booleans are 0 and 1) or of any float type.
#[derive(Clone, Debug)]
pub(super) enum Numbers {
    Int(Vec<i128>),
    Float(Vec<f64>),
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Numbers {
    pub(super) fn of(t: &Tensor) -> Numbers {
        macro_rules! ints {
            ($v:expr) => {
                Numbers::Int($v.iter().map(|&x| i128::from(x)).collect())
            };
        }
        match t.data() {
            Data::F32(v) => Numbers::Float(v.iter().map(|&x| x.into()).collect()),
            Data::F64(v) => Numbers::Float(v.clone()),
            Data::F16(v) => Numbers::Float(v.iter().map(|x| x.to_f64()).collect()),
            Data::BF16(v) => Numbers::Float(v.iter().map(|x| x.to_f64()).collect()),
            Data::I64(v) => ints!(v),
            Data::I32(v) => ints!(v),
            Data::I16(v) => ints!(v),
            Data::I8(v) => ints!(v),
            Data::U64(v) => ints!(v),
            Data::U32(v) => ints!(v),
            Data::U16(v) => ints!(v),
            Data::U8(v) => ints!(v),
            Data::Bool(v) => ints!(v),
        }
    }

    pub(super) fn first(&self) -> Option<Number> {
        match self {
            Numbers::Int(v) => v.first().copied().map(Number::Int),
            Numbers::Float(v) => v.first().copied().map(Number::Float),
        }
    }

    /// `start, start + delta, …`
    pub(super) fn progression(start: Number, delta: Number, n: usize) -> Numbers {
        match (start, delta) {
            (Number::Int(s), Number::Int(d)) => {
                Numbers::Int((0..n as i128).map(|i| s + i * d).collect())
            }
            (s, d) => {
                let f = |x: Number| match x {
                    Number::Int(i) => i as f64,
                    Number::Float(f) => f,
                };
                Numbers::Float((0..n).map(|i| f(s) + i as f64 * f(d)).collect())
            }
        }
    }

    /// The elements as a tensor; integers wrap to the type, floats round to it, and a float becomes
    /// an integer by truncation.
    pub(super) fn tensor(self, ty: &Type) -> Option<Tensor> {
        Tensor::from_data(ty.shape.clone(), self.data(ty.dtype))
    }

    fn data(self, dtype: DType) -> Data {
        macro_rules! both {
            ($variant:ident, $t:ty) => {
                Data::$variant(match self {
                    Numbers::Int(v) => v.iter().map(|&x| x as $t).collect(),
                    Numbers::Float(v) => v.iter().map(|&x| x as $t).collect(),
                })
            };
        }
        macro_rules! halves {
            ($variant:ident, $t:ty) => {
                Data::$variant(match self {
                    Numbers::Int(v) => v.iter().map(|&x| <$t>::from_f64(x as f64)).collect(),
                    Numbers::Float(v) => v.iter().map(|&x| <$t>::from_f64(x)).collect(),
                })
            };
        }
        match dtype {
            DType::F32 => both!(F32, f32),
            DType::F64 => both!(F64, f64),
            DType::F16 => halves!(F16, f16),
            DType::BF16 => halves!(BF16, bf16),
            DType::I64 => both!(I64, i64),
            DType::I32 => both!(I32, i32),
            DType::I16 => both!(I16, i16),
            DType::I8 => both!(I8, i8),
            DType::U64 => both!(U64, u64),
            DType::U32 => both!(U32, u32),
            DType::U16 => both!(U16, u16),
            DType::U8 => both!(U8, u8),
            DType::Bool => Data::Bool(match self {
                Numbers::Int(v) => v.iter().map(|&x| x != 0).collect(),
                Numbers::Float(v) => v.iter().map(|&x| x != 0.0).collect(),
            }),
        }
    }
}

/// Converts elements as ONNX `Cast` does.
pub fn cast(t: &Tensor, to: DType) -> Option<Tensor> {
    if t.dtype() == to {
        return Some(t.clone());
    }
    Numbers::of(t).tensor(&Type::new(to, t.shape()))
}
