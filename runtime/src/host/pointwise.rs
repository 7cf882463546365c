//! Elementwise ops on slices of any element type.
//!
//! This is the plain, readable form of every elementwise op. For f32 the hot ones are taken from
//! `pam-kernels` instead; see `plan::program`.

use super::number::{Number, of, of_mut, with_type};
use half::{bf16, f16};
use pam_ir::op::Op;
use pam_ir::types::DType;

/// Numbers that an op needs beside its operands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Immediate {
    /// An integer: offset of the error compensation, exponent, direction of a shift, flags.
    pub int: i64,
    /// Floats: alpha; bias and lambda.
    pub float: [f32; 2],
}

/// What `exec` computes: an op on operands of one element type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Function {
    /// The op.
    pub op: Op,
    /// Element type of the operands (of X and Y for a selection).
    pub from: DType,
    /// Element type of the result.
    pub to: DType,
    /// Numbers beside the operands.
    pub imm: Immediate,
}

/// Whether [`exec`] knows the op on operands of this type.
pub fn known(op: Op, from: DType) -> bool {
    let arithmetic = from != DType::Bool;
    match op {
        Op::Add | Op::Sub | Op::Mul | Op::Div => arithmetic,
        Op::Neg | Op::Abs | Op::Sign | Op::Relu | Op::Max | Op::Min | Op::Mod | Op::Pow => {
            arithmetic
        }
        Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => arithmetic,
        Op::Equal | Op::Where | Op::Cast | Op::Identity => true,
        Op::And | Op::Or | Op::Xor | Op::Not => from == DType::Bool,
        Op::BitwiseAnd | Op::BitwiseOr | Op::BitwiseXor | Op::BitwiseNot | Op::BitShift => {
            from.is_int()
        }
        Op::IsNaN | Op::IsInf | Op::Floor | Op::Ceil | Op::Round => from.is_float(),
        Op::ThresholdedRelu => from.is_float(),
        Op::Shrink => arithmetic,
        Op::Exp | Op::Log | Op::Sqrt | Op::Reciprocal | Op::Tanh | Op::Sigmoid | Op::Erf => {
            from.is_float()
        }
        Op::Sin | Op::Cos | Op::Tan | Op::Asin | Op::Acos | Op::Atan => from.is_float(),
        Op::Sinh | Op::Cosh | Op::Asinh | Op::Acosh | Op::Atanh => from.is_float(),
        _ => false,
    }
}

/// Computes `out[i] = f(args[0][i], …)`. Arguments hold at least as many elements as the result.
///
/// # Panics
/// Where [`known`] is false: the plan refuses such nodes.
pub fn exec(f: &Function, args: [&[u8]; 3], out: &mut [u8]) {
    let [a, b, c] = args;
    match f.op {
        Op::Cast => with_type!(f.from, S => with_type!(f.to, D => {
            for (o, &x) in of_mut::<D>(out).iter_mut().zip(of::<S>(a)) {
                *o = <D as Number>::convert(x);
            }
        })),
        Op::Where => match f.from.size() {
            1 => select::<u8>(a, b, c, out),
            2 => select::<u16>(a, b, c, out),
            4 => select::<u32>(a, b, c, out),
            _ => select::<u64>(a, b, c, out),
        },
        Op::Identity => out.copy_from_slice(&a[..out.len()]),
        Op::Equal | Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
            with_type!(f.from, T => compare::<T>(f.op, a, b, out));
        }
        Op::IsNaN | Op::IsInf => with_type!(f.from, T => {
            let (nan, negative, positive) = (f.op == Op::IsNaN, f.imm.int & 1 != 0, f.imm.int & 2 != 0);
            for (o, &x) in out.iter_mut().zip(of::<T>(a)) {
                let x = x.f64();
                *o = u8::from(if nan {
                    x.is_nan()
                } else {
                    (negative && x == f64::NEG_INFINITY) || (positive && x == f64::INFINITY)
                });
            }
        }),
        Op::And => map2::<u8>(a, b, out, |x, y| x & y),
        Op::Or => map2::<u8>(a, b, out, |x, y| x | y),
        Op::Xor if f.from == DType::Bool => map2::<u8>(a, b, out, |x, y| x ^ y),
        Op::Not => map1::<u8>(a, out, |x| u8::from(x == 0)),
        Op::BitwiseAnd | Op::BitwiseOr | Op::BitwiseXor | Op::BitwiseNot => {
            bitwise(f.op, a, b, out)
        }
        Op::BitShift => with_type!(f.from, T => shift::<T>(f.imm.int, a, b, out)),
        _ => match f.from {
            DType::F32 => float::<f32>(f, a, b, out),
            DType::F64 => float::<f64>(f, a, b, out),
            DType::F16 => float::<f16>(f, a, b, out),
            DType::BF16 => float::<bf16>(f, a, b, out),
            _ => with_type!(f.from, T => integer::<T>(f, a, b, out)),
        },
    }
}

