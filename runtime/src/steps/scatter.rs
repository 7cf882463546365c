//! Writing by index: ScatterElements and ScatterND. Updates are applied one after the other in
//! row-major order, so that repeated indices add up in a fixed order.

use super::gather::{Elements, Tuples, index, out_of_range, resolve};
use super::{Io, Site, Step};
use crate::host::number::{Number, with_type};
use pam_ir::types::DType;

/// What happens where an update meets what is there.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Reduction {
    None,
    Add,
    Mul,
    Max,
    Min,
}

impl Reduction {
    fn of(site: Site<'_>) -> Result<Reduction, String> {
        Ok(match site.node.str("reduction") {
            None | Some("none") => Reduction::None,
            Some("add") => Reduction::Add,
            Some("mul") => Reduction::Mul,
            Some("max") => Reduction::Max,
            Some("min") => Reduction::Min,
            Some(other) => return Err(format!("reduction `{other}` is not known")),
        })
    }

    fn apply<T: Number>(self, old: T, new: T) -> T {
        match self {
            Reduction::None => new,
            Reduction::Add => old.add(new),
            Reduction::Mul => old.mul(new),
            Reduction::Max => Number::greater(old, new),
            Reduction::Min => Number::lesser(old, new),
        }
    }
}

/// ScatterElements: elements along an axis.
pub struct ScatterElements {
    pub(crate) at: Elements,
    pub(crate) reduction: Reduction,
    pub(crate) dtype: DType,
}

impl ScatterElements {
    pub(super) fn lower(site: Site<'_>) -> Result<ScatterElements, String> {
        let dtype = site.input(0)?.dtype;
        Ok(ScatterElements { at: Elements::new(site)?, reduction: Reduction::of(site)?, dtype })
    }
}

impl Step for ScatterElements {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let (at, indices) = (&self.at, io.ins[1]);
        with_type!(self.dtype, T => {
            let (data, updates) = (io.input::<T>(0), io.input::<T>(2));
            let out = io.output::<T>(0);
            out.copy_from_slice(data);
            for (r, row) in updates.chunks(at.row.max(1)).enumerate() {
                let base = at.base(r);
                for (j, &u) in row.iter().enumerate() {
                    let i = index(at.dtype, indices, r * at.row + j);
                    let k = resolve(i, at.n).ok_or_else(|| out_of_range(i, at.n))?;
                    let o = &mut out[base + j * at.step + k * at.axis_stride];
                    *o = self.reduction.apply(*o, u);
                }
            }
        });
        Ok(())
    }
}

/// ScatterND: slices by index tuples.
pub struct ScatterNd {
    pub(crate) at: Tuples,
    pub(crate) reduction: Reduction,
    pub(crate) dtype: DType,
}

impl ScatterNd {
    pub(super) fn lower(site: Site<'_>) -> Result<ScatterNd, String> {
        let dtype = site.input(0)?.dtype;
        Ok(ScatterNd { at: Tuples::new(site, 0)?, reduction: Reduction::of(site)?, dtype })
    }
}

impl Step for ScatterNd {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let indices = io.ins[1];
        with_type!(self.dtype, T => {
            let (data, updates) = (io.input::<T>(0), io.input::<T>(2));
            let out = io.output::<T>(0);
            out.copy_from_slice(data);
            for (t, slice) in updates.chunks(self.at.slice.max(1)).enumerate() {
                let at = self.at.find(indices, t)?;
                for (o, &u) in out[at..].iter_mut().zip(slice) {
                    *o = self.reduction.apply(*o, u);
                }
            }
        });
        Ok(())
    }
}
