//! The geometry of `Resize`: which elements an output element is made of, and with which weights
//! (<https://onnx.ai/onnx/operators/onnx__Resize.html>).
//!
//! Interpolation is separable, so that each axis is resized by itself. Positions are computed in f32,
//! as onnxruntime does, so that ties between neighbours fall alike.

use crate::attr::Attr;
use crate::geometry::normalize_axes;
use crate::op::{Call, normalize_axis};

/// The longest axis that is made: a table of neighbours and weights for each position has to fit.
const LONGEST: usize = 1 << 22;

/// The most elements that one is made of.
const WIDEST: f32 = 4096.0;

/// An axis and its new size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    /// The axis.
    pub axis: usize,
    /// Elements of the input.
    pub input: usize,
    /// Elements of the output.
    pub output: usize,
    /// The output's size in terms of the input's.
    pub scale: f32,
    /// The output's size before it was cut to an integer.
    pub length: f32,
    /// The region of interest, for `tf_crop_and_resize`.
    pub region: [f32; 2],
}

/// What an output position is made of along an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Taps {
    /// Elements of the input, as many for each position.
    pub places: Vec<Vec<i64>>,
    /// Their weights.
    pub weights: Vec<Vec<f32>>,
    /// Whether the position lies outside of the input and takes `extrapolation_value` instead.
    pub outside: Vec<bool>,
}

fn floats<'c>(call: &Call<'c>, name: &str) -> Option<&'c [f32]> {
    match call.attr(name) {
        // Files before opset 13 have an empty tensor for what is not given.
        Some(Attr::Floats(v)) if !v.is_empty() => Some(v),
        _ => None,
    }
}

/// The axes of a `Resize` of a tensor of this shape that take another size or a region.
///
/// # Errors
/// Says which attribute does not fit.
pub fn axes(call: &Call<'_>, shape: &[usize]) -> Result<Vec<Axis>, String> {
    let all: Vec<i64> = (0..shape.len() as i64).collect();
    let listed = call.ints("axes").filter(|v| !v.is_empty()).unwrap_or(&all);
    normalize_axes(listed, shape.len())?;
    let axes: Vec<usize> =
        listed.iter().map(|&a| normalize_axis(a, shape.len())).collect::<Result<_, _>>()?;
    let n = axes.len();
    let fits = |name: &str, len: usize, wanted: usize| match len == wanted {
        true => Ok(()),
        false => Err(format!("`{name}` has {len} entries, not {wanted}")),
    };
    let crop = call.str("coordinate_transformation_mode") == Some("tf_crop_and_resize");
    let region = floats(call, "roi").filter(|_| crop);
    if let Some(region) = region {
        fits("roi", region.len(), 2 * n)?;
    } else if crop {
        return Err("tf_crop_and_resize needs `roi`".to_owned());
    }
    let sizes = call.ints("sizes").filter(|v| !v.is_empty());
    let mut resized = Vec::with_capacity(n);
    let policy = call.str("keep_aspect_ratio_policy").unwrap_or("stretch");
    let stretched = sizes.is_some() && policy == "stretch";
    let new = |i: usize, output: usize, scale: f32| Axis {
        axis: axes[i],
        input: shape[axes[i]],
        output,
        scale,
        length: if stretched { output as f32 } else { shape[axes[i]] as f32 * scale },
        region: region.map_or([0.0, 1.0], |r| [r[i], r[i + n]]),
    };
    match (floats(call, "scales"), sizes) {
        (Some(scales), None) => {
            fits("scales", scales.len(), n)?;
            for (i, &scale) in scales.iter().enumerate() {
                let from = region.map_or(1.0, |r| r[i + n] - r[i]);
                let size = (shape[axes[i]] as f32 * from * scale).floor();
                if !(scale > 0.0 && (0.0..1e9).contains(&size)) {
                    return Err(format!("`scales` has {scale}"));
                }
                resized.push(new(i, size as usize, scale));
            }
        }
        (None, Some(sizes)) => {
            fits("sizes", sizes.len(), n)?;
            let mut ratios = Vec::with_capacity(n);
            for (i, &size) in sizes.iter().enumerate() {
                let valid = (1..=1_000_000_000).contains(&size) && shape[axes[i]] > 0;
                let size = if valid { size } else { return Err(format!("`sizes` has {size}")) };
                ratios.push(size as f32 / shape[axes[i]] as f32);
            }
            let common = match policy {
                "stretch" => None,
                "not_larger" => Some(ratios.iter().copied().fold(f32::INFINITY, f32::min)),
                "not_smaller" => Some(ratios.iter().copied().fold(0.0, f32::max)),
                other => return Err(format!("`keep_aspect_ratio_policy` cannot be `{other}`")),
            };
            for (i, &size) in sizes.iter().enumerate() {
                resized.push(match common {
                    None => new(i, size as usize, ratios[i]),
                    Some(c) => new(i, (c * shape[axes[i]] as f32).round() as usize, c),
                });
            }
        }
        _ => return Err("takes either `scales` or `sizes`".to_owned()),
    }
    if let Some(a) = resized.iter().find(|a| a.output > LONGEST) {
        return Err(format!(
            "axis {} would have {} elements, more than {LONGEST}",
            a.axis, a.output
        ));
    }
    resized.retain(|a| a.output != a.input || a.scale != 1.0 || crop);
    if let Some(a) = resized.iter().find(|a| a.input == 0 && a.output > 0) {
        return Err(format!("axis {} has no elements to resize", a.axis));
    }
    Ok(resized)
}

