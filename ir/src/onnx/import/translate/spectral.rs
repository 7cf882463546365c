//! Fourier transforms, as products with matrices of cosines and sines, and the constants that go with them.

use super::{LARGEST, Outputs, Result, Translation};
use crate::graph::ValueId;
use crate::onnx::tensor::dtype;
use crate::op::{Op, normalize_axis};
use crate::tensor::Tensor;
use crate::types::DType;
use std::f64::consts::TAU;

/// Which transform.
#[derive(Clone, Copy)]
struct Kind {
    /// Samples of the signal.
    length: usize,
    inverse: bool,
    /// Whether only the first half of the spectrum is kept, or given.
    onesided: bool,
}

/// `y[k] = Σ_n e^(−2πi·kn/N)·x[n]` along an axis, or its inverse.
pub(super) fn dft(v: &mut Translation<'_, '_>) -> Outputs {
    let x = v.x(0)?;
    let shape = v.ty(x).shape;
    let default = if v.version < 20 { 1 } else { -2 };
    let axis = match v.given(2) {
        Some(_) => v.known(2)?.first().copied().unwrap_or(default),
        None => v.int("axis", default),
    };
    let axis = normalize_axis(axis, shape.len())?;
    if axis + 1 == shape.len() {
        return Err("transforms along the axis of real and imaginary parts".to_owned());
    }
    let (inverse, onesided) = (v.int("inverse", 0) != 0, v.int("onesided", 0) != 0);
    let length = match v.given(1) {
        Some(_) => size(v, 1)?,
        None if inverse && onesided => 2 * shape[axis].saturating_sub(1),
        None => shape[axis],
    };
    Ok(vec![Some(transformed(v, x, axis, Kind { length, inverse, onesided })?)])
}

/// Transforms of overlapping frames of a signal, each multiplied by a window.
pub(super) fn stft(v: &mut Translation<'_, '_>) -> Outputs {
    let signal = v.x(0)?;
    let shape = v.ty(signal).shape;
    let [_, samples, _] = shape[..] else {
        return Err(format!("a signal {}, not [batch, samples, 1 or 2]", v.ty(signal)));
    };
    let length = match (v.given(3), v.given(2)) {
        (Some(_), _) => size(v, 3)?,
        (None, Some(window)) => v.ty(window).elements(),
        (None, None) => samples,
    };
    let step = size(v, 1)?;
    if step == 0 || length == 0 || length > samples {
        return Err(format!("frames of {length} of {samples} samples, {step} apart"));
    }
    let count = (samples - length) / step + 1;
    if count.checked_mul(length).is_none_or(|n| n > LARGEST) {
        return Err(format!("{count} frames of {length} samples are more than supported"));
    }
    let places = (0..count).flat_map(|f| (0..length).map(move |i| (f * step + i) as i64));
    let places = Tensor::new([count, length], places.collect::<Vec<i64>>());
    let places = v.importer.constant("frames", places);
    let mut frames = v.op_with(Op::Gather, &[signal, places], &[("axis", 1i64.into())])?;
    if let Some(window) = v.given(2) {
        let window = v.reshape(window, &[length, 1])?;
        frames = v.mul(frames, window)?;
    }
    let onesided = v.int("onesided", 1) != 0;
    Ok(vec![Some(transformed(v, frames, 2, Kind { length, inverse: false, onesided })?)])
}

/// The transform along an axis of a value whose last axis holds the real parts, or real and imaginary ones.
fn transformed(v: &mut Translation<'_, '_>, x: ValueId, axis: usize, kind: Kind) -> Result {
    let ty = v.ty(x);
    let last = ty.rank() - 1;
    let parts = ty.shape[last];
    if !matches!(parts, 1 | 2) || !ty.dtype.is_float() {
        return Err(format!(
            "cannot transform {ty}; real and imaginary parts lie along the last axis"
        ));
    }
    let bins = kind.length / 2 + 1;
    let half = |of: bool| if kind.onesided && of { bins } else { kind.length };
    // What is missing of the input are zeros, which add nothing.
    let read = ty.shape[axis].min(half(kind.inverse));
    let made = half(!kind.inverse);
    let parts_made = if kind.onesided && kind.inverse { 1 } else { 2 };
    let [rows, columns] = [read * parts, made * parts_made];
    if rows.checked_mul(columns).is_none_or(|n| n > LARGEST) {
        return Err(format!("a transform of {read} to {made} numbers is longer than supported"));
    }
    let mut perm: Vec<usize> = (0..=last).filter(|&a| a != axis).collect();
    perm.insert(last - 1, axis);
    let mut y = v.transpose(x, &perm)?;
    let mut shape = v.ty(y).shape;
    if read < shape[last - 1] {
        let split = [read as i64, (shape[last - 1] - read) as i64];
        let attrs = [("axis", (last as i64 - 1).into()), ("split", split.to_vec().into())];
        y = v.op_n(Op::Split, &[Some(y)], &attrs, 2)?[0].ok_or("Split gave no value")?;
    }
    shape.truncate(last - 1);
    y = v.reshape(y, &[&shape[..], &[rows]].concat())?;
    let matrix = Tensor::new([rows, columns], matrix([read, parts], [made, parts_made], kind));
    let matrix = crate::eval::cast(&matrix, ty.dtype).ok_or_else(|| format!("no {}", ty.dtype))?;
    let matrix = v.importer.constant("transform", matrix);
    y = v.op(Op::MatMul, &[y, matrix])?;
    y = v.reshape(y, &[&shape[..], &[made, parts_made]].concat())?;
    // Back to where the axis was.
    let mut back: Vec<usize> = (0..last - 1).collect();
    back.insert(axis, last - 1);
    back.push(last);
    v.transpose(y, &back)
}

