//! Elementwise programs before memory is assigned: a group of nodes over one index space.
//!
//! A draft collects the operations of its nodes, reductions of rows among them, and the tensors they
//! read from memory. What its nodes hand to each other stays in registers, which [`Draft::finish`] assigns.

use crate::exec::compound::Pattern;
use crate::exec::kernel::Kernel;
use crate::exec::program::{Format, Per};
use crate::host::pointwise::Function;
use crate::host::strided::Strided;
use pam_ir::graph::ValueId;
use pam_kernels::reduce::{Product, Reduction};
use smallvec::SmallVec;
use std::collections::HashMap;

/// Limits that keep the registers of a program in the nearest caches.
pub const MAX_OPERATIONS: usize = 48;
/// The most tensors a program reads.
pub const MAX_OPERANDS: usize = 24;

/// A register before assignment: something read or something computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Virtual {
    /// Operand of this number.
    Operand(u32),
    /// Result of the operation of this number.
    Result(u32),
}

/// A tensor read from memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The value whose buffer is read.
    pub root: ValueId,
    /// Where in the buffer the operand begins, in bytes.
    pub offset: usize,
    /// What its register holds.
    pub format: Format,
    /// How many bytes of the buffer the operand spans.
    pub span: usize,
    /// In which order; `None` reads element i for element i, or for row i.
    pub walk: Option<Strided>,
}

/// The functions of a pattern.
pub(super) type Functions = [Option<Function>; 4];

#[derive(Clone, Copy)]
pub(super) enum Work {
    Compute(Function),
    Reduce(Reduction),
    /// Sums the products of two operands.
    SumProducts(Function, Product),
    Spread,
    /// The operations of a pattern, of which this is the last, and their functions. The operands are the first one's,
    /// then those of the others that are not results of one before.
    Compound(&'static Pattern, Functions),
}

#[derive(Clone)]
pub(super) struct Operation {
    pub(super) work: Work,
    pub(super) args: SmallVec<[Virtual; 3]>,
    pub(super) format: Format,
}

/// An elementwise program in the making.
#[derive(Default)]
pub struct Draft {
    /// Number of elements of the index space.
    pub count: usize,
    /// Elements of a row; 1 where nothing is reduced.
    pub row: usize,
    /// What is read.
    pub reads: Vec<Read>,
    pub(super) operations: Vec<Operation>,
    pub(super) values: HashMap<ValueId, Virtual>,
}

impl Draft {
    /// An empty draft over so many elements in rows of so many.
    pub fn new(count: usize, row: usize) -> Draft {
        Draft { count, row, ..Draft::default() }
    }

    /// What a value of so many elements has a number for.
    pub fn per(&self, elements: usize) -> Per {
        if elements == self.count { Per::Element } else { Per::Row }
    }

    /// How a value with a number for each row is read for each element.
    pub fn spreading(&self) -> Strided {
        Strided::new(&[self.count / self.row, self.row], &[1, 0], 0)
    }

    /// What a register holds; `None` for an omitted operand.
    pub fn format(&self, v: Virtual) -> Option<Format> {
        match v {
            Virtual::Operand(r) => self.reads.get(r as usize).map(|r| r.format),
            Virtual::Result(i) => self.operations.get(i as usize).map(|o| o.format),
        }
    }

    /// The register of a read; equal reads share one.
    pub fn read(&mut self, mut read: Read) -> Virtual {
        if let Some(walk) = read.walk.as_mut().filter(|walk| walk.is_single()) {
            *walk = Strided::new(&[], &[], walk.offset);
            read.format.per = Per::Program;
        }
        let known = self.reads.iter().position(|r| *r == read);
        let index = known.unwrap_or_else(|| {
            self.reads.push(read);
            self.reads.len() - 1
        });
        Virtual::Operand(index as u32)
    }

    fn append(&mut self, work: Work, args: &[Virtual], format: Format) -> Virtual {
        self.operations.push(Operation { work, args: args.into(), format });
        Virtual::Result(self.operations.len() as u32 - 1)
    }

    /// Appends an operation with a result for each element or each row, as `per` says.
    pub fn operation(&mut self, function: Function, args: &[Virtual], per: Per) -> Virtual {
        let mut args: SmallVec<[Virtual; 3]> = args.into();
        let whole = |draft: &Draft, v| draft.format(v).is_none_or(|f: Format| f.per == per);
        let (shorter, together) = Kernel::of(&function).shorter();
        let mut spread = false;
        for i in (0..args.len()).rev() {
            // The kernel repeats the numbers itself.
            args[i] = if shorter.contains(&i) { self.source(args[i]) } else { args[i] };
            if !whole(self, args[i]) && (spread || !shorter.contains(&i)) {
                args[i] = self.spread(args[i], per);
            }
            spread |= !whole(self, args[i]) && !together;
        }
        self.append(Work::Compute(function), &args, Format { size: function.to.size(), per })
    }

    /// Appends a reduction of each row of floats.
    pub fn reduce(&mut self, reduction: Reduction, arg: Virtual) -> Virtual {
        self.append(Work::Reduce(reduction), &[arg], Format { size: 4, per: Per::Row })
    }

    /// What is spread in a register, or the register itself.
    fn source(&self, v: Virtual) -> Virtual {
        match v {
            Virtual::Result(i) => match &self.operations[i as usize] {
                Operation { work: Work::Spread, args, .. } => args[0],
                _ => v,
            },
            Virtual::Operand(_) => v,
        }
    }

    /// A register with the numbers of another one, repeated for each element or row as `per` says.
    pub fn spread(&mut self, v: Virtual, per: Per) -> Virtual {
        let Some(format) = self.format(v).filter(|f| f.per != per) else { return v };
        let format = Format { per, ..format };
        let known =
            |o: &Operation| matches!(o.work, Work::Spread) && o.args[0] == v && o.format == format;
        match self.operations.iter().position(known) {
            Some(i) => Virtual::Result(i as u32),
            None => self.append(Work::Spread, &[v], format),
        }
    }

    /// The register that holds a value computed or copied here.
    pub fn value(&self, root: ValueId) -> Option<Virtual> {
        self.values.get(&root).copied()
    }

    /// States which register holds a value.
    pub fn define(&mut self, root: ValueId, at: Virtual) {
        self.values.insert(root, at);
    }

    /// A read whose memory the result `v` of so many bytes can take over: it is read element for
    /// element, only so, and its buffer ends here.
    pub fn overwritable(
        &self,
        v: ValueId,
        bytes: usize,
        stores: &[Option<ValueId>],
        ends_here: impl Fn(&ValueId) -> bool,
    ) -> Option<usize> {
        let result = *self.values.get(&v)?;
        let format = self.format(result)?;
        if matches!(result, Virtual::Operand(_)) || format.per == Per::Row {
            return None;
        }
        let copied = |r: usize| {
            let virt = Virtual::Operand(r as u32);
            stores.iter().flatten().any(|s| self.values.get(s) == Some(&virt))
        };
        (0..self.reads.len()).find(|&r| {
            let read = &self.reads[r];
            read.walk.is_none()
                && read.offset == 0
                && (read.format, read.span) == (format, bytes)
                && ends_here(&read.root)
                && !copied(r)
                && self.reads.iter().filter(|other| other.root == read.root).count() == 1
        })
    }
}