fn map1<T: bytemuck::Pod>(a: &[u8], out: &mut [u8], f: impl Fn(T) -> T) {
    for (o, &x) in of_mut::<T>(out).iter_mut().zip(of::<T>(a)) {
        *o = f(x);
    }
}

fn map2<T: bytemuck::Pod>(a: &[u8], b: &[u8], out: &mut [u8], f: impl Fn(T, T) -> T) {
    for ((o, &x), &y) in of_mut::<T>(out).iter_mut().zip(of::<T>(a)).zip(of::<T>(b)) {
        *o = f(x, y);
    }
}

fn select<T: bytemuck::Pod>(c: &[u8], a: &[u8], b: &[u8], out: &mut [u8]) {
    let pairs = of::<T>(a).iter().zip(of::<T>(b));
    for ((o, &c), (&x, &y)) in of_mut::<T>(out).iter_mut().zip(c).zip(pairs) {
        *o = if c != 0 { x } else { y };
    }
}

fn compare<T: Number>(op: Op, a: &[u8], b: &[u8], out: &mut [u8]) {
    fn by<T: Number>(a: &[u8], b: &[u8], out: &mut [u8], f: impl Fn(T, T) -> bool) {
        for ((o, &x), &y) in out.iter_mut().zip(of::<T>(a)).zip(of::<T>(b)) {
            *o = f(x, y).into();
        }
    }
    match op {
        Op::Equal => by::<T>(a, b, out, |x, y| x == y),
        Op::Less => by::<T>(a, b, out, |x, y| x < y),
        Op::LessOrEqual => by::<T>(a, b, out, |x, y| x <= y),
        Op::Greater => by::<T>(a, b, out, |x, y| x > y),
        _ => by::<T>(a, b, out, |x, y| x >= y),
    }
}

/// Bitwise ops do not depend on the element size: they work on bytes.
fn bitwise(op: Op, a: &[u8], b: &[u8], out: &mut [u8]) {
    match op {
        Op::BitwiseAnd => map2::<u8>(a, b, out, |x, y| x & y),
        Op::BitwiseOr => map2::<u8>(a, b, out, |x, y| x | y),
        Op::BitwiseXor => map2::<u8>(a, b, out, |x, y| x ^ y),
        _ => map1::<u8>(a, out, |x| !x),
    }
}

/// Shifts by a negative number, or by that of the type's bits or more, leave nothing but the sign, and that only to the
/// right.
fn shift<T: Number>(left: i64, a: &[u8], b: &[u8], out: &mut [u8]) {
    map2::<T>(a, b, out, |x, y| {
        let by = u32::try_from(y.i128()).unwrap_or(64).min(64);
        T::from_i128(match left {
            0 => x.i128() >> by,
            _ if by == 64 => 0,
            _ => x.i128() << by,
        })
    });
}

