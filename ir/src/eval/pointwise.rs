//! Elementwise ops.

use super::movement::join;
use super::numbers::Numbers;
use super::strided::broadcast_indices;
use super::{Eval, tensor};
use crate::op::Op;
use crate::tensor::Tensor;

impl Eval<'_> {
    pub(super) fn pointwise(&self) -> Option<Tensor> {
        let ty = &self.types[0];
        let op = self.call.op;
        if op == Op::Where {
            return self.select();
        }
        if op == Op::Clip {
            return self.clip();
        }
        let first = self.broadcast(0)?;
        let result = match self.call.inputs.len() {
            1 => unary(op, self.call, first)?,
            n => {
                let mut all = first;
                for i in 1..n {
                    all = binary(op, self.call, all, self.broadcast(i)?)?;
                }
                all
            }
        };
        result.tensor(ty)
    }

    /// Input `i` broadcast to the shape of the output.
    fn broadcast(&self, i: usize) -> Option<Numbers> {
        let t = self.input(i)?;
        let to = &self.types[0].shape;
        if t.shape() == to.as_slice() {
            return Some(Numbers::of(t));
        }
        // Ops that are not elementwise come here too, and may have any shapes.
        if crate::types::broadcast(t.shape(), to).as_deref() != Some(to) {
            return None;
        }
        let indices = broadcast_indices(t.shape(), to);
        let wide = Tensor::from_data(to.clone(), t.data().pick(indices.into_iter()))?;
        Some(Numbers::of(&wide))
    }

    fn select(&self) -> Option<Tensor> {
        let ty = &self.types[0];
        let Numbers::Int(condition) = self.broadcast(0)? else { return None };
        let (x, y) = (self.input(1)?, self.input(2)?);
        let (xi, yi) =
            (broadcast_indices(x.shape(), &ty.shape), broadcast_indices(y.shape(), &ty.shape));
        // Both sides as one list, so that elements of any type are picked as they are.
        let both = join(ty.dtype, &[x, y])?;
        let picked = (0..ty.elements())
            .map(|i| if condition[i] != 0 { xi[i] } else { x.elements() + yi[i] });
        tensor(ty, both.pick(picked))
    }

    fn clip(&self) -> Option<Tensor> {
        let x = Numbers::of(self.input(0)?);
        let bound = |i: usize| match self.call.get(i) {
            None => Some(None),
            Some(_) => self.input(i).map(|t| Numbers::of(t).first()),
        };
        let (low, high) = (bound(1)?, bound(2)?);
        use super::numbers::Number::{Float, Int};
        let clipped = match x {
            Numbers::Int(v) => Numbers::Int(
                v.into_iter()
                    .map(|x| {
                        let x = if let Some(Int(l)) = low { x.max(l) } else { x };
                        if let Some(Int(h)) = high { x.min(h) } else { x }
                    })
                    .collect(),
            ),
            Numbers::Float(v) => Numbers::Float(
                v.into_iter()
                    .map(|x| {
                        let x = if let Some(Float(l)) = low { maximum(x, l) } else { x };
                        if let Some(Float(h)) = high { minimum(x, h) } else { x }
                    })
                    .collect(),
            ),
        };
        clipped.tensor(&self.types[0])
    }
}

/// The larger one; NaN if either is.
fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The smaller one; NaN if either is.
fn minimum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

fn unary(op: Op, call: &crate::op::Call<'_>, x: Numbers) -> Option<Numbers> {
    let flag = |name: &str| call.int(name).unwrap_or(1) != 0;
    Some(match x {
        Numbers::Int(v) => {
            let f: fn(i128) -> i128 = match op {
                Op::Neg => |x| -x,
                Op::Abs => |x| x.abs(),
                Op::Sign => |x| x.signum(),
                Op::Relu => |x| x.max(0),
                Op::Not => |x| i128::from(x == 0),
                Op::BitwiseNot => |x| !x,
                Op::Floor | Op::Ceil | Op::Round | Op::Sum | Op::Max | Op::Min => |x| x,
                _ => return None,
            };
            Numbers::Int(v.into_iter().map(f).collect())
        }
        Numbers::Float(v) => {
            let test = |f: &dyn Fn(f64) -> bool| {
                Some(Numbers::Int(v.iter().map(|&x| i128::from(f(x))).collect()))
            };
            let f: fn(f64) -> f64 = match op {
                Op::IsNaN => return test(&f64::is_nan),
                Op::IsInf => {
                    let (negative, positive) = (flag("detect_negative"), flag("detect_positive"));
                    return test(&|x| x.is_infinite() && if x > 0.0 { positive } else { negative });
                }
                Op::Neg => |x| -x,
                Op::Abs => f64::abs,
                // Adding +0 makes a zero positive and leaves NaN.
                Op::Sign => |x| if x == 0.0 || x.is_nan() { x + 0.0 } else { x.signum() },
                Op::Relu => |x| maximum(x, 0.0),
                Op::Floor => f64::floor,
                Op::Ceil => f64::ceil,
                Op::Round => f64::round_ties_even,
                Op::Sqrt => f64::sqrt,
                Op::Exp => f64::exp,
                Op::Log => f64::ln,
                Op::Reciprocal => |x| 1.0 / x,
                Op::Tanh => f64::tanh,
                Op::Sigmoid => |x| 1.0 / (1.0 + (-x).exp()),
                Op::Sin => f64::sin,
                Op::Cos => f64::cos,
                Op::Sum | Op::Max | Op::Min | Op::Mean => |x| x,
                _ => return None,
            };
            Numbers::Float(v.into_iter().map(f).collect())
        }
    })
}

