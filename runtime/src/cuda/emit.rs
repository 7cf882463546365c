//! Kernels that are particular to a plan: fused programs ([`super::program`]), and the templates of the
//! kernel headers for the element types at hand.
//!
//! A kernel is named by the hash of its text, so that equal ones are one, in a plan and in the cache.

use super::source::Source;
use pam_ir::types::DType;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Kernels of one translation unit: compiled side by side they take about as long each.
const UNIT: usize = 16;

/// The generated kernels of a plan.
#[derive(Default)]
pub struct Emitter {
    /// Name of each definition, and the order in which they came.
    names: BTreeMap<String, String>,
    order: Vec<(String, String, Header)>,
}

/// The header a kernel is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Header {
    /// Data movement and elementwise programs.
    Movement,
    /// Work along lines.
    Lines,
    /// Windows.
    Window,
    /// Native arithmetic.
    Native,
    /// Programs over rows.
    Rows,
    /// Programs over rows with native arithmetic.
    NativeRows,
}

impl Header {
    fn files(self) -> &'static [&'static str] {
        match self {
            Header::Movement => &["movement"],
            Header::Lines => &["lines"],
            Header::Window => &["window"],
            Header::Native => &["native"],
            Header::Rows => &["rows"],
            Header::NativeRows => &["native", "rows"],
        }
    }
}

impl Emitter {
    /// The name of the kernel that `definition` defines, in which `@` stands for the name.
    pub fn kernel(&mut self, header: Header, definition: &str) -> String {
        if let Some(name) = self.names.get(definition) {
            return name.clone();
        }
        let name = format!("pam_{}", digits(definition));
        self.names.insert(definition.to_owned(), name.clone());
        self.order.push((name.clone(), definition.replace('@', &name), header));
        name
    }

    /// The translation units.
    pub fn sources(&self) -> Vec<Source> {
        let rows = |k: &&(String, String, Header)| k.2.files().contains(&"rows");
        let (rows, others): (Vec<_>, Vec<_>) = self.order.iter().partition(rows);
        rows.chunks(UNIT).chain(others.chunks(UNIT)).map(unit).collect()
    }
}

/// Sixteen digits that stand for a text.
fn digits(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn unit(kernels: &[&(String, String, Header)]) -> Source {
    let files: BTreeSet<&str> = kernels.iter().flat_map(|k| k.2.files()).copied().collect();
    let mut text = String::new();
    for file in files {
        let _ = writeln!(text, "#include \"{file}.cuh\"");
    }
    for (_, definition, _) in kernels {
        let _ = writeln!(text, "\n{definition}");
    }
    Source {
        name: format!("plan_{}.cu", digits(&text)).into(),
        text: text.into(),
        kernels: kernels.iter().map(|k| k.0.clone().into()).collect(),
    }
}

/// The unsigned type of a size in bytes.
pub fn raw(size: usize) -> &'static str {
    match size {
        1 => "u8",
        2 => "u16",
        4 => "u32",
        _ => "u64",
    }
}

/// The name that the kernel headers give an element type.
pub fn number(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::F64 => "F64",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I64 => "I64",
        DType::I32 => "I32",
        DType::I16 => "I16",
        DType::I8 => "I8",
        DType::U64 => "U64",
        DType::U32 => "U32",
        DType::U16 => "U16",
        DType::U8 => "U8",
        DType::Bool => "BOOL",
    }
}

/// The number by which kernels know an element type.
pub fn code(dtype: DType) -> u32 {
    DType::ALL.iter().position(|&t| t == dtype).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_kernels_are_one() {
        let mut e = Emitter::default();
        let a = e.kernel(Header::Movement, "PAM_UNIFORM(@)");
        let b = e.kernel(Header::Lines, "PAM_HARDMAX(@, F32)");
        assert_eq!(e.kernel(Header::Movement, "PAM_UNIFORM(@)"), a);
        assert_ne!(a, b);
        let [source] = &e.sources()[..] else { panic!("one unit") };
        assert_eq!(source.kernels, [a.as_str(), b.as_str()]);
        assert!(source.text.contains(&format!("PAM_UNIFORM({a})")));
        assert!(source.text.starts_with("#include \"lines.cuh\"\n#include \"movement.cuh\"\n"));
    }
}
