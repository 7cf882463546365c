//! Windows over space: MaxPool, MaxUnpool, Col2Im.

use super::pool::rows;
use super::{Io, Site, Step};
use crate::host::number::{Number, with_type};
use pam_ir::geometry::Window;
use pam_ir::tensor::strides;
use pam_ir::types::DType;
use smallvec::SmallVec;

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

/// MaxPool with the flat index of each maximum.
pub struct MaxPool {
    pub(crate) axes: Vec<Window>,
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
            axes,
            strides: own,
            index_strides,
            image: image.iter().product(),
            windows: to.shape[2..].iter().product(),
            dtype: from.dtype,
            indices: site.node.output(1).is_some(),
        })
    }

    /// The position of the maximum of window `w` of one image, and its index.
    fn best<T: Number>(&self, image: &[T], w: usize) -> (T, usize) {
        let window = unflatten(w, self.axes.iter().map(|a| a.output));
        let elements: usize = self.axes.iter().map(|a| a.kernel).product();
        let mut k: Index = SmallVec::from_elem(0, self.axes.len());
        let mut best = (T::lowest(), 0);
        let mut found = false;
        for _ in 0..elements {
            let (mut flat, mut index, mut inside) = (0, 0, true);
            for (d, axis) in self.axes.iter().enumerate() {
                match at(axis, window[d], k[d]) {
                    Some(p) => {
                        flat += p * self.strides[d];
                        index += p * self.index_strides[d];
                    }
                    None => inside = false,
                }
            }
            if inside {
                let x = image[flat];
                if !found || x > best.0 || (x.is_nan() && !best.0.is_nan()) {
                    best = (x, index);
                    found = true;
                }
            }
            for d in (0..k.len()).rev() {
                k[d] += 1;
                if k[d] < self.axes[d].kernel {
                    break;
                }
                k[d] = 0;
            }
        }
        best
    }
}

impl Step for MaxPool {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        with_type!(self.dtype, T => {
            let (data, values) = (io.input::<T>(0), io.output::<T>(0));
            let elements: usize = self.axes.iter().map(|a| a.kernel).product();
            rows(io.pool, values, self.windows, elements, &|c, row| {
                let image = &data[c * self.image..][..self.image];
                for (w, o) in row.iter_mut().enumerate() {
                    *o = self.best(image, w).0;
                }
            });
            if self.indices {
                rows(io.pool, io.output::<i64>(1), self.windows, elements, &|c, row| {
                    let image = &data[c * self.image..][..self.image];
                    for (w, o) in row.iter_mut().enumerate() {
                        *o = (c * self.image + self.best(image, w).1) as i64;
                    }
                });
            }
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
        Ok(Col2Im {
            strides: strides(&image),
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
                for b in 0..self.block {
                    let k = unflatten(b, self.axes.iter().map(|a| a.kernel));
                    for w in 0..self.windows {
                        let window = unflatten(w, self.axes.iter().map(|a| a.output));
                        let places = self.axes.iter().enumerate();
                        let at = places.map(|(d, a)| Some(at(a, window[d], k[d])? * self.strides[d]));
                        if let Some(at) = at.sum::<Option<usize>>() {
                            image[at] = image[at].add(columns[b * self.windows + w]);
                        }
                    }
                }
            });
        });
        Ok(())
    }
}