fn integer<T: Number>(f: &Function, a: &[u8], b: &[u8], out: &mut [u8]) {
    let zero = T::from_i128(0);
    match f.op {
        Op::Add => map2::<T>(a, b, out, T::add),
        Op::Sub => map2::<T>(a, b, out, T::sub),
        Op::Mul => map2::<T>(a, b, out, T::mul),
        Op::Div => map2::<T>(a, b, out, T::div),
        Op::Max => map2::<T>(a, b, out, Number::greater),
        Op::Min => map2::<T>(a, b, out, Number::lesser),
        Op::Neg => map1::<T>(a, out, |x| zero.sub(x)),
        Op::Abs => map1::<T>(a, out, |x| if x < zero { zero.sub(x) } else { x }),
        Op::Sign => map1::<T>(a, out, |x| T::from_i128(x.i128().signum())),
        Op::Relu => map1::<T>(a, out, |x| Number::greater(x, zero)),
        Op::Mod => map2::<T>(a, b, out, |x, y| {
            let (x, y) = (x.i128(), y.i128());
            T::from_i128(match (y, f.imm.int) {
                (0, _) => 0,
                (_, 0) => (x % y + y) % y,
                (..) => x % y,
            })
        }),
        Op::Pow => map2::<T>(a, b, out, |x, y| T::from_i128(power(x.i128(), y.i128()))),
        Op::Shrink => map1::<T>(a, out, |x| T::from_f64(shrink(x.f64(), f.imm.float))),
        op => unreachable!("the plan refuses {} on integers", op.name()),
    }
}

/// Integer power, wrapping; negative exponents give the truncated reciprocal.
fn power(x: i128, y: i128) -> i128 {
    match (x, y) {
        (1, _) => 1,
        (-1, y) => {
            if y % 2 == 0 {
                1
            } else {
                -1
            }
        }
        (_, y) if y < 0 => 0,
        (x, y) => x.wrapping_pow(y.min(1 << 20) as u32),
    }
}

fn shrink(x: f64, [bias, lambda]: [f32; 2]) -> f64 {
    let (bias, lambda) = (f64::from(bias), f64::from(lambda));
    if x < -lambda {
        x + bias
    } else if x > lambda {
        x - bias
    } else {
        0.0
    }
}

