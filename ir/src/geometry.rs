//! Index geometry that shape rules, lowering rules and the planner share: windows, slices, axes.

use crate::op::{Call, Op, normalize_axis};

/// One spatial axis of a window op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Elements of the input along the axis, before input dilation.
    pub input: usize,
    /// Elements of the kernel.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
    /// Step between the elements of a window.
    pub dilation: usize,
    /// Step between the elements of the input; zeros stand between them.
    pub input_dilation: usize,
    /// Elements added before the input; negative ones are cut off.
    pub before: i64,
    /// Elements added behind the input; negative ones are cut off.
    pub after: i64,
    /// Number of windows.
    pub output: usize,
}

/// The windows of a convolution or pooling over spatial axes of the given sizes, with `auto_pad` and
/// `ceil_mode` resolved.
///
/// # Errors
/// Says which attribute does not fit.
pub fn windows(call: &Call<'_>, input: &[usize], kernel: &[usize]) -> Result<Vec<Window>, String> {
    let rank = input.len();
    let list = |name: &str, len: usize| match call.ints(name) {
        Some(v) if v.len() != len => Err(format!("`{name}` has {} entries, not {len}", v.len())),
        other => Ok(other),
    };
    let positive = |name: &str| -> Result<Vec<usize>, String> {
        let values = list(name, rank)?.map_or(vec![1; rank], <[i64]>::to_vec);
        let positive = |&v: &i64| usize::try_from(v).ok().filter(|&v| v > 0 && v <= SIZE_LIMIT);
        let values = values.iter().map(positive).collect::<Option<Vec<usize>>>();
        values.ok_or(format!("`{name}` must be positive"))
    };
    let (strides, dilations) = (positive("strides")?, positive("dilations")?);
    let input_dilations = positive("input_dilations")?;
    let pads = list("pads", rank + rank)?;
    let auto_pad = call.str("auto_pad").unwrap_or("NOTSET");
    let ceil = call.int("ceil_mode").unwrap_or(0) != 0;
    (0..rank)
        .map(|i| {
            let (stride, dilation, input_dilation) = (strides[i], dilations[i], input_dilations[i]);
            if kernel[i] == 0 {
                return Err("the kernel is empty".to_owned());
            }
            if kernel[i] > SIZE_LIMIT || input[i] > SIZE_LIMIT {
                return Err("the window is too large".to_owned());
            }
            let span = ((kernel[i] - 1) as i64) * dilation as i64 + 1;
            let extent =
                if input[i] == 0 { 0 } else { (input[i] as i64 - 1) * input_dilation as i64 + 1 };
            let same = |lower: bool| {
                let outputs = (extent + stride as i64 - 1) / stride as i64;
                let total = ((outputs - 1) * stride as i64 + span - extent).max(0);
                let small = total / 2;
                if lower { (total - small, small) } else { (small, total - small) }
            };
            let (before, after) = match auto_pad {
                "NOTSET" => pads.map_or((0, 0), |p| (p[i], p[i + rank])),
                "VALID" => (0, 0),
                "SAME_UPPER" => same(false),
                "SAME_LOWER" => same(true),
                other => return Err(format!("`auto_pad` cannot be `{other}`")),
            };
            if before.unsigned_abs().max(after.unsigned_abs()) > SIZE_LIMIT as u64 {
                return Err("`pads` are too large".to_owned());
            }
            let room = extent + before + after - span;
            if room < 0 {
                return Err(format!("a window of {span} does not fit {extent} padded elements"));
            }
            let mut output = room / stride as i64 + 1;
            if ceil && room % stride as i64 != 0 {
                // A last window that starts in the padding behind the input does not count.
                let start = output * stride as i64;
                output += i64::from(start < extent + before);
            }
            Ok(Window {
                input: input[i],
                kernel: kernel[i],
                stride,
                dilation,
                input_dilation,
                before,
                after,
                output: output as usize,
            })
        })
        .collect()
}

/// No dimension or step of a window may be larger, so that their products fit an i64.
const SIZE_LIMIT: usize = 1 << 30;

/// The range that a `Slice` takes of one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First index.
    pub start: usize,
    /// Distance between indices; may be negative.
    pub step: i64,
    /// Number of indices.
    pub len: usize,
}

