//! The machine-code audit of the CUDA kernels, which needs no GPU: NVRTC compiles them, nvdisasm
//! disassembles the result, and every instruction is looked at.
//!
//! Forbidden are all multiplications of floats, special functions and tensor cores. ptxas uses the
//! integer multiply-add for moves, additions and shifts too: each is decoded, and one of its factors
//! has to be zero (`RZ`), one or a power of two, as an immediate or in a register that an unconditional
//! move of the same basic block has just loaded. A half-precision multiply-add of zero by zero and a constant
//! is a move as well.

use super::CudaError;
use super::nvrtc::{Nvrtc, usual_folders};
use super::source::Source;
use pam_kernels::audit::{Finding, KernelAudit, Kind};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles sources for an architecture, such as `sm_90a`, and audits every kernel in them. The result
/// comes with the name of what has disassembled them.
///
/// # Errors
/// No NVRTC, no nvdisasm, a source that does not compile for the architecture, or output that cannot
/// be read.
pub fn audit(
    sources: &[Source],
    arch: &str,
    nvrtc: Option<&Path>,
) -> Result<(Vec<KernelAudit>, String), CudaError> {
    let compiler = Nvrtc::load(nvrtc)?;
    let disassembler = Disassembler::find(&compiler)?;
    let mut kernels = Vec::new();
    for source in sources {
        let code = compiler.compile(&source.name, &source.text, arch)?;
        let text = disassembler.text(&source.name, &code)?;
        let found = parse(&text);
        if let Some(lost) = source.kernels.iter().find(|k| !found.iter().any(|f| f.name == **k)) {
            return Err(CudaError::Audit(format!("{lost} is not in the disassembly")));
        }
        kernels.extend(found.iter().map(judge));
    }
    kernels.sort_by(|a: &KernelAudit, b| a.name.cmp(&b.name));
    Ok((kernels, disassembler.version))
}

/// NVIDIA's disassembler.
struct Disassembler {
    path: PathBuf,
    version: String,
}

impl Disassembler {
    /// Looks for it beside NVRTC, in the usual folders of CUDA and pip, and on PATH.
    fn find(compiler: &Nvrtc) -> Result<Disassembler, CudaError> {
        let beside = compiler.path().parent().map(Path::to_path_buf);
        let folders = beside.into_iter().chain(usual_folders());
        let bins = folders.filter_map(|lib| Some(lib.parent()?.join("bin")));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let bins = bins.chain(std::env::split_paths(&path));
        for file in bins.map(|bin| bin.join("nvdisasm")).filter(|file| file.is_file()) {
            if let Ok(output) = Command::new(&file).arg("--version").output() {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let version = text.rsplit_once(", V").map_or("", |(_, v)| v);
                let version = version.split_whitespace().next().unwrap_or_default();
                return Ok(Disassembler { path: file, version: format!("nvdisasm {version}") });
            }
        }
        Err(CudaError::Audit(
            "nvdisasm was found neither beside NVRTC nor on PATH; `pip install \
             nvidia-cuda-nvdisasm`"
                .to_owned(),
        ))
    }

    fn text(&self, name: &str, code: &[u8]) -> Result<String, CudaError> {
        let fail = |e: String| CudaError::Audit(format!("{} on {name}: {e}", self.path.display()));
        let file = tempfile::NamedTempFile::new().map_err(|e| fail(e.to_string()))?;
        std::fs::write(file.path(), code).map_err(|e| fail(e.to_string()))?;
        let output = Command::new(&self.path).arg("-c").arg(file.path()).output();
        let output = output.map_err(|e| fail(e.to_string()))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(fail(text.lines().next().unwrap_or_default().to_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// An instruction of a disassembly.
struct Instruction<'t> {
    address: u64,
    /// Whether a predicate decides if it is executed.
    guarded: bool,
    opcode: &'t str,
    operands: Vec<&'t str>,
    /// Whether a jump may arrive here.
    labelled: bool,
}

impl Instruction<'_> {
    fn name(&self) -> &str {
        self.opcode.split('.').next().unwrap_or_default()
    }
}

struct Kernel<'t> {
    name: &'t str,
    code: Vec<Instruction<'t>>,
}

/// Splits a disassembly into kernels.
fn parse(text: &str) -> Vec<Kernel<'_>> {
    let mut kernels: Vec<Kernel<'_>> = Vec::new();
    let mut labelled = false;
    for line in text.lines() {
        let section = line.trim_start().strip_prefix(".section").map(str::trim_start);
        if let Some(section) = section {
            if let Some(name) = section.strip_prefix(".text.") {
                let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                kernels.push(Kernel { name: name.unwrap_or_default(), code: Vec::new() });
            }
        } else if line.ends_with(':') && !line.starts_with(char::is_whitespace) {
            labelled = true;
        } else if let (Some(kernel), Some(mut i)) = (kernels.last_mut(), instruction(line)) {
            i.labelled = std::mem::take(&mut labelled);
            kernel.code.push(i);
        }
    }
    kernels
}

