//! Elementwise programs: a few operations applied to a tile at a time.
//!
//! A tile is a range of the flat index space, small enough that all registers stay in the
//! first-level cache, so that each tensor crosses memory once however long the chain is. A register
//! is a tile of an operand read in place, of a result, or of scratch. Operands that are broadcast,
//! transposed or sliced are gathered into scratch tile by tile and never materialised.
//!
//! Where the index space consists of rows, a program may reduce each of them: softmax, norms and losses
//! are one program. A tile is then some whole rows, and registers hold a number for each element or one
//! for each row. Functions of two numbers take such registers, and those of a single number, as they are;
//! for others they are spread.
//!
//! The index space is divided among the threads at tile borders; as every element, or every row, is
//! computed by itself, the division does not show in the result.

use super::kernel::Kernel;
use super::memory::Outs;
use crate::host::number::{of, of_mut, with_size};
use crate::host::pointwise::Function;
use crate::host::strided::Strided;
use pam_kernels::Pool;
use pam_kernels::reduce::{Reduction, reduce_rows};
use smallvec::SmallVec;
use std::ops::Range;

/// Bytes that the registers of one thread may take together.
const CACHE: usize = 24 * 1024;
/// Limits of the number of elements of a tile.
const TILE: (usize, usize) = (256, 4096);
/// Elements below which a program runs on one thread: handing over costs more than it gains.
const GRAIN: usize = 16 * 1024;

/// What there is one number for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// Each element of the index space.
    Element,
    /// Each row.
    Row,
    /// The whole program.
    Program,
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bytes of a number.
    pub size: usize,
    /// What there is a number for.
    pub per: Per,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reg {
    /// The tile of an operand, in place.
    In(u16),
    /// Scratch.
    Temp(u16),
    /// The tile of a result, in place.
    Out(u16),
}

/// How an operand is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Access {
    /// Element i for element i.
    Direct,
    /// One element for all, kept in a register during the whole program.
    Single {
        /// Position of the element.
        offset: usize,
        /// The register.
        temp: u16,
    },
    /// Along strides.
    Walk(Strided),
    /// Element i for element i, out of the memory of a result, before that is written.
    InPlace(u16),
}

/// An operand in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// What its register holds.
    pub format: Format,
    /// How it is read.
    pub access: Access,
}

/// One thing that happens to a tile.
#[derive(Clone, Debug)]
pub enum Action {
    /// Gathers an operand.
    Fill {
        /// The operand.
        operand: u16,
        /// Scratch or result.
        to: Reg,
    },
    /// Copies a register.
    Copy {
        /// From here.
        from: Reg,
        /// To there.
        to: Reg,
    },
    /// Computes.
    Compute {
        /// What.
        function: Function,
        /// How, on the CPU.
        kernel: Kernel,
        /// Its operands.
        args: [Option<Reg>; 3],
        /// Its result.
        to: Reg,
    },
    /// Reduces each row.
    Reduce {
        /// How.
        reduction: Reduction,
        /// Floats, one for each element.
        from: Reg,
        /// Floats, one for each row.
        to: Reg,
    },
    /// Repeats each number for as many neighbours.
    Spread {
        /// Numbers of rows, or a single one.
        from: Reg,
        /// Numbers of elements, or of rows.
        to: Reg,
    },
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Elements of the index space.
    pub count: usize,
    /// Elements of a row; 1 where nothing is reduced.
    pub row: usize,
    /// What is read.
    pub operands: Vec<Operand>,
    /// What happens to a tile, in order.
    pub actions: Vec<Action>,
    /// The results.
    pub outs: SmallVec<[Format; 4]>,
    /// The scratch registers.
    pub temps: Vec<Format>,
    /// Elements of a tile, a multiple of the row.
    tile: usize,
}

