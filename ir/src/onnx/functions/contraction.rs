//! Matrix products and their exact derivatives: scans over the summed index.

use super::arithmetic::{INF, MANTISSA, bias, parts, rounded};
use super::body::{Body, Name, reference};
use super::term::{left, plain_bias, product_term, right, slope_base, slope_term};
use crate::onnx::proto::{FunctionProto, attribute_proto::AttributeType};
use crate::types::DType;

/// The attributes of all matrix products: those of the primitive, then the helpers.
const ATTRIBUTES: [&str; 6] = ["offset", "mantissa", "rounding", "shape", "perm_a", "perm_b"];

/// The number of terms that are added before their sum is added to the sum of all.
const CHUNK: i64 = 256;

/// Sums terms over the first axis of sequences, chunk by chunk: the sum of the shape that the attribute
/// `shape` states. The outer scan adds the sums of the chunks, the inner one the terms of a chunk.
pub(super) fn chunked_sum(
    b: &mut Body,
    shape: &str,
    sequences: &[(&str, DType)],
    term: impl FnOnce(&mut Body, &[Name]) -> Name,
) -> Name {
    let shape = b.ints(shape);
    let zeros = b.op("ConstantOfShape", &[&shape]);
    let length = b.op("Shape", &[sequences[0].0]);
    let (from, to) = (b.vector(&[0]), b.vector(&[1]));
    let length = b.op("Slice", &[&length, &from, &to]);
    let (zero, one, within) = (b.scalar(0i64), b.scalar(1i64), b.scalar(CHUNK - 1));
    let numbers = b.numbers(&length, &one);
    let within = b.op("BitwiseAnd", &[&numbers, &within]);
    let first = b.op("Equal", &[&within, &zero]);
    let starts = b.op("NonZero", &[&first]);
    let starts = b.transposed(&starts, &[1, 0]);
    let chunk = b.vector(&[CHUNK]);
    let state = (zeros.as_str(), DType::F32);
    let total = b.scan(&[state], &[(&starts, DType::I64)], |b, total, start| {
        let end = b.op("Add", &[&start[0], &chunk]);
        let parts: Vec<(Name, DType)> = sequences
            .iter()
            .map(|(s, dtype)| (b.op("Slice", &[s, &start[0], &end]), *dtype))
            .collect();
        let parts: Vec<(&str, DType)> = parts.iter().map(|(s, d)| (s.as_str(), *d)).collect();
        let sum = b.scan(&[state], &parts, |b, sum, operands| {
            let term = term(b, operands);
            vec![b.op("Add", &[&sum[0], &term])]
        });
        vec![b.op("Add", &[&total[0], &sum[0]])]
    });
    total[0].clone()
}

/// The sum over integer sequences: two operands in parts, the first axis of all being summed over.
fn sum_of(
    f: &mut Body,
    operands: [&[Name]; 2],
    term: impl FnOnce(&mut Body, &[Name], &[Name]) -> Name,
) -> Name {
    let first = operands[0].len();
    let sequences: Vec<(&str, DType)> =
        operands.iter().copied().flatten().map(|n| (n.as_str(), DType::I32)).collect();
    chunked_sum(f, "shape", &sequences, |f, k| term(f, &k[..first], &k[first..]))
}

/// An operand with the summed axis in front, as a column or a row of matrices.
fn arranged(f: &mut Body, x: &str, perm: &str, column: bool) -> Name {
    let x = f.op_with("Transpose", &[x], vec![reference("perm", perm, AttributeType::Ints)]);
    let axes = f.vector(&[if column { -1 } else { -2 }]);
    f.op("Unsqueeze", &[&x, &axes])
}

/// `c[…, m, n] = Σ_k mul(a[…, m, k], b[…, k, n])`; perm_a and perm_b bring k to the front.
pub(super) fn matmul() -> FunctionProto {
    let mut f = Body::new("v");
    let (a, b) = (rounded(&mut f, "a"), rounded(&mut f, "b"));
    let (a, b) = (arranged(&mut f, &a, "perm_a", true), arranged(&mut f, &b, "perm_b", false));
    let bias = bias(&mut f);
    let (a, b) = (left(&mut f, &a, &bias), right(&mut f, &b));
    let y = sum_of(&mut f, [&a, &b], product_term);
    f.function("matmul", &["a", "b"], &y, "c", &ATTRIBUTES, "PA matrix product.")
}

/// The sum of `mul_grad(own, factor, delta)` over the first axis of factor and delta, which are a row
/// and a column of matrices of the shape of `own`, or the reverse.
fn gradient(f: &mut Body, own: &str, factor: &str, delta: &str) -> Name {
    let (_, magnitude) = parts(f, own);
    let nothing = f.below(&magnitude, super::arithmetic::MIN);
    let (fraction, zero) = (f.mask(&magnitude, MANTISSA), f.bits(0));
    let fraction = f.select(&nothing, &zero, &fraction);
    let offset = f.int("offset");
    let factor = slope_base(f, factor, &offset);
    let one = plain_bias(f);
    let delta = left(f, delta, &one);
    let sum =
        sum_of(f, [&factor, &delta], |f, factor, delta| slope_term(f, &fraction, factor, delta));
    // A NaN in the operand is one in every term.
    let inf = f.bits(INF);
    let is_nan = f.op("Greater", &[&magnitude, &inf]);
    f.select(&is_nan, own, &sum)
}

/// `grad[…, m, k] = Σ_n mul_grad(a[…, m, k], b[…, k, n], delta[…, m, n])`; perm_a and perm_b bring n
/// of delta and of b to the front.
pub(super) fn matmul_grad_a() -> FunctionProto {
    let mut f = Body::new("v");
    let (a, b) = (rounded(&mut f, "a"), rounded(&mut f, "b"));
    let delta = arranged(&mut f, "delta", "perm_a", true);
    let b = arranged(&mut f, &b, "perm_b", false);
    let y = gradient(&mut f, &a, &b, &delta);
    let doc = "Exact derivative of the PA matrix product by a, times delta.";
    f.function("matmul_grad_a", &["a", "b", "delta"], &y, "grad", &ATTRIBUTES, doc)
}

/// `grad[…, k, n] = Σ_m mul_grad(b[…, k, n], a[…, m, k], delta[…, m, n])`; perm_a and perm_b bring m of
/// a and of delta to the front.
pub(super) fn matmul_grad_b() -> FunctionProto {
    let mut f = Body::new("v");
    let (a, b) = (rounded(&mut f, "a"), rounded(&mut f, "b"));
    let a = arranged(&mut f, &a, "perm_a", true);
    let delta = arranged(&mut f, "delta", "perm_b", false);
    let y = gradient(&mut f, &b, &a, &delta);
    let doc = "Exact derivative of the PA matrix product by b, times delta.";
    f.function("matmul_grad_b", &["a", "b", "delta"], &y, "grad", &ATTRIBUTES, doc)
}
