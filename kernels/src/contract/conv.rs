//! Convolutions as products of the kernel with the windows of the images.
//!
//! The products of an output element are ordered by channel within the group and then by the position
//! in the kernel, row-major. Nothing is materialised but the block of windows that is being packed.

use super::columns::{Columns, Strided};
use super::out::Out;
use super::{Arithmetic, product};
use crate::Pool;
use std::ops::Range;

/// One spatial axis of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spatial {
    /// Elements of the input.
    pub input: usize,
    /// Elements of the kernel.
    pub kernel: usize,
    /// Elements of the output.
    pub output: usize,
    /// Step between windows.
    pub stride: usize,
    /// Step between the elements of a window.
    pub dilation: usize,
    /// Step between the elements of the input; zeros stand between them.
    pub input_dilation: usize,
    /// Elements added before the input; negative ones are cut off.
    pub before: i64,
}

/// The shape of a convolution of up to three spatial axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Input channels of a group.
    pub channels: usize,
    /// Output channels of a group.
    pub outputs: usize,
    /// Spatial axes, outermost first.
    pub spatial: Vec<Spatial>,
}

impl ConvShape {
    /// Three axes, outermost first; missing ones have one element, so that there is one loop for all.
    pub fn axes(&self) -> [Spatial; 3] {
        let one = Spatial {
            input: 1,
            kernel: 1,
            output: 1,
            stride: 1,
            dilation: 1,
            input_dilation: 1,
            before: 0,
        };
        let mut axes = [one; 3];
        axes[3 - self.spatial.len()..].copy_from_slice(&self.spatial);
        axes
    }

    fn positions(&self) -> usize {
        self.spatial.iter().map(|s| s.output).product()
    }

    fn pixels(&self) -> usize {
        self.spatial.iter().map(|s| s.input).product()
    }

    fn taps(&self) -> usize {
        self.spatial.iter().map(|s| s.kernel).product()
    }
}

/// `out[n, g·outputs + o, …] = Σ x[n, g·channels + c, …] · w[g·outputs + o, c, …]`.
///
/// # Panics
/// Where the operands are too short for the shape, or it has no or more than three spatial axes.
pub fn conv(
    pool: &Pool,
    arithmetic: Arithmetic,
    shape: &ConvShape,
    x: &[f32],
    w: &[f32],
    out: &mut [f32],
) {
    assert!((1..=3).contains(&shape.spatial.len()), "one to three spatial axes");
    let (positions, pixels, taps) = (shape.positions(), shape.pixels(), shape.taps());
    let (groups, channels, outputs) = (shape.groups, shape.channels, shape.outputs);
    assert_eq!(x.len(), shape.batch * groups * channels * pixels, "x has its shape");
    assert_eq!(w.len(), groups * outputs * channels * taps, "w has its shape");
    assert_eq!(out.len(), shape.batch * groups * outputs * positions, "out has its shape");
    if out.is_empty() {
        return;
    }
    let k = channels * taps;
    let axes = shape.axes();
    let images = Out::images(out, positions, groups * outputs * positions);
    let group = |g: usize, pool: Option<&Pool>| {
        let windows = Windows {
            x,
            axes,
            first: g * channels * pixels,
            image: groups * channels * pixels,
            pixels,
        };
        let left = Strided { data: w, offset: g * outputs * k, row: k, col: 1 };
        // SAFETY: the groups' outputs do not overlap.
        let out = unsafe { images.skip(g * outputs * positions) };
        product(pool, arithmetic, [outputs, shape.batch * positions, k], left, &windows, out);
    };
    if groups >= pool.threads() {
        pool.each(groups, &|g| group(g, None));
    } else {
        (0..groups).for_each(|g| group(g, Some(pool)));
    }
}

/// The matrix of all windows of one group: rows are channels and kernel positions, columns images
/// and output positions.
struct Windows<'a> {
    x: &'a [f32],
    axes: [Spatial; 3],
    first: usize,
    image: usize,
    pixels: usize,
}

impl Columns for Windows<'_> {
    fn copy(&self, k: Range<usize>, n: Range<usize>, stride: usize, out: &mut [f32]) {
        let [.., wide] = self.axes;
        // Along the longer ones of the lines of windows and of kernels.
        if wide.kernel > wide.output && wide.input_dilation == 1 {
            self.copy_kernels(k, n, stride, out);
        } else {
            self.copy_windows(k, n, stride, out);
        }
    }
}

/// An index into several groups of three axes, counted up without divisions.
#[derive(Clone, Copy)]
struct Counter {
    group: usize,
    at: [usize; 3],
    axes: [usize; 3],
}

impl Counter {
    fn new(flat: usize, axes: [usize; 3]) -> Counter {
        let [deep, high, wide] = axes;
        let plane = high * wide;
        let (group, at) = (flat / (deep * plane), flat % (deep * plane));
        Counter { group, at: [at / plane, at / wide % high, at % wide], axes }
    }

    /// Further along the innermost axis, at most to its end.
    fn advance(&mut self, by: usize) {
        self.at[2] += by;
        for axis in [2, 1, 0] {
            if self.at[axis] < self.axes[axis] {
                return;
            }
            self.at[axis] = 0;
            match axis {
                0 => self.group += 1,
                _ => self.at[axis - 1] += 1,
            }
        }
    }
}

