//! The table of derivatives: primitives, native ops, and ops that are linear or select.
//!
//! δ is the cotangent of the output y, a and b are the inputs; `pam.*` is PA arithmetic. Two columns
//! stand for the two forms of a primitive; everything else has one.
//!
//! | op | approx | exact |
//! |---|---|---|
//! | pam.mul(a, b) | a: mul(b, δ) | a: pam.mul_grad(a, b, δ) |
//! | pam.div(a, b) | a: div(δ, b); b: −div(mul(a, δ), mul(b, b)) | pam.div_grad_a, pam.div_grad_b |
//! | pam.exp2(a) | mul(mul(y, ln2), δ) | pam.exp2_grad(a, δ) |
//! | pam.log2(a) | div(δ, mul(a, ln2)) | pam.log2_grad(a, δ) |
//! | exp, that is pam.exp2(pam.mul(a, log2e)) | mul(y, δ) | through its parts |
//! | log, that is pam.div(pam.log2(a), log2e) | div(δ, a) | through its parts |
//! | pam.scale_pow2, pam.round_mantissa | the same scaling; δ | the same |
//! | pam.matmul, pam.conv | products with the other operand | pam.matmul_grad_a, pam.matmul_grad_b |
//!
//! Rounding, comparisons and integer operands have no derivative: nothing flows through them.

use super::vjp::{Result, Vjp};
use super::{contraction, movement, selection};
use crate::lower::LOG2E;
use pam_ir::graph::ValueId;
use pam_ir::op::Op;
use std::f32::consts::{FRAC_2_SQRT_PI, LN_2};

/// Gives the cotangents of the inputs of a node; whether its op has a derivative.
pub(super) fn apply(v: &mut Vjp<'_, '_, '_>) -> Result<bool> {
    match v.node().op {
        // Primitives.
        Op::PamMul => mul(v)?,
        Op::PamDiv => div(v)?,
        Op::PamExp2 => exp2(v)?,
        Op::PamLog2 => log2(v)?,
        Op::PamScale => {
            let (d, attrs) = (v.delta()?, v.copied(&["exponent"]));
            let scaled = v.op(Op::PamScale, &[d], &attrs)?;
            v.give(0, scaled)?;
        }
        Op::PamRound | Op::Identity | Op::Cast | Op::CastLike => {
            let d = v.delta()?;
            v.give(0, d)?;
        }
        Op::PamMatMul | Op::MatMul => contraction::matmul(v)?,
        Op::PamConv | Op::Conv => contraction::conv(v)?,
        // Sums.
        Op::Add | Op::Sum | Op::Sub | Op::Neg => sums(v)?,
        Op::Mean => {
            let n = v.node().inputs.len();
            let d = v.delta()?;
            let share = v.div_scalar(d, n as f32)?;
            (0..n).try_for_each(|i| v.give(i, share))?;
        }
        // Native ops.
        Op::Mul => mul(v)?,
        Op::Div => div(v)?,
        Op::Mod => remainder(v)?,
        Op::Pow => pow(v)?,
        op => match native(v, op)? {
            Some(d) => v.give(0, d)?,
            None => return Ok(selection::apply(v)? || movement::apply(v)?),
        },
    }
    Ok(true)
}

/// `a − b · n` for a whole number n.
fn remainder(v: &mut Vjp<'_, '_, '_>) -> Result {
    let d = v.delta()?;
    v.give(0, d)?;
    if !v.wants(1) {
        return Ok(());
    }
    let (a, b, y) = (v.x(0)?, v.x(1)?, v.y()?);
    let taken = v.sub(y, a)?;
    let number = v.div(taken, b)?;
    let number = v.op(Op::Round, &[number], &[])?;
    let cotangent = v.mul(number, d)?;
    v.give(1, cotangent)
}

