//! Which kernel serves an elementwise operation: for f32 those of `pam-kernels`, else plain code.

use crate::host::number::{of, of_mut};
use crate::host::pointwise::{self, Function};
use pam_ir::op::Op;
use pam_ir::types::DType;
use pam_kernels::choice::{self, Comparison};
use pam_kernels::elementwise::{self, Binary, Ternary, Unary};
use pam_kernels::reduce::Product;
use std::ops::Range;

/// A kernel that computes a tile.
#[derive(Clone, Copy, Debug)]
pub enum Kernel {
    /// One operand of f32.
    Unary(Unary),
    /// Two operands of f32.
    Binary(Binary),
    /// Three operands of f32.
    Ternary(Ternary),
    /// Two operands of f32, with a truth value as the result.
    Compare(Comparison),
    /// One of two operands of f32.
    Select,
    /// Anything else.
    Host(Function),
}

impl Kernel {
    /// The kernel of an operation.
    pub fn of(f: &Function) -> Kernel {
        use Kernel::{Binary as B, Host, Ternary as T, Unary as U};
        if f.from != DType::F32 {
            return Host(*f);
        }
        match f.op {
            Op::Equal => return Kernel::Compare(Comparison::Equal),
            Op::Less => return Kernel::Compare(Comparison::Less),
            Op::LessOrEqual => return Kernel::Compare(Comparison::LessOrEqual),
            Op::Greater => return Kernel::Compare(Comparison::Greater),
            Op::GreaterOrEqual => return Kernel::Compare(Comparison::GreaterOrEqual),
            Op::Where => return Kernel::Select,
            _ if f.to != DType::F32 => return Host(*f),
            _ => {}
        }
        // The op table bounds neither; both saturate far beyond any effect they could have.
        let int =
            i32::try_from(f.imm.int).unwrap_or(if f.imm.int < 0 { i32::MIN } else { i32::MAX });
        match f.op {
            Op::PamExp2 => U(Unary::PaExp2),
            Op::PamLog2 => U(Unary::PaLog2),
            Op::PamScale => U(Unary::Scale(int)),
            Op::PamRound => U(Unary::Round(int.max(0) as u32)),
            Op::Neg => U(Unary::Neg),
            Op::Abs => U(Unary::Abs),
            Op::Floor => U(Unary::Floor),
            Op::Ceil => U(Unary::Ceil),
            Op::Round => U(Unary::RoundEven),
            Op::Sign => U(Unary::Sign),
            Op::Relu => U(Unary::Relu),
            Op::Exp => U(Unary::Exp),
            Op::Log => U(Unary::Log),
            Op::Sqrt => U(Unary::Sqrt),
            Op::Reciprocal => U(Unary::Reciprocal),
            Op::Tanh => U(Unary::Tanh),
            Op::Sigmoid => U(Unary::Sigmoid),
            Op::Erf => U(Unary::Erf),
            Op::Sin => U(Unary::Native(f32::sin)),
            Op::Cos => U(Unary::Native(f32::cos)),
            Op::Tan => U(Unary::Native(f32::tan)),
            Op::Asin => U(Unary::Native(f32::asin)),
            Op::Acos => U(Unary::Native(f32::acos)),
            Op::Atan => U(Unary::Native(f32::atan)),
            Op::Sinh => U(Unary::Native(f32::sinh)),
            Op::Cosh => U(Unary::Native(f32::cosh)),
            Op::Asinh => U(Unary::Native(f32::asinh)),
            Op::Acosh => U(Unary::Native(f32::acosh)),
            Op::Atanh => U(Unary::Native(f32::atanh)),
            Op::PamMul => B(Binary::PaMul(int)),
            Op::PamDiv => B(Binary::PaDiv(int)),
            Op::PamExp2Grad => B(Binary::PaExp2Grad),
            Op::PamLog2Grad => B(Binary::PaLog2Grad),
            Op::Add => B(Binary::Add),
            Op::Sub => B(Binary::Sub),
            Op::Max => B(Binary::Max),
            Op::Min => B(Binary::Min),
            Op::Mul => B(Binary::Mul),
            Op::Div => B(Binary::Div),
            Op::Pow => B(Binary::Pow),
            Op::Mod => B(Binary::Rem),
            Op::PamMulGrad => T(Ternary::PaMulGrad(int)),
            Op::PamDivGradA => T(Ternary::PaDivGradA(int)),
            Op::PamDivGradB => T(Ternary::PaDivGradB(int)),
            _ => Host(*f),
        }
    }

    /// Bytes an element of operand `i` takes.
    pub fn size(&self, i: usize) -> usize {
        match self {
            Kernel::Select if i == 0 => 1,
            Kernel::Host(f) if f.op == Op::Where && i == 0 => 1,
            Kernel::Host(f) => f.from.size(),
            _ => 4,
        }
    }

    /// Which operands may have fewer numbers than the result, and whether all of these at the same time.
    pub fn shorter(&self) -> (Range<usize>, bool) {
        match self {
            Kernel::Binary(_) | Kernel::Compare(_) => (0..2, false),
            Kernel::Select => (1..3, true),
            _ => (0..0, false),
        }
    }

    /// The product it is, if that can be summed without being stored.
    pub fn product(&self) -> Option<Product> {
        match self {
            Kernel::Binary(Binary::Mul) => Some(Product::Native),
            Kernel::Binary(Binary::PaMul(0)) => Some(Product::Pa),
            _ => None,
        }
    }

    /// Whether it can write its results in place of its first operand, where the second one has fewer numbers.
    pub fn overwrites(&self) -> bool {
        matches!(self, Kernel::Binary(_))
    }

    /// Computes a tile in place of the first operand.
    ///
    /// # Panics
    /// Where it cannot.
    pub fn overwrite(&self, out: &mut [u8], by: &[u8]) {
        let Kernel::Binary(op) = self else { panic!("{self:?} overwrites nothing") };
        elementwise::overwrite(*op, of_mut(out), of(by));
    }

    /// Computes a tile.
    pub fn compute(&self, args: [&[u8]; 3], out: &mut [u8]) {
        let [a, b, c] = args;
        match self {
            Kernel::Unary(op) => elementwise::unary(*op, of(a), of_mut(out)),
            Kernel::Binary(op) => elementwise::binary(*op, of(a), of(b), of_mut(out)),
            Kernel::Ternary(op) => elementwise::ternary(*op, of(a), of(b), of(c), of_mut(out)),
            Kernel::Compare(op) => choice::compare(*op, of(a), of(b), out),
            Kernel::Select => choice::select(a, of(b), of(c), of_mut(out)),
            Kernel::Host(f) => pointwise::exec(f, args, out),
        }
    }
}
