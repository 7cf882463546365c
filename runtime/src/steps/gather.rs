//! Reading by index: Gather, GatherElements, GatherND, OneHot. Negative indices count from the end.

use super::pool::rows;
use super::{Io, Site, Step};
use crate::host::number::{Number, of, of_mut, with_size, with_type};
use pam_ir::tensor::strides;
use pam_ir::types::DType;
use std::sync::atomic::{AtomicI64, Ordering};

/// Element `i` of a tensor of indices.
pub(super) fn index(dtype: DType, bytes: &[u8], i: usize) -> i64 {
    with_type!(dtype, T => of::<T>(bytes)[i].i128() as i64)
}

/// An index made non-negative; `None` where it is out of range.
pub(super) fn resolve(i: i64, n: usize) -> Option<usize> {
    let n = n as i64;
    let i = if i < 0 { i + n } else { i };
    (0..n).contains(&i).then_some(i as usize)
}

pub(super) fn out_of_range(i: i64, n: usize) -> String {
    format!("index {i} is out of range for a dimension of {n}")
}

/// An index that several threads may find to be out of range; the least is reported, so that the
/// message does not depend on the threads either.
pub(crate) struct Fault(AtomicI64);

impl Fault {
    pub(super) fn new() -> Fault {
        Fault(AtomicI64::new(i64::MAX))
    }

    pub(super) fn note(&self, i: i64) {
        self.0.fetch_min(i, Ordering::Relaxed);
    }

    pub(super) fn check(&self, n: usize) -> Result<(), String> {
        match self.0.load(Ordering::Relaxed) {
            i64::MAX => Ok(()),
            i => Err(out_of_range(i, n)),
        }
    }
}

/// Gather: slices along an axis. Sizes in bytes.
pub struct Gather {
    pub(crate) n: usize,
    pub(crate) inner: usize,
    pub(crate) count: usize,
    pub(crate) indices: DType,
    /// Whether a slice is one element.
    single: bool,
}

impl Gather {
    pub(super) fn lower(site: Site<'_>) -> Result<Gather, String> {
        let (data, indices) = (site.input(0)?, site.input(1)?);
        let axis = site.axis("axis", data.rank())?;
        let elements = data.shape[axis + 1..].iter().product::<usize>();
        Ok(Gather {
            n: data.shape[axis],
            inner: elements * data.dtype.size(),
            single: elements == 1,
            count: indices.elements(),
            indices: indices.dtype,
        })
    }
}

/// Slices that are copied by one call where all of them come from the same place of the outer axes.
const PIECE: usize = 1024;

impl Step for Gather {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let (data, indices) = (io.input::<u8>(0), io.ins[1]);
        let scratch = std::mem::take(&mut io.scratch);
        let places = of_mut::<u64>(&mut scratch[..self.count * size_of::<u64>()]);
        let fault = Fault::new();
        with_type!(self.indices, I => {
            for (place, i) in places.iter_mut().zip(of::<I>(indices)) {
                let i = i.i128() as i64;
                *place = resolve(i, self.n).map_or_else(|| { fault.note(i); 0 }, |at| at as u64);
            }
        });
        fault.check(self.n)?;
        let (places, out) = (&*places, io.output::<u8>(0));
        let (n, inner) = (self.n, self.inner);
        let outer = out.len() / (self.count * inner).max(1);
        let piece = if outer == 1 { PIECE.min(self.count) } else { self.count };
        rows(io.pool, out, piece * inner, 1, &|r, row| {
            let (o, places) = if outer == 1 { (0, &places[r * piece..]) } else { (r, places) };
            let data = &data[o * n * inner..][..n * inner];
            if self.single {
                with_size!(inner, T => {
                    let data = of::<T>(data);
                    let row = of_mut::<T>(row).iter_mut();
                    row.zip(places).for_each(|(o, &at)| *o = data[at as usize]);
                });
            } else {
                for (slice, &at) in row.chunks_mut(inner).zip(places) {
                    slice.copy_from_slice(&data[at as usize * inner..][..inner]);
                }
            }
        });
        Ok(())
    }

    fn scratch(&self) -> usize {
        self.count * size_of::<u64>()
    }
}

/// The geometry of GatherElements and ScatterElements: rows along the last axis of the indices.
pub(crate) struct Elements {
    pub(crate) n: usize,
    pub(crate) row: usize,
    pub(crate) outer: Vec<(usize, usize)>,
    /// Data stride of the axis and of the last axis (0 if that is the axis).
    pub(crate) axis_stride: usize,
    pub(crate) step: usize,
    pub(crate) dtype: DType,
}

impl Elements {
    pub(super) fn new(site: Site<'_>) -> Result<Elements, String> {
        let (data, indices) = (site.input(0)?, site.input(1)?);
        let axis = site.axis("axis", data.rank())?;
        let own = strides(&data.shape);
        let stride = |d: usize| if d == axis { 0 } else { own[d] };
        let last = data.rank() - 1;
        if indices.rank() != data.rank() {
            return Err("indices and data must have the same rank".to_owned());
        }
        Ok(Elements {
            n: data.shape[axis],
            row: indices.shape[last],
            outer: (0..last).map(|d| (indices.shape[d], stride(d))).collect(),
            axis_stride: own[axis],
            step: stride(last),
            dtype: indices.dtype,
        })
    }

