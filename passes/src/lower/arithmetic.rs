//! What multiplies, under each arithmetic.

use super::{LowerError, Lowering};
use pam_ir::attr::Attr;
use pam_ir::graph::ValueId;
use pam_ir::op::Op;
use pam_ir::types::{DType, broadcast};

type Result<T> = std::result::Result<T, LowerError>;

/// What multiplications become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// PA primitives.
    Pam {
        /// `bits(α) − bits(1)` of the error compensation.
        offset: i32,
        /// Mantissa bits kept in the operands of contractions; 23 keeps all.
        mantissa: u32,
    },
    /// The ops of level `native`, for execution.
    Native,
    /// The ops of level `native` in forms that ONNX has, for graphs that are written.
    Portable,
}

/// log2(e), rounded to float.
pub const LOG2E: f32 = f32::from_bits(0x3FB8_AA3B);

impl Lowering<'_, '_> {
    fn offset(&self) -> Vec<(&'static str, Attr)> {
        match self.arithmetic {
            Arithmetic::Pam { offset, .. } if offset != 0 => {
                vec![("offset", i64::from(offset).into())]
            }
            _ => Vec::new(),
        }
    }

    fn contraction(&self) -> Vec<(&'static str, Attr)> {
        let mut attrs = self.offset();
        if let Arithmetic::Pam { mantissa, .. } = self.arithmetic
            && mantissa < 23
        {
            attrs.push(("mantissa", i64::from(mantissa).into()));
        }
        attrs
    }