/// How an output element is made of elements of the input. Where an image becomes smaller and `antialias` is set, a
/// kernel is stretched over as many as become one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Filter {
    Nearest,
    /// A triangle.
    Linear,
    /// Keys' kernel with this parameter.
    Cubic(f32),
}

impl Filter {
    fn of(call: &Call<'_>) -> Result<Filter, String> {
        match call.str("mode").unwrap_or("nearest") {
            "nearest" => Ok(Filter::Nearest),
            "linear" => Ok(Filter::Linear),
            "cubic" => Ok(Filter::Cubic(call.float("cubic_coeff_a").unwrap_or(-0.75))),
            other => Err(format!("`mode` cannot be `{other}`")),
        }
    }

    /// Elements to one side.
    fn reach(self) -> f32 {
        if let Filter::Cubic(_) = self { 2.0 } else { 1.0 }
    }

    /// The weight of an element so far away.
    fn weight(self, distance: f32) -> f32 {
        let s = distance.abs();
        match self {
            Filter::Nearest => 1.0,
            Filter::Linear => (1.0 - s).max(0.0),
            Filter::Cubic(a) if s <= 1.0 => ((a + 2.0) * s - (a + 3.0)) * s * s + 1.0,
            Filter::Cubic(a) if s < 2.0 => ((a * s - 5.0 * a) * s + 8.0 * a) * s - 4.0 * a,
            Filter::Cubic(_) => 0.0,
        }
    }
}

/// Whether elements of the input are no mere copies.
///
/// # Errors
/// Says which mode is unknown.
pub fn interpolates(call: &Call<'_>) -> Result<bool, String> {
    Ok(Filter::of(call)? != Filter::Nearest)
}

/// The elements that an output element is made of along one axis: 1, 2 or 4, or more where `antialias` is set.
///
/// # Errors
/// Says which mode is unknown, or that they are too many.
pub fn width(call: &Call<'_>, axis: &Axis) -> Result<usize, String> {
    let filter = Filter::of(call)?;
    if filter == Filter::Nearest {
        return Ok(1);
    }
    let width = 2.0 * (1.0 - first(filter, stretch(call, axis)));
    if width > WIDEST {
        let Axis { input, output, .. } = axis;
        return Err(format!("`antialias` from {input} to {output} elements is not supported"));
    }
    Ok(width as usize)
}

/// What distances are multiplied by.
fn stretch(call: &Call<'_>, axis: &Axis) -> f32 {
    let antialias = call.int("antialias").unwrap_or(0) != 0;
    if antialias { axis.scale.min(1.0) } else { 1.0 }
}

/// The first of the elements that a filter reaches, counted from the one before a place.
fn first(filter: Filter, stretch: f32) -> f32 {
    (-filter.reach() / stretch).floor() + 1.0
}

/// What the output positions of an axis are made of.
///
/// # Errors
/// Says which mode is unknown.
pub fn taps(call: &Call<'_>, axis: &Axis) -> Result<Taps, String> {
    let (filter, width, stretch) = (Filter::of(call)?, width(call, axis)?, stretch(call, axis));
    let mut taps = Taps {
        places: vec![Vec::with_capacity(axis.output); width],
        weights: vec![Vec::with_capacity(axis.output); width],
        outside: Vec::with_capacity(axis.output),
    };
    let last = axis.input as f32 - 1.0;
    let exclude = call.int("exclude_outside").unwrap_or(0) != 0;
    for position in 0..axis.output {
        let (at, outside) = place(call, axis, position as f32)?;
        taps.outside.push(outside);
        let (from, weights) = match filter {
            Filter::Nearest => (nearest(call, at)?, vec![1.0]),
            Filter::Linear if stretch == 1.0 => {
                let at = at.clamp(0.0, last);
                (at.floor(), vec![1.0 - (at - at.floor()), at - at.floor()])
            }
            _ => {
                let from = at.floor() + first(filter, stretch);
                let step = first(filter, stretch) - (at - at.floor());
                let mut weights: Vec<f32> =
                    (0..width).map(|i| filter.weight((step + i as f32) * stretch)).collect();
                let inside = |i: usize| (0.0..=last).contains(&(from + i as f32));
                if exclude {
                    (0..width).filter(|&i| !inside(i)).for_each(|i| weights[i] = 0.0);
                }
                if exclude || stretch < 1.0 {
                    let sum: f32 = weights.iter().sum();
                    weights.iter_mut().for_each(|w| *w /= sum);
                }
                (from, weights)
            }
        };
        for (i, weight) in weights.into_iter().enumerate() {
            // What lies outside is the nearest element inside.
            taps.places[i].push((from + i as f32).clamp(0.0, last) as i64);
            taps.weights[i].push(weight);
        }
    }
    Ok(taps)
}