/// The ranges of a `Slice` node, one for each axis of the data.
///
/// # Errors
/// Says which attribute does not fit.
pub fn slice_ranges(call: &Call<'_>, shape: &[usize]) -> Result<Vec<Range>, String> {
    let starts = call.ints("starts").ok_or("`starts` is missing")?;
    let ends = call.ints("ends").ok_or("`ends` is missing")?;
    let all: Vec<i64> = (0..starts.len() as i64).collect();
    let axes = call.ints("axes").unwrap_or(&all);
    let ones = vec![1; starts.len()];
    let steps = call.ints("steps").unwrap_or(&ones);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&n| n != starts.len()) {
        return Err("`starts`, `ends`, `axes` and `steps` differ in length".to_owned());
    }
    let mut ranges: Vec<Range> =
        shape.iter().map(|&len| Range { start: 0, step: 1, len }).collect();
    let mut seen = vec![false; shape.len()];
    for i in 0..starts.len() {
        let axis = normalize_axis(axes[i], shape.len())?;
        if std::mem::replace(&mut seen[axis], true) {
            return Err(format!("axis {axis} is sliced twice"));
        }
        let (dim, step) = (shape[axis] as i64, steps[i]);
        if step == 0 {
            return Err("a step is 0".to_owned());
        }
        let from_end = |v: i64| if v < 0 { v.saturating_add(dim) } else { v };
        let (start, end) = (from_end(starts[i]), from_end(ends[i]));
        let (start, len) = if step > 0 {
            let (start, end) = (start.clamp(0, dim), end.clamp(0, dim));
            (start, (end - start).max(0).saturating_add(step - 1) / step)
        } else {
            let (start, end) = (start.clamp(0, (dim - 1).max(0)), end.clamp(-1, dim - 1));
            let back = step.checked_neg().unwrap_or(i64::MAX);
            (start, (start - end).max(0).saturating_add(back - 1) / back)
        };
        let len = if dim == 0 { 0 } else { len as usize };
        ranges[axis] = Range { start: start as usize, step, len };
    }
    Ok(ranges)
}

/// For each axis of the output of a `Pad` or `CenterCropPad`, and each position along it, the position of the input
/// whose elements stand there; `None` for the border.
///
/// # Errors
/// Says which attribute does not fit.
pub fn padded_positions(
    call: &Call<'_>,
    from: &[usize],
    to: &[usize],
) -> Result<Vec<Vec<Option<usize>>>, String> {
    let mode = call.str("mode").unwrap_or("constant");
    if from.contains(&0) && mode != "constant" {
        return Err(format!("mode {mode} needs elements to repeat"));
    }
    let mut begins = vec![0; from.len()];
    if call.op == Op::Pad {
        let pads = call.ints("pads").ok_or("`pads` is missing")?;
        let all: Vec<i64> = (0..from.len() as i64).collect();
        for (&axis, &begin) in call.ints("axes").unwrap_or(&all).iter().zip(pads) {
            begins[normalize_axis(axis, from.len())?] = begin;
        }
    } else {
        let centre = |(&f, &t): (&usize, &usize)| {
            if t >= f { ((t - f) / 2) as i64 } else { -(((f - t) / 2) as i64) }
        };
        begins = from.iter().zip(to).map(centre).collect();
    }
    let position = |axis: usize, i: usize| {
        let n = from[axis] as i64;
        let at = i as i64 - begins[axis];
        let inside = match mode {
            "edge" => at.clamp(0, n - 1),
            "reflect" if n == 1 => 0,
            "reflect" => {
                let p = at.rem_euclid(2 * (n - 1));
                p.min(2 * (n - 1) - p)
            }
            "wrap" => at.rem_euclid(n),
            _ => at,
        };
        (0..n).contains(&inside).then_some(inside as usize)
    };
    let positions = |axis: usize| (0..to[axis]).map(|i| position(axis, i)).collect();
    Ok((0..from.len()).map(positions).collect())
}

/// The axes of a reduction, ascending, each non-negative.
///
/// # Errors
/// Says which axis does not fit.
pub fn reduced_axes(call: &Call<'_>, rank: usize) -> Result<Vec<usize>, String> {
    let all = || (0..rank).collect();
    match call.ints("axes") {
        None | Some([]) if call.int("noop_with_empty_axes").unwrap_or(0) != 0 => Ok(Vec::new()),
        None | Some([]) => Ok(all()),
        Some(axes) => normalize_axes(axes, rank),
    }
}

