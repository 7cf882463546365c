//! Shape rules: from the types of the inputs and the attributes to the types of the outputs.
//!
//! A rule looks at nothing but its [`Call`](crate::op::Call) and trusts nothing in it: what comes
//! out of a file reaches the rules first. Arithmetic is checked, and every complaint is one line.

mod contraction;
mod elementwise;
mod indexing;
mod movement;
mod nn;
mod reduce;
mod source;

pub(super) use contraction::{
    attention, conv, conv_transpose, einsum, gemm, matmul, matmul_grad_a, matmul_grad_b,
};
pub(super) use elementwise::{
    broadcast, cast, cast_like, clip, compare, first, gradient, opaque, power, predicate, same,
    select,
};
pub(super) use indexing::{
    col2im, gather, gather_elements, gather_nd, max_unpool, one_hot, scatter, top_k,
};
pub(super) use movement::{
    center_crop_pad, concat, depth_to_space, expand, flatten, pad, reshape, reverse_sequence,
    slice, space_to_depth, split, squeeze, tile, transpose, unsqueeze,
};
pub(super) use nn::{
    batch_norm, cross_entropy, dropout, global_pool, layer_norm, nll_loss, pool, resize,
};
pub(super) use reduce::{arg_reduce, reduce};
pub(crate) use source::shape_range;
pub(super) use source::{
    constant_of_shape, eye_like, random, random_like, random_uniform, range, shape, size,
};

use crate::types::{DType, Type};

/// What a rule returns.
type Types = Result<Vec<Type>, String>;

/// A type of unchecked dimensions.
fn one(dtype: DType, shape: Vec<usize>) -> Types {
    Ok(vec![Type { dtype, shape }])
}

/// The product of dimensions.
fn product(dims: &[usize]) -> Result<usize, String> {
    crate::types::checked_elements(dims)
        .ok_or_else(|| "the shape has more elements than memory can address".to_owned())
}

/// A dimension from an attribute.
fn dim(value: i64, name: &str) -> Result<usize, String> {
    usize::try_from(value).map_err(|_| format!("`{name}` is {value}"))
}

/// The dimensions of a list attribute.
fn dims(call: &crate::op::Call<'_>, name: &str) -> Result<Vec<usize>, String> {
    let values = call.ints(name).ok_or_else(|| format!("`{name}` is missing"))?;
    values.iter().map(|&v| dim(v, name)).collect()
}

/// Demands that two types have the same element type.
fn same_dtype(a: &Type, b: &Type) -> Result<(), String> {
    if a.dtype == b.dtype {
        Ok(())
    } else {
        Err(format!("the element types {} and {} differ", a.dtype, b.dtype))
    }
}

/// Demands integer indices.
fn indices(ty: &Type) -> Result<(), String> {
    match ty.dtype {
        DType::I64 | DType::I32 => Ok(()),
        other => Err(format!("indices are {other}, not i64 or i32")),
    }
}