fn binary(op: Op, call: &crate::op::Call<'_>, a: Numbers, b: Numbers) -> Option<Numbers> {
    match (a, b) {
        (Numbers::Int(a), Numbers::Int(b)) => {
            let pairs = a.into_iter().zip(b);
            pairs.map(|(a, b)| int_binary(op, call, a, b)).collect::<Option<_>>().map(Numbers::Int)
        }
        (Numbers::Float(a), Numbers::Float(b)) => float_binary(op, call, a, b),
        // A power may have a base and an exponent of two kinds.
        (Numbers::Float(a), Numbers::Int(b)) if op == Op::Pow => {
            float_binary(op, call, a, b.into_iter().map(|x| x as f64).collect())
        }
        _ => None,
    }
}

fn int_binary(op: Op, call: &crate::op::Call<'_>, a: i128, b: i128) -> Option<i128> {
    Some(match op {
        Op::Add | Op::Sum => a.checked_add(b)?,
        Op::Sub => a - b,
        Op::Mul => a.checked_mul(b)?,
        // ONNX divides integers towards zero.
        Op::Div => a.checked_div(b)?,
        Op::Mod if call.int("fmod") == Some(1) => a.checked_rem(b)?,
        // The result has the sign of the divisor.
        Op::Mod => {
            a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r })?
        }
        Op::Pow => a.checked_pow(u32::try_from(b).ok()?)?,
        Op::Max => a.max(b),
        Op::Min => a.min(b),
        Op::Equal => i128::from(a == b),
        Op::Less => i128::from(a < b),
        Op::LessOrEqual => i128::from(a <= b),
        Op::Greater => i128::from(a > b),
        Op::GreaterOrEqual => i128::from(a >= b),
        Op::And => i128::from(a != 0 && b != 0),
        Op::Or => i128::from(a != 0 || b != 0),
        Op::Xor => i128::from((a != 0) != (b != 0)),
        Op::BitwiseAnd => a & b,
        Op::BitwiseOr => a | b,
        Op::BitwiseXor => a ^ b,
        Op::BitShift => {
            let by = u32::try_from(b).ok().filter(|&n| n < 64)?;
            if call.str("direction") == Some("LEFT") { a << by } else { a >> by }
        }
        _ => return None,
    })
}

fn float_binary(op: Op, call: &crate::op::Call<'_>, a: Vec<f64>, b: Vec<f64>) -> Option<Numbers> {
    let test = |f: fn(&f64, &f64) -> bool| {
        Some(Numbers::Int(a.iter().zip(&b).map(|(a, b)| i128::from(f(a, b))).collect()))
    };
    let f: fn(f64, f64) -> f64 = match op {
        Op::Equal => return test(|a, b| a == b),
        Op::Less => return test(|a, b| a < b),
        Op::LessOrEqual => return test(|a, b| a <= b),
        Op::Greater => return test(|a, b| a > b),
        Op::GreaterOrEqual => return test(|a, b| a >= b),
        Op::Add | Op::Sum => |a, b| a + b,
        Op::Sub => |a, b| a - b,
        Op::Mul => |a, b| a * b,
        Op::Div => |a, b| a / b,
        Op::Mod if call.int("fmod") == Some(1) => |a, b| a % b,
        Op::Pow => f64::powf,
        Op::Max => maximum,
        Op::Min => minimum,
        _ => return None,
    };
    Some(Numbers::Float(a.into_iter().zip(b).map(|(a, b)| f(a, b)).collect()))
}