    /// Where in the data row `r` begins, at index 0 of the axis.
    pub(super) fn base(&self, r: usize) -> usize {
        let (mut rest, mut base) = (r, 0);
        for &(n, stride) in self.outer.iter().rev() {
            base += rest % n * stride;
            rest /= n;
        }
        base
    }
}

/// GatherElements: elements along an axis.
pub struct GatherElements {
    pub(crate) at: Elements,
    pub(crate) size: usize,
}

impl GatherElements {
    pub(super) fn lower(site: Site<'_>) -> Result<GatherElements, String> {
        Ok(GatherElements { at: Elements::new(site)?, size: site.input(0)?.dtype.size() })
    }
}

impl Step for GatherElements {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let at = &self.at;
        let fault = Fault::new();
        with_size!(self.size, T => {
            let (data, indices) = (io.input::<T>(0), io.ins[1]);
            rows(io.pool, io.output::<T>(0), at.row, 1, &|r, row| {
                let base = at.base(r);
                for (j, o) in row.iter_mut().enumerate() {
                    let i = index(at.dtype, indices, r * at.row + j);
                    match resolve(i, at.n) {
                        Some(i) => *o = data[base + j * at.step + i * at.axis_stride],
                        None => fault.note(i),
                    }
                }
            });
        });
        fault.check(at.n)
    }
}

/// The geometry of GatherND and ScatterND: index tuples that name slices.
pub(crate) struct Tuples {
    /// Dimension and stride, in elements, of each member of a tuple.
    pub(crate) dims: Vec<(usize, usize)>,
    /// Elements of a slice.
    pub(crate) slice: usize,
    /// Tuples in a batch, and elements of the data in a batch.
    pub(crate) batch: (usize, usize),
    pub(crate) dtype: DType,
}

impl Tuples {
    pub(super) fn new(site: Site<'_>, batch_dims: usize) -> Result<Tuples, String> {
        let (data, indices) = (site.input(0)?, site.input(1)?);
        let k = *indices.shape.last().ok_or("indices need a dimension")?;
        if batch_dims + k > data.rank() {
            return Err(format!("tuples of {k} indices do not fit rank {}", data.rank()));
        }
        let own = strides(&data.shape);
        let dims = (batch_dims..batch_dims + k).map(|d| (data.shape[d], own[d])).collect();
        let tuples = indices.shape[batch_dims..indices.rank() - 1].iter().product();
        Ok(Tuples {
            dims,
            slice: data.shape[batch_dims + k..].iter().product(),
            batch: (tuples, data.shape[batch_dims..].iter().product()),
            dtype: indices.dtype,
        })
    }

    /// Where slice `t` begins, in elements.
    pub(super) fn find(&self, indices: &[u8], t: usize) -> Result<usize, String> {
        let mut at = t / self.batch.0 * self.batch.1;
        for (j, &(n, stride)) in self.dims.iter().enumerate() {
            let i = index(self.dtype, indices, t * self.dims.len() + j);
            at += resolve(i, n).ok_or_else(|| out_of_range(i, n))? * stride;
        }
        Ok(at)
    }
}

/// GatherND: slices by index tuples.
pub struct GatherNd {
    pub(crate) at: Tuples,
    pub(crate) size: usize,
}

impl GatherNd {
    pub(super) fn lower(site: Site<'_>) -> Result<GatherNd, String> {
        let at = Tuples::new(site, site.int("batch_dims")?.max(0) as usize)?;
        Ok(GatherNd { at, size: site.input(0)?.dtype.size() })
    }
}

impl Step for GatherNd {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let (data, indices) = (io.input::<u8>(0), io.ins[1]);
        let bytes = self.at.slice * self.size;
        for (t, row) in io.output::<u8>(0).chunks_mut(bytes.max(1)).enumerate() {
            let at = self.at.find(indices, t)? * self.size;
            row.copy_from_slice(&data[at..][..bytes]);
        }
        Ok(())
    }
}

/// OneHot: off and on values by index.
pub struct OneHot {
    pub(crate) depth: usize,
    pub(crate) inner: usize,
    pub(crate) indices: DType,
    pub(crate) size: usize,
}

impl OneHot {
    pub(super) fn lower(site: Site<'_>) -> Result<OneHot, String> {
        let (indices, to) = (site.input(0)?, site.output(0)?);
        let axis = site.axis("axis", to.rank())?;
        Ok(OneHot {
            depth: to.shape[axis],
            inner: to.shape[axis + 1..].iter().product(),
            indices: indices.dtype,
            size: to.dtype.size(),
        })
    }
}

impl Step for OneHot {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let indices = io.ins[0];
        with_size!(self.size, T => {
            let values = io.input::<T>(1);
            rows(io.pool, io.output::<T>(0), self.inner, 1, &|r, row| {
                let (block, class) = (r / self.depth, r % self.depth);
                for (j, o) in row.iter_mut().enumerate() {
                    let i = index(self.indices, indices, block * self.inner + j);
                    *o = values[usize::from(resolve(i, self.depth) == Some(class))];
                }
            });
        });
        Ok(())
    }
}