impl Program {
    /// A program over `count` elements in rows of `row`.
    pub fn new(
        [count, row]: [usize; 2],
        operands: Vec<Operand>,
        actions: Vec<Action>,
        outs: SmallVec<[Format; 4]>,
        temps: Vec<Format>,
    ) -> Program {
        let elements = temps.iter().chain(&outs).filter(|f| f.per == Per::Element);
        let width: usize = elements.map(|f| f.size).sum();
        let tile = (CACHE / width.max(1)).clamp(TILE.0, TILE.1);
        let tile = match row {
            // Multiples of 64 elements keep every register of every size aligned to a cache line.
            1 => (tile / 64 * 64).min(count.next_multiple_of(64)).max(64),
            row => (tile / row * row).min(count).max(row),
        };
        Program { count, row, operands, actions, outs, temps, tile }
    }

    /// What a register holds.
    pub fn format(&self, reg: Reg) -> Format {
        match reg {
            Reg::In(i) => self.operands[i as usize].format,
            Reg::Temp(t) => self.temps[t as usize],
            Reg::Out(k) => self.outs[k as usize],
        }
    }

    /// Bytes of scratch one thread needs.
    pub fn scratch(&self) -> usize {
        self.temps.iter().map(|f| self.room(f)).sum()
    }

    /// Bytes a scratch register takes.
    fn room(&self, format: &Format) -> usize {
        format.size * self.numbers(format.per, self.tile).next_multiple_of(64)
    }

    /// How many numbers there are for so many elements.
    fn numbers(&self, per: Per, elements: usize) -> usize {
        match per {
            Per::Element => elements,
            Per::Row => elements / self.row,
            Per::Program => 1,
        }
    }

    /// How many operations it applies to each element.
    pub fn operations(&self) -> usize {
        let counted = |a: &&Action| matches!(a, Action::Compute { .. } | Action::Reduce { .. });
        self.actions.iter().filter(counted).count()
    }

    /// Runs it. `ins` holds the memory of the operands (nothing for those that are read in place),
    /// `scratch` the scratch of all threads.
    pub fn execute(&self, ins: &[&[u8]], outs: Outs<'_>, scratch: &mut [u8], pool: &Pool) {
        let parts = pool.threads().min(self.count.div_ceil(GRAIN)).max(1);
        self.divide(0, self.count, parts, ins, outs, scratch, pool);
    }

    #[allow(clippy::too_many_arguments, reason = "the halves of a division differ in all of them")]
    fn divide(
        &self,
        from: usize,
        to: usize,
        parts: usize,
        ins: &[&[u8]],
        outs: Outs<'_>,
        scratch: &mut [u8],
        pool: &Pool,
    ) {
        let left = parts / 2;
        let middle = from + ((to - from) / parts.max(1) * left) / self.tile * self.tile;
        if parts <= 1 {
            return self.serial(from, to, ins, outs, scratch);
        }
        let (mut low, mut high) = (Outs::new(), Outs::new());
        for (out, f) in outs.into_iter().zip(&self.outs) {
            let (l, h) = out.split_at_mut(self.numbers(f.per, middle - from) * f.size);
            low.push(l);
            high.push(h);
        }
        let (low_scratch, high_scratch) = scratch.split_at_mut(left * self.scratch());
        pool.join(
            || self.divide(from, middle, left, ins, low, low_scratch, pool),
            || self.divide(middle, to, parts - left, ins, high, high_scratch, pool),
        );
    }

    /// Tiles `from..to` on this thread; `outs` begin at `from`.
    fn serial(
        &self,
        from: usize,
        to: usize,
        ins: &[&[u8]],
        mut outs: Outs<'_>,
        scratch: &mut [u8],
    ) {
        let mut temps: SmallVec<[&mut [u8]; 16]> = SmallVec::new();
        let mut scratch = scratch;
        for format in &self.temps {
            let (temp, rest) = scratch.split_at_mut(self.room(format));
            temps.push(temp);
            scratch = rest;
        }
        for (operand, bytes) in self.operands.iter().zip(ins) {
            if let Access::Single { offset, temp } = operand.access {
                with_size!(operand.format.size, T => {
                    of_mut::<T>(temps[temp as usize])[0] = of::<T>(bytes)[offset];
                });
            }
        }
        let mut at = from;
        while at < to {
            let n = self.tile.min(to - at);
            let mut tile =
                Tile { program: self, ins, from, at, n, temps: &mut temps, outs: &mut outs };
            self.actions.iter().for_each(|action| tile.act(action));
            at += n;
        }
    }
}

