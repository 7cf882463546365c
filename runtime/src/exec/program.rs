//! Elementwise programs: a few operations applied to a tile at a time.
//!
//! A tile is a range of the flat index space, small enough that its registers stay in the nearest
//! caches, so that each tensor crosses memory once however long the chain is. A register is a tile of an
//! operand read in place, of a result, or of scratch. Operands that are broadcast, transposed or sliced are
//! gathered into scratch tile by tile and never materialised; what is the same for every tile is gathered once.
//!
//! Where the index space consists of rows, a program may reduce each of them: softmax, norms and losses
//! are one program. A tile is then some whole rows, and registers hold a number for each element or one
//! for each row. Functions of two numbers and selections take such registers, and those of a single number, as
//! they are; for others they are spread.
//!
//! The index space is divided among the threads at tile borders; as every element, or every row, is
//! computed by itself, the division does not show in the result.

use super::compound::Pattern;
use super::kernel::Kernel;
use crate::host::pointwise::Function;
use crate::host::strided::Strided;
use pam_kernels::reduce::{Product, Reduction};
use smallvec::SmallVec;
use std::ops::Add;

/// Bytes that each action lets the registers of one thread take together, operands included: what an action costs
/// beside its loop, it costs for each tile.
const CACHE: usize = 8 * 1024;
/// Limits of these bytes. More than a first-level cache, since reading some registers from the second level costs
/// less than more tiles do.
const CACHE_LIMITS: (usize, usize) = (56 * 1024, 96 * 1024);
/// Limits of the number of elements of a tile.
const TILE: (usize, usize) = (256, 8192);

/// Bytes that no cache holds. A result of so many is written past them: what reads it fetches it from memory in
/// any case.
pub(super) const BEYOND_CACHES: usize = 32 << 20;

/// Bytes of a cache line.
pub(super) const CACHE_LINE: usize = 64;
/// Actions below which nothing is fetched ahead.
pub(super) const FEW: usize = 4;

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
    /// Computes; in place of its first operand, where that is the result's register.
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
    /// Computes several things in one loop.
    Compound(Compound),
    /// Repeats each number for as many neighbours.
    Spread {
        /// Numbers of rows, or a single one.
        from: Reg,
        /// Numbers of elements, or of rows.
        to: Reg,
    },
}

/// Operations that follow each other and have one loop on the CPU.
#[derive(Clone, Debug)]
pub struct Compound {
    /// The loop.
    pub pattern: &'static Pattern,
    /// Floats, one for each element.
    pub from: Reg,
    /// What happens to them: functions and their second operands.
    pub links: SmallVec<[(Function, Option<Reg>); 4]>,
    /// The last result.
    pub to: Reg,
    /// Its sums, one for each row.
    pub sums: Option<Reg>,
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
    pub(super) tile: usize,
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
        let width = width(&mut temps.iter().chain(&outs).chain(direct));
        let cache = (CACHE * actions.len()).clamp(CACHE_LIMITS.0, CACHE_LIMITS.1);
        let tile = (cache / width.max(1)).clamp(TILE.0, TILE.1);
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
        let streamed = (0..self.outs.len()).filter(|k| self.streams(*k)).map(|k| &self.outs[k]);
        self.temps.iter().chain(streamed).map(|f| self.room(f)).sum()
    }

    /// Whether a result is computed in scratch and written past the caches. What overwrites an operand is in the
    /// caches in any case.
    pub(super) fn streams(&self, k: usize) -> bool {
        let overwrites = |o: &Operand| o.access == Access::InPlace(k as u16);
        self.counts(self.count).bytes(self.outs[k]) >= BEYOND_CACHES
            && !self.operands.iter().any(overwrites)
    }

    /// Bytes a scratch register takes.
    pub(super) fn room(&self, format: &Format) -> usize {
        self.counts(self.tile).bytes(*format).next_multiple_of(CACHE_LINE)
    }

    /// How many numbers there are for so many elements.
    pub(super) fn counts(&self, elements: usize) -> Counts {
        Counts { elements, rows: elements / self.row }
    }

    /// How many operations it applies to each element.
    pub fn operations(&self) -> usize {
        let counted = |a: &Action| match a {
            Action::Compute { .. } | Action::Reduce { .. } => 1,
            Action::Compound(c) => c.links.len() + usize::from(c.sums.is_some()),
            Action::Fill { .. } | Action::Copy { .. } | Action::Spread { .. } => 0,
        };
        self.actions.iter().map(counted).sum()
    }
}

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
