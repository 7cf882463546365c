//! Random numbers from Threefry: each element by its index, so that the threads do not show.

use super::pool::rows;
use super::{Io, Site, Step};
use crate::host::number::{Number, with_type};
use pam_ir::types::DType;
use pam_kernels::random::{fill_uniform, threefry, uniform};

/// Elements that one thread draws together.
const ROW: usize = 1024;

/// `pam::uniform`: keyed by the node, counted by the step and the element.
pub struct Uniform {
    pub(crate) key: [u32; 2],
}

impl Uniform {
    pub(super) fn lower(site: Site<'_>) -> Result<Uniform, String> {
        match site.ints("key")? {
            [a, b] => Ok(Uniform { key: [*a as u32, *b as u32] }),
            other => Err(format!("`key` has {} words, not two", other.len())),
        }
    }
}

impl Step for Uniform {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let step = io.input::<i64>(0)[0] as u32;
        let out = io.output::<f32>(0);
        // The last row may be short: the rows before it are divided, it is drawn on its own.
        let whole = out.len() / ROW * ROW;
        let (rows_of, rest) = out.split_at_mut(whole);
        rows(io.pool, rows_of, ROW, 8, &|r, row| {
            fill_uniform(self.key, step, (r * ROW) as u32, row);
        });
        fill_uniform(self.key, step, whole as u32, rest);
        Ok(())
    }
}

/// Bernoulli: one with the probability given. The key is the seed and a hash of the node's name,
/// the counter the number of the run and the element.
pub struct Bernoulli {
    pub(crate) key: [u32; 2],
    pub(crate) from: DType,
    pub(crate) to: DType,
}

impl Bernoulli {
    pub(super) fn lower(site: Site<'_>) -> Result<Bernoulli, String> {
        let seed = site.node.float("seed").map_or(0, f32::to_bits);
        let name = site.node.name.bytes().fold(0u32, |h, b| h.rotate_left(5) ^ u32::from(b));
        let (from, to) = (site.input(0)?.dtype, site.output(0)?.dtype);
        Ok(Bernoulli { key: [seed, name], from, to })
    }
}

impl Step for Bernoulli {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        with_type!(self.from, S => with_type!(self.to, D => {
            let p = io.input::<S>(0);
            let run = io.run as u32;
            for (i, o) in io.output::<D>(0).iter_mut().enumerate() {
                let u = uniform(threefry(self.key, [run, i as u32])[0]);
                *o = D::from_i128((f64::from(u) < p[i].f64()).into());
            }
        }));
        Ok(())
    }
}
