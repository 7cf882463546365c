//! Sampling at computed places.

use super::{LARGEST, Outputs, Result, Translation};
use crate::graph::ValueId;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::DType;

/// The most elements that a sample is made of.
const MOST_CORNERS: usize = 4096;

/// An element that a sample is made of, along one axis, for all places.
pub(super) struct Tap {
    /// Which one, kept within the axis.
    index: ValueId,
    /// Whether it lies within the axis.
    pub(super) inside: ValueId,
    /// Its weight, if it is not 1.
    share: Option<ValueId>,
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
    let width = match v.str("mode").unwrap_or("linear") {
        "nearest" => 1,
        "linear" | "bilinear" => 2,
        "cubic" | "bicubic" => 4,
        other => return Err(format!("`mode` {other} is not supported")),
    };
    let mut axes = Vec::new();
    // The last coordinate is that of the first axis.
    for (&length, &coordinate) in image[2..].iter().zip(coordinates.iter().rev()) {
        let coordinate = v.reshape(coordinate, &[batch, count])?;
        let n = length as f64;
        // −1 and 1 are the centres of the outermost elements, or their outer edges.
        let half = if v.int("align_corners", 0) != 0 { (n - 1.0) / 2.0 } else { n / 2.0 };
        let at = v.scaled(coordinate, half)?;
        let mut at = v.shifted(at, (n - 1.0) / 2.0)?;
        if width < 4 {
            at = padded(v, at, n)?;
        }
        axes.push(taps(v, at, length, width)?);
    }
    let own = each_image(v, batch);
    let mut samples = shares(v, x, own, &axes)?.into_iter();
    let first = samples.next().ok_or("has no axes")?;
    let sum = samples.try_fold(first, |sum, share| v.add(sum, share))?;
    let sum = v.transpose(sum, &[0, 2, 1])?;
    let shape = [&[batch, channels], &places[1..=rank]].concat();
    Ok(vec![Some(v.reshape(sum, &shape)?)])
}

/// The number of each image of a batch, `[batch, 1]`.
pub(super) fn each_image(v: &mut Translation<'_, '_>, batch: usize) -> ValueId {
    let numbers = Tensor::new([batch, 1], (0..batch as i64).collect::<Vec<i64>>());
    v.importer.constant("images", numbers)
}

/// What each neighbour gives to samples of `x[image, channel, …]`: its element times its weight, 0 where it lies
/// outside, `[rows, places, channels]`. Each of the rows, `[rows, 1]`, is of one image; along each axis, the taps are
/// `[rows, …]`, and the places are those that they give when they are broadcast.
pub(super) fn shares(
    v: &mut Translation<'_, '_>,
    x: ValueId,
    image_of: ValueId,
    axes: &[Vec<Tap>],
) -> Result<Vec<ValueId>> {
    let shape = v.ty(x).shape;
    let (channels, lengths) = (shape[1], &shape[2..]);
    let size: usize = lengths.iter().product();
    let rows = v.ty(image_of).shape[0];
    // The channels of a place lie side by side, so that a sample fetches them at once.
    let flat = v.reshape(x, &[shape[0], channels, size])?;
    let flat = v.transpose(flat, &[0, 2, 1])?;
    let flat = v.reshape(flat, &[shape[0] * size, channels])?;
    let first = v.scaled(image_of, size as f64)?;
    let widths: Vec<usize> = axes.iter().map(Vec::len).collect();
    let corners = widths.iter().try_fold(1usize, |n, &width| n.checked_mul(width));
    let corners = corners.filter(|&n| n <= MOST_CORNERS);
    let corners = corners.ok_or_else(|| format!("{} axes are more than supported", axes.len()))?;
    let mut all = Vec::new();
    for corner in 0..corners {
        let (mut index, mut weight, mut inside) = (None, None, None);
        let mut rest = corner;
        for (axis, &length) in axes.iter().zip(lengths) {
            let tap = &axis[rest % axis.len()];
            rest /= axis.len();
            index = Some(match index {
                None => tap.index,
                Some(before) => {
                    let line = v.scaled(before, length as f64)?;
                    v.add(line, tap.index)?
                }
            });
            inside = Some(match inside {
                None => tap.inside,
                Some(before) => v.op(Op::And, &[before, tap.inside])?,
            });
            weight = match (weight, tap.share) {
                (Some(before), Some(share)) => Some(v.mul(before, share)?),
                (before, share) => before.or(share),
            };
        }
        let (index, inside) = (index.ok_or("has no axes")?, inside.ok_or("has no axes")?);
        let places = v.ty(index).shape.iter().skip(1).product();
        let index = v.reshape(index, &[rows, places])?;
        let index = v.add(index, first)?;
        let mut value = v.op_with(Op::Gather, &[flat, index], &[("axis", 0i64.into())])?;
        if let Some(weight) = weight {
            let weight = v.reshape(weight, &[rows, places, 1])?;
            let weight = v.cast(weight, v.ty(x).dtype)?;
            value = v.mul(value, weight)?;
        }
        let inside = v.reshape(inside, &[rows, places, 1])?;
        let zero = v.number(0.0, x)?;
        all.push(v.select(inside, value, zero)?);
    }
    Ok(all)
}

