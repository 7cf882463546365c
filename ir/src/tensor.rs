//! Constant tensors: weights, folded shape arithmetic, state defaults.
//!
//! Cloning is cheap (the elements are shared). What computes on tensors at run time lives elsewhere.

use crate::types::{DType, Shape, Type};
use half::{bf16, f16};
use sha2::{Digest, Sha256};
use std::sync::Arc;

macro_rules! data {
    ($($variant:ident: $t:ty),* $(,)?) => {
        /// The elements of a tensor in row-major order, one variant an element type.
        #[derive(Clone, Debug)]
        pub enum Data {
            $(#[doc = concat!("Elements of type `", stringify!($t), "`.")] $variant(Vec<$t>),)*
        }

        impl Data {
            /// The element type.
            pub fn dtype(&self) -> DType {
                match self { $(Data::$variant(_) => DType::$variant,)* }
            }

            /// The number of elements.
            pub fn len(&self) -> usize {
                match self { $(Data::$variant(v) => v.len(),)* }
            }

            /// Whether there are no elements.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// `len` zeros of the type.
            pub fn zeros(dtype: DType, len: usize) -> Data {
                match dtype { $(DType::$variant => Data::$variant(vec![<$t>::default(); len]),)* }
            }

            /// Picks elements by their row-major index: the one data movement all others are made of.
            pub fn pick(&self, indices: impl Iterator<Item = usize>) -> Data {
                match self { $(Data::$variant(v) => Data::$variant(indices.map(|i| v[i]).collect()),)* }
            }
        }

        $(impl Element for $t {
            const DTYPE: DType = DType::$variant;
            fn slice(data: &Data) -> Option<&[Self]> {
                match data { Data::$variant(v) => Some(v), _ => None }
            }
            fn slice_mut(data: &mut Data) -> Option<&mut Vec<Self>> {
                match data { Data::$variant(v) => Some(v), _ => None }
            }
            fn wrap(v: Vec<Self>) -> Data {
                Data::$variant(v)
            }
        })*
    };
}

/// A Rust type that is the element of some tensor.
pub trait Element: Copy + Default + PartialEq + Send + Sync + 'static {
    /// The element type's tag.
    const DTYPE: DType;
    /// The elements, if the data has this type.
    fn slice(data: &Data) -> Option<&[Self]>;
    /// The elements for writing, if the data has this type.
    fn slice_mut(data: &mut Data) -> Option<&mut Vec<Self>>;
    /// Data of these elements.
    fn wrap(v: Vec<Self>) -> Data;
}

data! {
    F32: f32, F64: f64, F16: f16, BF16: bf16, I64: i64, I32: i32, I16: i16, I8: i8,
    U64: u64, U32: u32, U16: u16, U8: u8, Bool: bool,
}

/// A constant tensor: a static shape and shared elements.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Shape,
    data: Arc<Data>,
}

impl Tensor {
    /// A tensor of these elements.
    ///
    /// # Errors
    /// `None` where the number of elements is not the shape's.
    pub fn from_data(shape: impl Into<Shape>, data: Data) -> Option<Tensor> {
        let shape = shape.into();
        (crate::types::checked_elements(&shape)? == data.len())
            .then(|| Tensor { shape, data: Arc::new(data) })
    }

