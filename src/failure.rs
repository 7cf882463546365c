//! Why a command ends early.

use pam_ir::graph::Graph;
use pam_ir::onnx::error::OnnxError;
use pam_passes::CompileError;
use pam_runtime::train::TrainError;
use pam_runtime::{IoError, PlanError, RunError};
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// A message and the exit code that goes with it.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// Bad input or usage.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 2 }
    }

    /// A check that did not hold.
    pub fn refuted(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 1 }
    }

    /// Bad input in a file.
    pub fn file(path: &Path, reason: impl fmt::Display) -> Failure {
        Failure::new(format!("{}: {reason}", path.display()))
    }

    /// A node that cannot be compiled, with the opset that its op is of.
    pub fn compile(path: &Path, graph: &Graph, e: &CompileError) -> Failure {
        let node = match &e.node {
            Some(node) => format!("node `{node}` ({}, opset {}): ", e.op, graph.meta.opset),
            None => String::new(),
        };
        let remedy = if e.remedy.is_empty() { "" } else { "; " };
        Failure::file(path, format!("{node}{}{remedy}{}", e.reason, e.remedy))
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    /// On one line, whatever a name in a file holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line: String =
            self.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        f.write_str(&line)
    }
}

macro_rules! from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(e: $error) -> Failure {
                Failure::new(e.to_string())
            }
        })*
    };
}

from!(OnnxError, PlanError, RunError, IoError, TrainError);
