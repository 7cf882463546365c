//! Windows over space: MaxPool, MaxUnpool, Col2Im.

use super::pool::rows;
use super::{Io, Site, Step};
use crate::host::number::{Number, with_type};
use pam_ir::geometry::Window;
use pam_ir::tensor::strides;
use pam_ir::types::DType;
use smallvec::SmallVec;
use std::ops::Range;

/// The position in the image of element `k` of window `w` along an axis.
fn at(axis: &Window, w: usize, k: usize) -> Option<usize> {
    let p = (w * axis.stride + k * axis.dilation) as i64 - axis.before;
    (p >= 0 && p < axis.input as i64).then_some(p as usize)
}

/// Dimensions from an attribute.
fn dims(list: &[i64]) -> Vec<usize> {
    list.iter().map(|&d| d.max(0) as usize).collect()
}

/// An index into several dimensions, counted up like an odometer.
type Index = SmallVec<[usize; 4]>;

fn unflatten(mut flat: usize, dims: impl DoubleEndedIterator<Item = usize>) -> Index {
    let mut index: Index = dims
        .rev()
        .map(|d| {
            let i = flat % d;
            flat /= d;
            i
        })
        .collect();
    index.reverse();
    index
}

/// Windows side by side of which the same element lies in the image.
pub struct Line {
    /// The element.
    element: usize,
    windows: Range<usize>,
    /// Where in the image that of the first window lies; from window to window it is the stride of the last axis
    /// further.
    first: usize,
}

/// All lines, element after element.
fn lines(axes: &[Window], strides: &[usize]) -> Vec<Line> {
    let Some((inner, outer)) = axes.split_last() else { return Vec::new() };
    let mut all = Vec::new();
    let kernel = || axes.iter().map(|a| a.kernel);
    for element in 0..kernel().product() {
        let k = unflatten(element, kernel());
        let begin = (k[outer.len()] * inner.dilation) as i64 - inner.before;
        let stride = inner.stride as i64;
        // The windows from which on the element lies at 0 or above, and at the end or above.
        let from = |end: i64| ((end - begin).max(0) + stride - 1) / stride;
        let low = from(0).min(inner.output as i64);
        let high = from(inner.input as i64).clamp(low, inner.output as i64);
        if low == high {
            continue;
        }
        let first = (begin + low * stride) as usize;
        let (low, high) = (low as usize, high as usize);
        for line in 0..outer.iter().map(|a| a.output).product() {
            let window = unflatten(line, outer.iter().map(|a| a.output));
            let places =
                outer.iter().enumerate().map(|(d, a)| Some(at(a, window[d], k[d])? * strides[d]));
            if let Some(base) = places.sum::<Option<usize>>() {
                let windows = line * inner.output + low..line * inner.output + high;
                all.push(Line { element, windows, first: base + first });
            }
        }
    }
    all
}

/// Keeps the larger of two numbers for each window, and its place; places are `stride` apart.
#[inline(always)]
fn larger<'x, T: Number>(
    line: impl Iterator<Item = &'x T>,
    first: usize,
    stride: usize,
    maxima: &mut [T],
    places: &mut [i64],
) {
    let mut at = first as i64;
    for ((best, place), &x) in maxima.iter_mut().zip(places).zip(line) {
        // A selection, since which element is the largest cannot be predicted.
        let better = (*place < 0) | (x > *best) | (x.is_nan() & !best.is_nan());
        *best = if better { x } else { *best };
        *place = if better { at } else { *place };
        at += stride as i64;
    }
}

/// MaxPool with the flat index of each maximum.
pub struct MaxPool {
    pub(crate) axes: Vec<Window>,
    pub(crate) lines: Vec<Line>,
    /// Strides of the image, row-major, and those in which indices are counted.
    pub(crate) strides: Vec<usize>,
    pub(crate) index_strides: Vec<usize>,
    pub(crate) image: usize,
    pub(crate) windows: usize,
    pub(crate) dtype: DType,
    pub(crate) indices: bool,
}

