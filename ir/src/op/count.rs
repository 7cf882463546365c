//! Multiplication counts.

use crate::op::Call;
use crate::types::Type;

pub(super) fn attention(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn batch_norm(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn conv(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn conv_transpose(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn dropout(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn each_input(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn each_output(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn each_target(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn einsum(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn gelu(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn gemm(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn input_and_output(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn layer_norm(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn lp_pool(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn matmul(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn mish(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn scatter(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn thrice_each_output(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn twice_each_output(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}

pub(super) fn zero(_: &Call<'_>, _: &[Type]) -> u128 {
    0
}
