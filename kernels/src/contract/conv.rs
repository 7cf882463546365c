//! Convolutions as products of the kernel with the windows of the images.
//!
//! The products of an output element are ordered by channel within the group and then by the position
//! in the kernel, row-major. Nothing is materialised but the block of windows that is being packed.

use super::columns::Columns;
use super::serial::{Left, Out};
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
            taps,
            positions,
        };
        let left = Left { data: w, offset: g * outputs * k, row: k, col: 1 };
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
    taps: usize,
    positions: usize,
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

impl Windows<'_> {
    /// The channel of a row and its position in the kernel.
    fn row(&self, k: usize) -> (usize, [usize; 3]) {
        let [_, high, wide] = self.axes;
        let (channel, tap) = (k / self.taps, k % self.taps);
        let plane = high.kernel * wide.kernel;
        (channel, [tap / plane, tap / wide.kernel % high.kernel, tap % wide.kernel])
    }

    /// The image of a column and its position in the output.
    fn column(&self, n: usize) -> (usize, [usize; 3]) {
        let [_, high, wide] = self.axes;
        let (image, position) = (n / self.positions, n % self.positions);
        let plane = high.output * wide.output;
        (image, [position / plane, position / wide.output % high.output, position % wide.output])
    }

    /// Rows along the innermost axis of the kernel are written together: in the gradient of a weight, the
    /// kernel is an image and has long lines, and there are few windows.
    fn copy_kernels(&self, k: Range<usize>, n: Range<usize>, stride: usize, out: &mut [f32]) {
        let [deep, high, wide] = self.axes;
        let mut done = 0;
        while done < k.len() {
            let (channel, tap) = self.row(k.start + done);
            let run = (wide.kernel - tap[2]).min(k.len() - done);
            for (j, n) in n.clone().enumerate() {
                let (image, at) = self.column(n);
                let line =
                    source(&deep, at[0], tap[0]).zip(source(&high, at[1], tap[1])).map(|(z, y)| {
                        let pixel = (z * high.input + y) * wide.input;
                        let base = self.first + image * self.image + channel * self.pixels + pixel;
                        &self.x[base..base + wide.input]
                    });
                let column = out[done * stride + j..].iter_mut().step_by(stride).take(run);
                let begin = (at[2] * wide.stride + tap[2] * wide.dilation) as i64 - wide.before;
                let places = (0..run).map(|i| begin + (i * wide.dilation) as i64);
                for (o, at) in column.zip(places) {
                    let x = line.and_then(|line| line.get(usize::try_from(at).ok()?));
                    *o = x.copied().unwrap_or(0.0);
                }
            }
            done += run;
        }
    }

    /// Columns along the innermost axis of the output are read together.
    fn copy_windows(&self, k: Range<usize>, n: Range<usize>, stride: usize, out: &mut [f32]) {
        let [deep, high, wide] = self.axes;
        for (row, k) in k.enumerate() {
            let (channel, tap) = self.row(k);
            let out = &mut out[row * stride..][..n.len()];
            let mut done = 0;
            while done < out.len() {
                let (image, at) = self.column(n.start + done);
                let run = (out.len() - done).min(wide.output - at[2]);
                let run = &mut out[done..done + run];
                done += run.len();
                let line = match (source(&deep, at[0], tap[0]), source(&high, at[1], tap[1])) {
                    (Some(z), Some(y)) => (z * high.input + y) * wide.input,
                    _ => {
                        run.fill(0.0);
                        continue;
                    }
                };
                let base = self.first + image * self.image + channel * self.pixels + line;
                let line = &self.x[base..base + wide.input];
                read_line(&wide, at[2], tap[2], line, run);
            }
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
    let stride = axis.stride as i64;
    let before = |end: i64| ((end - start).max(0) + stride - 1) / stride;
    let left = before(0).min(run.len() as i64) as usize;
    let right = (before(line.len() as i64) as usize).clamp(left, run.len());
    run[..left].fill(0.0);
    run[right..].fill(0.0);
    if left == right {
        return;
    }
    let first = (start + left as i64 * stride) as usize;
    let run = &mut run[left..right];
    if stride == 1 {
        run.copy_from_slice(&line[first..first + run.len()]);
    } else {
        let there = line[first..].iter().step_by(axis.stride);
        run.iter_mut().zip(there).for_each(|(y, x)| *y = *x);
    }
}
