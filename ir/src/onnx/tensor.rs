//! Tensors of files.

use super::proto::{TensorProto, tensor_proto::DataType};
use crate::tensor::{Data, Tensor};
use crate::types::{DType, Type, checked_elements};
use half::{bf16, f16};

/// The element type of an ONNX data type number.
///
/// # Errors
/// Names the type if the compiler has no such element type.
pub fn dtype(number: i32) -> Result<DType, String> {
    let data_type =
        DataType::try_from(number).map_err(|_| format!("unknown data type {number}"))?;
    Ok(match data_type {
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        DataType::Float16 => DType::F16,
        DataType::Bfloat16 => DType::BF16,
        DataType::Int64 => DType::I64,
        DataType::Int32 => DType::I32,
        DataType::Int16 => DType::I16,
        DataType::Int8 => DType::I8,
        DataType::Uint64 => DType::U64,
        DataType::Uint32 => DType::U32,
        DataType::Uint16 => DType::U16,
        DataType::Uint8 => DType::U8,
        DataType::Bool => DType::Bool,
        other => {
            let name = other.as_str_name();
            return Err(format!("element type {name} is not supported; export it as f32"));
        }
    })
}

/// The ONNX data type number of an element type.
pub fn number(dtype: DType) -> i32 {
    let data_type = match dtype {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I64 => DataType::Int64,
        DType::I32 => DataType::Int32,
        DType::I16 => DataType::Int16,
        DType::I8 => DataType::Int8,
        DType::U64 => DataType::Uint64,
        DType::U32 => DataType::Uint32,
        DType::U16 => DataType::Uint16,
        DType::U8 => DataType::Uint8,
        DType::Bool => DataType::Bool,
    };
    data_type as i32
}

/// Reads a tensor from `raw_data` or from its typed field; external data must have been loaded.
///
/// # Errors
/// Says what about the tensor is wrong.
pub fn read(t: &TensorProto) -> Result<Tensor, String> {
    let name = t.name();
    let ty = tensor_type(t)?;
    let elements = checked_elements(&ty.shape).expect("tensor_type has checked the shape");
    if let Some(raw) = &t.raw_data {
        let (len, want) = (raw.len(), ty.bytes());
        return Tensor::from_le_bytes(&ty, raw)
            .ok_or(format!("tensor `{name}` of type {ty} has {len} bytes of data, not {want}"));
    }
    // The narrow types share int32_data, halves as their bits.
    let narrow = &t.int32_data;
    macro_rules! ints {
        ($v:ident, $t:ty) => {
            Data::$v(narrow.iter().map(|&x| x as $t).collect())
        };
    }
    let data = match ty.dtype {
        DType::F32 => Data::F32(t.float_data.clone()),
        DType::F64 => Data::F64(t.double_data.clone()),
        DType::I64 => Data::I64(t.int64_data.clone()),
        DType::U64 => Data::U64(t.uint64_data.clone()),
        DType::U32 => Data::U32(t.uint64_data.iter().map(|&x| x as u32).collect()),
        DType::I32 => Data::I32(narrow.clone()),
        DType::I16 => ints!(I16, i16),
        DType::I8 => ints!(I8, i8),
        DType::U16 => ints!(U16, u16),
        DType::U8 => ints!(U8, u8),
        DType::F16 => Data::F16(narrow.iter().map(|&x| f16::from_bits(x as u16)).collect()),
        DType::BF16 => Data::BF16(narrow.iter().map(|&x| bf16::from_bits(x as u16)).collect()),
        DType::Bool => Data::Bool(narrow.iter().map(|&x| x != 0).collect()),
    };
    let len = data.len();
    Tensor::from_data(ty.shape.clone(), data)
        .ok_or(format!("tensor `{name}` of type {ty} has {len} elements of data, not {elements}"))
}

/// The type a tensor declares.
///
/// # Errors
/// For an unknown element type, a negative dimension or more bytes than memory can address.
pub fn tensor_type(t: &TensorProto) -> Result<Type, String> {
    let dtype = dtype(t.data_type())?;
    let shape = t
        .dims
        .iter()
        .map(|&d| {
            usize::try_from(d).map_err(|_| format!("tensor `{}` has dimension {d}", t.name()))
        })
        .collect::<Result<Vec<usize>, String>>()?;
    checked_elements(&shape)
        .and_then(|n| n.checked_mul(dtype.size()))
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or(format!("tensor `{}` has more elements than memory can address", t.name()))?;
    Ok(Type { dtype, shape })
}

/// Writes a tensor under a name, always as `raw_data`.
pub fn write(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        data_type: Some(number(tensor.dtype())),
        raw_data: Some(tensor.to_le_bytes()),
        ..TensorProto::default()
    }
}
