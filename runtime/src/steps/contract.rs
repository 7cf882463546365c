//! Matrix products, their exact derivatives and convolutions.
//!
//! Operands of f32 go to `pam-kernels`, where they may be strided: a transposed or sliced operand is
//! read where it lies. Other element types are multiplied by plain loops.

use super::pool::rows;
use super::{Io, Site, Step};
use crate::host::number::{Number, with_type};
use crate::host::strided::Strided;
use pam_ir::op::{Level, Op};
use pam_ir::tensor::strides;
use pam_ir::types::{DType, broadcast};
use pam_kernels::contract::{
    Arithmetic, ConvShape, Matrices, Spatial, conv, matmul, matmul_grad_a, matmul_grad_b,
};

/// How the matrices of an operand lie in its memory, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where each matrix of the operand's batch begins.
    pub offsets: Vec<usize>,
    /// Distance between rows.
    pub(crate) row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl Layout {
    /// The layout of an operand that is read along a walk; `None` where rows and columns do not lie
    /// at fixed distances.
    pub fn of(walk: &Strided, rows: usize, cols: usize) -> Option<Layout> {
        let mut dims: Vec<(usize, isize)> =
            walk.dims.iter().copied().zip(walk.strides.iter().copied()).collect();
        let col = inner(&mut dims, cols)?;
        let row = inner(&mut dims, rows)?;
        let mut offsets = vec![walk.offset];
        for (n, stride) in dims {
            let step = |&o: &isize| (0..n as isize).map(move |i| o + i * stride);
            offsets = offsets.iter().flat_map(step).collect();
        }
        let offsets = offsets.into_iter().map(|o| usize::try_from(o).ok());
        Some(Layout { offsets: offsets.collect::<Option<_>>()?, row, col })
    }

    /// The layout of a dense operand.
    fn dense(shape: &[usize], rows: usize, cols: usize) -> Layout {
        let batch: usize = shape[..shape.len().saturating_sub(2)].iter().product();
        Layout { offsets: (0..batch).map(|b| b * rows * cols).collect(), row: cols, col: 1 }
    }

    /// The matrices for a batch that this operand's batch is broadcast to.
    fn broadcast(&mut self, own: &[usize], to: &[usize]) {
        let strides = crate::host::strided::broadcast_strides(own, to);
        let walk = Strided::new(to, &strides, 0);
        let mut offsets = vec![0; walk.count()];
        walk.read(&self.offsets, 0, &mut offsets);
        self.offsets = offsets;
    }

    fn matrices<'a>(&'a self, data: &'a [f32]) -> Matrices<'a> {
        Matrices { data, offsets: &self.offsets, row: self.row, col: self.col }
    }
}

/// Takes the innermost `n` elements off a walk's dimensions and returns their distance.
fn inner(dims: &mut Vec<(usize, isize)>, n: usize) -> Option<usize> {
    if n == 1 {
        return Some(0);
    }
    let (last, stride) = dims.pop()?;
    // Where nothing is read there are no distances.
    if n == 0 || last % n != 0 {
        return None;
    }
    if last > n {
        dims.push((last / n, stride * n as isize));
    }
    usize::try_from(stride).ok()
}

/// Rows and columns of an operand of a matrix product; a vector is a row on the left and a column on
/// the right.
pub fn matrix(shape: &[usize], left: bool) -> (usize, usize) {
    match *shape {
        [] => (1, 1),
        [n] if left => (1, n),
        [n] => (n, 1),
        [.., m, n] => (m, n),
    }
}

fn arithmetic(site: Site<'_>) -> Result<Arithmetic, String> {
    Ok(match site.node.op.level() {
        Level::Pam => {
            let (offset, mantissa) = numbers(site)?;
            Arithmetic::Pa { offset, mantissa }
        }
        _ => Arithmetic::Native,
    })
}

fn numbers(site: Site<'_>) -> Result<(i32, u32), String> {
    let offset = i32::try_from(site.int("offset")?).map_err(|_| "the offset is too large")?;
    let mantissa = site.node.int("mantissa").unwrap_or(23).clamp(0, 23) as u32;
    Ok((offset, mantissa))
}

/// A matrix product.
pub struct Matmul {
    pub(crate) arithmetic: Arithmetic,
    pub(crate) dtype: DType,
    pub(crate) sizes: [usize; 3],
    pub(crate) a: Layout,
    pub(crate) b: Layout,
}

