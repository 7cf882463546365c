//! Elementwise programs: a few operations applied to a tile at a time.
//!
//! A tile is a range of the flat index space, small enough that all registers stay in the
//! first-level cache, so that each tensor crosses memory once however long the chain is. A register
//! is a tile of an operand read in place, of a result, or of scratch. Operands that are broadcast,
//! transposed or sliced are gathered into scratch tile by tile and never materialised.
//!
//! The index space is divided among the threads at tile borders; as every element is computed by
//! itself, the division does not show in the result.

use super::kernel::Kernel;
use super::memory::Outs;
use crate::host::number::{of, of_mut, with_size};
use crate::host::pointwise::Function;
use crate::host::strided::Strided;
use pam_kernels::Pool;
use smallvec::SmallVec;

/// Bytes that the registers of one thread may take together.
const CACHE: usize = 24 * 1024;
/// Limits of the number of elements of a tile.
const TILE: (usize, usize) = (256, 4096);
/// Elements below which a program runs on one thread: handing over costs more than it gains.
const GRAIN: usize = 16 * 1024;

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// One element for all, kept in a scratch register during the whole program.
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
    /// Bytes an element takes.
    pub size: usize,
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
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Elements of the index space.
    pub count: usize,
    /// What is read.
    pub operands: Vec<Operand>,
    /// What happens to a tile, in order.
    pub actions: Vec<Action>,
    /// Element sizes of the results, in bytes.
    pub outs: SmallVec<[usize; 4]>,
    /// Element sizes of the scratch registers, in bytes.
    pub temps: Vec<usize>,
    tile: usize,
}

impl Program {
    /// A program over `count` elements; `outs` and `temps` are element sizes in bytes.
    pub fn new(
        count: usize,
        operands: Vec<Operand>,
        actions: Vec<Action>,
        outs: SmallVec<[usize; 4]>,
        temps: Vec<usize>,
    ) -> Program {
        let width: usize = temps.iter().chain(&outs).sum();
        let tile = (CACHE / width.max(1)).clamp(TILE.0, TILE.1);
        // Multiples of 64 elements keep every register of every size aligned to a cache line.
        let tile = (tile / 64 * 64).min(count.next_multiple_of(64)).max(64);
        Program { count, operands, actions, outs, temps, tile }
    }

    /// Bytes of scratch one thread needs.
    pub fn scratch(&self) -> usize {
        self.temps.iter().map(|size| size * self.tile).sum()
    }

    /// How many operations it applies to each element.
    pub fn operations(&self) -> usize {
        self.actions.iter().filter(|a| matches!(a, Action::Compute { .. })).count()
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
        for (out, size) in outs.into_iter().zip(&self.outs) {
            let (l, h) = out.split_at_mut((middle - from) * size);
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
        for size in &self.temps {
            let (temp, rest) = scratch.split_at_mut(size * self.tile);
            temps.push(temp);
            scratch = rest;
        }
        for (operand, bytes) in self.operands.iter().zip(ins) {
            if let Access::Single { offset, temp } = operand.access {
                with_size!(operand.size, T => {
                    of_mut::<T>(temps[temp as usize]).fill(of::<T>(bytes)[offset]);
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
        match action {
            Action::Fill { operand, to } => self.fill(*operand, *to),
            Action::Copy { from, to } => self.write(*to, |tile, out| {
                out.copy_from_slice(tile.get(*from, out.len() / tile.n));
            }),
            Action::Compute { kernel, args, to, .. } => self.write(*to, |tile, out| {
                let arg = |i: usize| args[i].map_or(&[][..], |r| tile.get(r, kernel.size(i)));
                kernel.compute([arg(0), arg(1), arg(2)], out);
            }),
        }
    }

    fn fill(&mut self, operand: u16, to: Reg) {
        let Operand { size, access } = &self.program.operands[operand as usize];
        let size = *size;
        self.write(to, |tile, out| match access {
            Access::Direct => out.copy_from_slice(tile.get(Reg::In(operand), size)),
            Access::InPlace(k) => {
                // A result that is nothing but a copy of what it overwrites is there already.
                if to != Reg::Out(*k) {
                    out.copy_from_slice(tile.get(Reg::Out(*k), size));
                }
            }
            Access::Single { offset, .. } => with_size!(size, T => {
                of_mut::<T>(out).fill(of::<T>(tile.ins[operand as usize])[*offset]);
            }),
            Access::Walk(walk) => with_size!(size, T => {
                walk.read(of::<T>(tile.ins[operand as usize]), tile.at, of_mut::<T>(out));
            }),
        });
    }

    /// The tile of a register for reading.
    fn get(&self, reg: Reg, size: usize) -> &[u8] {
        let bytes = self.n * size;
        match reg {
            Reg::In(i) => &self.ins[i as usize][self.at * size..][..bytes],
            Reg::Temp(t) => &self.temps[t as usize][..bytes],
            Reg::Out(k) => &self.outs[k as usize][(self.at - self.from) * size..][..bytes],
        }
    }

    /// Takes the register to write out of the set, so that the others can be read meanwhile.
    fn write(&mut self, to: Reg, f: impl FnOnce(&Self, &mut [u8])) {
        match to {
            Reg::Temp(t) => {
                let register: &'s mut [u8] = std::mem::take(&mut self.temps[t as usize]);
                f(self, &mut register[..self.n * self.program.temps[t as usize]]);
                self.temps[t as usize] = register;
            }
            Reg::Out(k) => {
                let size = self.program.outs[k as usize];
                let register: &'m mut [u8] = std::mem::take(&mut self.outs[k as usize]);
                f(self, &mut register[(self.at - self.from) * size..][..self.n * size]);
                self.outs[k as usize] = register;
            }
            Reg::In(_) => unreachable!("operands are not written"),
        }
    }
}
