//! Matrix products and their exact derivatives: scans over the summed index.

use super::arithmetic::{bias, product, rounded};
use super::body::{Body, Name, reference};
use super::derivative::product_grad;
use crate::onnx::proto::{FunctionProto, attribute_proto::AttributeType};
use crate::types::DType;

/// The attributes of all matrix products: those of the primitive, then the helpers.
const ATTRIBUTES: [&str; 6] = ["offset", "mantissa", "rounding", "shape", "perm_a", "perm_b"];

/// Sums terms over the first axis of sequences of floats, in chunks of 256: the sum of the shape that
/// the attribute `shape` states.
pub(super) fn chunked_sum(
    b: &mut Body,
    shape: &str,
    sequences: &[(&str, DType)],
    term: impl FnOnce(&mut Body, &[Name]) -> Name,
) -> Name {
    let shape = b.ints(shape);
    let zeros = b.op("ConstantOfShape", &[&shape]);
    // Whether an index is the last of its chunk: its low byte is full.
    let length = b.op("Shape", &[sequences[0].0]);
    let (from, to) = (b.vector(&[0]), b.vector(&[1]));
    let length = b.op("Slice", &[&length, &from, &to]);
    let length = b.op("Squeeze", &[&length]);
    let (zero, one, byte) = (b.scalar(0i64), b.scalar(1i64), b.scalar(255i64));
    let index = b.op("Range", &[&zero, &length, &one]);
    let low = b.op("BitwiseAnd", &[&index, &byte]);
    let last = b.op("Equal", &[&low, &byte]);
    let mut all = sequences.to_vec();
    all.push((&last, DType::Bool));
    let states = [(zeros.as_str(), DType::F32), (zeros.as_str(), DType::F32)];
    let sums = b.scan(&states, &all, |b, state, element| {
        let (last, operands) = element.split_last().expect("the flags are an element");
        let term = term(b, operands);
        let (total, sum) = (&state[0], &state[1]);
        let sum = b.op("Add", &[sum, &term]);
        let grown = b.op("Add", &[total, &sum]);
        let zero = b.scalar(0f32);
        vec![b.select(last, &grown, total), b.select(last, &zero, &sum)]
    });
    b.op("Add", &[&sums[0], &sums[1]])
}

fn transposed(b: &mut Body, x: &str, perm: &str) -> Name {
    b.op_with("Transpose", &[x], vec![reference("perm", perm, AttributeType::Ints)])
}

fn unsqueeze(b: &mut Body, x: &str, axis: i64) -> Name {
    let axes = b.vector(&[axis]);
    b.op("Unsqueeze", &[x, &axes])
}

/// `c[…, m, n] = Σ_k mul(a[…, m, k], b[…, k, n])`; perm_a and perm_b bring k to the front.
pub(super) fn matmul() -> FunctionProto {
    let mut f = Body::new("v");
    let (a, b) = (rounded(&mut f, "a"), rounded(&mut f, "b"));
    let (a, b) = (transposed(&mut f, &a, "perm_a"), transposed(&mut f, &b, "perm_b"));
    let bias = bias(&mut f);
    let sequences = [(a.as_str(), DType::F32), (b.as_str(), DType::F32)];
    let y = chunked_sum(&mut f, "shape", &sequences, |f, k| {
        let (column, row) = (unsqueeze(f, &k[0], -1), unsqueeze(f, &k[1], -2));
        product(f, &column, &row, &bias)
    });
    let doc = "PA matrix product.";
    f.function("matmul", &["a", "b"], &y, "c", &ATTRIBUTES, doc)
}

/// `grad[…, m, k] = Σ_n mul_grad(a[…, m, k], b[…, k, n], delta[…, m, n])`; perm_a and perm_b bring n
/// of delta and of b to the front.
pub(super) fn matmul_grad_a() -> FunctionProto {
    let mut f = Body::new("v");
    let (a, b) = (rounded(&mut f, "a"), rounded(&mut f, "b"));
    let delta = transposed(&mut f, "delta", "perm_a");
    let b = transposed(&mut f, &b, "perm_b");
    let offset = f.int("offset");
    let sequences = [(b.as_str(), DType::F32), (delta.as_str(), DType::F32)];
    let y = chunked_sum(&mut f, "shape", &sequences, |f, n| {
        let (row, column) = (unsqueeze(f, &n[0], -2), unsqueeze(f, &n[1], -1));
        product_grad(f, &a, &row, &column, &offset)
    });
    let doc = "Exact derivative of the PA matrix product by a, times delta.";
    f.function("matmul_grad_a", &["a", "b", "delta"], &y, "grad", &ATTRIBUTES, doc)
}

/// `grad[…, k, n] = Σ_m mul_grad(b[…, k, n], a[…, m, k], delta[…, m, n])`; perm_a and perm_b bring m of
/// a and of delta to the front.
pub(super) fn matmul_grad_b() -> FunctionProto {
    let mut f = Body::new("v");
    let (a, b) = (rounded(&mut f, "a"), rounded(&mut f, "b"));
    let a = transposed(&mut f, &a, "perm_a");
    let delta = transposed(&mut f, "delta", "perm_b");
    let offset = f.int("offset");
    let sequences = [(a.as_str(), DType::F32), (delta.as_str(), DType::F32)];
    let y = chunked_sum(&mut f, "shape", &sequences, |f, m| {
        let (column, row) = (unsqueeze(f, &m[0], -1), unsqueeze(f, &m[1], -2));
        product_grad(f, &b, &column, &row, &offset)
    });
    let doc = "Exact derivative of the PA matrix product by b, times delta.";
    f.function("matmul_grad_b", &["a", "b", "delta"], &y, "grad", &ATTRIBUTES, doc)
}
