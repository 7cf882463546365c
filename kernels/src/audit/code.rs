//! Walks through the instructions of kernels.

use super::instruction::classify;
use super::program::Program;
use super::{Finding, KernelAudit, Kind, SECTION};
use iced_x86::{
    Decoder, DecoderOptions, FastFormatter, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic, OpAccess, OpKind, Register,
};
use object::ReadRef;
use std::cell::RefCell;
use std::collections::BTreeMap;

impl<'d, R: ReadRef<'d>> Program<'_, 'd, R> {
    /// Decodes code that lies at an address, and counts and lists what it does.
    pub(super) fn disassemble(&self, code: &[u8], address: u64, kernel: &mut KernelAudit) {
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
                let name = || self.name(target).unwrap_or_else(unknown);
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
        Some(slot.and_then(|s| self.through(s)).unwrap_or_else(unknown))
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