/// The passes that reduce some axes of a shape, each the outer, reduced and inner size of what the last
/// one left. Reduced axes that are neighbours are reduced as one, axes of one element belonging to any;
/// where kept axes lie between, the innermost are reduced first.
pub fn reduction_passes(shape: &[usize], axes: &[usize]) -> Vec<[usize; 3]> {
    let mut runs: Vec<(bool, usize)> = Vec::new();
    for (d, &n) in shape.iter().enumerate().filter(|(_, n)| **n != 1) {
        let reduced = axes.contains(&d);
        match runs.last_mut() {
            Some((kind, size)) if *kind == reduced => *size *= n,
            _ => runs.push((reduced, n)),
        }
    }
    let mut passes = Vec::new();
    while let Some(i) = runs.iter().rposition(|r| r.0) {
        let product = |runs: &[(bool, usize)]| runs.iter().map(|r| r.1).product::<usize>();
        passes.push([product(&runs[..i]), runs[i].1, product(&runs[i + 1..])]);
        runs.remove(i);
    }
    if passes.is_empty() {
        passes.push([shape.iter().product(), 1, 1]);
    }
    passes
}

/// Axes made non-negative and ascending.
///
/// # Errors
/// Says which axis is out of range or named twice.
pub fn normalize_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut normal =
        axes.iter().map(|&a| normalize_axis(a, rank)).collect::<Result<Vec<usize>, String>>()?;
    normal.sort_unstable();
    match normal.windows(2).find(|w| w[0] == w[1]) {
        Some(w) => Err(format!("axis {} is named twice", w[0])),
        None => Ok(normal),
    }
}

/// The windows of the convolution that computes a `ConvTranspose`: its input is dilated by the
/// stride, and its kernel flipped.
///
/// # Errors
/// Says which attribute does not fit.
pub fn transposed_windows(
    call: &Call<'_>,
    input: &[usize],
    kernel: &[usize],
) -> Result<Vec<Window>, String> {
    let rank = input.len();
    let list = |name: &str, len: usize, default: i64| -> Result<Vec<i64>, String> {
        let values = call.ints(name).map_or_else(|| vec![default; len], <[i64]>::to_vec);
        let fits =
            values.len() == len && values.iter().all(|&v| v >= default && v <= SIZE_LIMIT as i64);
        if fits { Ok(values) } else { Err(format!("`{name}` is {values:?}")) }
    };
    let (strides, dilations) = (list("strides", rank, 1)?, list("dilations", rank, 1)?);
    let padding = list("output_padding", rank, 0)?;
    let pads = list("pads", rank + rank, 0)?;
    let wanted = call.ints("output_shape");
    if wanted.is_some_and(|w| w.len() != rank) {
        return Err("`output_shape` does not name every spatial axis".to_owned());
    }
    let auto_pad = call.str("auto_pad").unwrap_or("NOTSET");
    (0..rank)
        .map(|i| {
            if input[i] == 0 || kernel[i] == 0 || input[i].max(kernel[i]) > SIZE_LIMIT {
                return Err("the input or the kernel is empty or too large".to_owned());
            }
            let span = (kernel[i] as i64 - 1) * dilations[i] + 1;
            let full = (input[i] as i64 - 1) * strides[i] + span + padding[i];
            let same = matches!(auto_pad, "SAME_UPPER" | "SAME_LOWER");
            let target = match wanted {
                Some(w) => Some(w[i]),
                None if same => Some(input[i] as i64 * strides[i]),
                None => None,
            };
            let (before, after) = match target {
                Some(target) => {
                    let total = full - target;
                    let small = total.div_euclid(2);
                    // SAME_UPPER puts the odd element behind, everything else before.
                    if auto_pad == "SAME_UPPER" {
                        (small, total - small)
                    } else {
                        (total - small, small)
                    }
                }
                None if auto_pad == "NOTSET" => (pads[i], pads[i + rank]),
                None => (0, 0),
            };
            let output = full - before - after;
            if output < 0 {
                return Err("`pads` cut off more than there is".to_owned());
            }
            Ok(Window {
                input: input[i],
                kernel: kernel[i],
                stride: 1,
                dilation: dilations[i] as usize,
                input_dilation: strides[i] as usize,
                before: span - 1 - before,
                after: span - 1 - after + padding[i],
                output: output as usize,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::reduction_passes as passes;

    #[test]
    fn passes_join_neighbours_and_start_inside() {
        assert_eq!(passes(&[2, 3, 4, 5], &[2, 3]), [[6, 20, 1]]);
        assert_eq!(passes(&[2, 3, 4, 5], &[0, 2, 3]), [[6, 20, 1], [1, 2, 3]]);
        assert_eq!(passes(&[2, 1, 4], &[0, 2]), [[1, 8, 1]]);
        assert_eq!(passes(&[2, 3], &[]), [[6, 1, 1]]);
        assert_eq!(passes(&[], &[]), [[1, 1, 1]]);
        assert_eq!(passes(&[0, 3], &[0]), [[1, 0, 3]]);
    }
}
