//! The convolution: a scan over the elements of the kernel, each times the part of the input it meets.

use super::arithmetic::{MAGNITUDE, bias, rounded};
use super::body::{Body, Name};
use super::contraction::chunked_sum;
use super::term::{left, product_term, right};
use crate::attr::Attr;
use crate::onnx::attribute::attr;
use crate::onnx::proto::FunctionProto;
use crate::types::DType;

/// The attributes of the primitive that a call may leave out. The body needs none of them, and
/// onnx.reference wants every attribute that is declared without a default.
const OPTIONAL: [&str; 4] = ["strides", "pads", "dilations", "input_dilations"];

/// The other attributes: those of the primitive, then the helpers. All helpers treat the convolution as one
/// of three spatial axes, the missing ones in front and of size 1.
///
/// * `split`, `split_pads`, `dilated`: the input with an axis of size 1 behind each spatial axis, the
///   zeros that go there, and the shape that makes of it the dilated input;
/// * `crop_starts`, `crop_ends`, `padding`: what negative pads cut off, and the positive ones;
/// * `grouped`: the padded input with its channels split into groups;
/// * `kernel`, `taps`, `tap_steps`: the kernel as [groups, outputs, elements], its channels and elements along each
///   axis, and the steps between them in the padded input;
/// * `extent`, `steps`: what an element of the kernel meets of the padded input: size and stride;
/// * `sums`, `shape`: the output with its channels split into groups, and its shape.
const ATTRIBUTES: [&str; 18] = [
    "group",
    "offset",
    "mantissa",
    "rounding",
    "split",
    "split_pads",
    "dilated",
    "crop_starts",
    "crop_ends",
    "padding",
    "grouped",
    "kernel",
    "taps",
    "tap_steps",
    "extent",
    "steps",
    "sums",
    "shape",
];

pub(super) fn conv() -> FunctionProto {
    let mut f = Body::new("v");
    let (x, w) = (rounded(&mut f, "x"), rounded(&mut f, "w"));
    let x = padded(&mut f, &x);
    let grouped = f.ints("grouped");
    let x = f.op("Reshape", &[&x, &grouped]);
    let kernel = f.ints("kernel");
    let w = f.op("Reshape", &[&w, &kernel]);
    let perm = vec![attr("perm", &Attr::Ints(vec![2, 0, 1]))];
    let w = f.op_with("Transpose", &[&w], perm);
    let behind = f.vector(&[3, 4, 5]);
    let w = f.op("Unsqueeze", &[&w, &behind]);
    let bias = bias(&mut f);
    let weights = left(&mut f, &w, &bias);
    let [bits, _, flip] = right(&mut f, &x);
    let starts = starts(&mut f);
    let (extent, steps) = (f.ints("extent"), f.ints("steps"));
    let axes = f.vector(&[2, 3, 4, 5]);
    let mut sequences: Vec<_> = weights.iter().map(|w| (w.as_str(), DType::I32)).collect();
    sequences.push((&starts, DType::I64));
    let y = chunked_sum(&mut f, "sums", &sequences, |f, k| {
        let (start, weight) = k.split_last().expect("the start is an element");
        let end = f.op("Add", &[start, &extent]);
        let bits = f.op("Slice", &[&bits, start, &end, &axes, &steps]);
        let flip = f.op("Slice", &[&flip, start, &end, &axes, &steps]);
        let magnitude = f.mask(&bits, MAGNITUDE);
        product_term(f, weight, &[bits, magnitude, flip])
    });
    let shape = f.ints("shape");
    let y = f.op("Reshape", &[&y, &shape]);
    let function = f.function("conv", &["x", "w"], &y, "y", &ATTRIBUTES, "PA convolution.");
    let absent = |name: &&str| attr(name, &Attr::Ints(Vec::new()));
    FunctionProto { attribute_proto: OPTIONAL.iter().map(absent).collect(), ..function }
}

/// The dilated, cropped and padded input of three spatial axes.
fn padded(f: &mut Body, x: &str) -> Name {
    let split = f.ints("split");
    let x = f.op("Reshape", &[x, &split]);
    let zeros = f.ints("split_pads");
    let x = f.op("Pad", &[&x, &zeros]);
    let dilated = f.ints("dilated");
    let x = f.op("Reshape", &[&x, &dilated]);
    let (from, to) = (f.ints("crop_starts"), f.ints("crop_ends"));
    let axes = f.vector(&[2, 3, 4]);
    let x = f.op("Slice", &[&x, &from, &to, &axes]);
    let padding = f.ints("padding");
    f.op("Pad", &[&x, &padding])
}

/// For each element of the kernel where in the padded input it begins: channel and three axes.
fn starts(f: &mut Body) -> Name {
    let (taps, dilations) = (f.ints("taps"), f.ints("tap_steps"));
    let pick = |f: &mut Body, list: &str, i: i64| {
        let (from, to) = (f.vector(&[i]), f.vector(&[i + 1]));
        f.op("Slice", &[list, &from, &to])
    };
    let mut columns = Vec::new();
    for axis in 0..4 {
        let (count, step) = (pick(f, &taps, axis), pick(f, &dilations, axis));
        let range = f.numbers(&count, &step);
        // The range runs along its own axis of [channels, taps, taps, taps].
        let mut shape = vec![1; 4];
        shape[axis as usize] = -1;
        let shape = f.vector(&shape);
        let range = f.op("Reshape", &[&range, &shape]);
        let range = f.op("Expand", &[&range, &taps]);
        let column = f.vector(&[-1, 1]);
        columns.push(f.op("Reshape", &[&range, &column]));
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    f.op_with("Concat", &columns, vec![attr("axis", &Attr::Int(1))])
}