fn mul(v: &mut Vjp<'_, '_, '_>) -> Result {
    let d = v.delta()?;
    for (own, other) in [(0, 1), (1, 0)] {
        if !v.wants(own) {
            continue;
        }
        let (a, b) = (v.x(own)?, v.x(other)?);
        let cotangent = if v.exact() {
            let attrs = v.copied(&["offset"]);
            v.op(Op::PamMulGrad, &[a, b, d], &attrs)?
        } else {
            v.mul(b, d)?
        };
        v.give(own, cotangent)?;
    }
    Ok(())
}

fn div(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (a, b, d) = (v.x(0)?, v.x(1)?, v.delta()?);
    if v.exact() {
        for (i, op) in [(0, Op::PamDivGradA), (1, Op::PamDivGradB)] {
            if v.wants(i) {
                let attrs = v.copied(&["offset"]);
                let cotangent = v.op(op, &[a, b, d], &attrs)?;
                v.give(i, cotangent)?;
            }
        }
        return Ok(());
    }
    // log(x) = log2(x) / log2e has a derivative of its own.
    if v.uniform(b) == Some(LOG2E)
        && let Some(x) = argument(v, a, Op::PamLog2)
    {
        let cotangent = v.div(d, x)?;
        return v.give_to(x, cotangent);
    }
    if v.wants(0) {
        let cotangent = v.div(d, b)?;
        v.give(0, cotangent)?;
    }
    if v.wants(1) {
        let (product, square) = (v.mul(a, d)?, v.square(b)?);
        let quotient = v.div(product, square)?;
        let cotangent = v.neg(quotient)?;
        v.give(1, cotangent)?;
    }
    Ok(())
}

fn exp2(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (x, y, d) = (v.x(0)?, v.y()?, v.delta()?);
    if v.exact() {
        let cotangent = v.op(Op::PamExp2Grad, &[x, d], &[])?;
        return v.give(0, cotangent);
    }
    // exp(x) = exp2(x · log2e) has a derivative of its own.
    if let Some((factor, other)) = factors(v, x) {
        for (a, c) in [(factor, other), (other, factor)] {
            if v.uniform(c) == Some(LOG2E) {
                let cotangent = v.mul(y, d)?;
                return v.give_to(a, cotangent);
            }
        }
    }
    let slope = v.scale(y, LN_2)?;
    let cotangent = v.mul(slope, d)?;
    v.give(0, cotangent)
}

fn log2(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (x, d) = (v.x(0)?, v.delta()?);
    let cotangent = if v.exact() {
        v.op(Op::PamLog2Grad, &[x, d], &[])?
    } else {
        let scaled = v.scale(x, LN_2)?;
        v.div(d, scaled)?
    };
    v.give(0, cotangent)
}

/// The input of the node that makes a value, if that is one of `op`.
fn argument(v: &Vjp<'_, '_, '_>, value: ValueId, op: Op) -> Option<ValueId> {
    let graph = v.graph();
    let node = graph.node(graph.producer(value)?);
    (node.op == op).then(|| node.input(0)).flatten()
}

/// The factors of a PA product.
fn factors(v: &Vjp<'_, '_, '_>, value: ValueId) -> Option<(ValueId, ValueId)> {
    let graph = v.graph();
    let node = graph.node(graph.producer(value)?);
    (node.op == Op::PamMul).then(|| Some((node.input(0)?, node.input(1)?))).flatten()
}

fn sums(v: &mut Vjp<'_, '_, '_>) -> Result {
    let d = v.delta()?;
    for i in 0..v.node().inputs.len() {
        if v.wants(i) {
            let minus = v.node().op == Op::Neg || v.node().op == Op::Sub && i == 1;
            let cotangent = if minus { v.neg(d)? } else { d };
            v.give(i, cotangent)?;
        }
    }
    Ok(())
}

