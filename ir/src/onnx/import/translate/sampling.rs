//! Sampling at computed places.

use super::{Outputs, Result, Translation};
use crate::attr::Attr;
use crate::graph::ValueId;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::DType;

/// One axis of what is sampled.
struct Axis {
    /// Elements.
    length: usize,
    /// Where to sample, `[batch, places]`: elements are at whole numbers.
    at: ValueId,
}

/// `x[n, c, …]` at the places that a grid of coordinates in −1 to 1 names: the nearest element, or the neighbours
/// weighted by their distance.
pub(super) fn grid_sample(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, grid) = (v.x(0)?, v.x(1)?);
    let (image, places) = (v.ty(x).shape, v.ty(grid).shape);
    let rank = image.len().checked_sub(2).filter(|&r| r > 0 && places.len() == r + 2);
    let rank = rank.ok_or_else(|| format!("a grid {} for {}", v.ty(grid), v.ty(x)))?;
    let [batch, channels] = [image[0], image[1]];
    let count: usize = places[1..=rank].iter().product();
    let flat = v.reshape(grid, &[batch, count, rank])?;
    let coordinates = v.parts(flat, 2, rank)?;
    let mut axes = Vec::new();
    // The last coordinate is that of the first axis.
    for (&length, &coordinate) in image[2..].iter().zip(coordinates.iter().rev()) {
        let coordinate = v.reshape(coordinate, &[batch, count])?;
        let at = place(v, coordinate, length)?;
        axes.push(Axis { length, at });
    }
    let rows = v.reshape(x, &[batch, channels, image[2..].iter().product()])?;
    let corners = match v.str("mode").unwrap_or("linear") {
        "nearest" => 1,
        "linear" | "bilinear" => 1 << rank,
        other => return Err(format!("`mode` {other} is not supported")),
    };
    let mut sum = None;
    for corner in 0..corners {
        let (mut index, mut weight, mut inside) = (None, None, None);
        for (i, axis) in axes.iter().enumerate() {
            let (element, share) = if corners == 1 {
                (v.op(Op::Round, &[axis.at])?, None)
            } else {
                let low = v.op(Op::Floor, &[axis.at])?;
                let above = v.sub(axis.at, low)?;
                if corner >> i & 1 == 0 {
                    (low, Some(v.from(1.0, above)?))
                } else {
                    (v.shifted(low, 1.0)?, Some(above))
                }
            };
            let last = v.number(axis.length as f64 - 1.0, element)?;
            let zero = v.number(0.0, element)?;
            let (over, under) = (
                v.op(Op::LessOrEqual, &[element, last])?,
                v.op(Op::GreaterOrEqual, &[element, zero])?,
            );
            let within = v.op(Op::And, &[over, under])?;
            let kept = v.op(Op::Max, &[element, zero])?;
            let kept = v.op(Op::Min, &[kept, last])?;
            let kept = v.cast(kept, DType::I64)?;
            index = Some(match index {
                None => kept,
                Some(before) => {
                    let line = v.scaled(before, axis.length as f64)?;
                    v.add(line, kept)?
                }
            });
            inside = Some(match inside {
                None => within,
                Some(before) => v.op(Op::And, &[before, within])?,
            });
            weight = match (weight, share) {
                (Some(before), Some(share)) => Some(v.mul(before, share)?),
                (before, share) => before.or(share),
            };
        }
        let (index, inside) = (index.ok_or("has no axes")?, inside.ok_or("has no axes")?);
        let index = v.reshape(index, &[batch, 1, count])?;
        let wide: [(&str, Attr); 1] = [("shape", [batch, channels, count].as_slice().into())];
        let index = v.op_with(Op::Expand, &[index], &wide)?;
        let mut value = v.op_with(Op::GatherElements, &[rows, index], &[("axis", 2i64.into())])?;
        if let Some(weight) = weight {
            let weight = v.reshape(weight, &[batch, 1, count])?;
            let weight = v.cast(weight, v.ty(x).dtype)?;
            value = v.mul(value, weight)?;
        }
        let inside = v.reshape(inside, &[batch, 1, count])?;
        let zero = v.number(0.0, x)?;
        let value = v.select(inside, value, zero)?;
        sum = Some(match sum {
            None => value,
            Some(before) => v.add(before, value)?,
        });
    }
    let shape = [&image[..2], &places[1..=rank]].concat();
    Ok(vec![Some(v.reshape(sum.ok_or("has no axes")?, &shape)?)])
}