/// `/*0010*/ @P0 IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;`
fn instruction(line: &str) -> Option<Instruction<'_>> {
    let (address, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let body = rest.split_once(';')?.0.trim();
    let (guarded, body) = match body.strip_prefix('@') {
        Some(guarded) => (true, guarded.split_once(' ')?.1.trim_start()),
        None => (false, body),
    };
    let (opcode, operands) = body.split_once(' ').unwrap_or((body, ""));
    let operands = operands.split(',').map(str::trim).filter(|o| !o.is_empty()).collect();
    Some(Instruction { address, guarded, opcode, operands, labelled: false })
}

/// What a kernel multiplies.
fn judge(kernel: &Kernel<'_>) -> KernelAudit {
    let findings = (0..kernel.code.len()).filter_map(|at| {
        let i = &kernel.code[at];
        let kind = kind(kernel, at)?;
        let text = format!("{} {}", i.opcode, i.operands.join(", "));
        Some(Finding { kind, address: i.address, text })
    });
    KernelAudit {
        name: kernel.name.to_owned(),
        instructions: kernel.code.len(),
        findings: findings.collect(),
    }
}

fn kind(kernel: &Kernel<'_>, at: usize) -> Option<Kind> {
    let i = &kernel.code[at];
    match i.name() {
        "FMUL" | "HMUL2" | "DMUL" | "FMUL2" | "FSWZ" => Some(Kind::FloatMultiply),
        "HFMA2" if loads_constant(i) => None,
        "FFMA" | "HFMA2" | "DFMA" | "FFMA2" => Some(Kind::FusedMultiplyAdd),
        "MUFU" if i.opcode.contains("SQ") => Some(Kind::SquareRoot),
        "MUFU" | "FCHK" => Some(Kind::FloatDivide),
        "IMUL" | "XMAD" | "IDP" | "UIMUL" => Some(Kind::VectorIntegerMultiply),
        "IMAD" | "UIMAD" => {
            // Destination and carry-out predicates come before the two factors.
            let predicate = |o: &&&str| {
                let o = o.trim_start_matches('!').trim_start_matches('U');
                !(o.starts_with('P') && o[1..].chars().all(|c| c.is_ascii_digit() || c == 'T'))
            };
            let factors: Vec<&str> =
                i.operands.iter().skip(1).filter(predicate).take(2).copied().collect();
            let harmless = |f: &&str| trivial(f) || constant(kernel, at, f);
            let decoded = factors.len() == 2;
            (!decoded || !factors.iter().any(harmless)).then_some(Kind::VectorIntegerMultiply)
        }
        // Tensor cores of every generation.
        name if name.contains("MMA") => Some(Kind::FusedMultiplyAdd),
        _ => None,
    }
}

/// Whether both factors are the zero register and the terms the two halves of a constant: `HFMA2.MMA R5, -RZ,
/// RZ, 0, 0.5` is how ptxas loads one where the pipe of moves is busy.
fn loads_constant(i: &Instruction<'_>) -> bool {
    let number = |x: &&str| x.parse::<f32>().is_ok() || x.ends_with("NAN");
    match i.operands[..] {
        [_, "-RZ" | "RZ", "RZ", high, low] => [high, low].iter().all(number),
        _ => false,
    }
}

