//! What can be wrong with a file.

use std::fmt;
use std::path::{Path, PathBuf};

/// The node an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// Name of the node, or its position and outputs where it has none.
    pub node: String,
    /// Domain and op type.
    pub op: String,
    /// Opset of the domain.
    pub version: i64,
}

/// Why a file cannot be read, linked or written: one line with file, node, reason and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxError {
    /// The file.
    pub path: PathBuf,
    /// The node, where the reason lies in one.
    pub at: Option<Box<At>>,
    /// What is wrong.
    pub reason: String,
    /// What the user can do about it; may be empty.
    pub remedy: String,
}

impl OnnxError {
    /// An error about a whole file.
    pub fn file(path: &Path, reason: impl Into<String>, remedy: impl Into<String>) -> OnnxError {
        OnnxError { path: path.to_owned(), at: None, reason: reason.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for OnnxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(at) = &self.at {
            let At { node, op, version } = &**at;
            write!(f, "node `{}` ({op}, opset {version}): ", one_line(node))?;
        }
        f.write_str(&one_line(&self.reason))?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for OnnxError {}

/// Names in files may hold line breaks; a message may not.
fn one_line(s: &str) -> String {
    s.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
