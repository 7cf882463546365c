//! The machine-code audit: do the instructions of the PA kernels multiply?
//!
//! Every kernel of PA arithmetic lies in the link section [`SECTION`]. The audit takes an executable, this
//! very one for instance, disassembles that section symbol by symbol and counts what multiplies, divides
//! or takes roots. What a kernel calls outside of the section would escape it, so that such calls are
//! listed as well, and are findings unless they are known to compute nothing: panics, copies of memory,
//! and the detection of processor features.
//!
//! Multiplications of scalar integers are counted apart: compilers use them for addresses.

use iced_x86::{
    Decoder, DecoderOptions, FastFormatter, FlowControl, Instruction, Mnemonic, OpKind, Register,
};
use object::{Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, RelocationTarget};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The link section of the PA kernels.
pub const SECTION: &str = "pam_text";

/// What decodes the instructions.
pub const AUDITED_BY: &str = "iced-x86 1.21";

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
    let bytes =
        std::fs::read(path).map_err(|source| AuditError::File { path: path.to_owned(), source })?;
    audit(&bytes)
        .map_err(|reason| AuditError::Format { path: path.to_owned(), reason: reason.to_owned() })
}

/// Audits the bytes of an executable.
fn audit(bytes: &[u8]) -> Result<Vec<KernelAudit>, &'static str> {
    let file = object::File::parse(bytes)
        .map_err(|_| "is no ELF executable; kernels are audited on Linux")?;
    if file.architecture() != object::Architecture::X86_64 {
        return Err("is not of x86-64, whose instructions alone are known");
    }
    let section = file.section_by_name(SECTION).ok_or("holds no PA kernels")?;
    let code = section.data().map_err(|_| "has a broken section of kernels")?;
    let (start, end) = (section.address(), section.address() + code.len() as u64);
    let program = Program::read(&file, start..end);
    let inside: Vec<(u64, &str)> = program.names.range(start..end).map(|(a, n)| (*a, *n)).collect();
    if inside.is_empty() {
        return Err("has no symbols, by which kernels are told apart; do not strip it");
    }
    let mut kernels: BTreeMap<String, KernelAudit> = BTreeMap::new();
    for (i, &(from, symbol)) in inside.iter().enumerate() {
        let to = inside.get(i + 1).map_or(end, |next| next.0);
        let name = plain(symbol);
        let kernel = kernels
            .entry(name.clone())
            .or_insert_with(|| KernelAudit { name, ..KernelAudit::default() });
        program.disassemble(&code[(from - start) as usize..(to - start) as usize], from, kernel);
    }
    Ok(kernels.into_values().collect())
}

/// What is known of an executable's addresses.
struct Program<'b> {
    /// The section of the kernels.
    section: std::ops::Range<u64>,
    /// Functions by their addresses.
    names: BTreeMap<u64, &'b str>,
    /// What the slots hold through which functions of other crates and libraries are called.
    slots: BTreeMap<u64, String>,
}

/// A symbol as its path in the source, without hashes.
fn plain(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}

impl<'b> Program<'b> {
    fn read(file: &object::File<'b>, section: std::ops::Range<u64>) -> Program<'b> {
        let mut names: BTreeMap<u64, &str> = BTreeMap::new();
        for symbol in file.symbols() {
            if let Ok(name) = symbol.name()
                && !name.is_empty()
                && symbol.is_definition()
            {
                names.entry(symbol.address()).or_insert(name);
            }
        }
        let mut slots = BTreeMap::new();
        let imported = file.dynamic_symbol_table();
        for (slot, relocation) in file.dynamic_relocations().into_iter().flatten() {
            let name = match relocation.target() {
                RelocationTarget::Symbol(i) => {
                    let symbol = imported.as_ref().and_then(|t| t.symbol_by_index(i).ok());
                    symbol.and_then(|s| s.name().ok().map(plain))
                }
                // Kernels call each other as well.
                _ if section.contains(&(relocation.addend() as u64)) => Some(SECTION.to_owned()),
                _ => names.get(&(relocation.addend() as u64)).map(|n| plain(n)),
            };
            slots.extend(name.map(|n| (slot, n)));
        }
        Program { section, names, slots }
    }

    fn disassemble(&self, code: &[u8], address: u64, kernel: &mut KernelAudit) {
        let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        let mut formatter = FastFormatter::new();
        let mut instruction = Instruction::default();
        // Functions whose addresses have been loaded into registers.
        let mut loaded: BTreeMap<Register, u64> = BTreeMap::new();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            kernel.instructions += 1;
            let mut found = |kind: Kind, text: String| {
                kernel.findings.push(Finding { kind, address: instruction.ip(), text });
            };
            if let Some(kind) = classify(&format!("{:?}", instruction.mnemonic()).to_lowercase()) {
                let mut text = String::new();
                formatter.format(&instruction, &mut text);
                found(kind, text);
            }
            if instruction.mnemonic() == Mnemonic::Mov && instruction.is_ip_rel_memory_operand() {
                loaded.insert(instruction.op0_register(), instruction.ip_rel_memory_address());
            }
            if let Some(callee) = self.callee(&instruction, &loaded)
                && !is_harmless(&callee)
            {
                found(Kind::Call, callee);
            }
        }
    }