impl Matmul {
    pub(super) fn lower(site: Site<'_>, views: &[Option<Layout>]) -> Result<Matmul, String> {
        let (a, b) = (site.input(0)?, site.input(1)?);
        let ((m, k), (_, n)) = (matrix(&a.shape, true), matrix(&b.shape, false));
        let batch = |shape: &[usize]| shape[..shape.len().saturating_sub(2)].to_vec();
        let to = broadcast(&batch(&a.shape), &batch(&b.shape)).ok_or("the batches do not fit")?;
        let layout = |i: usize, shape: &[usize], rows, cols| {
            let view = views.get(i).cloned().flatten();
            let mut layout = view.unwrap_or_else(|| Layout::dense(shape, rows, cols));
            layout.broadcast(&batch(shape), &to);
            layout
        };
        Ok(Matmul {
            arithmetic: arithmetic(site)?,
            dtype: a.dtype,
            sizes: [m, n, k],
            a: layout(0, &a.shape, m, k),
            b: layout(1, &b.shape, k, n),
        })
    }

    fn plain<T: Number>(&self, io: &mut Io<'_>) {
        let [m, n, k] = self.sizes;
        let (a, b, out) = (io.input::<T>(0), io.input::<T>(1), io.output::<T>(0));
        rows(io.pool, out, n, k, &|r, row| {
            let (batch, i) = (r / m, r % m);
            let (a_at, b_at) = (self.a.offsets[batch] + i * self.a.row, self.b.offsets[batch]);
            for (j, o) in row.iter_mut().enumerate() {
                let product = |l: usize| {
                    let b = b[b_at + l * self.b.row + j * self.b.col];
                    a[a_at + l * self.a.col].mul(b)
                };
                *o = (0..k).fold(T::from_i128(0), |sum, l| sum.add(product(l)));
            }
        });
    }
}

impl Step for Matmul {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        if self.dtype == DType::F32 {
            let (a, b) = (self.a.matrices(io.input(0)), self.b.matrices(io.input(1)));
            matmul(io.pool, self.arithmetic, self.sizes, a, b, io.output(0));
        } else {
            with_type!(self.dtype, T => self.plain::<T>(io));
        }
        Ok(())
    }
}

/// The exact derivative of a PA matrix product by an operand.
pub struct MatmulGrad {
    pub(crate) by_a: bool,
    pub(crate) numbers: (i32, u32),
    pub(crate) sizes: [usize; 3],
    pub(crate) operands: [Layout; 3],
}

impl MatmulGrad {
    pub(super) fn lower(site: Site<'_>, views: &[Option<Layout>]) -> Result<MatmulGrad, String> {
        let (a, b, delta) = (site.input(0)?, site.input(1)?, site.input(2)?);
        let ((m, k), (_, n)) = (matrix(&a.shape, true), matrix(&b.shape, false));
        let layout = |i: usize, shape: &[usize], rows, cols| {
            let view = views.get(i).cloned().flatten();
            view.unwrap_or_else(|| Layout::dense(shape, rows, cols))
        };
        Ok(MatmulGrad {
            by_a: site.node.op == Op::PamMatMulGradA,
            numbers: numbers(site)?,
            sizes: [m, n, k],
            operands: [
                layout(0, &a.shape, m, k),
                layout(1, &b.shape, k, n),
                layout(2, &delta.shape, m, n),
            ],
        })
    }
}

impl Step for MatmulGrad {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let [a, b, delta] = &self.operands;
        let (a, b) = (a.matrices(io.input(0)), b.matrices(io.input(1)));
        let delta = delta.matrices(io.input(2));
        let gradient = if self.by_a { matmul_grad_a } else { matmul_grad_b };
        gradient(io.pool, self.numbers, self.sizes, a, b, delta, io.output(0));
        Ok(())
    }
}

/// A convolution; its bias, if any, is added afterwards.
pub struct Conv {
    pub(crate) arithmetic: Arithmetic,
    pub(crate) dtype: DType,
    pub(crate) shape: ConvShape,
    pub(crate) bias: bool,
}

impl Conv {
    pub(super) fn lower(site: Site<'_>) -> Result<Conv, String> {
        let (x, w) = (site.input(0)?, site.input(1)?);
        let groups = site.int("group")?.max(1) as usize;
        let windows = site.windows(&x.shape[2..], &w.shape[2..])?;
        if windows.len() > 3 {
            return Err("convolutions have at most three spatial dimensions".to_owned());
        }
        let spatial = windows.iter().map(|w| Spatial {
            input: w.input,
            kernel: w.kernel,
            output: w.output,
            stride: w.stride,
            dilation: w.dilation,
            input_dilation: w.input_dilation,
            before: w.before,
        });
        Ok(Conv {
            arithmetic: arithmetic(site)?,
            dtype: x.dtype,
            shape: ConvShape {
                batch: x.shape[0],
                groups,
                channels: w.shape[1],
                outputs: w.shape[0] / groups,
                spatial: spatial.collect(),
            },
            bias: site.node.input(2).is_some(),
        })
    }