/// Doubles and halves; and f32 where no kernel of `pam-kernels` is in charge. Transcendental
/// functions evaluate in double precision and round once.
fn float<T: Number>(f: &Function, a: &[u8], b: &[u8], out: &mut [u8]) {
    let zero = T::from_i128(0);
    let via = |f: fn(f64) -> f64| move |x: T| T::from_f64(f(x.f64()));
    match f.op {
        Op::Add => map2::<T>(a, b, out, T::add),
        Op::Sub => map2::<T>(a, b, out, T::sub),
        Op::Mul => map2::<T>(a, b, out, T::mul),
        Op::Div => map2::<T>(a, b, out, T::div),
        Op::Max => map2::<T>(a, b, out, Number::greater),
        Op::Min => map2::<T>(a, b, out, Number::lesser),
        Op::Neg => map1::<T>(a, out, via(|x| -x)),
        Op::Abs => map1::<T>(a, out, via(f64::abs)),
        Op::Sign => map1::<T>(
            a,
            out,
            via(|x| {
                if x > 0.0 {
                    1.0
                } else if x < 0.0 {
                    -1.0
                } else {
                    // Adding +0 makes a zero positive and leaves NaN.
                    x + 0.0
                }
            }),
        ),
        Op::Floor => map1::<T>(a, out, via(f64::floor)),
        Op::Ceil => map1::<T>(a, out, via(f64::ceil)),
        Op::Round => map1::<T>(a, out, via(f64::round_ties_even)),
        Op::Relu => map1::<T>(a, out, |x| Number::greater(x, zero)),
        Op::ThresholdedRelu => {
            let alpha = f.imm.float[0];
            map1::<T>(a, out, |x| if x.f64() > f64::from(alpha) { x } else { zero });
        }
        Op::Shrink => map1::<T>(a, out, |x| T::from_f64(shrink(x.f64(), f.imm.float))),
        Op::Mod => map2::<T>(a, b, out, |x, y| T::from_f64(x.f64() % y.f64())),
        Op::Pow => map2::<T>(a, b, out, |x, y| T::from_f64(x.f64().powf(y.f64()))),
        Op::Exp => map1::<T>(a, out, via(f64::exp)),
        Op::Log => map1::<T>(a, out, via(f64::ln)),
        Op::Sqrt => map1::<T>(a, out, via(f64::sqrt)),
        Op::Reciprocal => map1::<T>(a, out, via(|x| 1.0 / x)),
        Op::Tanh => map1::<T>(a, out, via(f64::tanh)),
        Op::Sigmoid => map1::<T>(a, out, via(|x| 1.0 / (1.0 + (-x).exp()))),
        Op::Erf => map1::<T>(a, out, via(libm::erf)),
        Op::Sin => map1::<T>(a, out, via(f64::sin)),
        Op::Cos => map1::<T>(a, out, via(f64::cos)),
        Op::Tan => map1::<T>(a, out, via(f64::tan)),
        Op::Asin => map1::<T>(a, out, via(f64::asin)),
        Op::Acos => map1::<T>(a, out, via(f64::acos)),
        Op::Atan => map1::<T>(a, out, via(f64::atan)),
        Op::Sinh => map1::<T>(a, out, via(f64::sinh)),
        Op::Cosh => map1::<T>(a, out, via(f64::cosh)),
        Op::Asinh => map1::<T>(a, out, via(f64::asinh)),
        Op::Acosh => map1::<T>(a, out, via(f64::acosh)),
        Op::Atanh => map1::<T>(a, out, via(f64::atanh)),
        op => unreachable!("the plan refuses {} on floats", op.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T: Number, R: Number>(op: Op, from: DType, to: DType, a: &[T], b: &[T]) -> Vec<R> {
        let f = Function { op, from, to, imm: Immediate::default() };
        let mut out = vec![R::from_i128(0); a.len()];
        let (a, b) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b));
        exec(&f, [a, b, &[]], bytemuck::cast_slice_mut(&mut out));
        out
    }

    #[test]
    fn integers_divide_towards_zero_and_mod_takes_the_divisors_sign() {
        let (a, b) = ([7i64, -7, 7, -7, 1], [2i64, 2, -2, -2, 0]);
        let div: Vec<i64> = run(Op::Div, DType::I64, DType::I64, &a, &b);
        assert_eq!(div, [3, -3, -3, 3, 0]);
        let modulo: Vec<i64> = run(Op::Mod, DType::I64, DType::I64, &a, &b);
        assert_eq!(modulo, [1, 1, -1, -1, 0]);
        let pow: Vec<i64> =
            run(Op::Pow, DType::I64, DType::I64, &[2i64, -1, 3, 0, 5], &[10, 3, -1, 0, 1]);
        assert_eq!(pow, [1024, -1, 0, 1, 5]);
    }

    #[test]
    fn casts_cover_all_pairs() {
        for from in DType::ALL {
            for to in DType::ALL {
                let one = with_type!(from, S => bytemuck::bytes_of(&<S as Number>::from_i128(1)).to_vec());
                let mut out = vec![0u8; to.size()];
                let f = Function { op: Op::Cast, from, to, imm: Immediate::default() };
                exec(&f, [&one, &[], &[]], &mut out);
                let back = with_type!(to, D => of::<D>(&out)[0].f64());
                assert_eq!(back, 1.0, "{from} to {to}");
            }
        }
    }

    #[test]
    fn float_corners() {
        let nan = f32::NAN;
        let max: Vec<f32> =
            run(Op::Max, DType::F32, DType::F32, &[nan, 1.0f32, -0.5], &[1.0, nan, 2.0]);
        assert!(max[0].is_nan() && max[1].is_nan() && max[2] == 2.0);
        let round: Vec<f32> =
            run(Op::Round, DType::F32, DType::F32, &[0.5f32, 1.5, -2.5], &[0.0; 3]);
        assert_eq!(round, [0.0, 2.0, -2.0]);
        let less: Vec<u8> =
            run(Op::Less, DType::F32, DType::Bool, &[1.0f32, nan, 3.0], &[2.0, 2.0, 2.0]);
        assert_eq!(less, [1, 0, 0]);
    }
}
