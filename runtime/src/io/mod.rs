//! Tensors in files: `.npz` archives of numpy and `.safetensors`.
//!
//! Files are written beside their final place and then moved there, so that an interruption leaves
//! either the old file or the new one and never half of one. Devices and pipes are written to when all is done. Reading checks declared sizes against
//! what is there before it allocates.

pub mod npz;
pub mod safetensors;

use crate::error::IoError;
use pam_ir::tensor::Tensor;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Tensors by name.
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
    let unfinished = Unfinished::write(path, write)?;
    match unfinished.place {
        Place::File(_) => under_way(|paths| unfinished.finish(paths)),
        Place::Device(_) => unfinished.copy(),
    }
}

/// Writes several files, each as a whole; if one cannot be written, none is.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_together(files: &[(PathBuf, Vec<u8>)]) -> Result<(), IoError> {
    let unfinished: Vec<Unfinished> = files
        .iter()
        .map(|(path, bytes)| Unfinished::write(path, |w| w.write_all(bytes)))
        .collect::<Result<_, _>>()?;
    let (files, devices): (Vec<Unfinished>, Vec<Unfinished>) =
        unfinished.into_iter().partition(|u| matches!(u.place, Place::File(_)));
    // An interruption comes before all of them or after.
    under_way(|paths| files.into_iter().try_for_each(|file| file.finish(paths)))?;
    devices.into_iter().try_for_each(Unfinished::copy)
}

/// Removes the files that are being written, and lets none begin. For the handler of an interruption, after which the
/// process must end.
pub fn discard_unfinished() {
    // A thread that panicked while it held the lock leaves the list as good as before.
    let under_way = UNDER_WAY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for path in under_way.iter() {
        // There is nobody left to tell.
        let _ = std::fs::remove_file(path);
    }
    std::mem::forget(under_way);
}

/// The temporary files that exist now.
static UNDER_WAY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn under_way<T>(change: impl FnOnce(&mut Vec<PathBuf>) -> T) -> T {
    change(&mut UNDER_WAY.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// A file beside its final place; it disappears unless it is finished.
struct Unfinished {
    file: tempfile::NamedTempFile,
    place: Place,
}

/// Where an output goes.
#[derive(Debug, PartialEq)]
enum Place {
    /// A regular file, there already or not, which is replaced; no link.
    File(PathBuf),
    /// Something else that can be written to, such as `/dev/null` or a pipe, which stays what it is.
    Device(PathBuf),
}

impl Place {
    /// What a path leads to. A link to a file stays, and the file is replaced.
    fn of(path: &Path) -> Place {
        // Behind such a link lies an open file, which a new one under its name would not reach.
        let open =
            path.read_link().is_ok_and(|to| to.starts_with("/proc") || to.starts_with("/dev/fd"));
        if open || path.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir()) {
            return Place::Device(path.to_owned());
        }
        if let Ok(file) = path.canonicalize() {
            return Place::File(file);
        }
        match path.read_link() {
            // A link to a file that is not there yet.
            Ok(to) => Place::File(folder(path).join(to)),
            Err(_) => Place::File(path.to_owned()),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Place::File(path) | Place::Device(path) => path,
        }
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

impl Unfinished {
    fn write(
        path: &Path,
        write: impl FnOnce(&mut std::io::BufWriter<&std::fs::File>) -> std::io::Result<()>,
    ) -> Result<Unfinished, IoError> {
        let error = |source| IoError::File { path: path.to_owned(), source };
        let place = Place::of(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".pam-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Temporary files are private; the finished one is as readable as any other.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = under_way(|paths| {
            let file = match &place {
                Place::File(path) => builder.tempfile_in(folder(path)),
                Place::Device(_) => builder.tempfile(),
            };
            paths.extend(file.iter().map(|file| file.path().to_owned()));
            file
        });
        let file = file.map_err(|e| error(without_temporary_name(e)))?;
        let unfinished = Unfinished { file, place };
        let mut writer = std::io::BufWriter::with_capacity(1 << 20, unfinished.file.as_file());
        write(&mut writer).and_then(|()| writer.flush()).map_err(error)?;
        drop(writer);
        Ok(unfinished)
    }

    /// Moves it to its place, while no other thread looks at what is under way.
    fn finish(self, under_way: &mut Vec<PathBuf>) -> Result<(), IoError> {
        let temporary = self.file.path().to_owned();
        let path = self.place.path().to_owned();
        let finished = self.file.persist(&path).map(drop).map_err(|e| e.error);
        under_way.retain(|p| *p != temporary);
        finished.map_err(|source| IoError::File { path, source })
    }

    /// Copies it to a device, which may take as long as it likes.
    fn copy(self) -> Result<(), IoError> {
        let path = self.place.path().to_owned();
        let copied = self.file.reopen().and_then(|mut from| {
            let mut to = std::fs::OpenOptions::new().write(true).open(&path)?;
            std::io::copy(&mut from, &mut to).map(drop)
        });
        under_way(|paths| paths.retain(|p| p != self.file.path()));
        copied.map_err(|source| IoError::File { path, source })
    }
}

/// The error of a temporary file names that file, which means nothing to the user.
fn without_temporary_name(e: std::io::Error) -> std::io::Error {
    let text = e.to_string();
    let reason = text.split(" at path ").next().unwrap_or_default().to_owned();
    std::io::Error::new(e.kind(), reason)
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

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::os::unix::fs::symlink("file", &link).unwrap();
        for content in [b"first".as_slice(), b"2nd"] {
            write_atomically(&link, |w| w.write_all(content)).unwrap();
            assert!(link.is_symlink() && !file.is_symlink());
            assert_eq!(std::fs::read(&file).unwrap(), content);
        }
        for device in ["/dev/null", "/dev/stdout"] {
            assert_eq!(Place::of(Path::new(device)), Place::Device(device.into()));
        }
        assert_eq!(Place::of(&folder.path().join("new")), Place::File(folder.path().join("new")));
        // A pipe, since a test that fails should not replace a device of the machine.
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        write_atomically(&pipe, |w| w.write_all(b"through")).unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(!pipe.is_file());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn several_files_are_written_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let good = (folder.path().join("a"), b"a".to_vec());
        let bad = (folder.path().join("no/b"), b"b".to_vec());
        let error = write_together(&[good.clone(), bad]).unwrap_err().to_string();
        assert!(error.contains("no/b: No such file") && !error.contains(".part"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        write_together(std::slice::from_ref(&good)).unwrap();
        assert_eq!(std::fs::read(&good.0).unwrap(), b"a");
    }
}