    /// The position in the input that element `k` of window `o` reads.
    fn at(axis: &Spatial, o: usize, k: usize) -> Option<usize> {
        let p = (o * axis.stride + k * axis.dilation) as i64 - axis.before;
        let (p, d) = (usize::try_from(p).ok()?, axis.input_dilation);
        (p % d == 0 && p / d < axis.input).then_some(p / d)
    }

    fn plain<T: Number>(&self, io: &Io<'_>, out: &mut [T]) {
        let (s, x, w) = (&self.shape, io.input::<T>(0), io.input::<T>(1));
        let dims = |f: fn(&Spatial) -> usize| s.spatial.iter().map(f).collect::<Vec<usize>>();
        let (kernel, output, input) = (dims(|a| a.kernel), dims(|a| a.output), dims(|a| a.input));
        let count = |dims: &[usize]| dims.iter().product::<usize>();
        let (taps, positions, pixels) = (count(&kernel), count(&output), count(&input));
        let unflatten =
            |flat: usize, strides: &[usize], dims: &[usize], d: usize| flat / strides[d] % dims[d];
        let (ks, os, is) = (strides(&kernel), strides(&output), strides(&input));
        rows(io.pool, out, positions, s.channels * taps, &|r, row| {
            let (image, o) = (r / (s.groups * s.outputs), r % (s.groups * s.outputs));
            let first = image * s.groups * s.channels + o / s.outputs * s.channels;
            for (p, y) in row.iter_mut().enumerate() {
                let mut sum = T::from_i128(0);
                for t in 0..s.channels * taps {
                    let (c, tap) = (t / taps, t % taps);
                    let places = s.spatial.iter().enumerate().map(|(d, axis)| {
                        let (o, k) =
                            (unflatten(p, &os, &output, d), unflatten(tap, &ks, &kernel, d));
                        Some(Conv::at(axis, o, k)? * is[d])
                    });
                    if let Some(at) = places.sum::<Option<usize>>() {
                        let weight = w[(o * s.channels + c) * taps + tap];
                        sum = sum.add(x[(first + c) * pixels + at].mul(weight));
                    }
                }
                *y = sum;
            }
        });
    }

    fn add_bias<T: Number>(&self, io: &Io<'_>, out: &mut [T]) {
        if self.bias {
            let bias = io.input::<T>(2);
            let positions = self.shape.spatial.iter().map(|a| a.output).product();
            rows(io.pool, out, positions, 1, &|r, row| {
                let b = bias[r % bias.len()];
                row.iter_mut().for_each(|y| *y = y.add(b));
            });
        }
    }
}

impl Step for Conv {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        if self.dtype == DType::F32 {
            let out = io.output::<f32>(0);
            conv(io.pool, self.arithmetic, &self.shape, io.input(0), io.input(1), out);
            self.add_bias(io, out);
        } else {
            with_type!(self.dtype, T => {
                let out = io.output::<T>(0);
                self.plain::<T>(io, out);
                self.add_bias(io, out);
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_of_views() {
        // [2, 3, 4, 5] (batch, row, head, column) read as [2, 4, 3, 5] and as [2, 4, 5, 3].
        let walk = Strided::new(&[2, 4, 3, 5], &[60, 5, 20, 1], 0);
        let layout = Layout::of(&walk, 3, 5).unwrap();
        assert_eq!((layout.row, layout.col), (20, 1));
        assert_eq!(layout.offsets, [0, 5, 10, 15, 60, 65, 70, 75]);
        let walk = Strided::new(&[2, 4, 5, 3], &[60, 5, 1, 20], 0);
        assert_eq!(Layout::of(&walk, 5, 3).map(|l| (l.row, l.col)), Some((1, 20)));
        let joined = Strided::new(&[6, 5], &[5, 1], 0);
        assert_eq!(Layout::of(&joined, 6, 5), Some(Layout { offsets: vec![0], row: 5, col: 1 }));
        // Rows that continue in no fixed distance, and columns that run backwards.
        let walk = Strided::new(&[2, 2, 3], &[30, 4, 1], 0);
        assert_eq!(Layout::of(&walk, 4, 3), None);
        assert_eq!(Layout::of(&Strided::new(&[2, 3], &[3, -1], 2), 2, 3), None);
    }
}
