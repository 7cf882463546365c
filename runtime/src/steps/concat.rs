//! Concat: rows of the operands one after the other.

use super::pool::rows;
use super::{Io, Site, Step};

/// Joins operands along an axis. All sizes are in bytes, so the element type does not matter.
pub struct Concat {
    pub(crate) row: usize,
    pub(crate) parts: Vec<usize>,
}

impl Concat {
    pub(super) fn lower(site: Site<'_>) -> Result<Concat, String> {
        let to = site.output(0)?;
        let axis = site.axis("axis", to.rank())?;
        let bytes = |shape: &[usize]| shape[axis..].iter().product::<usize>() * to.dtype.size();
        let parts = (0..site.node.inputs.len()).map(|i| Ok(bytes(&site.input(i)?.shape)));
        Ok(Concat { row: bytes(&to.shape), parts: parts.collect::<Result<_, String>>()? })
    }
}

impl Step for Concat {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let out = io.output::<u8>(0);
        rows(io.pool, out, self.row, 1, &|r, mut row| {
            for (bytes, part) in io.ins.iter().zip(&self.parts) {
                let (to, rest) = row.split_at_mut(*part);
                to.copy_from_slice(&bytes[r * part..][..*part]);
                row = rest;
            }
        });
        Ok(())
    }
}
