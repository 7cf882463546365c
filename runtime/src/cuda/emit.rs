//! Kernels that are particular to a plan: fused elementwise programs, and the templates of the kernel
//! headers for the element types at hand.
//!
//! A kernel is named by the hash of its text, so that equal ones are one, in a plan and in the cache.
//! Sizes and strides are constants of the text; the place of an element follows from its number by
//! comparisons, subtractions and additions of such constants, never by a multiplication.

use super::source::Source;
use crate::exec::program::{Access, Action, Program, Reg};
use crate::host::pointwise::Function;
use crate::host::strided::Strided;
use pam_ir::op::Op;
use pam_ir::types::DType;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
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
        self.order.chunks(UNIT).map(unit).collect()
    }
}

/// Sixteen digits that stand for a text.
fn digits(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn unit(kernels: &[(String, String, Header)]) -> Source {
    let mut headers: Vec<Header> = kernels.iter().map(|k| k.2).collect();
    headers.sort_unstable();
    headers.dedup();
    let mut text = String::new();
    for header in headers {
        let file = match header {
            Header::Movement => "movement",
            Header::Lines => "lines",
            Header::Window => "window",
            Header::Native => "native",
        };
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

/// The text of a program and the header it needs. Its parameters are the operands that are not
/// overwritten, the results, and the number of elements; only where an operand is read along strides does
/// the text depend on sizes.
///
/// # Errors
/// Names the op that has no device form.
pub fn program(p: &Program) -> Result<(Header, String), String> {
    let mut header = Header::Movement;
    let mut parameters = Vec::new();
    for (i, operand) in p.operands.iter().enumerate() {
        if !matches!(operand.access, Access::InPlace(_)) {
            parameters.push(format!("const {} *i{i}", raw(operand.size)));
        }
    }
    for (k, &size) in p.outs.iter().enumerate() {
        parameters.push(format!("{} *o{k}", raw(size)));
    }
    let mut before = String::new();
    let mut body = String::new();
    for (t, &size) in p.temps.iter().enumerate() {
        let _ = writeln!(before, "  {} t{t} = 0;", raw(size));
    }
    for (k, &size) in p.outs.iter().enumerate() {
        let _ = writeln!(body, "    {} y{k} = 0;", raw(size));
    }
    places(p, &mut body);
    for (i, operand) in p.operands.iter().enumerate() {
        match &operand.access {
            Access::Direct => {
                let _ = writeln!(body, "    {} x{i} = *elem(i{i}, n);", raw(operand.size));
            }
            Access::InPlace(k) => {
                let _ = writeln!(body, "    {} x{i} = *elem(o{k}, n);", raw(operand.size));
            }
            Access::Single { offset, temp } => {
                let _ = writeln!(before, "  t{temp} = *elem(i{i}, {offset});");
            }
            Access::Walk(_) => {
                let _ = writeln!(body, "    {} x{i} = *elem(i{i}, w{i});", raw(operand.size));
            }
        }
    }
    let register = |r: Reg| match r {
        Reg::In(i) => format!("x{i}"),
        Reg::Temp(t) => format!("t{t}"),
        Reg::Out(k) => format!("y{k}"),
    };
    for action in &p.actions {
        let (to, value) = match action {
            Action::Fill { operand, to } => {
                let single = match p.operands[*operand as usize].access {
                    Access::Single { offset, .. } => Some(format!("*elem(i{operand}, {offset})")),
                    _ => None,
                };
                (*to, single.unwrap_or_else(|| format!("x{operand}")))
            }
            Action::Copy { from, to } => (*to, register(*from)),
            Action::Compute { function, args, to, .. } => {
                let arg = |i: usize| args[i].map_or(String::from("0"), register);
                let value = expression(function, [arg(0), arg(1), arg(2)])?;
                if value.contains("native_") {
                    header = Header::Native;
                }
                (*to, value)
            }
        };
        let _ = writeln!(body, "    {} = {value};", register(to));
    }
    for k in 0..p.outs.len() {
        let _ = writeln!(body, "    *elem(o{k}, n) = y{k};");
    }
    parameters.push("u32 count".to_owned());
    let list = parameters.join(", ");
    let text = format!("PAM_KERNEL @({list}) {{\n{before}  PAM_EACH(n, count) {{\n{body}  }}\n}}");
    Ok((header, text))
}

/// Operands and how they are read.
type Walks<'p> = Vec<(usize, &'p Strided)>;

/// Declares for each operand that is read along strides where its element lies.
fn places(p: &Program, body: &mut String) {
    // Operands with the same dimensions share the digits of the element's number.
    let mut shared: Vec<(&[usize], Walks<'_>)> = Vec::new();
    for (i, operand) in p.operands.iter().enumerate() {
        if let Access::Walk(walk) = &operand.access {
            match shared.iter_mut().find(|(dims, _)| *dims == walk.dims.as_slice()) {
                Some((_, list)) => list.push((i, walk)),
                None => shared.push((&walk.dims, vec![(i, walk)])),
            }
        }
    }
    for (dims, walks) in shared {
        let first = walks[0].0;
        for (i, walk) in &walks {
            let _ = writeln!(body, "    u32 w{i} = {}u;", walk.offset as u32);
        }
        let _ = writeln!(body, "    u32 r{first} = (u32)n;");
        for (d, &dim) in dims.iter().enumerate() {
            let weight: usize = dims[d + 1..].iter().product();
            let steps = |walk: &Strided| walk.strides[d] as u32;
            let unit = walks.iter().all(|(_, walk)| steps(walk) <= 1);
            if d + 1 == dims.len() && unit {
                // What is left is the innermost digit.
                for (i, walk) in walks.iter().filter(|(_, walk)| steps(walk) == 1) {
                    let _ = writeln!(body, "    w{i} += r{first};");
                    debug_assert_eq!(walk.strides[d], 1);
                }
                continue;
            }
            for bit in (0..usize::BITS - (dim - 1).leading_zeros()).rev() {
                let step = weight << bit;
                let _ = write!(body, "    if (r{first} >= {step}u) {{ r{first} -= {step}u;");
                for (i, walk) in &walks {
                    let by = steps(walk).wrapping_shl(bit);
                    if by != 0 {
                        let _ = write!(body, " w{i} += {by}u;");
                    }
                }
                let _ = writeln!(body, " }}");
            }
        }
    }
}

/// The device's expression of an operation.
fn expression(f: &Function, [a, b, c]: [String; 3]) -> Result<String, String> {
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
        assert!(source.text.starts_with("#include \"movement.cuh\"\n#include \"lines.cuh\"\n"));
    }
}
