//! Attributes of nodes.

use crate::tensor::Tensor;
use crate::types::DType;
use std::collections::BTreeMap;
use std::fmt;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// A string.
    Str(String),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A list of floats.
    Floats(Vec<f32>),
    /// A list of strings.
    Strs(Vec<String>),
    /// A tensor.
    Tensor(Tensor),
    /// An element type (ONNX stores it as an integer).
    Type(DType),
}

/// Which kind of value an attribute has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrKind {
    /// [`Attr::Int`].
    Int,
    /// [`Attr::Float`].
    Float,
    /// [`Attr::Str`].
    Str,
    /// [`Attr::Ints`].
    Ints,
    /// [`Attr::Floats`].
    Floats,
    /// [`Attr::Strs`].
    Strs,
    /// [`Attr::Tensor`].
    Tensor,
    /// [`Attr::Type`].
    Type,
}

impl AttrKind {
    /// The name in signatures and messages, such as `ints`.
    pub const fn name(self) -> &'static str {
        match self {
            AttrKind::Int => "int",
            AttrKind::Float => "float",
            AttrKind::Str => "str",
            AttrKind::Ints => "ints",
            AttrKind::Floats => "floats",
            AttrKind::Strs => "strs",
            AttrKind::Tensor => "tensor",
            AttrKind::Type => "type",
        }
    }

    /// The inverse of [`AttrKind::name`].
    pub fn from_name(name: &str) -> Option<AttrKind> {
        use AttrKind::{Float, Floats, Int, Ints, Str, Strs, Tensor, Type};
        [Int, Float, Str, Ints, Floats, Strs, Tensor, Type].into_iter().find(|k| k.name() == name)
    }
}

impl Attr {
    /// Which kind it is.
    pub fn kind(&self) -> AttrKind {
        match self {
            Attr::Int(_) => AttrKind::Int,
            Attr::Float(_) => AttrKind::Float,
            Attr::Str(_) => AttrKind::Str,
            Attr::Ints(_) => AttrKind::Ints,
            Attr::Floats(_) => AttrKind::Floats,
            Attr::Strs(_) => AttrKind::Strs,
            Attr::Tensor(_) => AttrKind::Tensor,
            Attr::Type(_) => AttrKind::Type,
        }
    }
}

macro_rules! from {
    ($($t:ty => $variant:ident),* $(,)?) => {
        $(impl From<$t> for Attr {
            fn from(v: $t) -> Attr {
                Attr::$variant(v)
            }
        })*
    };
}
from! {
    i64 => Int, f32 => Float, String => Str, Vec<i64> => Ints, Vec<f32> => Floats,
    Vec<String> => Strs, Tensor => Tensor, DType => Type,
}

impl From<&str> for Attr {
    fn from(v: &str) -> Attr {
        Attr::Str(v.to_owned())
    }
}

impl From<&[usize]> for Attr {
    fn from(v: &[usize]) -> Attr {
        Attr::Ints(v.iter().map(|&d| d as i64).collect())
    }
}

/// Prints floats so that they read back with the same bits, always with a point or exponent.
pub(crate) struct FloatText(pub f32);

impl fmt::Display for FloatText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_nan() && self.0.to_bits() != 0x7FC0_0000 {
            return write!(f, "nan:{:08x}", self.0.to_bits());
        }
        write!(f, "{:?}", self.0)
    }
}

/// The attributes of a node by name. Absent ones take the default of the op's row.
pub type Attrs = BTreeMap<String, Attr>;
