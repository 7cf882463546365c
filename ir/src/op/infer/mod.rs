//! Shape rules.

use crate::op::Call;
use crate::types::Type;

pub(super) fn arg_reduce(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn attention(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn batch_norm(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn broadcast(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn cast(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn cast_like(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn center_crop_pad(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn col2im(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn compare(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn concat(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn constant_of_shape(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn conv(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn conv_transpose(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn cross_entropy(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn depth_to_space(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn dropout(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn einsum(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn expand(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn eye_like(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn first(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn flatten(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn gather(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn gather_elements(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn gather_nd(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn gemm(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn global_pool(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn layer_norm(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn matmul(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn matmul_grad_a(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn matmul_grad_b(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn max_unpool(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn nll_loss(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn one_hot(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn opaque(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn pad(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn pool(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn power(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn predicate(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn random(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn random_like(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn random_uniform(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn range(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn reduce(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn reshape(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn same(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn select(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn shape(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn size(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn slice(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn space_to_depth(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn split(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn squeeze(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn tile(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn top_k(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn transpose(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}

pub(super) fn unsqueeze(_: &Call<'_>) -> Result<Vec<Type>, String> {
    Err("no rule yet".to_owned())
}
