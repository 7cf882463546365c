//! What can go wrong, each as one line that names the culprit and the remedy.

use std::path::PathBuf;

/// Why a graph cannot be planned.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// An op that a pass should have expanded, or that the runtime cannot execute on its types.
    #[error("node `{node}` ({op}): {reason}")]
    Unsupported {
        /// Name of the node.
        node: String,
        /// Its op.
        op: &'static str,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The buffers do not fit the address space.
    #[error("the plan needs more memory than can be addressed; use a smaller batch")]
    TooLarge,
}

/// Why a plan cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No value for an input that has no default.
    #[error("input `{name}` is missing; it needs {expected} (give it in the inputs or by --init)")]
    MissingInput {
        /// Name of the input.
        name: String,
        /// Its type.
        expected: String,
    },
    /// A value for an input that the graph does not have.
    #[error("`{name}` is not an input of the graph; its inputs are {known}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// The names of the inputs.
        known: String,
    },
    /// A value of another type or shape.
    #[error("input `{name}` is {got}, but the graph needs {expected}; convert or reshape it")]
    WrongInput {
        /// Name of the input.
        name: String,
        /// The input's type.
        expected: String,
        /// The value's type.
        got: String,
    },
    /// A name that is not an output of the graph.
    #[error("`{name}` is not an output of the graph; its outputs are {known}")]
    UnknownOutput {
        /// The name asked for.
        name: String,
        /// The names of the outputs.
        known: String,
    },
    /// The system does not give the memory.
    #[error("cannot allocate {bytes} bytes for the plan's buffers; use a smaller batch or model")]
    OutOfMemory {
        /// How much was asked for.
        bytes: usize,
    },
    /// The system does not give the threads.
    #[error("{reason}; use fewer --threads")]
    Threads {
        /// The system's reason.
        reason: String,
    },
    /// The device cannot do what the plan needs.
    #[error("{0}")]
    Device(#[from] crate::cuda::CudaError),
    /// A node met data it cannot work on.
    #[error("node `{node}` ({op}): {reason}")]
    Node {
        /// Name of the node.
        node: String,
        /// Its op.
        op: &'static str,
        /// What is wrong with the data.
        reason: String,
    },
}

/// Why a file of tensors cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// The file cannot be opened, read or written.
    #[error("{}: {source}{}", path.display(), remedy(source))]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not of the format, or holds something that cannot be a tensor.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        reason: String,
    },
}

/// What to do about a file, where the system's reason tells.
fn remedy(reason: &std::io::Error) -> &'static str {
    match reason.kind() {
        std::io::ErrorKind::NotFound => "; check the path",
        _ => "",
    }
}
