//! The machine-code audit: do the instructions of the PA kernels multiply?
//!
//! Every kernel of PA arithmetic lies in the link section [`SECTION`]. The audit takes an executable, this
//! very one for instance, disassembles that section symbol by symbol and counts what multiplies, divides
//! or takes roots. What a kernel calls outside of the section would escape it, so that such calls are
//! listed as well, and are findings unless they are known to compute nothing: panics, copies of memory,
//! and the detection of processor features.
//!
//! Multiplications of scalar integers are counted apart: compilers use them for addresses.

mod instruction;

use iced_x86::{
    Decoder, DecoderOptions, FastFormatter, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic, OpAccess, OpKind, Register,
};
use instruction::classify;
use object::{Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, RelocationTarget};
use std::cell::RefCell;
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
    let mut inside: Vec<(u64, &str)> =
        program.names.range(start..end).map(|(a, n)| (*a, *n)).collect();
    match inside.first() {
        None => return Err("has no symbols, by which kernels are told apart; do not strip it"),
        Some(first) if first.0 > start => inside.insert(0, (start, "code without a name")),
        Some(_) => {}
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
        let mut registers = Registers::new();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            kernel.instructions += 1;
            let mut found = |kind: Kind, text: String| {
                kernel.findings.push(Finding { kind, address: instruction.ip(), text });
            };
            if let Some(kind) = kind(instruction.mnemonic()) {
                let mut text = String::new();
                formatter.format(&instruction, &mut text);
                found(kind, text);
            }
            if let Some(callee) = self.callee(&instruction, &registers)
                && !is_harmless(&callee)
            {
                found(Kind::Call, callee);
            }
            registers.follow(&instruction);
        }
    }

    /// The name of what an instruction calls or jumps to outside of the section.
    fn callee(&self, instruction: &Instruction, registers: &Registers) -> Option<String> {
        let unknown = || "an address that is computed".to_owned();
        let slot = match (instruction.flow_control(), instruction.op0_kind()) {
            (
                FlowControl::Call
                | FlowControl::UnconditionalBranch
                | FlowControl::ConditionalBranch,
                _,
            ) => {
                let target = instruction.near_branch_target();
                let name = || self.names.get(&target).map_or_else(unknown, |n| plain(n));
                return (!self.section.contains(&target)).then(name);
            }
            (FlowControl::IndirectCall | FlowControl::IndirectBranch, OpKind::Memory)
                if instruction.is_ip_rel_memory_operand() =>
            {
                Some(instruction.ip_rel_memory_address())
            }
            (FlowControl::IndirectCall | FlowControl::IndirectBranch, OpKind::Register) => {
                match registers.known.get(&instruction.op0_register()) {
                    Some(Known::Slot(slot)) => Some(*slot),
                    // Jumps through tables stay inside the function.
                    Some(Known::Table)
                        if instruction.flow_control() == FlowControl::IndirectBranch =>
                    {
                        return None;
                    }
                    _ => None,
                }
            }
            (FlowControl::IndirectCall | FlowControl::IndirectBranch, _) => None,
            _ => return None,
        };
        Some(slot.and_then(|s| self.slots.get(&s)).cloned().unwrap_or_else(unknown))
    }
}

/// What an instruction does that a PA kernel may not.
fn kind(mnemonic: Mnemonic) -> Option<Kind> {
    if mnemonic == Mnemonic::INVALID {
        return Some(Kind::Unknown);
    }
    thread_local! {
        // Names are made of few instructions, and looked at once each.
        static KINDS: RefCell<BTreeMap<Mnemonic, Option<Kind>>> = RefCell::default();
    }
    let classified = || classify(&format!("{mnemonic:?}").to_lowercase());
    KINDS.with_borrow_mut(|kinds| *kinds.entry(mnemonic).or_insert_with(classified))
}

/// What a register holds.
enum Known {
    /// The content of this address.
    Slot(u64),
    /// A distance from a table of jumps, and then the place that it leads to.
    Table,
}

/// What is known of the registers, along the code as it lies: what compilers keep in registers for
/// calls they load once, ahead of the calls.
struct Registers {
    known: BTreeMap<Register, Known>,
    uses: InstructionInfoFactory,
}

impl Registers {
    fn new() -> Registers {
        Registers { known: BTreeMap::new(), uses: InstructionInfoFactory::new() }
    }

    /// Takes note of what an instruction loads or overwrites.
    fn follow(&mut self, instruction: &Instruction) {
        let target = instruction.op0_register();
        let known = match instruction.mnemonic() {
            Mnemonic::Mov if instruction.is_ip_rel_memory_operand() => {
                Some(Known::Slot(instruction.ip_rel_memory_address()))
            }
            Mnemonic::Movsxd if instruction.memory_index_scale() == 4 => Some(Known::Table),
            Mnemonic::Add if matches!(self.known.get(&target), Some(Known::Table)) => {
                Some(Known::Table)
            }
            _ => None,
        };
        if !self.known.is_empty() {
            for used in self.uses.info(instruction).used_registers() {
                if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead) {
                    self.known.remove(&used.register().full_register());
                }
            }
        }
        if let Some(known) = known
            && target != Register::None
        {
            self.known.insert(target, known);
        }
    }
}

/// Whether a function outside of the section is known to compute nothing: panics, copies, roundings,
/// processor features, or is a kernel itself.
fn is_harmless(name: &str) -> bool {
    const PREFIXES: [&str; 6] = [
        "core::panicking::",
        "core::slice::index::",
        "core::slice::copy_from_slice_impl::",
        "core::option::",
        "core::str::",
        "std_detect::",
    ];
    const NAMES: [&str; 10] = [
        SECTION,
        "memcpy",
        "memset",
        "memmove",
        "_Unwind_Resume",
        "floorf",
        "ceilf",
        "rintf",
        "roundevenf",
        "truncf",
    ];
    // Names of libraries may bear a version.
    let bare = name.split('@').next().unwrap_or(name);
    PREFIXES.iter().any(|p| name.starts_with(p)) || NAMES.contains(&bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused() {
        assert!(audit(b"no executable").unwrap_err().contains("no ELF executable"));
        let error = audit_file(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent: No such file"), "{error}");
    }
}