/// What real and imaginary parts of the numbers read add to those of the numbers made.
fn matrix([read, parts]: [usize; 2], [made, parts_made]: [usize; 2], kind: Kind) -> Vec<f64> {
    let n = kind.length;
    let mut matrix = Vec::with_capacity(read * parts * made * parts_made);
    for (from, part) in (0..read).flat_map(|i| (0..parts).map(move |p| (i, p))) {
        // A spectrum given by its first half has a mirror image of all numbers but those at its ends.
        let twice = kind.inverse && kind.onesided && from != 0 && 2 * from != n;
        let size = if twice { 2.0 } else { 1.0 } / if kind.inverse { n as f64 } else { 1.0 };
        for to in 0..made {
            // Reduced first, so that long signals are as exact as short ones.
            let turn = (from as u128 * to as u128 % n as u128) as f64 / n as f64;
            let (sin, cos) = (TAU * if kind.inverse { turn } else { -turn }).sin_cos();
            // The real part is e^(it), the imaginary one i·e^(it).
            let made = if part == 0 { [cos, sin] } else { [-sin, cos] };
            matrix.extend(made[..parts_made].iter().map(|x| size * x));
        }
    }
    matrix
}

/// A size that an input is known to hold.
fn size(v: &Translation<'_, '_>, i: usize) -> Result<usize> {
    let known = v.known(i)?;
    let size = known.first().and_then(|&n| usize::try_from(n).ok());
    size.filter(|&n| n <= LARGEST)
        .ok_or_else(|| format!("input {i} is {known:?}, which is no size"))
}

pub(super) fn hann(v: &mut Translation<'_, '_>) -> Outputs {
    window(v, [0.5, 0.5, 0.0])
}

pub(super) fn hamming(v: &mut Translation<'_, '_>) -> Outputs {
    window(v, [25.0 / 46.0, 21.0 / 46.0, 0.0])
}

pub(super) fn blackman(v: &mut Translation<'_, '_>) -> Outputs {
    window(v, [0.42, 0.5, 0.08])
}

/// `a − b·cos(2πn/N) + c·cos(4πn/N)`, where a periodic window has N points, a symmetric one N + 1.
fn window(v: &mut Translation<'_, '_>, [a, b, c]: [f64; 3]) -> Outputs {
    let size = size(v, 0)?;
    let period = if v.int("periodic", 1) != 0 { size } else { size.saturating_sub(1).max(1) };
    let angles = (0..size).map(|n| TAU * n as f64 / period as f64).collect::<Vec<f64>>();
    let angles = v.importer.constant("angles", Tensor::vector(angles));
    let wave = v.op(Op::Cos, &[angles])?;
    let wave = v.scaled(wave, -b)?;
    let mut y = v.shifted(wave, a)?;
    if c != 0.0 {
        let twice = v.add(angles, angles)?;
        let wave = v.op(Op::Cos, &[twice])?;
        let wave = v.scaled(wave, c)?;
        y = v.add(y, wave)?;
    }
    stated(v, y)
}

/// Triangles that sum the bins of a spectrum to bands which are equally wide on the mel scale.
pub(super) fn mel(v: &mut Translation<'_, '_>) -> Outputs {
    let [bands, length] = [size(v, 0)?, size(v, 1)?];
    let mut numbers = [0.0; 3];
    for (i, number) in numbers.iter_mut().enumerate() {
        let known = v.importer.known.get(&v.x(i + 2)?);
        let known = known.and_then(|t| crate::eval::cast(t, DType::F64)?.as_scalar_f64());
        *number = known.ok_or_else(|| format!("input {} must be known when compiling", i + 2))?;
    }
    let [rate, lowest, highest] = numbers;
    let bins = length / 2 + 1;
    if bins.checked_mul(bands).is_none_or(|n| n > LARGEST) {
        return Err(format!("{bins} bins and {bands} bands are more than supported"));
    }
    let scale = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let step = (scale(highest) - scale(lowest)) / (bands + 2) as f64;
    let edge = |i: usize| {
        let hertz = 700.0 * (10f64.powf((step * i as f64 + scale(lowest)) / 2595.0) - 1.0);
        // No spectrum has so many bins.
        ((length + 1) as f64 * hertz / rate).floor().clamp(0.0, 1e9) as usize
    };
    let (mut over, mut under) = (vec![0.0; bins * bands], vec![1.0; bins * bands]);
    for band in 0..bands {
        let [low, centre, high] = [edge(band), edge(band + 1), edge(band + 2)];
        for bin in low..high.max(centre + 1).min(bins) {
            let place = bin * bands + band;
            (over[place], under[place]) = match bin {
                _ if bin == centre => (1.0, 1.0),
                _ if bin < centre => ((bin - low) as f64, (centre - low) as f64),
                _ => ((high - bin) as f64, (high - centre) as f64),
            };
        }
    }
    let [over, under] =
        [over, under].map(|w| v.importer.constant("bins", Tensor::new([bins, bands], w)));
    let weights = v.div(over, under)?;
    stated(v, weights)
}

/// A value in the type that the op asks for.
fn stated(v: &mut Translation<'_, '_>, x: ValueId) -> Outputs {
    let to = dtype(i32::try_from(v.int("output_datatype", 1)).unwrap_or(0))?;
    Ok(vec![Some(v.op_with(Op::Cast, &[x], &[("to", to.into())])?)])
}
