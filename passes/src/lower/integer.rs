//! Products and quotients of integers, where shape arithmetic and masks leave some over: exact, by additions,
//! selections and bits.

use super::{LowerError, Lowering};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;
use pam_ir::types::DType;

type Result<T> = std::result::Result<T, LowerError>;

/// `a · b`: `Σ 2^i · a` over the bits of b, each doubling an addition; a selection where b is a truth value, cast.
/// Of a constant, only the bits that are set count, and of others those that they may have.
pub fn mul(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<()> {
    let (a, b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let y = product(lo, a, b)?;
    set(lo, node, y)
}

/// `a` to a constant power, by squares and products.
pub fn pow(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<()> {
    let (a, b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let Some(mut left) = only(lo, b).filter(|c| (1..64).contains(c)) else {
        let y = lo.op(Op::Pow, &[a, b], &[])?;
        return lo.set(node, 0, y);
    };
    let (mut square, mut y) = (a, None);
    loop {
        if left & 1 == 1 {
            y = Some(y.map_or(Ok(square), |y| product(lo, y, square))?);
        }
        left >>= 1;
        match y {
            Some(y) if left == 0 => return set(lo, node, y),
            _ => square = product(lo, square, square)?,
        }
    }
}

/// `a / b`, cut towards zero.
pub fn div(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<()> {
    let (a, b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let Some(Divided { quotient, negative: [a, b], .. }) = divide(lo, a, b)? else {
        let y = lo.op(Op::Div, &[a, b], &[])?;
        return lo.set(node, 0, y);
    };
    let negative = differ(lo, a, b)?;
    let y = negated_where(lo, negative, quotient)?;
    set(lo, node, y)
}

/// `a − b · trunc(a / b)` for `fmod` 1, `a − b · floor(a / b)`, whose sign is that of b, for 0.
pub fn modulo(lo: &mut Lowering<'_, '_>, node: &Node) -> Result<()> {
    let (a, b) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let fmod = node.int("fmod").unwrap_or(0);
    let Some(Divided { rest, divisor, negative: [below, under], .. }) = divide(lo, a, b)? else {
        let y = lo.op(Op::Mod, &[a, b], &[("fmod", fmod.into())])?;
        return lo.set(node, 0, y);
    };
    if fmod == 1 {
        let y = negated_where(lo, below, rest)?;
        return set(lo, node, y);
    }
    // Of numbers of different signs, the floor lies one below the quotient.
    let rest = match differ(lo, below, under)? {
        None => rest,
        Some(differ) => {
            let zero = lo.scalar(0i64);
            let some = lo.op(Op::Greater, &[rest, zero], &[])?;
            let off = lo.op(Op::And, &[differ, some], &[])?;
            let other = lo.sub(divisor, rest)?;
            lo.select(off, other, rest)?
        }
    };
    let y = negated_where(lo, under, rest)?;
    set(lo, node, y)
}

/// Where one of two conditions holds and not the other; nothing where neither can.
fn differ(
    lo: &mut Lowering<'_, '_>,
    a: Option<ValueId>,
    b: Option<ValueId>,
) -> Result<Option<ValueId>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(lo.op(Op::Xor, &[a, b], &[])?),
        (a, b) => a.or(b),
    })
}

/// Lets `y` be the result, in its shape.
fn set(lo: &mut Lowering<'_, '_>, node: &Node, y: ValueId) -> Result<()> {
    let wide = lo.result_shape(node, 0);
    let y = lo.expand(y, &wide)?;
    lo.set(node, 0, y)
}

/// The product in the type of the operands, which wraps.
fn product(lo: &mut Lowering<'_, '_>, a: ValueId, b: ValueId) -> Result<ValueId> {
    for (x, c) in [(a, b), (b, a)] {
        if let Some(c) = only(lo, c) {
            return times(lo, x, c);
        }
    }
    for (x, c) in [(a, b), (b, a)] {
        if let Some(condition) = truth(lo, c) {
            let zero = lo.sub(x, x)?;
            return lo.select(condition, x, zero);
        }
    }
    let dtype = lo.ty(a).dtype;
    let (x, y) = if bits(lo, a) < bits(lo, b) { (b, a) } else { (a, b) };
    let bits = bits(lo, y);
    let (mut power, y) = (wide(lo, x)?, wide(lo, y)?);
    let zero = lo.scalar(0i64);
    let mut sum = None;
    for i in 0..bits {
        if i > 0 {
            power = lo.add(power, power)?;
        }
        let set = bit(lo, y, i)?;
        let term = lo.select(set, power, zero)?;
        sum = Some(sum.map_or(Ok(term), |s| lo.add(s, term))?);
    }
    let sum = sum.unwrap_or(zero);
    if dtype == DType::I64 { Ok(sum) } else { lo.cast(sum, dtype) }
}

/// As a 64-bit integer: runtimes lack many ops on narrower ones.
fn wide(lo: &mut Lowering<'_, '_>, v: ValueId) -> Result<ValueId> {
    if lo.ty(v).dtype == DType::I64 { Ok(v) } else { lo.cast(v, DType::I64) }
}

/// Two integers divided.
struct Divided {
    /// The quotient of the magnitudes, cut.
    quotient: ValueId,
    /// What is left of the magnitude of the dividend.
    rest: ValueId,
    /// The magnitude of the divisor.
    divisor: ValueId,
    /// Where the dividend and the divisor are negative; nothing where they cannot be.
    negative: [Option<ValueId>; 2],
}

/// Divides by hand, as 64-bit integers, a bit of the quotient at a time; by powers of two at once. Nothing for
/// unsigned integers of 64 bits, which the standard ops do not compare everywhere.
fn divide(lo: &mut Lowering<'_, '_>, a: ValueId, b: ValueId) -> Result<Option<Divided>> {
    if lo.ty(a).dtype == DType::U64 {
        return Ok(None);
    }
    let width = bits(lo, a);
    let power = only(lo, b).filter(|c| *c > 0 && c & (c - 1) == 0);
    let (x, below) = size(lo, a)?;
    let (divisor, under) = size(lo, b)?;
    let negative = [below, under];
    let zero = lo.scalar(0i64);
    if let Some(power) = power {
        let mask = lo.scalar(power - 1);
        let rest = lo.op(Op::BitwiseAnd, &[x, mask], &[])?;
        let pattern = lo.cast(x, DType::U64)?;
        let places = lo.scalar(u64::from(power.trailing_zeros()));
        let quotient =
            lo.op(Op::BitShift, &[pattern, places], &[("direction", "RIGHT".to_owned().into())])?;
        let quotient = lo.cast(quotient, DType::I64)?;
        return Ok(Some(Divided { quotient, rest, divisor, negative }));
    }
    let one = lo.scalar(1i64);
    let (mut quotient, mut rest) = (zero, zero);
    for i in (0..width).rev() {
        let set = bit(lo, x, i)?;
        let next = lo.select(set, one, zero)?;
        rest = if rest == zero {
            next
        } else {
            let twice = lo.add(rest, rest)?;
            lo.add(twice, next)?
        };
        let mut fits = lo.op(Op::GreaterOrEqual, &[rest, divisor], &[])?;
        if width > 62 {
            // Twice a rest may have 64 bits, which look negative; the divisor has 63 at most.
            let beyond = lo.op(Op::Less, &[rest, zero], &[])?;
            fits = lo.op(Op::Or, &[beyond, fits], &[])?;
        }
        let less = lo.sub(rest, divisor)?;
        rest = lo.select(fits, less, rest)?;
        let place = lo.scalar(1i64 << i);
        let digit = lo.select(fits, place, zero)?;
        quotient = if quotient == zero { digit } else { lo.add(quotient, digit)? };
    }
    Ok(Some(Divided { quotient, rest, divisor, negative }))
}

/// The magnitude as a 64-bit integer, and where the number is negative if it can be.
fn size(lo: &mut Lowering<'_, '_>, v: ValueId) -> Result<(ValueId, Option<ValueId>)> {
    let dtype = lo.ty(v).dtype;
    let signed = bits(lo, v) == width(dtype) && !unsigned(dtype);
    let wide = wide(lo, v)?;
    if !signed {
        return Ok((wide, None));
    }
    let zero = lo.scalar(0i64);
    let negative = lo.op(Op::Less, &[wide, zero], &[])?;
    Ok((lo.abs(wide)?, Some(negative)))
}

/// −x where a condition holds.
fn negated_where(
    lo: &mut Lowering<'_, '_>,
    condition: Option<ValueId>,
    x: ValueId,
) -> Result<ValueId> {
    let Some(condition) = condition else { return Ok(x) };
    let negated = lo.neg(x)?;
    lo.select(condition, negated, x)
}

/// Whether bit `i` of a 64-bit integer is set.
fn bit(lo: &mut Lowering<'_, '_>, x: ValueId, i: u32) -> Result<ValueId> {
    let mask = lo.scalar(1i64 << i);
    let bit = lo.op(Op::BitwiseAnd, &[x, mask], &[])?;
    lo.cast(bit, DType::Bool)
}

/// The one number of a constant.
fn only(lo: &Lowering<'_, '_>, v: ValueId) -> Option<i64> {
    let constant = lo.constant_of(v).filter(|t| t.elements() == 1)?;
    constant.to_i64().map(|v| v[0])
}

/// The truth value that an integer was cast from.
fn truth(lo: &Lowering<'_, '_>, v: ValueId) -> Option<ValueId> {
    let graph = lo.graph();
    let node = graph.node(graph.producer(v)?);
    let from = node.input(0).filter(|_| node.op == Op::Cast)?;
    (graph.ty(from).dtype == DType::Bool).then_some(from)
}

/// Bits of a type of integers.
fn width(dtype: DType) -> u32 {
    8 * dtype.size() as u32
}

fn unsigned(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64)
}

/// How many low bits of an integer may be set; all of its type where it may be negative.
fn bits(lo: &Lowering<'_, '_>, v: ValueId) -> u32 {
    let all = width(lo.ty(v).dtype);
    let needed = |largest: u64| (64 - largest.leading_zeros()).min(all);
    if let Some(values) = lo.constant_of(v).and_then(pam_ir::tensor::Tensor::to_i64) {
        let negative = values.iter().any(|x| *x < 0);
        return if negative { all } else { needed(values.iter().fold(0, |m, x| m.max(*x as u64))) };
    }
    let graph = lo.graph();
    let Some(node) = graph.producer(v).map(|n| graph.node(n)) else { return all };
    let Some(from) = node.input(0) else { return all };
    let ty = graph.ty(from);
    match node.op {
        Op::Cast if ty.dtype == DType::Bool => 1,
        Op::Cast if unsigned(ty.dtype) => width(ty.dtype).min(all),
        Op::ArgMax | Op::ArgMin => needed(ty.shape.iter().fold(0, |m, d| m.max(*d as u64))),
        Op::MaxPool | Op::TopK if node.output(1) == Some(v) => needed(ty.elements() as u64),
        _ => all,
    }
}

/// x · c for a number.
fn times(lo: &mut Lowering<'_, '_>, x: ValueId, c: i64) -> Result<ValueId> {
    let mut sum = None;
    let mut power = x;
    let mut left = c.unsigned_abs();
    while left != 0 {
        if left & 1 == 1 {
            sum = Some(sum.map_or(Ok(power), |s| lo.add(s, power))?);
        }
        left >>= 1;
        if left != 0 {
            power = lo.add(power, power)?;
        }
    }
    match sum {
        Some(s) if c < 0 => lo.neg(s),
        Some(s) => Ok(s),
        None => lo.sub(x, x),
    }
}
