//! Ops of object detection that look at places which other layers have found.

use super::sampling::{Tap, each_image, limited, shares, taps, within};
use super::{LARGEST, Outputs, Result, Translation};
use crate::attr::Attr;
use crate::graph::ValueId;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::DType;

/// Each region of interest of `x[n, c, h, w]` as an image of a given size, whose elements are means, or the largest,
/// of samples.
pub(super) fn roi_align(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, regions, images) = (v.x(0)?, v.x(1)?, v.x(2)?);
    let (shape, count) = (v.ty(x).shape, v.ty(images).elements());
    if shape.len() != 4 || v.ty(regions).shape != [count, 4] {
        return Err(format!("regions {} of {}", v.ty(regions), v.ty(x)));
    }
    // Opset 10 knew no other than the former of the two.
    let default = if v.version < 16 { "output_half_pixel" } else { "half_pixel" };
    let shifted = match v.str("coordinate_transformation_mode").unwrap_or(default) {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => return Err(format!("`coordinate_transformation_mode` {other} is not known")),
    };
    let largest = match v.str("mode").unwrap_or("avg") {
        "avg" => false,
        "max" => true,
        other => return Err(format!("`mode` {other} is not known")),
    };
    let positive = |n: i64| usize::try_from(n).ok().filter(|n| (1..=LARGEST).contains(n));
    let samples = positive(v.int("sampling_ratio", 0));
    let samples = samples.ok_or(
        "with `sampling_ratio` 0 the number of samples depends on the regions; give it, 2 is usual",
    )?;
    let sides = [v.int("output_height", 1), v.int("output_width", 1)].map(positive);
    let [Some(height), Some(width)] = sides else { return Err("the output is empty".into()) };
    let regions = v.scaled(regions, v.float("spatial_scale", 1.0).into())?;
    let regions = if shifted { v.shifted(regions, -0.5)? } else { regions };
    let edges = v.parts(regions, 1, 4)?;
    let mut axes = Vec::new();
    for (axis, side) in [height, width].into_iter().enumerate() {
        let (start, end) = (edges[1 - axis], edges[3 - axis]);
        let mut length = v.sub(end, start)?;
        if !shifted {
            let one = v.number(1.0, length)?;
            length = v.op(Op::Max, &[length, one])?;
        }
        let sides = v.number(side as f64, length)?;
        let bin = v.div(length, sides)?;
        let points = side.checked_mul(samples).filter(|&n| n <= LARGEST);
        let points = points.ok_or_else(|| format!("{side} × {samples} samples"))?;
        // In bins: the middles of as many equal parts of each.
        let middles = (0..points).map(|i| (i as f32 + 0.5) / samples as f32).collect::<Vec<f32>>();
        let middles = crate::eval::cast(&Tensor::new([1, points], middles), v.ty(bin).dtype);
        let middles = v.importer.constant("middles", middles.ok_or("the regions are no floats")?);
        let along = v.mul(bin, middles)?;
        let mut at = v.add(start, along)?;
        let apart = if axis == 0 { [count, points, 1] } else { [count, 1, points] };
        at = v.reshape(at, &apart)?;
        axes.push(bounded(v, at, shape[2 + axis])?);
    }
    let own = v.cast(images, DType::I64)?;
    let own = v.reshape(own, &[count, 1])?;
    let mut corners = shares(v, x, own, &axes)?.into_iter();
    let first = corners.next().ok_or("has no axes")?;
    let joined = if largest { Op::Max } else { Op::Add };
    let whole = corners.try_fold(first, |whole, corner| v.op(joined, &[whole, corner]))?;
    let whole = v.reshape(whole, &[count, height, samples, width, samples, shape[1]])?;
    let pooled = if largest { Op::ReduceMax } else { Op::ReduceMean };
    let y = v.reduce(pooled, whole, &[2, 4], false)?;
    Ok(vec![Some(v.transpose(y, &[0, 3, 1, 2])?)])
}

/// The two elements beside a position that is kept within an axis, if it is no more than one beyond its ends: farther
/// ones count as zeros.
fn bounded(v: &mut Translation<'_, '_>, at: ValueId, length: usize) -> Result<Vec<Tap>> {
    let n = length as f64;
    let near = within(v, at, [-1.0, n])?;
    let kept = limited(v, at, 0.0, n - 1.0)?;
    let mut taps = taps(v, kept, length, 2)?;
    for tap in &mut taps {
        tap.inside = near;
    }
    Ok(taps)
}

