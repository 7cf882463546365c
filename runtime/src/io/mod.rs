//! Tensors in files: `.npz` archives of numpy and `.safetensors`.
//!
//! Files are written beside their final place and then moved there, so that an interruption leaves
//! either the old file or the new one and never half of one. Reading checks declared sizes against
//! what is there before it allocates.

pub mod npz;
pub mod safetensors;

use crate::error::IoError;
use pam_ir::tensor::Tensor;
use std::io::Write;
use std::path::Path;

/// Tensors by name, in the order of the file.
pub type Named = Vec<(String, Tensor)>;

/// Reads `.npz` or `.safetensors`, by the file's name. ONNX initializers are read by `pam-ir`.
///
/// # Errors
/// Where the file cannot be read, is not of its format, or its name ends otherwise.
pub fn read(path: &Path) -> Result<Named, IoError> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("npz") => npz::read(path),
        Some("safetensors") => Ok(safetensors::read(path)?.tensors),
        _ => Err(format(path, "is neither .npz nor .safetensors".to_owned())),
    }
}

/// Writes a file as a whole or not at all.
///
/// # Errors
/// Where the folder cannot be written or the disk is full; a file that was there is then unchanged.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut std::io::BufWriter<&std::fs::File>) -> std::io::Result<()>,
) -> Result<(), IoError> {
    let error = |source| IoError::File { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".pam-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private; the finished one is as readable as any other.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(folder).map_err(error)?;
    let mut writer = std::io::BufWriter::with_capacity(1 << 20, file.as_file());
    write(&mut writer).and_then(|()| writer.flush()).map_err(error)?;
    drop(writer);
    file.persist(path).map_err(|e| error(e.error))?;
    Ok(())
}

fn format(path: &Path, reason: String) -> IoError {
    IoError::Format { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_atomically(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_atomically(&path, |w| {
            w.write_all(b"half of the new")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().ends_with("x: disk full"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