impl MaxPool {
    pub(super) fn lower(site: Site<'_>) -> Result<MaxPool, String> {
        let (from, to) = (site.input(0)?, site.output(0)?);
        if from.rank() < 3 {
            return Err("takes a batch, channels and at least one spatial dimension".to_owned());
        }
        let image = &from.shape[2..];
        let axes = site.windows(image, &dims(site.ints("kernel_shape")?))?;
        let own = strides(image);
        let index_strides = if site.node.int("storage_order") == Some(1) {
            let reversed: Vec<usize> = image.iter().rev().copied().collect();
            strides(&reversed).into_iter().rev().collect()
        } else {
            own.clone()
        };
        Ok(MaxPool {
            lines: lines(&axes, &own),
            axes,
            strides: own,
            index_strides,
            image: image.iter().product(),
            windows: to.shape[2..].iter().product(),
            dtype: from.dtype,
            indices: site.node.output(1).is_some(),
        })
    }

    /// The maximum of each window of an image and where it lies, −1 for a window of padding only: of equal ones
    /// the first, and before all others the first NaN.
    fn places<T: Number>(&self, image: &[T], maxima: &mut [T], places: &mut [i64]) {
        maxima.fill(T::lowest());
        places.fill(-1);
        for Line { windows, first, .. } in &self.lines {
            let (line, at) = (&image[*first..], *first);
            let (maxima, places) = (&mut maxima[windows.clone()], &mut places[windows.clone()]);
            // A stride that is known lets the loop vectorise.
            match self.stride() {
                1 => larger(line.iter(), at, 1, maxima, places),
                2 => {
                    let (pairs, last) = line.as_chunks::<2>();
                    let n = pairs.len().min(maxima.len());
                    let rest = at + 2 * n;
                    larger(pairs.iter().map(|[x, _]| x), at, 2, &mut maxima[..n], &mut places[..n]);
                    larger(last.iter(), rest, 2, &mut maxima[n..], &mut places[n..]);
                }
                stride => larger(line.iter().step_by(stride), at, stride, maxima, places),
            }
        }
    }

    /// The maxima of the windows of an image.
    fn maxima<T: Number>(&self, image: &[T], maxima: &mut [T]) {
        maxima.fill(T::lowest());
        let stride = self.stride();
        for Line { windows, first, .. } in &self.lines {
            let line = image[*first..].iter().step_by(stride);
            for (best, &x) in maxima[windows.clone()].iter_mut().zip(line) {
                let better = (x > *best) | (x.is_nan() & !best.is_nan());
                *best = if better { x } else { *best };
            }
        }
    }

    /// Elements of a line from window to window.
    fn stride(&self) -> usize {
        self.axes.last().map_or(1, |a| a.stride)
    }

    /// The index of a place in its image.
    fn index(&self, place: i64) -> usize {
        let place = usize::try_from(place).unwrap_or(0);
        if self.index_strides == self.strides {
            return place;
        }
        let at = unflatten(place, self.axes.iter().map(|a| a.input));
        at.iter().zip(&self.index_strides).map(|(i, s)| i * s).sum()
    }
}

impl Step for MaxPool {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let elements: usize = self.axes.iter().map(|a| a.kernel).product();
        with_type!(self.dtype, T => {
            let (data, values) = (io.input::<T>(0), io.output::<T>(0));
            let image = |c: usize| &data[c * self.image..][..self.image];
            if !self.indices {
                rows(io.pool, values, self.windows, elements, &|c, row| self.maxima(image(c), row));
                return Ok(());
            }
            let indices = io.output::<i64>(1).chunks_mut(self.windows.max(1));
            let mut both: Vec<_> = values.chunks_mut(self.windows.max(1)).zip(indices).collect();
            rows(io.pool, &mut both, 1, elements * self.windows, &|c, both| {
                for (maxima, places) in both {
                    self.places(image(c), maxima, places);
                    places.iter_mut().for_each(|p| *p = (c * self.image + self.index(*p)) as i64);
                }
            });
        });
        Ok(())
    }
}

