//! Movements that strides do not describe: padding, triangles, reversed prefixes.

use super::gather::index;
use super::pool::rows;
use super::{Io, Site, Step};
use crate::host::number::with_size;
use pam_ir::geometry::padded_positions;
use pam_ir::op::Op;
use pam_ir::tensor::strides;
use pam_ir::types::DType;

/// Pad and CenterCropPad: each axis maps output positions to input positions or to the border.
pub struct Lookup {
    pub(crate) size: usize,
    /// For each axis and output position the offset along it, or none for the border.
    pub(crate) tables: Vec<Vec<Option<usize>>>,
    /// Whether operand 1 holds the border's value; else it is 0.
    pub(crate) border: bool,
}

impl Lookup {
    pub(super) fn lower(site: Site<'_>) -> Result<Lookup, String> {
        let (from, to) = (site.input(0)?, site.output(0)?);
        let (graph, own) = (site.graph, strides(&from.shape));
        let positions =
            graph.with_call(site.node, |call| padded_positions(call, &from.shape, &to.shape))?;
        let offsets = |(positions, step): (Vec<Option<usize>>, usize)| {
            positions.into_iter().map(|p| p.map(|p| p * step)).collect()
        };
        Ok(Lookup {
            size: to.dtype.size(),
            tables: positions.into_iter().zip(own).map(offsets).collect(),
            border: site.node.op == Op::Pad && site.node.input(1).is_some(),
        })
    }
}

impl Step for Lookup {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        with_size!(self.size, T => {
            let data = io.input::<T>(0);
            let border = if self.border { io.input::<T>(1)[0] } else { 0 };
            let out = io.output::<T>(0);
            let Some((last, outer)) = self.tables.split_last() else {
                out[0] = data[0];
                return Ok(());
            };
            rows(io.pool, out, last.len(), 1, &|r, row| {
                let mut rest = r;
                let mut base = Some(0);
                for table in outer.iter().rev() {
                    base = base.zip(table[rest % table.len()]).map(|(b, t)| b + t);
                    rest /= table.len();
                }
                for (o, t) in row.iter_mut().zip(last) {
                    *o = base.zip(*t).map_or(border, |(b, t)| data[b + t]);
                }
            });
        });
        Ok(())
    }
}

/// Trilu: keeps a triangle of the last two dimensions.
pub struct Trilu {
    pub(crate) size: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) k: i64,
    pub(crate) upper: bool,
}

impl Trilu {
    pub(super) fn lower(site: Site<'_>) -> Result<Trilu, String> {
        let ty = site.input(0)?;
        let [.., height, width] = ty.shape[..] else {
            return Err("takes at least two dimensions".to_owned());
        };
        let k = site.node.int("k").unwrap_or(0);
        Ok(Trilu { size: ty.dtype.size(), height, width, k, upper: site.int("upper")? != 0 })
    }
}

impl Step for Trilu {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let data = io.input::<u8>(0);
        let bytes = self.width * self.size;
        rows(io.pool, io.output::<u8>(0), bytes, 1, &|r, row| {
            let data = &data[r * bytes..][..bytes];
            let diagonal = (r % self.height) as i64 + self.k + i64::from(!self.upper);
            let cut = diagonal.clamp(0, self.width as i64) as usize * self.size;
            row.fill(0);
            let kept = if self.upper { cut..bytes } else { 0..cut };
            row[kept.clone()].copy_from_slice(&data[kept]);
        });
        Ok(())
    }
}

/// ReverseSequence: reverses a prefix of each row.
pub struct Reverse {
    pub(crate) time: usize,
    pub(crate) batch: usize,
    pub(crate) time_first: bool,
    pub(crate) slice: usize,
    pub(crate) lengths: DType,
}

impl Reverse {
    pub(super) fn lower(site: Site<'_>) -> Result<Reverse, String> {
        let ty = site.input(0)?;
        let (batch, time) =
            (site.axis("batch_axis", ty.rank())?, site.axis("time_axis", ty.rank())?);
        if batch + time != 1 {
            return Err("batch_axis and time_axis must be 0 and 1".to_owned());
        }
        Ok(Reverse {
            time: ty.shape[time],
            batch: ty.shape[batch],
            time_first: time == 0,
            slice: ty.shape[2..].iter().product::<usize>() * ty.dtype.size(),
            lengths: site.input(1)?.dtype,
        })
    }
}

impl Step for Reverse {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let (data, lengths) = (io.input::<u8>(0), io.ins[1]);
        let out = io.output::<u8>(0);
        for b in 0..self.batch {
            let n = index(self.lengths, lengths, b);
            if n < 0 || n > self.time as i64 {
                return Err(format!("sequence length {n} is outside 0..={}", self.time));
            }
            for t in 0..self.time {
                let from = if (t as i64) < n { n as usize - 1 - t } else { t };
                let at = |t| if self.time_first { t * self.batch + b } else { b * self.time + t };
                out[at(t) * self.slice..][..self.slice]
                    .copy_from_slice(&data[at(from) * self.slice..][..self.slice]);
            }
        }
        Ok(())
    }
}