    /// a · b. A constant power of two becomes an exact addition to the exponent.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        if !self.is_pam() {
            return self.op(Op::Mul, &[a, b], &[]);
        }
        for (x, c) in [(a, b), (b, a)] {
            if let Some(k) = self.uniform(c).and_then(power_of_two) {
                let c_shape = self.shape(c);
                return self.scaled(x, k, &c_shape);
            }
        }
        let attrs = self.offset();
        self.op(Op::PamMul, &[a, b], &attrs)
    }

    /// a / b. A constant power of two becomes an exact addition to the exponent.
    pub fn div(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        if !self.is_pam() {
            return self.op(Op::Div, &[a, b], &[]);
        }
        if let Some((sign, k)) = self.uniform(b).and_then(power_of_two) {
            let b_shape = self.shape(b);
            return self.scaled(a, (sign, -k), &b_shape);
        }
        let attrs = self.offset();
        self.op(Op::PamDiv, &[a, b], &attrs)
    }

    /// ±2^k · x, broadcast against a shape.
    fn scaled(
        &mut self,
        x: ValueId,
        (negative, k): (bool, i32),
        shape: &[usize],
    ) -> Result<ValueId> {
        let wide = broadcast(&self.ty(x).shape, shape)
            .ok_or_else(|| LowerError("the operands do not broadcast".to_owned()))?;
        let mut v = x;
        if k != 0 {
            v = self.op(Op::PamScale, &[v], &[("exponent", i64::from(k).into())])?;
        }
        if negative {
            v = self.neg(v)?;
        }
        self.expand(v, &wide)
    }

    /// x · c for a number c.
    pub fn scale(&mut self, x: ValueId, c: f32) -> Result<ValueId> {
        if c == 1.0 {
            return Ok(x);
        }
        let c = self.scalar(c);
        self.mul(x, c)
    }

    /// x · c for a number c > 0 up to the rounding of sums: c is written in powers of two with signs,
    /// no two of them neighbours, and each is an exact scaling. For where the relative error of a PA
    /// product would do harm; about eight additions.
    pub fn scale_exactly(&mut self, x: ValueId, c: f32) -> Result<ValueId> {
        if !self.is_pam() {
            return self.scale(x, c);
        }
        let bits = c.to_bits();
        let mut left = i64::from(bits & 0x007F_FFFF | 0x0080_0000);
        let mut exponent = (bits >> 23) as i32 - 127 - 23;
        let mut terms = Vec::new();
        while left != 0 {
            if left & 1 == 1 {
                let digit = 2 - (left & 3);
                terms.push((digit < 0, exponent));
                left -= digit;
            }
            left >>= 1;
            exponent += 1;
        }
        let mut sum = None;
        for (negative, k) in terms.into_iter().rev() {
            let term = self.scaled(x, (false, k), &[])?;
            sum = Some(match sum {
                None => term,
                Some(s) if negative => self.sub(s, term)?,
                Some(s) => self.add(s, term)?,
            });
        }
        sum.ok_or_else(|| LowerError(format!("no exact scaling by {c}")))
    }

    /// x / c for a number c.
    pub fn div_scalar(&mut self, x: ValueId, c: f32) -> Result<ValueId> {
        if c == 1.0 {
            return Ok(x);
        }
        let c = self.scalar(c);
        let dtype = self.ty(x).dtype;
        let c = if dtype == DType::F32 { c } else { self.cast(c, dtype)? };
        self.div(x, c)
    }

    /// x · x.
    pub fn square(&mut self, x: ValueId) -> Result<ValueId> {
        self.mul(x, x)
    }

    /// 1 / x.
    pub fn reciprocal(&mut self, x: ValueId) -> Result<ValueId> {
        let one = self.scalar(1f32);
        self.div(one, x)
    }

    /// 2^x; only under PA.
    pub fn exp2(&mut self, x: ValueId) -> Result<ValueId> {
        self.op(Op::PamExp2, &[x], &[])
    }

    /// log2(x); only under PA.
    pub fn log2(&mut self, x: ValueId) -> Result<ValueId> {
        self.op(Op::PamLog2, &[x], &[])
    }

    /// e^x: `exp2(mul(x, log2e))`.
    pub fn exp(&mut self, x: ValueId) -> Result<ValueId> {
        if !self.is_pam() {
            return self.op(Op::Exp, &[x], &[]);
        }
        let z = self.scale(x, LOG2E)?;
        self.exp2(z)
    }

    /// The largest number whose PA power of e is finite.
    pub fn largest_exponent(&self) -> f32 {
        let offset = if let Arithmetic::Pam { offset, .. } = self.arithmetic { offset } else { 0 };
        // What times log2e is the largest number below 128: the PA product adds bit patterns.
        let below = 128f32.to_bits() - 1;
        let bits = below - LOG2E.to_bits() + 1f32.to_bits();
        f32::from_bits(bits.wrapping_sub(offset as u32))
    }

    /// ln(x): `div(log2(x), log2e)`.
    pub fn log(&mut self, x: ValueId) -> Result<ValueId> {
        if !self.is_pam() {
            return self.op(Op::Log, &[x], &[]);
        }
        let z = self.log2(x)?;
        self.div_scalar(z, LOG2E)
    }

    /// √x: `exp2(div(log2(x), 2))`.
    pub fn sqrt(&mut self, x: ValueId) -> Result<ValueId> {
        if !self.is_pam() {
            return self.op(Op::Sqrt, &[x], &[]);
        }
        let z = self.log2(x)?;
        let half = self.div_scalar(z, 2.0)?;
        self.exp2(half)
    }

    /// The matrix product, batches broadcast.
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        if !self.is_pam() {
            return self.op(Op::MatMul, &[a, b], &[]);
        }
        if self.ty(a).elements() == 0 || self.ty(b).elements() == 0 {
            return self.empty_product(a, b);
        }
        // The primitive takes matrices: a vector is a row on the left and a column on the right.
        let (sa, sb) = (self.shape(a), self.shape(b));
        let row = if let [k] = sa[..] { self.reshape(a, &[1, k])? } else { a };
        let column = if let [k] = sb[..] { self.reshape(b, &[k, 1])? } else { b };
        let attrs = self.contraction();
        let product = self.op(Op::PamMatMul, &[row, column], &attrs)?;
        let mut shape = self.shape(product);
        if sb.len() == 1 {
            shape.pop();
        }
        if sa.len() == 1 {
            shape.remove(shape.len() - if sb.len() == 1 { 1 } else { 2 });
        }
        self.reshape(product, &shape)
    }

    /// The product of matrices without elements: sums of nothing, if there are any.
    fn empty_product(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        let (sa, sb) = (self.shape(a), self.shape(b));
        let batch = |s: &[usize]| s[..s.len().saturating_sub(2)].to_vec();
        let shape = broadcast(&batch(&sa), &batch(&sb));
        let mut shape = shape.ok_or_else(|| LowerError("the batches do not fit".to_owned()))?;
        shape.extend(sa.len().checked_sub(2).map(|i| sa[i]));
        shape.extend(sb.last().filter(|_| sb.len() > 1));
        let zero = self.scalar(0f32);
        self.expand(zero, &shape)
    }

    /// The convolution with explicit geometry.
    pub fn conv(&mut self, x: ValueId, w: ValueId, attrs: &[(&str, Attr)]) -> Result<ValueId> {
        if self.arithmetic == Arithmetic::Portable {
            return self.portable_conv(x, w, attrs);
        }
        if !self.is_pam() {
            return self.op(Op::Conv, &[x, w], attrs);
        }
        let mut all: Vec<(&str, Attr)> = attrs.to_vec();
        all.extend(self.contraction());
        self.op(Op::PamConv, &[x, w], &all)
    }

    /// The convolution without what ONNX lacks: zeros are inserted and negative pads cut off before.
    fn portable_conv(
        &mut self,
        mut x: ValueId,
        w: ValueId,
        attrs: &[(&str, Attr)],
    ) -> Result<ValueId> {
        let mut kept: Vec<(&str, Attr)> = Vec::new();
        for (name, value) in attrs {
            match (*name, value) {
                ("input_dilations", Attr::Ints(factors)) => {
                    for (i, &factor) in factors.iter().enumerate() {
                        x = self.dilate(x, i + 2, factor as usize)?;
                    }
                }
                ("pads", Attr::Ints(pads)) => {
                    let cut: Vec<i64> = pads.iter().map(|&p| p.min(0)).collect();
                    if cut.iter().any(|&p| p < 0) {
                        let n = pads.len() / 2;
                        let axes: Vec<i64> = (2..n as i64 + 2).collect();
                        let attrs = [("pads", cut.into()), ("axes", axes.into())];
                        x = self.op(Op::Pad, &[x], &attrs)?;
                    }
                    let left: Vec<i64> = pads.iter().map(|&p| p.max(0)).collect();
                    kept.push(("pads", left.into()));
                }
                _ => kept.push((name, value.clone())),
            }
        }
        self.op(Op::Conv, &[x, w], &kept)
    }

    /// x with `factor − 1` zeros between neighbours along an axis.
    pub fn dilate(&mut self, x: ValueId, axis: usize, factor: usize) -> Result<ValueId> {
        let shape = self.shape(x);
        if factor <= 1 || shape[axis] <= 1 {
            return Ok(x);
        }
        let (mut apart, mut joined) = (shape.clone(), shape.clone());
        apart.insert(axis + 1, 1);
        joined[axis] *= factor;
        let column = self.reshape(x, &apart)?;
        let along = |axis: usize| Attr::from(vec![axis as i64]);
        let pads: [(&str, Attr); 2] =
            [("pads", vec![0, factor as i64 - 1].into()), ("axes", along(axis + 1))];
        let filled = self.op(Op::Pad, &[column], &pads)?;
        let filled = self.reshape(filled, &joined)?;
        let cut: [(&str, Attr); 2] =
            [("pads", vec![0, 1 - factor as i64].into()), ("axes", along(axis))];
        self.op(Op::Pad, &[filled], &cut)
    }
}

/// Sign and exponent of a power of two; a subnormal one counts as 0.
fn power_of_two(c: f32) -> Option<(bool, i32)> {
    let bits = c.to_bits();
    let exponent = (bits >> 23 & 0xFF) as i32;
    let normal = exponent > 0 && exponent < 255;
    (normal && bits & 0x007F_FFFF == 0).then_some((c < 0.0, exponent - 127))
}