/// A coordinate in −1 to 1 as a position among so many elements, kept inside as the padding says.
fn place(v: &mut Translation<'_, '_>, coordinate: ValueId, length: usize) -> Result {
    let n = length as f64;
    let aligned = v.int("align_corners", 0) != 0;
    // −1 and 1 are the centres of the outermost elements, or their outer edges.
    let half = if aligned { (n - 1.0) / 2.0 } else { n / 2.0 };
    let scaled = v.scaled(coordinate, half)?;
    let at = v.shifted(scaled, (n - 1.0) / 2.0)?;
    let (low, high) = if aligned { (0.0, n - 1.0) } else { (-0.5, n - 0.5) };
    match v.str("padding_mode").unwrap_or("zeros") {
        "zeros" => Ok(at),
        "border" => limited(v, at, 0.0, n - 1.0),
        "reflection" if high <= low => v.scaled(at, 0.0),
        "reflection" => {
            // The distance from the lower edge, folded at both edges.
            let distance = v.shifted(at, -low)?;
            let distance = v.op(Op::Abs, &[distance])?;
            let period = v.number(2.0 * (high - low), at)?;
            let phase = v.op_with(Op::Mod, &[distance, period], &[("fmod", 1i64.into())])?;
            let back = v.sub(period, phase)?;
            let folded = v.op(Op::Min, &[phase, back])?;
            let at = v.shifted(folded, low)?;
            limited(v, at, 0.0, n - 1.0)
        }
        other => Err(format!("`padding_mode` {other} is not supported")),
    }
}

fn limited(v: &mut Translation<'_, '_>, x: ValueId, low: f64, high: f64) -> Result {
    let (low, high) = (v.number(low, x)?, v.number(high, x)?);
    let x = v.op(Op::Max, &[x, low])?;
    v.op(Op::Min, &[x, high])
}

/// The coordinates in −1 to 1 of an image of known size, each turned by the matrix of its sample.
pub(super) fn affine_grid(v: &mut Translation<'_, '_>) -> Outputs {
    let (theta, size) = (v.x(0)?, v.known(1)?);
    let aligned = v.int("align_corners", 0) != 0;
    let size: Vec<usize> = size.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
    let spatial = size.get(2..).filter(|s| !s.is_empty()).ok_or("`size` has no spatial axes")?;
    let (count, rank) = (spatial.iter().product::<usize>(), spatial.len());
    let mut base = Vec::with_capacity(count * (rank + 1));
    for place in 0..count {
        // The coordinates of the last axis come first, and a 1 for the translation last.
        let mut rest = place;
        for &n in spatial.iter().rev() {
            let (i, n) = ((rest % n) as f32, n as f32);
            rest /= n as usize;
            base.push(match aligned {
                true if n > 1.0 => 2.0 * i / (n - 1.0) - 1.0,
                true => 0.0,
                false => (2.0 * i + 1.0) / n - 1.0,
            });
        }
        base.push(1.0);
    }
    let base = Tensor::new([count, rank + 1], base);
    let base = crate::eval::cast(&base, v.ty(theta).dtype).ok_or("the matrices are no floats")?;
    let base = v.importer.constant("grid", base);
    let turned = v.transpose(theta, &[0, 2, 1])?;
    let grid = v.op(Op::MatMul, &[base, turned])?;
    let shape = [&size[..1], spatial, &[rank]].concat();
    Ok(vec![Some(v.reshape(grid, &shape)?)])
}
