//! Operations that follow each other and have one loop on the CPU.

use super::kernel::Kernel;
use super::program::{Per, Reg};
use crate::host::pointwise::Function;
use pam_kernels::compound;
use pam_kernels::elementwise::{Binary, Unary};
use smallvec::SmallVec;

/// A loop and what it computes.
#[derive(Debug)]
pub struct Pattern {
    /// The loop.
    pub compound: compound::Compound,
    /// Operations, each of the result of the one before it and of something that there is a number for each of
    /// these, if it has a second operand.
    pub links: &'static [(Kernel, Option<Per>)],
}

const fn by_row(binary: Binary) -> (Kernel, Option<Per>) {
    (Kernel::Binary(binary), Some(Per::Row))
}

const fn by_element(binary: Binary) -> (Kernel, Option<Per>) {
    (Kernel::Binary(binary), Some(Per::Element))
}

/// The loops that there are. Where there is a number for each row, a single one will do.
pub static PATTERNS: [Pattern; 4] = [
    Pattern {
        compound: compound::Compound::PaExponentials,
        links: &[
            by_row(Binary::PaMul(0)),
            by_row(Binary::Max),
            by_row(Binary::Sub),
            (Kernel::Unary(Unary::PaExp2), None),
        ],
    },
    Pattern {
        compound: compound::Compound::Exponentials,
        links: &[by_row(Binary::Sub), (Kernel::Unary(Unary::Exp), None)],
    },
    Pattern {
        compound: compound::Compound::PaAffine,
        links: &[by_row(Binary::PaDiv(0)), by_element(Binary::PaMul(0)), by_element(Binary::Add)],
    },
    Pattern {
        compound: compound::Compound::Affine,
        links: &[by_row(Binary::Div), by_element(Binary::Mul), by_element(Binary::Add)],
    },
];

/// The operations of a pattern in a program.
#[derive(Clone, Debug)]
pub struct Compound {
    /// The loop.
    pub pattern: &'static Pattern,
    /// Floats, one for each element.
    pub from: Reg,
    /// What happens to them: functions and their second operands.
    pub links: SmallVec<[(Function, Option<Reg>); 4]>,
    /// The last result.
    pub to: Reg,
}

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
