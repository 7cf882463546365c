//! One tile of a program: its registers and what happens to them.

use super::program::{Access, Action, Format, Multiplied, Operand, Per, Program, Reg};
use crate::host::number::{of, of_mut, with_size};
use pam_kernels::reduce::{reduce_rows, sum_products};
use std::ops::Add;

/// How many numbers there are in registers of each kind; counted once for a tile, since divisions take as
/// long as some of its actions.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    pub(super) elements: usize,
    pub(super) rows: usize,
}

impl Counts {
    /// Numbers of a register.
    pub(super) fn of(self, per: Per) -> usize {
        match per {
            Per::Element => self.elements,
            Per::Row => self.rows,
            Per::Program => 1,
        }
    }

    /// Bytes of a register.
    pub(super) fn bytes(self, format: Format) -> usize {
        self.of(format.per) * format.size
    }
}

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts { elements: self.elements + other.elements, rows: self.rows + other.rows }
    }
}

/// The registers while one tile is computed.
pub(super) struct Tile<'t, 'm> {
    pub(super) program: &'t Program,
    /// What lies before it in the index space.
    pub(super) at: Counts,
    /// The operands: tiles of those that are read in place, else the whole.
    pub(super) ins: &'t [&'t [u8]],
    /// Scratch, then the tiles of the results.
    pub(super) own: &'t mut [&'m mut [u8]],
}

impl Tile<'_, '_> {
    /// Does one thing.
    pub(super) fn act(&mut self, action: &Action) {
        match action {
            Action::Fill { operand, to } => self.fill(*operand, *to),
            Action::Copy { from, to } => {
                self.write(*to, |tile, out| out.copy_from_slice(tile.get(*from)));
            }
            Action::Compute { kernel, args, to, .. } => self.write(*to, |tile, out| {
                let arg = |i: usize| args[i].map_or(&[][..], |r| tile.get(r));
                kernel.compute([arg(0), arg(1), arg(2)], out);
            }),
            Action::Reduce { reduction, from, by, to } => self.write(*to, |tile, out| {
                let row = tile.program.row;
                let (x, out) = (of(tile.get(*from)), of_mut(out));
                match by {
                    Some(Multiplied { product, by, .. }) => {
                        sum_products(*product, row, x, of(tile.get(*by)), out);
                    }
                    None => reduce_rows(*reduction, row, x, out),
                }
            }),
            Action::Spread { from, to } => {
                let Format { size, .. } = self.program.format(*to);
                self.write(*to, |tile, out| {
                    with_size!(size, T => {
                        let (values, out) = (of::<T>(tile.get(*from)), of_mut::<T>(out));
                        let n = out.len() / values.len();
                        out.chunks_mut(n).zip(values).for_each(|(o, x)| o.fill(*x));
                    })
                });
            }
        }
    }

    fn fill(&mut self, operand: u16, to: Reg) {
        let Operand { format, access, .. } = &self.program.operands[operand as usize];
        self.write(to, |tile, out| match access {
            Access::Direct => out.copy_from_slice(tile.get(Reg::In(operand))),
            Access::InPlace(k) => {
                // A result that is nothing but a copy of what it overwrites is there already.
                if to != Reg::Out(*k) {
                    out.copy_from_slice(tile.get(Reg::Out(*k)));
                }
            }
            Access::Walk(walk) => with_size!(format.size, T => {
                let source = of::<T>(tile.ins[operand as usize]);
                walk.read(source, tile.at.of(format.per), of_mut::<T>(out));
            }),
        });
    }

    /// Where a register lies among those that are written.
    fn index(&self, reg: Reg) -> usize {
        match reg {
            Reg::In(_) => unreachable!("operands are not written"),
            Reg::Temp(t) => t.into(),
            Reg::Out(k) => self.program.temps.len() + usize::from(k),
        }
    }

    /// A register for reading.
    fn get(&self, reg: Reg) -> &[u8] {
        match reg {
            Reg::In(i) => self.ins[usize::from(i)],
            _ => &*self.own[self.index(reg)],
        }
    }

    /// Takes the register to write out of the set, so that the others can be read meanwhile.
    fn write(&mut self, to: Reg, f: impl FnOnce(&Self, &mut [u8])) {
        let index = self.index(to);
        let register = std::mem::take(&mut self.own[index]);
        f(self, register);
        self.own[index] = register;
    }
}