    /// A tensor of these elements.
    ///
    /// # Panics
    /// Where the number of elements is not the shape's; for shapes from outside use
    /// [`Tensor::from_data`].
    pub fn new<T: Element>(shape: impl Into<Shape>, elements: Vec<T>) -> Tensor {
        Tensor::from_data(shape, T::wrap(elements)).expect("elements fit the shape")
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(element: T) -> Tensor {
        Tensor::new(vec![], vec![element])
    }

    /// A rank-1 tensor, the form of axes, shapes and pads.
    pub fn vector<T: Element>(elements: Vec<T>) -> Tensor {
        Tensor::new(vec![elements.len()], elements)
    }

    /// A tensor of zeros.
    pub fn zeros(ty: &Type) -> Tensor {
        Tensor { shape: ty.shape.clone(), data: Arc::new(Data::zeros(ty.dtype, ty.elements())) }
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// Its type.
    pub fn ty(&self) -> Type {
        Type::new(self.dtype(), self.shape.clone())
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.data.len()
    }

    /// The untyped elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, if they are of type `T`.
    pub fn slice<T: Element>(&self) -> Option<&[T]> {
        T::slice(&self.data)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// `None` where the number of elements differs.
    pub fn reshaped(&self, shape: impl Into<Shape>) -> Option<Tensor> {
        let shape = shape.into();
        (crate::types::checked_elements(&shape)? == self.elements())
            .then(|| Tensor { shape, data: self.data.clone() })
    }

    /// All elements as 64-bit integers, if the type is an integer type or bool.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        Some(match self.data() {
            Data::I64(v) => v.clone(),
            Data::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::I8(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U64(v) => v.iter().map(|&x| i64::try_from(x).ok()).collect::<Option<_>>()?,
            Data::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::U8(v) => v.iter().map(|&x| x.into()).collect(),
            Data::Bool(v) => v.iter().map(|&x| x.into()).collect(),
            Data::F32(_) | Data::F64(_) | Data::F16(_) | Data::BF16(_) => return None,
        })
    }

    /// All elements as 64-bit floats, if the type is a float type.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        Some(match self.data() {
            Data::F32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::F64(v) => v.clone(),
            Data::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::BF16(v) => v.iter().map(|x| x.to_f64()).collect(),
            _ => return None,
        })
    }

    /// The one element of a float tensor of one element, whatever its rank.
    pub fn as_scalar_f64(&self) -> Option<f64> {
        match self.elements() {
            1 => self.to_f64().map(|v| v[0]),
            _ => None,
        }
    }

    /// The elements as little-endian bytes (the layout of ONNX `raw_data`).
    pub fn to_le_bytes(&self) -> Vec<u8> {
        macro_rules! bytes {
            ($v:expr) => {
                $v.iter().flat_map(|x| x.to_le_bytes()).collect()
            };
        }
        match self.data() {
            Data::F32(v) => bytes!(v),
            Data::F64(v) => bytes!(v),
            Data::F16(v) => bytes!(v),
            Data::BF16(v) => bytes!(v),
            Data::I64(v) => bytes!(v),
            Data::I32(v) => bytes!(v),
            Data::I16(v) => bytes!(v),
            Data::I8(v) => bytes!(v),
            Data::U64(v) => bytes!(v),
            Data::U32(v) => bytes!(v),
            Data::U16(v) => bytes!(v),
            Data::U8(v) => v.clone(),
            Data::Bool(v) => v.iter().map(|&b| u8::from(b)).collect(),
        }
    }

    /// The inverse of [`Tensor::to_le_bytes`].
    ///
    /// # Errors
    /// `None` where the number of bytes is not that of the type.
    pub fn from_le_bytes(ty: &Type, bytes: &[u8]) -> Option<Tensor> {
        macro_rules! elements {
            ($t:ty, $variant:ident) => {
                Data::$variant(
                    bytes
                        .chunks_exact(size_of::<$t>())
                        .map(|c| <$t>::from_le_bytes(c.try_into().expect("chunks are exact")))
                        .collect(),
                )
            };
        }
        let expected = crate::types::checked_elements(&ty.shape)?.checked_mul(ty.dtype.size())?;
        if bytes.len() != expected {
            return None;
        }
        let data = match ty.dtype {
            DType::F32 => elements!(f32, F32),
            DType::F64 => elements!(f64, F64),
            DType::F16 => elements!(f16, F16),
            DType::BF16 => elements!(bf16, BF16),
            DType::I64 => elements!(i64, I64),
            DType::I32 => elements!(i32, I32),
            DType::I16 => elements!(i16, I16),
            DType::I8 => elements!(i8, I8),
            DType::U64 => elements!(u64, U64),
            DType::U32 => elements!(u32, U32),
            DType::U16 => elements!(u16, U16),
            DType::U8 => Data::U8(bytes.to_vec()),
            DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
        };
        Tensor::from_data(ty.shape.clone(), data)
    }

    /// The first eight hexadecimal digits of the SHA-256 of the elements: how the text form names
    /// a weight without printing it.
    pub fn short_hash(&self) -> String {
        let digest = Sha256::digest(self.to_le_bytes());
        digest[..4].iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Same type and same bits; NaNs of the same pattern are equal.
impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        self.shape == other.shape
            && self.dtype() == other.dtype()
            && (Arc::ptr_eq(&self.data, &other.data) || self.to_le_bytes() == other.to_le_bytes())
    }
}

/// Row-major strides of a shape, in elements.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}
