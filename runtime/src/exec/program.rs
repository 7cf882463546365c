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
use super::tile::{Counts, Tile};
use crate::host::number::{of, of_mut, with_size};
use crate::host::pointwise::Function;
use crate::host::strided::Strided;
use pam_kernels::Pool;
use pam_kernels::prefetch::{Intent, prefetch};
use pam_kernels::reduce::{Product, Reduction};
use smallvec::SmallVec;
use std::slice::Chunks;

/// Bytes that the registers of one thread may take together, operands and what is fetched ahead included:
/// more than a first-level cache, since what each action costs beside its loops costs more than reading
/// some of them from the second level.
const CACHE: usize = 56 * 1024;
/// Limits of the number of elements of a tile.
const TILE: (usize, usize) = (256, 4096);
/// Elements below which a program runs on one thread: handing over costs more than it gains.
const GRAIN: usize = 16 * 1024;

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;
/// Actions below which nothing is fetched ahead.
const FEW: usize = 4;

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
    /// The scratch register in which it stays during the whole program, as every tile reads the same.
    pub kept: Option<u16>,
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
        /// What they are multiplied by before they are summed.
        by: Option<Multiplied>,
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

/// The second operand of products that are only summed.
#[derive(Clone, Debug)]
pub struct Multiplied {
    /// What.
    pub function: Function,
    /// How, on the CPU.
    pub product: Product,
    /// Floats, one for each element.
    pub by: Reg,
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
    /// Elements of a tile, a multiple of the row and of what repeats.
    tile: usize,
}

impl Program {
    /// A program over `count` elements in rows of `row`. Operands that are kept repeat themselves after
    /// `period` elements, a multiple of the row.
    pub fn new(
        [count, row, period]: [usize; 3],
        operands: Vec<Operand>,
        actions: Vec<Action>,
        outs: SmallVec<[Format; 4]>,
        temps: Vec<Format>,
    ) -> Program {
        let direct = operands.iter().filter(|o| o.access == Access::Direct).map(|o| &o.format);
        let width = |formats: &mut dyn Iterator<Item = &Format>| -> usize {
            formats.filter(|f| f.per == Per::Element).map(|f| f.size).sum()
        };
        let copies = if actions.len() < FEW { 1 } else { 2 };
        let width = width(&mut temps.iter()) + copies * width(&mut outs.iter().chain(direct));
        let tile = (CACHE / width.max(1)).clamp(TILE.0, TILE.1);
        let tile = match period {
            // Multiples of 64 elements keep every register of every size aligned to a cache line.
            1 => (tile / 64 * 64).min(count.next_multiple_of(64)).max(64),
            period => (tile / period * period).min(count).max(period),
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
        self.counts(self.tile).bytes(*format).next_multiple_of(CACHE_LINE)
    }

    /// How many numbers there are for so many elements.
    fn counts(&self, elements: usize) -> Counts {
        Counts { elements, rows: elements / self.row }
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
        let counts = self.counts(middle - from);
        for (out, f) in outs.into_iter().zip(&self.outs) {
            let (l, h) = out.split_at_mut(counts.bytes(*f));
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
        let mut n = self.counts(self.tile.min(to - from));
        let mut temps: SmallVec<[&mut [u8]; 16]> = SmallVec::new();
        let mut scratch = scratch;
        for format in &self.temps {
            let (temp, rest) = scratch.split_at_mut(self.room(format));
            temps.push(&mut temp[..n.bytes(*format)]);
            scratch = rest;
        }
        for (operand, bytes) in self.operands.iter().zip(ins) {
            if let (Access::Walk(walk), Some(temp)) = (&operand.access, operand.kept) {
                with_size!(operand.format.size, T => {
                    walk.read(of::<T>(bytes), 0, of_mut::<T>(temps[temp as usize]));
                });
            }
        }
        let mut at = self.counts(from);
        while at.elements < to {
            if at.elements + n.elements > to {
                n = self.counts(to - at.elements);
            }
            let tiles = self.operands.iter().zip(ins).map(|(operand, &bytes)| {
                let direct = operand.access == Access::Direct;
                if direct {
                    &bytes[at.bytes(operand.format)..][..n.bytes(operand.format)]
                } else {
                    bytes
                }
            });
            let tiles: SmallVec<[&[u8]; 16]> = tiles.collect();
            let scratch = temps.iter_mut().zip(&self.temps).map(|(t, f)| &mut t[..n.bytes(*f)]);
            let results = outs.iter_mut().zip(&self.outs).map(|(out, f)| {
                let (tile, rest) = std::mem::take(out).split_at_mut(n.bytes(*f));
                *out = rest;
                tile
            });
            let mut own: SmallVec<[&mut [u8]; 24]> = scratch.chain(results).collect();
            let mut ahead = self.ahead(ins, &outs, at + n, to);
            let mut tile = Tile { program: self, at, ins: &tiles, own: &mut own };
            for action in &self.actions {
                for (shares, intent) in &mut ahead {
                    if let Some(share) = shares.next() {
                        prefetch(share, *intent);
                    }
                }
                tile.act(action);
            }
            at = at + n;
        }
    }

    /// What is fetched of the tile that begins at `at` while the one before it is computed: a share before
    /// each action, so that the memory is always at work. A short program only waits for the memory.
    fn ahead<'m>(
        &self,
        ins: &[&'m [u8]],
        outs: &'m Outs<'_>,
        at: Counts,
        to: usize,
    ) -> SmallVec<[(Chunks<'m, u8>, Intent); 8]> {
        let n = self.tile.min(to - at.elements);
        if n == 0 || self.actions.len() < FEW {
            return SmallVec::new();
        }
        let share = n.div_ceil(self.actions.len());
        let shares = |bytes: &'m [u8], from: usize, size: usize| {
            bytes[from..from + n * size].chunks((share * size).next_multiple_of(CACHE_LINE))
        };
        let whole = |f: &Format| f.per == Per::Element;
        let ins = self.operands.iter().zip(ins).filter(|(o, _)| o.access == Access::Direct);
        let ins = ins.map(|(o, bytes)| (o.format, *bytes)).filter(|(f, _)| whole(f));
        let read = ins.map(|(f, bytes)| (shares(bytes, at.bytes(f), f.size), Intent::Read));
        let outs = self.outs.iter().zip(outs).filter(|(f, _)| whole(f));
        let written = outs.map(|(f, bytes)| (shares(bytes, 0, f.size), Intent::Write));
        read.chain(written).collect()
    }
}
