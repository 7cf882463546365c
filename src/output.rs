//! Writing what was made: the model and its reports, all or none.

use crate::failure::Failure;
use crate::source::{Source, TARGET};
use pam_ir::certify::Certified;
use pam_ir::onnx::export::export;
use pam_ir::onnx::external::externalize;
use prost::Message;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Prints a line of results to stdout.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::print_line(format_args!($($text)*))
    };
}
pub(crate) use say;

/// Prints a line. A reader that has seen enough ends the process as it would end any other; a full
/// disk behind stdout is an error.
pub fn print_line(text: std::fmt::Arguments<'_>) {
    if let Err(e) = writeln!(std::io::stdout().lock(), "{text}") {
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(141);
        }
        eprintln!("error: stdout: {e}");
        std::process::exit(2);
    }
}

/// Protobuf cannot hold more in one message.
const LARGEST_MODEL: usize = 0x7FFF_FFFF;

/// A model as it is to be written: the bytes of its file, and of its data file where it has one.
pub struct Written {
    /// The model's file.
    pub model: Vec<u8>,
    /// The data file's name and content.
    pub data: Option<(PathBuf, Vec<u8>)>,
}

/// The model that a certified graph is written as.
///
/// Tensors go to a file of their own where the source's did, or where the model would be too large.
pub fn written(
    source: &Source,
    certified: &Certified,
    stated: &[(&str, String)],
    path: &Path,
) -> Result<Written, Failure> {
    let mut properties: BTreeMap<String, String> =
        stated.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    properties.insert(TARGET.to_owned(), certified.target().name().to_owned());
    let mut model = export(certified.graph(), &source.files[0].model, &properties)
        .map_err(|e| Failure::file(source.path(), e))?;
    let mut data = None;
    // Beside a device or a pipe there is no place for another file.
    let device = path.metadata().is_ok_and(|m| !m.is_file());
    if source.external && !device || model.encoded_len() > LARGEST_MODEL {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let location = format!("{name}.data");
        let bytes = externalize(&mut model, &location);
        if !bytes.is_empty() {
            data = Some((path.with_file_name(&location), bytes));
        }
    }
    Ok(Written { model: model.encode_to_vec(), data })
}

/// Refuses outputs that would overwrite an input or each other, or whose folder is not there, so that
/// what has been made is not lost at the end.
pub fn check_paths(inputs: &[&Path], outputs: &[&Path]) -> Result<(), Failure> {
    for (i, output) in outputs.iter().enumerate() {
        if output.is_dir() {
            return Err(Failure::file(output, "is a folder; name a file"));
        }
        // Of a folder that an input should be in, the input's own message tells.
        let beside = inputs.iter().any(|input| folder(input) == folder(output));
        if !beside && !folder(output).is_dir() {
            let reason = "No such file or directory; create its folder first";
            return Err(Failure::file(output, reason));
        }
        if inputs.iter().any(|input| same(input, output)) {
            return Err(Failure::file(output, "is also an input; name another file"));
        }
        if outputs[..i].iter().any(|other| same(other, output)) {
            return Err(Failure::file(output, "is named for two outputs; name another file"));
        }
    }
    Ok(())
}

fn same(a: &Path, b: &Path) -> bool {
    resolved(a) == resolved(b)
}

/// The folder of a file.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// The path without links and dots, whether or not the file exists.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| {
        let folder = folder(path);
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        folder.join(path.file_name().unwrap_or_default())
    })
}