/// A convolution whose windows are deformed: each of their places is moved by an offset, sampled between its
/// neighbours, and multiplied by a mask if there is one.
pub(super) fn deform_conv(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, w, offset) = (v.x(0)?, v.x(1)?, v.x(2)?);
    let (image, kernel, moved) = (v.ty(x).shape, v.ty(w).shape, v.ty(offset).shape);
    let rank = image.len().checked_sub(2).filter(|&r| r > 0).ok_or("the input has no axes")?;
    let ones = vec![1i64; rank];
    let (strides, dilations) = (list(v, "strides", &ones)?, list(v, "dilations", &ones)?);
    let pads = list(v, "pads", &vec![0; 2 * rank])?;
    let positive = |n: i64| usize::try_from(n).ok().filter(|&n| n > 0);
    let sets = positive(v.int("offset_group", 1)).filter(|&n| image[1].is_multiple_of(n));
    let sets =
        sets.ok_or_else(|| format!("`offset_group` does not divide {} channels", image[1]))?;
    let fit = kernel.len() == rank + 2 && moved.len() == rank + 2 && moved[0] == image[0];
    let taps_of = kernel.iter().skip(2).product::<usize>();
    if !fit || moved[1] != sets * taps_of * rank {
        return Err(format!("offsets {} for {} and {}", v.ty(offset), v.ty(x), v.ty(w)));
    }
    let (batch, out) = (image[0], &moved[2..]);
    let places: usize = out.iter().product();
    let points = taps_of.checked_mul(places).filter(|&n| n <= LARGEST);
    let points = points.ok_or_else(|| format!("{taps_of} × {places} samples"))?;
    let apart = v.reshape(offset, &[batch * sets, taps_of, rank, places])?;
    let offsets = v.parts(apart, 2, rank)?;
    let mut axes = Vec::new();
    for (axis, &offset) in offsets.iter().enumerate() {
        // Where the places would lie if they were not moved.
        let (inner, inner_out) = (steps(&kernel[2..], axis), steps(out, axis));
        let mut still = Vec::with_capacity(points);
        for tap in 0..taps_of {
            let tap = (tap / inner % kernel[2 + axis]) as i64 * dilations[axis] - pads[axis];
            let along = |p| (p / inner_out % out[axis]) as i64 * strides[axis];
            still.extend((0..places).map(|p| (tap + along(p)) as f32));
        }
        let still = crate::eval::cast(&Tensor::new([1, points], still), v.ty(offset).dtype);
        let still = v.importer.constant("still", still.ok_or("the offsets are no floats")?);
        let offset = v.reshape(offset, &[batch * sets, points])?;
        let at = v.add(still, offset)?;
        axes.push(taps(v, at, image[2 + axis], 2)?);
    }
    let channels = image[1] / sets;
    let split = v.reshape(x, &[&[batch * sets, channels], &image[2..]].concat())?;
    let own = each_image(v, batch * sets);
    let mut corners = shares(v, split, own, &axes)?.into_iter();
    let first = corners.next().ok_or("has no axes")?;
    let mut columns = corners.try_fold(first, |sum, corner| v.add(sum, corner))?;
    if let Some(mask) = v.given(4) {
        let mask = v.reshape(mask, &[batch * sets, points, 1])?;
        columns = v.mul(columns, mask)?;
    }
    // The windows are now columns as of a convolution by points.
    let columns = v.transpose(columns, &[0, 2, 1])?;
    let columns = v.reshape(columns, &[&[batch, image[1] * taps_of], out].concat())?;
    let weights = [vec![kernel[0], kernel[1] * taps_of], vec![1; rank]].concat();
    let weights = v.reshape(w, &weights)?;
    let inputs = [Some(columns), Some(weights), v.given(3)];
    let inputs: Vec<ValueId> = inputs.into_iter().flatten().collect();
    let group: [(&str, Attr); 1] = [("group", v.int("group", 1).into())];
    Ok(vec![Some(v.op_with(Op::Conv, &inputs, &group)?)])
}

/// How many elements lie between neighbours along an axis.
fn steps(shape: &[usize], axis: usize) -> usize {
    shape[axis + 1..].iter().product()
}

/// A list of integers of a known length, none of them so large that positions could overflow.
fn list(v: &Translation<'_, '_>, name: &str, default: &[i64]) -> Result<Vec<i64>> {
    let given = match v.attrs.get(name) {
        Some(Attr::Ints(given)) => given.clone(),
        _ => default.to_vec(),
    };
    let fits = given.len() == default.len() && given.iter().all(|n| (0..=1 << 24).contains(n));
    if fits { Ok(given) } else { Err(format!("`{name}` is {given:?}")) }
}