/// Whether an operand is zero, one or a power of two (or its negation).
fn trivial(operand: &str) -> bool {
    let operand = operand.trim_end_matches(".reuse");
    if matches!(operand, "RZ" | "URZ") {
        return true;
    }
    let digits = operand.trim_start_matches('-').strip_prefix("0x");
    let Some(Ok(value)) = digits.map(|d| u32::from_str_radix(d, 16)) else { return false };
    let value = (value as i32).unsigned_abs();
    value & value.wrapping_sub(1) == 0
}

/// File and number of a register.
fn register(operand: &str) -> Option<(&str, u32)> {
    let operand = operand.trim_end_matches(".reuse");
    let digits = operand.find(|c: char| c.is_ascii_digit())?;
    let (file, number) = operand.split_at(digits);
    matches!(file, "R" | "UR").then_some(())?;
    Some((file, number.parse().ok()?))
}

/// Whether the register operand of instruction number `at` holds a trivial factor, set by a move of
/// the same basic block.
fn constant(kernel: &Kernel<'_>, at: usize, operand: &str) -> bool {
    let Some((file, number)) = register(operand) else { return false };
    for n in (0..at).rev() {
        if kernel.code[n + 1].labelled {
            return false;
        }
        let i = &kernel.code[n];
        let target = i.operands.first().and_then(|o| register(o));
        let Some((_, first)) = target.filter(|t| t.0 == file) else { continue };
        // Wide results fill the registers that follow as well.
        let width = match i.opcode {
            o if o.contains(".128") => 4,
            o if o.contains(".64") || o.contains(".WIDE") => 2,
            _ => 1,
        };
        if (first..first + width).contains(&number) {
            let moved = matches!(i.name(), "MOV" | "UMOV");
            return !i.guarded && moved && i.operands.get(1).is_some_and(|o| trivial(o));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
	.section	.text.pam_one,\"ax\",@progbits
.text.pam_one:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   IMAD.MOV.U32 R2, RZ, RZ, R1 ;
        /*0020*/                   IMAD.SHL.U32 R3, R2, 0x4, RZ ;
        /*0030*/                   MOV R4, 0x8 ;
        /*0040*/              @!P0 IMAD.WIDE R6, P1, R2, R4, R8 ;
.L_x_0:
        /*0050*/                   IMAD R5, R2, R4, RZ ;
        /*0060*/                   IMAD R5, R2, 0xc, RZ ;
	.section	.text.pam_two,\"ax\",@progbits
.text.pam_two:
        /*0000*/                   FMUL R1, R2, R3 ;
        /*0010*/              @P2  MUFU.RSQ R1, R2 ;
        /*0020*/                   FADD R1, R2, R3 ;
        /*0030*/                   HFMA2.MMA R5, -RZ, RZ, 0, 0.00048828125 ;
        /*0040*/                   HFMA2.MMA R5, R4, RZ, 0, 0.00048828125 ;
        /*0050*/                   HFMA2 R5, -RZ, RZ, R2, R3 ;
";

    #[test]
    fn multiplications_are_told_from_moves() {
        let kernels: Vec<KernelAudit> = parse(TEXT).iter().map(judge).collect();
        let [one, two] = &kernels[..] else { panic!("two kernels") };
        assert_eq!((one.name.as_str(), one.instructions), ("pam_one", 7));
        // Behind a label nothing is known of a register; twelve is no power of two.
        let at: Vec<u64> = one.findings.iter().map(|f| f.address).collect();
        assert_eq!((at, one.count(Kind::VectorIntegerMultiply)), (vec![0x50, 0x60], 2));
        assert_eq!((two.name.as_str(), two.instructions), ("pam_two", 6));
        assert_eq!((two.count(Kind::FloatMultiply), two.count(Kind::SquareRoot)), (1, 1));
        // A constant is loaded; what takes a register is judged as it stands.
        assert_eq!(two.count(Kind::FusedMultiplyAdd), 2);
        assert!(!one.is_clean() && !two.is_clean());
    }
}
