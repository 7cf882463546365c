//! Operations as expressions of the kernel headers.

use super::emit::number;
use crate::host::pointwise::Function;
use pam_ir::op::Op;
use pam_ir::types::DType;

/// The device's expression of an operation on these arguments.
///
/// # Errors
/// Names an op that has none.
pub(super) fn expression(f: &Function, [a, b, c]: [String; 3]) -> Result<String, String> {
    let int = f.imm.int.clamp(i32::MIN.into(), i32::MAX.into());
    let t = number(f.from);
    let float = |x: f32| format!("as_float({:#x}u)", x.to_bits());
    if f.from == DType::F32 && f.to == DType::F32 {
        let text = match f.op {
            Op::PamMul => format!("pam_mul({a}, {b}, {int})"),
            Op::PamDiv => format!("pam_div({a}, {b}, {int})"),
            Op::PamExp2 => format!("pa_exp2({a})"),
            Op::PamLog2 => format!("pa_log2({a})"),
            Op::PamScale => format!("pam_scale({a}, {int})"),
            Op::PamRound => format!("round_mantissa({a}, {}u)", int.max(0)),
            Op::PamMulGrad => format!("pam_mul_grad({a}, {b}, {c}, {int})"),
            Op::PamDivGradA => format!("pam_div_grad_a({a}, {b}, {c}, {int})"),
            Op::PamDivGradB => format!("pam_div_grad_b({a}, {b}, {c}, {int})"),
            Op::PamExp2Grad => format!("pam_exp2_grad({a}, {b})"),
            Op::PamLog2Grad => format!("pam_log2_grad({a}, {b})"),
            Op::Add => format!("f32_add({a}, {b})"),
            Op::Sub => format!("f32_sub({a}, {b})"),
            Op::Max => format!("f32_max({a}, {b})"),
            Op::Min => format!("f32_min({a}, {b})"),
            Op::Neg => format!("f32_neg({a})"),
            Op::Abs => format!("f32_abs({a})"),
            Op::Floor => format!("f32_floor({a})"),
            Op::Ceil => format!("f32_ceil({a})"),
            Op::Round => format!("f32_round({a})"),
            Op::Sign => format!("f32_sign({a})"),
            Op::Relu => format!("f32_relu({a})"),
            _ => String::new(),
        };
        if !text.is_empty() {
            return Ok(text);
        }
    }
    let is_float = f.from.is_float();
    let one = |name: &str| format!("{name}<{t}>({a})");
    let two = |name: &str| format!("{name}<{t}>({a}, {b})");
    Ok(match f.op {
        Op::Cast => format!("cast<{}, {t}>({a})", number(f.to)),
        Op::Where => format!("{a} ? {b} : {c}"),
        Op::Identity => a,
        Op::Equal => two("is_equal"),
        Op::Less => two("is_less"),
        Op::LessOrEqual => two("is_less_or_equal"),
        Op::Greater => format!("is_less<{t}>({b}, {a})"),
        Op::GreaterOrEqual => format!("is_less_or_equal<{t}>({b}, {a})"),
        Op::IsNaN => one("is_nan"),
        Op::IsInf => format!("is_infinite<{t}>({a}, {int})"),
        Op::And | Op::BitwiseAnd => format!("{a} & {b}"),
        Op::Or | Op::BitwiseOr => format!("{a} | {b}"),
        Op::Xor | Op::BitwiseXor => format!("{a} ^ {b}"),
        Op::Not => format!("{a} == 0"),
        Op::BitwiseNot => format!("~{a}"),
        Op::BitShift if int != 0 => two("shift_left"),
        Op::BitShift => two("shift_right"),
        Op::Add => two("add"),
        Op::Sub => two("sub"),
        Op::Max => two("larger_of"),
        Op::Min => two("smaller_of"),
        Op::Neg => one("negate"),
        Op::Abs => one("absolute"),
        Op::Sign => one("sign_of"),
        Op::Relu => one("relu"),
        Op::Floor => one("floor_of"),
        Op::Ceil => one("ceil_of"),
        Op::Round => one("round_of"),
        Op::ThresholdedRelu => {
            format!("threshold_relu<{t}>({a}, {})", float(f.imm.float[0]))
        }
        Op::Shrink => {
            let [bias, lambda] = f.imm.float.map(float);
            format!("shrink<{t}>({a}, {bias}, {lambda})")
        }
        Op::Mul if !is_float => two("int_mul"),
        Op::Div if !is_float => two("int_div"),
        Op::Mod if !is_float => format!("int_mod<{t}>({a}, {b}, {int})"),
        Op::Pow if !is_float => two("int_pow"),
        Op::Mul => two("native_mul"),
        Op::Div => two("native_div"),
        Op::Mod => two("native_rem"),
        Op::Pow => two("native_pow"),
        Op::Exp => one("native_exp"),
        Op::Log => one("native_log"),
        Op::Sqrt => one("native_sqrt"),
        Op::Reciprocal => one("native_reciprocal"),
        Op::Tanh => one("native_tanh"),
        Op::Sigmoid => one("native_sigmoid"),
        Op::Erf => one("native_erf"),
        Op::Sin => one("native_sin"),
        Op::Cos => one("native_cos"),
        Op::Tan => one("native_tan"),
        Op::Asin => one("native_asin"),
        Op::Acos => one("native_acos"),
        Op::Atan => one("native_atan"),
        Op::Sinh => one("native_sinh"),
        Op::Cosh => one("native_cosh"),
        Op::Asinh => one("native_asinh"),
        Op::Acosh => one("native_acosh"),
        Op::Atanh => one("native_atanh"),
        op => return Err(format!("the CUDA backend has no form of {}", op.name())),
    })
}