/// `x^y`: by x, `y · x^(y − 1) · δ`; by y, `z · ln(x) · δ`, which is 0 where x is 0.
fn pow(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (x, y, z, d) = (v.x(0)?, v.x(1)?, v.y()?, v.delta()?);
    // Exponents may be integers.
    let dtype = v.ty(x).dtype;
    let y = if v.ty(y).dtype == dtype { y } else { v.cast(y, dtype)? };
    if v.wants(0) {
        let one = v.number(1.0, y)?;
        let less = v.sub(y, one)?;
        let power = v.op(Op::Pow, &[x, less], &[])?;
        let slope = v.mul(y, power)?;
        let cotangent = v.mul(slope, d)?;
        v.give(0, cotangent)?;
    }
    if v.wants(1) {
        let (zero, one) = (v.number(0.0, x)?, v.number(1.0, x)?);
        let nothing = v.op(Op::Equal, &[x, zero], &[])?;
        let kept = v.select(nothing, one, x)?;
        let log = v.log(kept)?;
        let slope = v.mul(z, log)?;
        let cotangent = v.mul(slope, d)?;
        v.give(1, cotangent)?;
    }
    Ok(())
}

/// The cotangent of the input of a native function of one variable.
fn native(v: &mut Vjp<'_, '_, '_>, op: Op) -> Result<Option<ValueId>> {
    let unary = matches!(
        op,
        Op::Exp
            | Op::Log
            | Op::Sqrt
            | Op::Reciprocal
            | Op::Tanh
            | Op::Sigmoid
            | Op::Erf
            | Op::Sin
            | Op::Cos
            | Op::Tan
            | Op::Asin
            | Op::Acos
            | Op::Atan
            | Op::Sinh
            | Op::Cosh
            | Op::Asinh
            | Op::Acosh
            | Op::Atanh
    );
    if !unary {
        return Ok(None);
    }
    let (x, y, d) = (v.x(0)?, v.y()?, v.delta()?);
    let one = v.number(1.0, x)?;
    Ok(Some(match op {
        Op::Exp => v.mul(y, d)?,
        Op::Log => v.div(d, x)?,
        Op::Sqrt => {
            let twice = v.add(y, y)?;
            v.div(d, twice)?
        }
        Op::Reciprocal => {
            let square = v.square(y)?;
            let product = v.mul(square, d)?;
            v.neg(product)?
        }
        // 1 − y².
        Op::Tanh => {
            let square = v.square(y)?;
            let slope = v.sub(one, square)?;
            v.mul(slope, d)?
        }
        // y (1 − y).
        Op::Sigmoid => {
            let rest = v.sub(one, y)?;
            let slope = v.mul(y, rest)?;
            v.mul(slope, d)?
        }
        // 2/√π · exp(−x²).
        Op::Erf => {
            let square = v.square(x)?;
            let minus = v.neg(square)?;
            let bell = v.exp(minus)?;
            let factor = v.number(FRAC_2_SQRT_PI, x)?;
            let slope = v.mul(bell, factor)?;
            v.mul(slope, d)?
        }
        Op::Sin | Op::Sinh => {
            let slope = v.op(if op == Op::Sin { Op::Cos } else { Op::Cosh }, &[x], &[])?;
            v.mul(slope, d)?
        }
        Op::Cos => {
            let sine = v.op(Op::Sin, &[x], &[])?;
            let product = v.mul(sine, d)?;
            v.neg(product)?
        }
        Op::Cosh => {
            let slope = v.op(Op::Sinh, &[x], &[])?;
            v.mul(slope, d)?
        }
        // 1 + y².
        Op::Tan => {
            let square = v.square(y)?;
            let slope = v.add(one, square)?;
            v.mul(slope, d)?
        }
        // ±1 / √(1 − x²), 1 / √(x² + 1), 1 / √(x² − 1).
        Op::Asin | Op::Acos | Op::Asinh | Op::Acosh => {
            let square = v.square(x)?;
            let under = match op {
                Op::Asinh => v.add(square, one)?,
                Op::Acosh => v.sub(square, one)?,
                _ => v.sub(one, square)?,
            };
            let root = v.sqrt(under)?;
            let quotient = v.div(d, root)?;
            if op == Op::Acos { v.neg(quotient)? } else { quotient }
        }
        // 1 / (1 ± x²).
        _ => {
            let square = v.square(x)?;
            let under = if op == Op::Atan { v.add(one, square)? } else { v.sub(one, square)? };
            v.div(d, under)?
        }
    }))
}