/// The place in the input of an output position, and whether it lies outside of it.
fn place(call: &Call<'_>, axis: &Axis, x: f32) -> Result<(f32, bool), String> {
    let Axis { scale, length, .. } = *axis;
    let (input, output) = (axis.input as f32, axis.output as f32);
    let half = (x + 0.5) / scale - 0.5;
    let mode = call.str("coordinate_transformation_mode").unwrap_or("half_pixel");
    let at = match mode {
        "half_pixel" => half,
        "half_pixel_symmetric" => {
            // The output may be cut to an integer; its middle stays where it was.
            let center = input / 2.0;
            center * (1.0 - output / length) + half
        }
        "pytorch_half_pixel" => {
            if output > 1.0 {
                half
            } else {
                0.0
            }
        }
        "align_corners" => {
            if output > 1.0 {
                x * (input - 1.0) / (length - 1.0)
            } else {
                0.0
            }
        }
        "asymmetric" => x / scale,
        "tf_crop_and_resize" => {
            let [start, end] = axis.region;
            if output > 1.0 {
                start * (input - 1.0) + x * (end - start) * (input - 1.0) / (output - 1.0)
            } else {
                0.5 * (start + end) * (input - 1.0)
            }
        }
        other => {
            return Err(format!("`coordinate_transformation_mode` cannot be `{other}`"));
        }
    };
    Ok((at, mode == "tf_crop_and_resize" && !(0.0..=input - 1.0).contains(&at)))
}

fn nearest(call: &Call<'_>, at: f32) -> Result<f32, String> {
    Ok(match call.str("nearest_mode").unwrap_or("round_prefer_floor") {
        "round_prefer_floor" => (at - 0.5).ceil(),
        "round_prefer_ceil" => (at + 0.5).floor(),
        "floor" => at.floor(),
        "ceil" => at.ceil(),
        other => return Err(format!("`nearest_mode` cannot be `{other}`")),
    })
}

#[cfg(test)]
mod tests {
    use super::{Filter, axes, taps, width};
    use crate::text::parse;
    use crate::verify::verify;

    #[test]
    fn attributes_that_do_not_fit_are_named() {
        for (attributes, message) in [
            ("", "takes either `scales` or `sizes`"),
            ("scales=[1.0, 2.0], sizes=[2, 6]", "takes either `scales` or `sizes`"),
            ("scales=[2.0]", "`scales` has 1 entries, not 2"),
            ("scales=[1.0, -2.0]", "`scales` has -2"),
            ("sizes=[2, 4398046511104]", "`sizes` has 4398046511104"),
            ("sizes=[2, 999999999]", "axis 1 would have 999999999 elements"),
            ("axes=[1, -1], sizes=[4, 4]", "axis 1 is named twice"),
            ("axes=[2], sizes=[4]", "axis 2 is out of range"),
            ("scales=[1.0, 2.0], mode=\"area\"", "`mode` cannot be `area`"),
            (
                "sizes=[2, 6], coordinate_transformation_mode=\"tf_crop_and_resize\"",
                "tf_crop_and_resize needs `roi`",
            ),
        ] {
            let text = format!(
                "graph g {{\n  in x: f32[2,3]\n  y: f32[2,6] = Resize(x) {{{attributes}}}\n  out y = y\n}}"
            );
            let error = format!("{:?}", verify(&parse(&text, &[]).unwrap()).unwrap_err());
            assert!(error.contains(message), "{attributes}: {error}");
        }
    }

    #[test]
    fn smaller_images_are_made_of_all_elements() {
        let text = "graph g {\n  in x: f32[6]\n  y: f32[3] = Resize(x) {antialias=1, scales=[0.5], mode=\"linear\"}\n  out y = y\n}";
        let graph = parse(text, &[]).unwrap();
        let (taps, width) = graph.with_call(&graph.nodes[0], |call| {
            let axis = axes(call, &[6]).unwrap()[0];
            (taps(call, &axis).unwrap(), width(call, &axis).unwrap())
        });
        assert_eq!(width, 4);
        // Two elements become one, and a triangle of twice their width reaches over four.
        let middle: Vec<f32> = taps.weights.iter().map(|w| w[1]).collect();
        assert_eq!(middle, [0.125, 0.375, 0.375, 0.125]);
        assert_eq!(taps.places.iter().map(|p| p[0]).collect::<Vec<_>>(), [0, 0, 1, 2]);
    }

    #[test]
    fn weights_of_the_cubic_kernel_sum_to_one() {
        let four = |a: f32, s: f32| [-1.0, 0.0, 1.0, 2.0].map(|i| Filter::Cubic(a).weight(i - s));
        for s in [0.0, 0.125, 0.5, 0.875] {
            assert!((four(-0.75, s).iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
        assert_eq!(four(-0.5, 0.0), [0.0, 1.0, 0.0, 0.0]);
    }
}