impl Windows<'_> {
    /// The channel of a row and its position in the kernel.
    fn row(&self, k: usize) -> Counter {
        Counter::new(k, self.axes.map(|a| a.kernel))
    }

    /// The image of a column and its position in the output.
    fn column(&self, n: usize) -> Counter {
        Counter::new(n, self.axes.map(|a| a.output))
    }

    /// The line of the input that windows along the innermost axis read, unless it is padding.
    fn line(&self, row: &Counter, column: &Counter) -> Option<&[f32]> {
        let [deep, high, wide] = &self.axes;
        let z = source(deep, column.at[0], row.at[0])?;
        let y = source(high, column.at[1], row.at[1])?;
        let base = self.first + column.group * self.image + row.group * self.pixels;
        Some(&self.x[base + (z * high.input + y) * wide.input..][..wide.input])
    }

    /// Rows along the innermost axis of the kernel are written together: in the gradient of a weight, the
    /// kernel is an image and has long lines, and there are few windows.
    fn copy_kernels(&self, k: Range<usize>, n: Range<usize>, stride: usize, out: &mut [f32]) {
        let [.., wide] = self.axes;
        let (mut row, first) = (self.row(k.start), self.column(n.start));
        let mut done = 0;
        while done < k.len() {
            let run = (wide.kernel - row.at[2]).min(k.len() - done);
            let mut column = first;
            for j in 0..n.len() {
                let at = column.at[2] * wide.stride + row.at[2] * wide.dilation;
                let begin = at as i64 - wide.before;
                let out = out[done * stride + j..].iter_mut().step_by(stride).take(run);
                match self.line(&row, &column) {
                    Some(line) => read_steps(line, begin, wide.dilation, out),
                    None => out.for_each(|o| *o = 0.0),
                }
                column.advance(1);
            }
            done += run;
            row.advance(run);
        }
    }

    /// Columns along the innermost axis of the output are read together.
    fn copy_windows(&self, k: Range<usize>, n: Range<usize>, stride: usize, out: &mut [f32]) {
        let [.., wide] = self.axes;
        let (mut row, first) = (self.row(k.start), self.column(n.start));
        for out in out.chunks_mut(stride).take(k.len()) {
            let (mut rest, mut column) = (&mut out[..n.len()], first);
            while !rest.is_empty() {
                let run = rest.len().min(wide.output - column.at[2]);
                let (run, after) = rest.split_at_mut(run);
                match self.line(&row, &column) {
                    Some(line) => read_line(&wide, column.at[2], row.at[2], line, run),
                    None => run.fill(0.0),
                }
                column.advance(run.len());
                rest = after;
            }
            row.advance(1);
        }
    }
}

/// The input element that a kernel position reads for an output position, if it is not padding or
/// a zero of the input's dilation.
#[inline(always)]
fn source(axis: &Spatial, output: usize, tap: usize) -> Option<usize> {
    let at = (output * axis.stride + tap * axis.dilation) as i64 - axis.before;
    let dilation = axis.input_dilation as i64;
    if at < 0 || (dilation != 1 && at % dilation != 0) {
        return None;
    }
    let at = (if dilation == 1 { at } else { at / dilation }) as usize;
    (at < axis.input).then_some(at)
}

/// Elements `step` apart from `begin` on; those outside of the line are zeros.
#[inline(always)]
fn read_steps<'o>(
    line: &[f32],
    begin: i64,
    step: usize,
    mut out: impl Iterator<Item = &'o mut f32>,
) {
    if step == 1 {
        let low = begin.min(0).unsigned_abs() as usize;
        let first = begin.max(0).min(line.len() as i64) as usize;
        out.by_ref().take(low).for_each(|o| *o = 0.0);
        out.by_ref().zip(&line[first..]).for_each(|(o, x)| *o = *x);
        return out.for_each(|o| *o = 0.0);
    }
    for (i, o) in out.enumerate() {
        let at = usize::try_from(begin + (i * step) as i64);
        *o = at.ok().and_then(|at| line.get(at)).copied().unwrap_or(0.0);
    }
}

fn read_line(axis: &Spatial, from: usize, tap: usize, line: &[f32], run: &mut [f32]) {
    let start = (from * axis.stride + tap * axis.dilation) as i64 - axis.before;
    if axis.input_dilation > 1 {
        if axis.stride > 1 {
            for (i, y) in run.iter_mut().enumerate() {
                *y = source(axis, from + i, tap).map_or(0.0, |at| line[at]);
            }
            return;
        }
        // One in so many elements is not a zero.
        run.fill(0.0);
        let dilation = axis.input_dilation as i64;
        let at = start.max(0);
        let at = at + (-at).rem_euclid(dilation);
        let (skip, first) = (at - start, (at / dilation) as usize);
        let there = run.iter_mut().skip(skip as usize).step_by(axis.input_dilation);
        there.zip(line.iter().skip(first)).for_each(|(y, x)| *y = *x);
        return;
    }
    let before = |end: i64| match ((end - start).max(0), axis.stride as i64) {
        (steps, 1) => steps,
        (steps, stride) => (steps + stride - 1) / stride,
    };
    let left = before(0).min(run.len() as i64) as usize;
    let right = (before(line.len() as i64) as usize).clamp(left, run.len());
    run[..left].fill(0.0);
    run[right..].fill(0.0);
    if left == right {
        return;
    }
    let first = (start + (left * axis.stride) as i64) as usize;
    let run = &mut run[left..right];
    if axis.stride == 1 {
        run.copy_from_slice(&line[first..first + run.len()]);
    } else {
        let there = line[first..].iter().step_by(axis.stride);
        run.iter_mut().zip(there).for_each(|(y, x)| *y = *x);
    }
}
