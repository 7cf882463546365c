//! Row-major walks over strided views.

use crate::tensor::strides;

/// The indices of a view, in the row-major order of its shape: `offset + Σ iᵢ · stepsᵢ`.
pub(super) fn indices(shape: &[usize], steps: &[i64], offset: i64) -> Vec<usize> {
    let count = shape.iter().product();
    let mut out = Vec::with_capacity(count);
    let mut index = vec![0; shape.len()];
    let mut at = offset;
    for _ in 0..count {
        out.push(at as usize);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += steps[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= steps[axis] * shape[axis] as i64;
            index[axis] = 0;
        }
    }
    out
}

/// Row-major strides as signed steps.
pub(super) fn steps(shape: &[usize]) -> Vec<i64> {
    strides(shape).iter().map(|&s| s as i64).collect()
}

/// The indices into a tensor of `shape` that broadcasting it to `to` reads.
pub(super) fn broadcast_indices(shape: &[usize], to: &[usize]) -> Vec<usize> {
    let missing = to.len() - shape.len();
    let own = steps(shape);
    let steps: Vec<i64> = (0..to.len())
        .map(|i| if i < missing || shape[i - missing] == 1 { 0 } else { own[i - missing] })
        .collect();
    indices(to, &steps, 0)
}
