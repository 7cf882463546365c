//! Sums in the documented order: what a float `ReduceSum` is written as, since the order of additions of
//! the standard op is open and the exact derivatives of sums depend on every bit.

use super::body::Body;
use crate::onnx::proto::FunctionProto;
use crate::types::DType;

/// The attributes: those of `ReduceSum`, then the helpers.
const ATTRIBUTES: [&str; 8] =
    ["axes", "keepdims", "view", "padding", "split", "lanes", "total", "shape"];

/// The sum over neighbouring axes: seen as [outer, reduced, inner], the reduced axis is padded with zeros
/// and split into chunks of 256 times 16 lanes; the lanes take their elements in order and are added as
/// a halving tree, the chunks in order.
pub(super) fn sum() -> FunctionProto {
    let mut f = Body::new("v");
    let [view, padding, split, lanes, total, shape] =
        ["view", "padding", "split", "lanes", "total", "shape"].map(|name| f.ints(name));
    let x = f.op("Reshape", &["x", &view]);
    let x = f.transposed(&x, &[1, 0, 2]);
    let x = f.op("Pad", &[&x, &padding]);
    // [chunk, step, lane, outer, inner], then the steps in front.
    let x = f.op("Reshape", &[&x, &split]);
    let x = f.transposed(&x, &[1, 0, 2, 3, 4]);
    let zeros = f.op("ConstantOfShape", &[&lanes]);
    let state = (zeros.as_str(), DType::F32);
    let sums = f.scan(&[state], &[(&x, DType::F32)], |b, sum, element| {
        vec![b.op("Add", &[&sum[0], &element[0]])]
    });
    let mut sums = sums[0].clone();
    let lane = f.vector(&[1]);
    for half in [8, 4, 2, 1] {
        let (zero, middle, end) = (f.vector(&[0]), f.vector(&[half]), f.vector(&[2 * half]));
        let low = f.op("Slice", &[&sums, &zero, &middle, &lane]);
        let high = f.op("Slice", &[&sums, &middle, &end, &lane]);
        sums = f.op("Add", &[&low, &high]);
    }
    let chunks = f.op("Squeeze", &[&sums, &lane]);
    let zeros = f.op("ConstantOfShape", &[&total]);
    let state = (zeros.as_str(), DType::F32);
    let y = f.scan(&[state], &[(&chunks, DType::F32)], |b, sum, element| {
        vec![b.op("Add", &[&sum[0], &element[0]])]
    });
    let y = f.op("Reshape", &[&y[0], &shape]);
    f.function("sum", &["x"], &y, "y", &ATTRIBUTES, "Sum over neighbouring axes in a fixed order.")
}
