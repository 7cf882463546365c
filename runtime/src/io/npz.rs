//! Archives of numpy arrays.

use super::{Named, format, write_atomically};
use crate::error::IoError;
use npyz::npz::NpzArchive;
use npyz::zip::write::{FileOptions, ZipWriter};
use npyz::{Endianness, NpyFile, Order, TypeChar};
use pam_ir::tensor::{Tensor, strides};
use pam_ir::types::{DType, Type, checked_elements};
use std::io::{Read, Write};
use std::path::Path;

/// Reads every array, in the order of the names.
///
/// # Errors
/// Where the file cannot be read, is no archive, or holds an array of another than the thirteen
/// element types (numpy's bfloat16 reads as `V2`).
pub fn read(path: &Path) -> Result<Named, IoError> {
    let file = |source| IoError::File { path: path.to_owned(), source };
    let reader = std::io::BufReader::new(std::fs::File::open(path).map_err(file)?);
    let not_npz = |e: std::io::Error| format(path, format!("is not an .npz archive ({e})"));
    let mut archive = NpzArchive::new(reader).map_err(not_npz)?;
    // The reader lists the names in no particular order.
    let mut names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    names.sort();
    let mut tensors = Vec::with_capacity(names.len());
    for name in names {
        let bad = |reason: String| format(path, format!("array `{name}` {reason}"));
        let array = archive.by_name(&name).map_err(|e| bad(format!("cannot be read: {e}")))?;
        let array = array.ok_or_else(|| bad("is missing from the archive".to_owned()))?;
        let tensor = tensor(array).map_err(bad)?;
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

fn tensor<R: Read>(array: NpyFile<R>) -> Result<Tensor, String> {
    let npyz::DType::Plain(ty) = array.dtype() else {
        return Err("has records as elements; save plain arrays".to_owned());
    };
    let dtype = match (ty.type_char(), ty.size_field()) {
        (TypeChar::Bool, 1) => DType::Bool,
        (TypeChar::Int, 1) => DType::I8,
        (TypeChar::Int, 2) => DType::I16,
        (TypeChar::Int, 4) => DType::I32,
        (TypeChar::Int, 8) => DType::I64,
        (TypeChar::Uint, 1) => DType::U8,
        (TypeChar::Uint, 2) => DType::U16,
        (TypeChar::Uint, 4) => DType::U32,
        (TypeChar::Uint, 8) => DType::U64,
        (TypeChar::Float, 2) => DType::F16,
        (TypeChar::Float, 4) => DType::F32,
        (TypeChar::Float, 8) => DType::F64,
        (TypeChar::RawData, 2) => DType::BF16,
        _ => return Err(format!("has elements of type {ty}; convert it to a number type")),
    };
    let dims = array.shape().iter().map(|&d| usize::try_from(d).ok());
    let shape = dims.collect::<Option<Vec<usize>>>().ok_or("is too large")?;
    let bytes = checked_elements(&shape).and_then(|n| n.checked_mul(dtype.size()));
    let bytes = bytes.ok_or("is too large")?;
    let (order, swap) = (array.order(), ty.endianness() == Endianness::Big);
    let mut data = Vec::new();
    // Grows with what is there, not with what the header claims.
    let mut reader = array.into_inner().take(bytes as u64);
    reader.read_to_end(&mut data).map_err(|e| format!("cannot be read: {e}"))?;
    if data.len() != bytes {
        return Err(format!("ends after {} of {bytes} bytes", data.len()));
    }
    if swap {
        data.chunks_mut(dtype.size()).for_each(<[u8]>::reverse);
    }
    let ty = Type::new(dtype, shape);
    if order == Order::Fortran && ty.rank() > 1 {
        data = row_major(&ty, &data);
    }
    Tensor::from_le_bytes(&ty, &data).ok_or_else(|| "is too large".to_owned())
}

/// Column-major elements in row-major order.
fn row_major(ty: &Type, data: &[u8]) -> Vec<u8> {
    let (size, own) = (ty.dtype.size(), strides(&ty.shape));
    let mut out = Vec::with_capacity(data.len());
    for i in 0..ty.elements() {
        let (mut at, mut step) = (0, 1);
        for (d, stride) in ty.shape.iter().zip(&own) {
            at += i / stride % d * step;
            step *= d;
        }
        out.extend_from_slice(&data[at * size..][..size]);
    }
    out
}

/// Writes an archive.
///
/// # Errors
/// Where it cannot be written; a file that was there is then unchanged.
pub fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), IoError> {
    // The zip writer wants to seek, and arrays are small beside the model: build it in memory.
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let archive = (|| {
        for (name, tensor) in tensors {
            let bytes = tensor.to_le_bytes();
            let options = FileOptions::default()
                .compression_method(npyz::zip::CompressionMethod::Stored)
                .large_file(bytes.len() as u64 >= u32::MAX.into());
            zip.start_file(npyz::npz::file_name_from_array_name(name), options)?;
            zip.write_all(&header(tensor))?;
            zip.write_all(&bytes)?;
        }
        zip.finish()
    })();
    let archive = archive.map_err(|e| format(path, format!("cannot be written: {e}")))?;
    write_atomically(path, |w| w.write_all(archive.get_ref()))
}

/// The header of the `.npy` format, version 1.0.
fn header(tensor: &Tensor) -> Vec<u8> {
    let descr = match tensor.dtype() {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::F16 => "<f2",
        DType::BF16 => "<V2",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::I16 => "<i2",
        DType::I8 => "|i1",
        DType::U64 => "<u8",
        DType::U32 => "<u4",
        DType::U16 => "<u2",
        DType::U8 => "|u1",
        DType::Bool => "|b1",
    };
    let dims: String = tensor.shape().iter().map(|d| format!("{d}, ")).collect();
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    // Magic, version and length take 10 bytes; data begins at a multiple of 64.
    let padding = (10 + text.len() + 1).next_multiple_of(64) - (10 + text.len() + 1);
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        let tensors: Named = DType::ALL
            .into_iter()
            .enumerate()
            .map(|(i, dtype)| {
                let shape = [vec![], vec![3], vec![2, 0], vec![2, 1, 3]][i % 4].clone();
                let ty = Type::new(dtype, shape);
                let bytes: Vec<u8> = (0..ty.bytes()).map(|b| (b % 2) as u8).collect();
                (format!("a/{dtype}"), Tensor::from_le_bytes(&ty, &bytes).unwrap())
            })
            .collect();
        write(&path, &tensors).unwrap();
        let mut sorted = tensors;
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(read(&path).unwrap(), sorted);
    }

    #[test]
    fn column_major_is_turned() {
        let ty = Type::new(DType::U8, [2, 3]);
        assert_eq!(row_major(&ty, &[0, 3, 1, 4, 2, 5]), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn bad_files_are_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        assert!(read(&path).unwrap_err().to_string().contains("No such file"));
        std::fs::write(&path, b"PK nonsense").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("is not an .npz archive") && !error.contains('\n'), "{error}");
        write(&path, &[("x".to_owned(), Tensor::vector(vec![1.0f32; 50]))]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in [10, 100, whole.len() - 5] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(read(&path).is_err());
        }
    }
}
