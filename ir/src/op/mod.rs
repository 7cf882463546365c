//! The op table: every op the compiler knows, declared once.
//!
//! A row ([`Row`]) holds what an op is called in ONNX, its operands and attributes, its
//! [`Level`], its shape rule and how many multiplications it hides. The importer, the printer, the
//! parser, the census, the exporter and `docs/ops.md` are all derived from the rows, so that adding
//! an op touches its row in `table.rs` and, if it multiplies, one lowering file in `pam-passes`.
//!
//! What is not here: how an op is rewritten (passes) or computed (`eval` for constants, kernels for
//! the rest).

pub mod count;
pub mod infer;
mod signature;
mod table;

pub use signature::{AttrSpec, Operand, Signature};
pub use table::Op;

use crate::attr::{Attr, Attrs};
use crate::types::{DType, Type};
use std::collections::HashMap;
use std::sync::OnceLock;

/// How far an op is from multiplication-free machine operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A standard op without multiplications: additions, comparisons, data movement.
    Plain,
    /// A piecewise affine primitive of the `pam` domain.
    Pam,
    /// An op that multiplies and that the runtime executes itself under a native policy.
    Native,
    /// An op that multiplies and is always lowered before execution, whatever the arithmetic.
    Composite,
    /// An op the table does not know; it stands in audited files only and nothing accepts it.
    Opaque,
}

impl Level {
    /// The name in `docs/ops.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Plain => "plain",
            Level::Pam => "primitive",
            Level::Native => "native",
            Level::Composite => "composite",
            Level::Opaque => "opaque",
        }
    }
}

/// One op of the table.
pub struct Row {
    /// The op.
    pub op: Op,
    /// Its variant name, unique, as written in the IR's text form (`Add`, `PamMul`).
    pub variant: &'static str,
    /// ONNX domain and name, `domain::Name`; the standard domain is left out.
    pub onnx: &'static str,
    /// The opset of the domain in which this form of the op appeared; older forms are upgraded on
    /// import.
    pub since: u32,
    /// Operands in the notation of [`Signature`].
    pub signature: &'static str,
    /// Attributes in the notation of [`Signature`].
    pub attributes: &'static str,
    /// How far from multiplication-free it is.
    pub level: Level,
    /// The output types from the input types and attributes.
    pub infer: InferRule,
    /// Scalar multiplications one execution performs natively.
    pub count: CountRule,
    /// One line of documentation.
    pub doc: &'static str,
}

/// A shape rule: output types, or why the operands do not fit.
pub type InferRule = fn(&Call<'_>) -> Result<Vec<Type>, String>;

/// Scalar multiplications, divisions, roots and transcendental evaluations of one native
/// execution, each counted as one.
pub type CountRule = fn(&Call<'_>, &[Type]) -> u128;

impl Op {
    /// Its row.
    pub fn row(self) -> &'static Row {
        &table::TABLE[self as usize]
    }

    /// All ops in the order of the table.
    pub fn all() -> impl Iterator<Item = Op> {
        table::TABLE.iter().map(|r| r.op)
    }

    /// Name in the text form.
    pub fn name(self) -> &'static str {
        self.row().variant
    }

    /// The inverse of [`Op::name`].
    pub fn from_name(name: &str) -> Option<Op> {
        static INDEX: OnceLock<HashMap<&'static str, Op>> = OnceLock::new();
        INDEX
            .get_or_init(|| table::TABLE.iter().map(|r| (r.variant, r.op)).collect())
            .get(name)
            .copied()
    }

    /// The op of an ONNX domain (empty for the standard one) and op type.
    pub fn from_onnx(domain: &str, op_type: &str) -> Option<Op> {
        static INDEX: OnceLock<HashMap<(&'static str, &'static str), Op>> = OnceLock::new();
        INDEX
            .get_or_init(|| {
                let known = Op::all().filter(|op| op.level() != Level::Opaque);
                known.map(|op| ((op.domain(), op.onnx_name()), op)).collect()
            })
            .get(&(if domain == "ai.onnx" { "" } else { domain }, op_type))
            .copied()
    }

    /// ONNX domain; empty for the standard one.
    pub fn domain(self) -> &'static str {
        self.row().onnx.split_once("::").map_or("", |(d, _)| d)
    }

    /// ONNX op type.
    pub fn onnx_name(self) -> &'static str {
        let onnx = self.row().onnx;
        onnx.split_once("::").map_or(onnx, |(_, n)| n)
    }

    /// Its level. Whether a node multiplies also depends on the element type: see
    /// [`crate::graph::Graph::multiplies`].
    pub fn level(self) -> Level {
        self.row().level
    }

    /// Its operands and attributes.
    pub fn signature(self) -> &'static Signature {
        static SIGNATURES: OnceLock<Vec<Signature>> = OnceLock::new();
        &SIGNATURES.get_or_init(|| {
            let parsed = table::TABLE.iter().map(|r| Signature::parse(r.signature, r.attributes));
            parsed.map(|s| s.expect("a test parses every row")).collect()
        })[self as usize]
    }
}