/// The registers while one tile is computed.
struct Tile<'t, 's, 'm> {
    program: &'t Program,
    ins: &'t [&'t [u8]],
    from: usize,
    at: usize,
    n: usize,
    temps: &'t mut SmallVec<[&'s mut [u8]; 16]>,
    outs: &'t mut Outs<'m>,
}

impl<'s, 'm> Tile<'_, 's, 'm> {
    fn act(&mut self, action: &Action) {
        let row = self.program.row;
        match action {
            Action::Fill { operand, to } => self.fill(*operand, *to),
            Action::Copy { from, to } => {
                self.write(*to, |tile, out| out.copy_from_slice(tile.get(*from)));
            }
            Action::Compute { kernel, args, to, .. } => self.write(*to, |tile, out| {
                let arg = |i: usize| args[i].map_or(&[][..], |r| tile.get(r));
                kernel.compute([arg(0), arg(1), arg(2)], out);
            }),
            Action::Reduce { reduction, from, to } => self.write(*to, |tile, out| {
                reduce_rows(*reduction, row, of(tile.get(*from)), of_mut(out));
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
        let Operand { format, access } = &self.program.operands[operand as usize];
        self.write(to, |tile, out| match access {
            Access::Direct => out.copy_from_slice(tile.get(Reg::In(operand))),
            Access::InPlace(k) => {
                // A result that is nothing but a copy of what it overwrites is there already.
                if to != Reg::Out(*k) {
                    out.copy_from_slice(tile.get(Reg::Out(*k)));
                }
            }
            Access::Single { .. } => unreachable!("a single number stays in its register"),
            Access::Walk(walk) => with_size!(format.size, T => {
                let at = tile.program.numbers(format.per, tile.at);
                walk.read(of::<T>(tile.ins[operand as usize]), at, of_mut::<T>(out));
            }),
        });
    }

    /// Where the tile of a register lies that begins at element `first`, in bytes.
    fn range(&self, reg: Reg, first: usize) -> Range<usize> {
        let Format { size, per } = self.program.format(reg);
        let begin = if per == Per::Program { 0 } else { self.program.numbers(per, first) * size };
        begin..begin + self.program.numbers(per, self.n) * size
    }

    /// The tile of a register for reading.
    fn get(&self, reg: Reg) -> &[u8] {
        match reg {
            Reg::In(i) => &self.ins[i as usize][self.range(reg, self.at)],
            Reg::Temp(t) => &self.temps[t as usize][self.range(reg, 0)],
            Reg::Out(k) => &self.outs[k as usize][self.range(reg, self.at - self.from)],
        }
    }

    /// Takes the register to write out of the set, so that the others can be read meanwhile.
    fn write(&mut self, to: Reg, f: impl FnOnce(&Self, &mut [u8])) {
        match to {
            Reg::Temp(t) => {
                let range = self.range(to, 0);
                let register: &'s mut [u8] = std::mem::take(&mut self.temps[t as usize]);
                f(self, &mut register[range]);
                self.temps[t as usize] = register;
            }
            Reg::Out(k) => {
                let range = self.range(to, self.at - self.from);
                let register: &'m mut [u8] = std::mem::take(&mut self.outs[k as usize]);
                f(self, &mut register[range]);
                self.outs[k as usize] = register;
            }
            Reg::In(_) => unreachable!("operands are not written"),
        }
    }
}
