//! Reductions.

use super::{Types, one};
use crate::geometry::reduced_axes;
use crate::op::Call;
use crate::types::DType;

/// Reductions over a list of axes.
pub(in crate::op) fn reduce(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let axes = reduced_axes(call, ty.rank())?;
    one(ty.dtype, reduced(&ty.shape, &axes, call.int("keepdims") != Some(0)))
}

/// `ArgMax` and `ArgMin`.
pub(in crate::op) fn arg_reduce(call: &Call<'_>) -> Types {
    let ty = call.input(0)?;
    let axis = call.axis("axis", ty.rank())?;
    if ty.shape[axis] == 0 {
        return Err(format!("axis {axis} is empty"));
    }
    one(DType::I64, reduced(&ty.shape, &[axis], call.int("keepdims") != Some(0)))
}

fn reduced(shape: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let dims = shape.iter().enumerate();
    dims.filter_map(|(i, &d)| match (axes.contains(&i), keep) {
        (false, _) => Some(d),
        (true, true) => Some(1),
        (true, false) => None,
    })
    .collect()
}
