//! tract as a second, independent native engine.
//!
//! It reads the bytes of the ONNX file itself, so that nothing of this project's importer, passes or
//! kernels takes part. It lacks some ops of training graphs, and says so.

use pam_ir::onnx::proto::ModelProto;
use pam_ir::tensor::{Data, Tensor};
use prost::Message;
use std::path::{Path, PathBuf};
use tract_onnx::prelude::{
    DatumType, Framework, InferenceModelExt, IntoRunnable, IntoTValue, TVec, Tensor as TractTensor,
};

/// Why tract does not run a model.
#[derive(Debug, thiserror::Error)]
pub enum TractError {
    /// The file is no ONNX model.
    #[error("{}: is not an ONNX model: {reason}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },
    /// An input has no value.
    #[error("{}: input `{name}` has no value; give it in the inputs", path.display())]
    MissingInput {
        /// The file.
        path: PathBuf,
        /// Name of the input.
        name: String,
    },
    /// Something that tract lacks.
    #[error("{}: tract cannot run this model ({reason}); compare with --engine runtime", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What tract says, on one line.
        reason: String,
    },
}

/// Runs a model once. `path` is where `bytes` were read from; external data is looked for beside it.
/// Inputs that are not given take the default of the model.
///
/// # Errors
/// Where the bytes are no model, an input has no value, or tract lacks something.
pub fn run(
    path: &Path,
    bytes: &[u8],
    inputs: &[(String, Tensor)],
) -> Result<Vec<(String, Tensor)>, TractError> {
    let path_of = || path.to_owned();
    let mut model = ModelProto::decode(bytes)
        .map_err(|e| TractError::NotOnnx { path: path_of(), reason: e.to_string() })?;
    let unsupported = |reason: String| TractError::Unsupported { path: path_of(), reason };
    let given = |name: &str| inputs.iter().find(|(n, _)| n == name).map(|(_, t)| t);
    let graph = model.graph.get_or_insert_default();
    // tract takes an input with a default for a constant: the ones that are given lose it.
    graph.initializer.retain(|t| given(t.name()).is_none());
    let defaults: Vec<String> = graph.initializer.iter().map(|t| t.name().to_owned()).collect();
    let fed: Vec<String> = graph.input.iter().map(|v| v.name().to_owned()).collect();
    let fed: Vec<String> = fed.into_iter().filter(|n| !defaults.contains(n)).collect();
    let outputs: Vec<String> = graph.output.iter().map(|v| v.name().to_owned()).collect();
    let mut values: TVec<_> = TVec::new();
    for name in &fed {
        let value = given(name)
            .ok_or_else(|| TractError::MissingInput { path: path_of(), name: name.clone() })?;
        values.push(to_tract(value).map_err(unsupported)?.into_tvalue());
    }
    let results = (|| {
        let mut bytes: &[u8] = &model.encode_to_vec();
        let onnx = tract_onnx::onnx()
            .with_ignore_output_shapes(true)
            .with_ignore_output_types(true)
            .with_ignore_value_info(true);
        let proto = onnx.proto_model_for_read(&mut bytes)?;
        let folder = path.parent().and_then(Path::to_str);
        let parsed = onnx.parse(&proto, folder)?.model;
        parsed.into_optimized()?.into_runnable()?.run(values)
    })();
    let results = results.map_err(|e: tract_onnx::prelude::TractError| {
        // The chain of causes ends in what tract lacks.
        let chain: Vec<String> = e.chain().map(|c| c.to_string().replace('\n', " ")).collect();
        unsupported(chain.join(": "))
    })?;
    let tensors = outputs.into_iter().zip(results.iter());
    tensors.map(|(name, t)| Ok((name, from_tract(t).map_err(unsupported)?))).collect()
}

fn to_tract(t: &Tensor) -> Result<TractTensor, String> {
    let shape = t.shape();
    let converted = match t.data() {
        Data::F32(v) => TractTensor::from_shape(shape, v),
        Data::F64(v) => TractTensor::from_shape(shape, v),
        Data::F16(v) => TractTensor::from_shape(shape, v),
        Data::I64(v) => TractTensor::from_shape(shape, v),
        Data::I32(v) => TractTensor::from_shape(shape, v),
        Data::I16(v) => TractTensor::from_shape(shape, v),
        Data::I8(v) => TractTensor::from_shape(shape, v),
        Data::U64(v) => TractTensor::from_shape(shape, v),
        Data::U32(v) => TractTensor::from_shape(shape, v),
        Data::U16(v) => TractTensor::from_shape(shape, v),
        Data::U8(v) => TractTensor::from_shape(shape, v),
        Data::Bool(v) => TractTensor::from_shape(shape, v),
        Data::BF16(_) => return Err("it has no bf16".to_owned()),
    };
    converted.map_err(|e| e.to_string())
}

fn from_tract(t: &TractTensor) -> Result<Tensor, String> {
    macro_rules! elements {
        ($($from:pat => $variant:ident,)*) => {
            match t.datum_type() {
                $($from => t
                    .try_as_plain_ram()
                    .and_then(|v| v.as_slice().map(|v| Data::$variant(v.to_vec()))),)*
                other => return Err(format!("a result has elements of type {other:?}")),
            }
        };
    }
    let data = elements! {
        DatumType::F32 => F32,
        DatumType::F64 => F64,
        DatumType::F16 => F16,
        DatumType::I64 => I64,
        DatumType::I32 => I32,
        DatumType::I16 => I16,
        DatumType::I8 => I8,
        DatumType::U64 => U64,
        DatumType::U32 => U32,
        DatumType::U16 => U16,
        DatumType::U8 => U8,
        DatumType::Bool => Bool,
    };
    let data = data.map_err(|e| e.to_string())?;
    Tensor::from_data(t.shape(), data).ok_or_else(|| "a result has an odd shape".to_owned())
}
