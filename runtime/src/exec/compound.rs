//! Operations that follow each other and have one loop on the CPU.

use super::kernel::Kernel;
use pam_kernels::compound::Compound;
use pam_kernels::elementwise::{Binary, Unary};

/// A loop and what it computes.
#[derive(Debug)]
pub struct Pattern {
    /// The loop.
    pub compound: Compound,
    /// Operations, each of the result of the one before it, and what their second operands are.
    pub links: &'static [(Kernel, Second)],
    /// Whether it also sums the last results along rows.
    pub sums: bool,
}

/// The second operand of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// None.
    Missing,
    /// A number for each row, or a single one.
    Row,
    /// A number for each element.
    Element,
}

const fn by_row(binary: Binary) -> (Kernel, Second) {
    (Kernel::Binary(binary), Second::Row)
}

const fn by_element(binary: Binary) -> (Kernel, Second) {
    (Kernel::Binary(binary), Second::Element)
}

/// The loops that there are.
pub static PATTERNS: [Pattern; 4] = [
    Pattern {
        compound: Compound::PaExponentials,
        links: &[
            by_row(Binary::PaMul(0)),
            by_row(Binary::Max),
            by_row(Binary::Sub),
            (Kernel::Unary(Unary::PaExp2), Second::Missing),
        ],
        sums: true,
    },
    Pattern {
        compound: Compound::Exponentials,
        links: &[by_row(Binary::Sub), (Kernel::Unary(Unary::Exp), Second::Missing)],
        sums: true,
    },
    Pattern {
        compound: Compound::PaAffine,
        links: &[by_row(Binary::PaDiv(0)), by_element(Binary::PaMul(0)), by_element(Binary::Add)],
        sums: false,
    },
    Pattern {
        compound: Compound::Affine,
        links: &[by_row(Binary::Div), by_element(Binary::Mul), by_element(Binary::Add)],
        sums: false,
    },
];

/// Whether a kernel is the one of a pattern.
pub fn same(pattern: &Kernel, kernel: &Kernel) -> bool {
    match (pattern, kernel) {
        (Kernel::Binary(a), Kernel::Binary(b)) => a == b,
        (Kernel::Unary(a), Kernel::Unary(b)) => {
            std::mem::discriminant(a) == std::mem::discriminant(b)
        }
        _ => false,
    }
}
