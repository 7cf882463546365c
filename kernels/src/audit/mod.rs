//! The machine-code audit: do the instructions of the PA kernels multiply?
//!
//! Every kernel of PA arithmetic lies in the link section [`SECTION`]. The audit takes an executable, this
//! very one for instance, disassembles that section symbol by symbol and counts what multiplies, divides
//! or takes roots. What a kernel calls outside of the section would escape it, so that such calls are
//! listed as well, and are findings unless they are known to compute nothing: panics, copies of memory,
//! and the detection of processor features.
//!
//! Multiplications of scalar integers are counted apart: compilers use them for addresses.

mod code;
mod instruction;
mod program;

use object::{Object, ObjectSection, ReadCache, ReadRef};
use program::Program;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The link section of the PA kernels.
pub const SECTION: &str = "pam_text";

/// What decodes the instructions.
pub const AUDITED_BY: &str = "iced-x86 1.22";

/// Why an executable cannot be audited.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no ELF executable, or holds no kernels.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        reason: String,
    },
}

/// What an instruction does that a PA kernel may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Multiplies floats, or scales them by powers of two.
    FloatMultiply,
    /// Divides floats or approximates a reciprocal.
    FloatDivide,
    /// Takes a square root or approximates its reciprocal.
    SquareRoot,
    /// Multiplies and adds floats.
    FusedMultiplyAdd,
    /// Multiplies the integers of vectors.
    VectorIntegerMultiply,
    /// Multiplies or divides scalar integers.
    ScalarIntegerMultiply,
    /// Calls what lies outside of the section and is not known to compute nothing.
    Call,
    /// Is no instruction that is known.
    Unknown,
}

/// An instruction of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it does.
    pub kind: Kind,
    /// Its address in the executable.
    pub address: u64,
    /// The instruction, or the name of what is called.
    pub text: String,
}

/// The audit of one kernel, all its copies together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelAudit {
    /// Its path in the source.
    pub name: String,
    /// Instructions.
    pub instructions: usize,
    /// What was found, in the order of the addresses.
    pub findings: Vec<Finding>,
}

impl KernelAudit {
    /// How many findings are of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.findings.iter().filter(|f| f.kind == kind).count()
    }

    /// Instructions that multiply, divide or take roots of floats.
    pub fn float_multiplies(&self) -> usize {
        use Kind::{FloatDivide, FloatMultiply, FusedMultiplyAdd, SquareRoot};
        let floats = [FloatMultiply, FloatDivide, SquareRoot, FusedMultiplyAdd];
        floats.into_iter().map(|k| self.count(k)).sum()
    }

    /// Instructions that multiply or divide integers, in vectors or not.
    pub fn integer_multiplies(&self) -> usize {
        self.count(Kind::VectorIntegerMultiply) + self.count(Kind::ScalarIntegerMultiply)
    }

    /// Whether nothing is found but scalar integer multiplications.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|f| f.kind == Kind::ScalarIntegerMultiply)
    }
}

/// Audits the running executable.
///
/// # Errors
/// Where it cannot be read or is of a format that is not known.
pub fn audit_self() -> Result<Vec<KernelAudit>, AuditError> {
    let path = std::env::current_exe()
        .map_err(|source| AuditError::File { path: PathBuf::from("this executable"), source })?;
    audit_file(&path)
}

/// Audits an executable; kernels in the order of their names.
///
/// # Errors
/// Where it cannot be read, is no x86-64 ELF executable, or holds no PA kernels.
pub fn audit_file(path: &Path) -> Result<Vec<KernelAudit>, AuditError> {
    let file = std::fs::File::open(path)
        .map_err(|source| AuditError::File { path: path.to_owned(), source })?;
    // Of a large executable little is read.
    let cache = ReadCache::new(file);
    audit(&cache)
        .map_err(|reason| AuditError::Format { path: path.to_owned(), reason: reason.to_owned() })
}

/// Audits the bytes of an executable.
fn audit<'d, R: ReadRef<'d>>(bytes: R) -> Result<Vec<KernelAudit>, &'static str> {
    let file = object::File::parse(bytes)
        .map_err(|_| "is no ELF executable; kernels are audited on Linux")?;
    if file.architecture() != object::Architecture::X86_64 {
        return Err("is not of x86-64, whose instructions alone are known");
    }
    let section = file.section_by_name(SECTION).ok_or("holds no PA kernels")?;
    let code = section.data().map_err(|_| "has a broken section of kernels")?;
    let (start, end) = (section.address(), section.address() + code.len() as u64);
    let program = Program::read(&file, start..end);
    let mut inside: Vec<(u64, String)> = program.functions();
    match inside.first() {
        None => return Err("has no symbols, by which kernels are told apart; do not strip it"),
        Some(first) if first.0 > start => {
            inside.insert(0, (start, "code without a name".to_owned()))
        }
        Some(_) => {}
    }
    let mut kernels: BTreeMap<String, KernelAudit> = BTreeMap::new();
    let ends = inside.iter().skip(1).map(|next| next.0).chain([end]).collect::<Vec<u64>>();
    for ((from, name), to) in inside.into_iter().zip(ends) {
        let kernel = kernels
            .entry(name.clone())
            .or_insert_with(|| KernelAudit { name, ..KernelAudit::default() });
        program.disassemble(&code[(from - start) as usize..(to - start) as usize], from, kernel);
    }
    Ok(kernels.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused() {
        assert!(audit(b"no executable".as_slice()).unwrap_err().contains("no ELF executable"));
        let error = audit_file(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent: No such file"), "{error}");
    }
}