/// An op applied to typed operands: what shape and count rules look at.
pub struct Call<'a> {
    /// The op.
    pub op: Op,
    /// Attributes as given; [`Call::attr`] adds the defaults.
    pub attrs: &'a Attrs,
    /// Types of the inputs; `None` for an omitted optional one.
    pub inputs: &'a [Option<&'a Type>],
    /// How many outputs the node asks for.
    pub outputs: usize,
}

impl<'a> Call<'a> {
    /// An attribute, or the default of the row.
    pub fn attr(&self, name: &str) -> Option<&'a Attr> {
        self.attrs.get(name).or_else(|| self.op.signature().default(name))
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attr(name)? {
            Attr::Int(v) => Some(*v),
            _ => None,
        }
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attr(name)? {
            Attr::Float(v) => Some(*v),
            _ => None,
        }
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        match self.attr(name)? {
            Attr::Ints(v) => Some(v),
            _ => None,
        }
    }

    /// A string attribute.
    pub fn str(&self, name: &str) -> Option<&'a str> {
        match self.attr(name)? {
            Attr::Str(v) => Some(v),
            _ => None,
        }
    }

    /// An element type attribute.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        match self.attr(name)? {
            Attr::Type(v) => Some(*v),
            _ => None,
        }
    }

    /// The type of input `i`, if it is given.
    pub fn get(&self, i: usize) -> Option<&'a Type> {
        self.inputs.get(i).copied().flatten()
    }

    /// The type of a required input.
    ///
    /// # Errors
    /// Says which input is missing.
    pub fn input(&self, i: usize) -> Result<&'a Type, String> {
        self.get(i).ok_or_else(|| format!("input {i} is missing"))
    }

    /// An axis attribute made non-negative for a rank.
    ///
    /// # Errors
    /// Says that the axis is out of range.
    pub fn axis(&self, name: &str, rank: usize) -> Result<usize, String> {
        let axis = self.int(name).ok_or_else(|| format!("attribute `{name}` is missing"))?;
        normalize_axis(axis, rank)
    }
}

/// An axis counted from the end if negative, made non-negative.
///
/// # Errors
/// Says that the axis is out of range.
pub fn normalize_axis(axis: i64, rank: usize) -> Result<usize, String> {
    let rank_i = rank as i64;
    if axis < -rank_i || axis >= rank_i {
        return Err(format!("axis {axis} is out of range for rank {rank}"));
    }
    Ok(if axis < 0 { axis + rank_i } else { axis } as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_parses_and_is_unique() {
        let mut variants = BTreeSet::new();
        let mut names = BTreeSet::new();
        for op in Op::all() {
            let row = op.row();
            assert_eq!(row.op as usize, op as usize);
            Signature::parse(row.signature, row.attributes)
                .unwrap_or_else(|e| panic!("{}: {e}", row.variant));
            assert!(variants.insert(row.variant), "{}", row.variant);
            assert!(names.insert(row.onnx), "{}", row.onnx);
            assert!(row.doc.ends_with('.'), "{}", row.variant);
            assert_eq!(Op::from_name(row.variant), Some(op));
        }
    }
}