/// MaxUnpool: pooled values back at their indices, zeros elsewhere.
pub struct MaxUnpool {
    pub(crate) dtype: DType,
    pub(crate) indices: DType,
    /// Map of an index over the image the pooling saw to one over the output.
    pub(crate) from: Vec<usize>,
    pub(crate) to: Vec<usize>,
}

impl MaxUnpool {
    pub(super) fn lower(site: Site<'_>) -> Result<MaxUnpool, String> {
        let (x, to) = (site.input(0)?, site.output(0)?);
        let list = |name: &str, i: usize, default| {
            site.node.ints(name).and_then(|v| v.get(i)).copied().unwrap_or(default)
        };
        let kernel = site.ints("kernel_shape")?;
        let mut from = x.shape.clone();
        let spatial = x.rank().saturating_sub(2);
        for (i, k) in kernel.iter().enumerate().take(spatial) {
            let pads = list("pads", i, 0) + list("pads", i + spatial, 0);
            let size = (x.shape[i + 2] as i64 - 1) * list("strides", i, 1) - pads + k;
            from[i + 2] = size.max(0) as usize;
        }
        let indices = site.input(1)?.dtype;
        Ok(MaxUnpool { dtype: x.dtype, indices, from, to: to.shape.clone() })
    }
}

impl Step for MaxUnpool {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let (indices, n) = (io.ins[1], self.from.iter().product::<usize>());
        with_type!(self.dtype, T => {
            let (data, out) = (io.input::<T>(0), io.output::<T>(0));
            out.fill(T::from_i128(0));
            for (j, &x) in data.iter().enumerate() {
                let i = super::gather::index(self.indices, indices, j);
                let at = super::gather::resolve(i, n)
                    .ok_or_else(|| super::gather::out_of_range(i, n))?;
                let at = unflatten(at, self.from.iter().copied());
                let flat = at.iter().zip(&self.to).fold(0, |flat, (&i, &d)| flat * d + i);
                let inside = at.iter().zip(&self.to).all(|(i, d)| i < d);
                if let (true, Some(o)) = (inside, out.get_mut(flat)) {
                    *o = x;
                }
            }
        });
        Ok(())
    }
}

/// Col2Im: adds the columns of blocks into an image, block after block of the kernel, window after
/// window.
pub struct Col2Im {
    pub(crate) axes: Vec<Window>,
    pub(crate) lines: Vec<Line>,
    pub(crate) strides: Vec<usize>,
    pub(crate) image: usize,
    pub(crate) block: usize,
    pub(crate) windows: usize,
    pub(crate) dtype: DType,
}

impl Col2Im {
    pub(super) fn lower(site: Site<'_>) -> Result<Col2Im, String> {
        let image = dims(site.ints("image_shape")?);
        let axes = site.windows(&image, &dims(site.ints("block_shape")?))?;
        let strides = strides(&image);
        Ok(Col2Im {
            lines: lines(&axes, &strides),
            strides,
            image: image.iter().product(),
            block: axes.iter().map(|a| a.kernel).product(),
            windows: axes.iter().map(|a| a.output).product(),
            axes,
            dtype: site.input(0)?.dtype,
        })
    }
}

impl Step for Col2Im {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        with_type!(self.dtype, T => {
            let (data, out) = (io.input::<T>(0), io.output::<T>(0));
            rows(io.pool, out, self.image, self.block, &|c, image| {
                image.fill(T::from_i128(0));
                let columns = &data[c * self.block * self.windows..];
                let stride = self.axes.last().map_or(1, |a| a.stride);
                for Line { element, windows, first } in &self.lines {
                    let column = &columns[element * self.windows..][windows.clone()];
                    for (o, &x) in image[*first..].iter_mut().step_by(stride).zip(column) {
                        *o = o.add(x);
                    }
                }
            });
        });
        Ok(())
    }
}