    /// The name of what an instruction calls or jumps to outside of the section.
    fn callee(
        &self,
        instruction: &Instruction,
        loaded: &BTreeMap<Register, u64>,
    ) -> Option<String> {
        let flow = instruction.flow_control();
        let direct = matches!(flow, FlowControl::Call | FlowControl::UnconditionalBranch);
        let indirect = matches!(flow, FlowControl::IndirectCall | FlowControl::IndirectBranch);
        let unknown = || "an address that is computed".to_owned();
        if direct {
            let target = instruction.near_branch_target();
            let name = || self.names.get(&target).map_or_else(unknown, |n| plain(n));
            return (!self.section.contains(&target)).then(name);
        }
        if !indirect {
            return None;
        }
        let slot = match instruction.op0_kind() {
            OpKind::Memory if instruction.is_ip_rel_memory_operand() => {
                Some(instruction.ip_rel_memory_address())
            }
            OpKind::Register => loaded.get(&instruction.op0_register()).copied(),
            _ => None,
        };
        match slot.and_then(|s| self.slots.get(&s)) {
            Some(name) => Some(name.clone()),
            // Jumps through tables stay inside the function.
            None if flow == FlowControl::IndirectBranch && slot.is_none() => None,
            None => Some(unknown()),
        }
    }
}

/// Whether a function outside of the section is known to compute nothing: panics, slices, copies,
/// roundings, processor features, or is a kernel itself.
fn is_harmless(name: &str) -> bool {
    const PREFIXES: [&str; 10] = [
        SECTION,
        "core::panicking::",
        "core::slice::",
        "core::option::",
        "core::str::",
        "std_detect::",
        "memcpy",
        "memset",
        "memmove",
        "_Unwind_Resume",
    ];
    const ROUNDINGS: [&str; 4] = ["floorf", "rintf", "roundevenf", "truncf"];
    PREFIXES.iter().any(|p| name.starts_with(p)) || ROUNDINGS.contains(&name)
}

/// What an instruction of a name does.
fn classify(name: &str) -> Option<Kind> {
    let bare = name.strip_prefix('v').unwrap_or(name);
    let float = |stem: &str| {
        let end = bare.strip_prefix(stem);
        end.is_some_and(|e| matches!(e, "ss" | "sd" | "ps" | "pd" | "sh" | "ph" | "bf16"))
    };
    Some(match bare {
        _ if float("mul") || float("scalef") || float("dp") => Kind::FloatMultiply,
        "fmul" | "fmulp" | "fimul" | "fscale" | "fmulcph" | "fcmulcph" | "fmulcsh" => {
            Kind::FloatMultiply
        }
        _ if float("div") || float("rcp") || float("rcp14") || float("rcp28") => Kind::FloatDivide,
        "fdiv" | "fdivp" | "fdivr" | "fdivrp" | "fidiv" | "fidivr" | "fprem" | "fprem1" => {
            Kind::FloatDivide
        }
        "fsqrt" => Kind::SquareRoot,
        _ if ["sqrt", "rsqrt", "rsqrt14", "rsqrt28"].iter().any(|s| float(s)) => Kind::SquareRoot,
        _ if [
            "fmadd", "fmsub", "fnmadd", "fnmsub", "4fmadd", "4fnmadd", "fcmadd", "dpbf16", "tdp",
        ]
        .iter()
        .any(|s| bare.starts_with(s)) =>
        {
            Kind::FusedMultiplyAdd
        }
        _ if ["pmul", "pmadd", "pdp", "mpsadbw", "pclmul", "gf2p8", "dbpsadbw"]
            .iter()
            .any(|s| bare.starts_with(s)) =>
        {
            Kind::VectorIntegerMultiply
        }
        "imul" | "mul" | "mulx" | "div" | "idiv" => Kind::ScalarIntegerMultiply,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        let cases = [
            ("vmulps", Some(Kind::FloatMultiply)),
            ("mulsd", Some(Kind::FloatMultiply)),
            ("fmul", Some(Kind::FloatMultiply)),
            ("vscalefps", Some(Kind::FloatMultiply)),
            ("vdivps", Some(Kind::FloatDivide)),
            ("vrcp14ps", Some(Kind::FloatDivide)),
            ("sqrtss", Some(Kind::SquareRoot)),
            ("vrsqrt14ps", Some(Kind::SquareRoot)),
            ("vfmadd231ps", Some(Kind::FusedMultiplyAdd)),
            ("vfnmsub213ss", Some(Kind::FusedMultiplyAdd)),
            ("vdpbf16ps", Some(Kind::FusedMultiplyAdd)),
            ("vpmulld", Some(Kind::VectorIntegerMultiply)),
            ("pmaddwd", Some(Kind::VectorIntegerMultiply)),
            ("vpdpbusd", Some(Kind::VectorIntegerMultiply)),
            ("imul", Some(Kind::ScalarIntegerMultiply)),
            ("div", Some(Kind::ScalarIntegerMultiply)),
            ("vpaddd", None),
            ("vaddps", None),
            ("vcmpps", None),
            ("vrndscaleps", None),
        ];
        for (name, kind) in cases {
            assert_eq!(classify(name), kind, "{name}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        assert!(audit(b"no executable").unwrap_err().contains("no ELF executable"));
        let error = audit_file(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent: No such file"), "{error}");
    }
}
