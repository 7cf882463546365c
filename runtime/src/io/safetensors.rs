//! The safetensors format: state and checkpoints.

use super::{Named, format, write_atomically};
use crate::error::IoError;
use pam_ir::tensor::Tensor;
use pam_ir::types::{DType, Type};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

/// A file's content.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// Tensors, sorted by name.
    pub tensors: Named,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
}

const TYPES: [(DType, Dtype); 13] = [
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U64, Dtype::U64),
    (DType::U32, Dtype::U32),
    (DType::U16, Dtype::U16),
    (DType::U8, Dtype::U8),
    (DType::Bool, Dtype::BOOL),
];

/// Reads a file.
///
/// # Errors
/// Where it cannot be read, is not of the format, or holds another than the thirteen element types.
pub fn read(path: &Path) -> Result<File, IoError> {
    let bytes =
        std::fs::read(path).map_err(|source| IoError::File { path: path.to_owned(), source })?;
    let bad = |e| format(path, format!("is not a safetensors file ({e})"));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(bad)?;
    let metadata = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
    let content = SafeTensors::deserialize(&bytes).map_err(bad)?;
    let mut tensors = Vec::with_capacity(content.len());
    for (name, view) in content.iter() {
        let dtype = TYPES.iter().find(|t| t.1 == view.dtype()).map(|t| t.0);
        let tensor = dtype
            .and_then(|dtype| Tensor::from_le_bytes(&Type::new(dtype, view.shape()), view.data()));
        let tensor = tensor.ok_or_else(|| {
            format(path, format!("tensor `{name}` has elements of type {:?}", view.dtype()))
        })?;
        tensors.push((name.to_owned(), tensor));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(File { tensors, metadata })
}

/// Writes a file.
///
/// # Errors
/// Where it cannot be written; a file that was there is then unchanged.
pub fn write(path: &Path, file: &File) -> Result<(), IoError> {
    let bad = |e| format(path, format!("cannot be written ({e})"));
    let data: Vec<Vec<u8>> = file.tensors.iter().map(|(_, t)| t.to_le_bytes()).collect();
    let views = file.tensors.iter().zip(&data).map(|((name, tensor), bytes)| {
        let dtype = TYPES.iter().find(|t| t.0 == tensor.dtype()).map_or(Dtype::U8, |t| t.1);
        Ok((name, TensorView::new(dtype, tensor.shape().to_vec(), bytes)?))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    // One key: the format's hash map would write several in any order.
    let metadata = (!file.metadata.is_empty())
        .then(|| file.metadata.clone().into_iter().collect::<HashMap<String, String>>());
    let bytes = safetensors::serialize(views, metadata).map_err(bad)?;
    write_atomically(path, |w| w.write_all(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_metadata_survive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let mut file = File::default();
        for (dtype, _) in TYPES {
            let ty = Type::new(dtype, [2, 3]);
            let bytes: Vec<u8> = (0..ty.bytes()).map(|b| (b % 2) as u8).collect();
            file.tensors.push((dtype.to_string(), Tensor::from_le_bytes(&ty, &bytes).unwrap()));
        }
        file.tensors.sort_by(|a, b| a.0.cmp(&b.0));
        file.metadata.insert("step".to_owned(), "7".to_owned());
        write(&path, &file).unwrap();
        assert_eq!(read(&path).unwrap(), file);
        std::fs::write(&path, b"\xff\xff\xff\xff\xff\xff\xff\x7f nonsense").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("is not a safetensors file"));
    }
}