/// The elements along an axis that a position among them is made of: one, or as many on both of its sides.
pub(super) fn taps(
    v: &mut Translation<'_, '_>,
    at: ValueId,
    length: usize,
    width: usize,
) -> Result<Vec<Tap>> {
    let n = length as f64;
    let low = v.op(if width == 1 { Op::Round } else { Op::Floor }, &[at])?;
    let above = v.sub(at, low)?;
    let mut taps = Vec::new();
    for i in 0..width {
        let offset = i as f64 - (width as f64 / 2.0 - 1.0).max(0.0);
        let mut element = if offset == 0.0 { low } else { v.shifted(low, offset)? };
        let distance = match offset {
            0.0 => above,
            ..0.0 => v.shifted(above, -offset)?,
            _ => v.from(offset, above)?,
        };
        let share = match width {
            1 => None,
            2 => Some(v.from(1.0, distance)?),
            _ => {
                // The neighbours are padded one by one.
                element = padded(v, element, n)?;
                Some(cubic(v, distance, matches!(i, 0 | 3))?)
            }
        };
        let inside = within(v, element, [0.0, n - 1.0])?;
        let kept = limited(v, element, 0.0, n - 1.0)?;
        taps.push(Tap { index: v.cast(kept, DType::I64)?, inside, share });
    }
    Ok(taps)
}

/// Whether `low ≤ x ≤ high`.
pub(super) fn within(v: &mut Translation<'_, '_>, x: ValueId, [low, high]: [f64; 2]) -> Result {
    let (low, high) = (v.number(low, x)?, v.number(high, x)?);
    let (over, under) = (v.op(Op::LessOrEqual, &[x, high])?, v.op(Op::GreaterOrEqual, &[x, low])?);
    v.op(Op::And, &[over, under])
}

/// Keys' kernel of parameter −¾ at a distance of at most 1, or of 1 to 2 if it is `far`.
fn cubic(v: &mut Translation<'_, '_>, distance: ValueId, far: bool) -> Result {
    let factors = if far { [-0.75, 3.75, -6.0, 3.0] } else { [1.25, -2.25, 0.0, 1.0] };
    let mut y = v.scaled(distance, factors[0])?;
    for (i, &c) in factors[1..].iter().enumerate() {
        if c != 0.0 {
            y = v.shifted(y, c)?;
        }
        if i < 2 {
            y = v.mul(y, distance)?;
        }
    }
    Ok(y)
}

/// A position among n elements, kept inside as the padding says.
fn padded(v: &mut Translation<'_, '_>, at: ValueId, n: f64) -> Result {
    let aligned = v.int("align_corners", 0) != 0;
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

pub(super) fn limited(v: &mut Translation<'_, '_>, x: ValueId, low: f64, high: f64) -> Result {
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
    let count = spatial.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let count = count.filter(|&n| n <= LARGEST).ok_or_else(|| format!("a grid of {spatial:?}"))?;
    let rank = spatial.len();
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
