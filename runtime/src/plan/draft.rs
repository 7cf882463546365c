//! Elementwise programs before memory is assigned: a group of nodes over one index space.
//!
//! A draft collects the operations of its nodes and the tensors they read from memory. What its
//! nodes hand to each other stays in registers; [`Draft::finish`] assigns these and decides which
//! results are stored.

use crate::exec::kernel::Kernel;
use crate::exec::program::{Access, Action, Operand, Program, Reg};
use crate::host::pointwise::Function;
use crate::host::strided::Strided;
use pam_ir::graph::ValueId;
use smallvec::SmallVec;
use std::collections::HashMap;

/// Limits that keep the registers of a program in the first-level cache.
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
    /// Bytes an element takes.
    pub size: usize,
    /// How many bytes of the buffer the operand spans.
    pub span: usize,
    /// In which order; `None` reads element i for element i.
    pub walk: Option<Strided>,
}

struct Operation {
    function: Function,
    args: SmallVec<[Virtual; 3]>,
}

/// An elementwise program in the making.
#[derive(Default)]
pub struct Draft {
    /// Number of elements of the index space.
    pub count: usize,
    /// What is read.
    pub reads: Vec<Read>,
    operations: Vec<Operation>,
    values: HashMap<ValueId, Virtual>,
}

impl Draft {
    /// An empty draft over so many elements.
    pub fn new(count: usize) -> Draft {
        Draft { count, ..Draft::default() }
    }

    /// The register of a read; equal reads share one.
    pub fn read(&mut self, read: Read) -> Virtual {
        let known = self.reads.iter().position(|r| *r == read);
        let index = known.unwrap_or_else(|| {
            self.reads.push(read);
            self.reads.len() - 1
        });
        Virtual::Operand(index as u32)
    }

    /// Appends an operation.
    pub fn operation(&mut self, function: Function, args: &[Virtual]) -> Virtual {
        self.operations.push(Operation { function, args: args.into() });
        Virtual::Result(self.operations.len() as u32 - 1)
    }

    /// The register that holds a value computed or copied here.
    pub fn value(&self, root: ValueId) -> Option<Virtual> {
        self.values.get(&root).copied()
    }

    /// States which register holds a value.
    pub fn define(&mut self, root: ValueId, at: Virtual) {
        self.values.insert(root, at);
    }

    /// Assigns registers. `stores` are the values that leave the program, each with its element
    /// size; `in_place` says for a store which read's memory it takes over.
    pub fn finish(&self, stores: &[(ValueId, usize)], in_place: &[Option<usize>]) -> Program {
        let mut stored: HashMap<Virtual, SmallVec<[u16; 2]>> = HashMap::new();
        for (k, (root, _)) in stores.iter().enumerate() {
            stored.entry(self.values[root]).or_default().push(k as u16);
        }
        let overwritten = |r: usize| in_place.iter().position(|p| *p == Some(r));
        let mut last: HashMap<Virtual, usize> = HashMap::new();
        for (i, op) in self.operations.iter().enumerate() {
            for &a in &op.args {
                last.insert(a, i);
            }
        }
        let mut pool = Temps::default();
        let mut at: HashMap<Virtual, Reg> = HashMap::new();
        let mut actions = Vec::new();
        let mut operands = Vec::with_capacity(self.reads.len());
        for (r, read) in self.reads.iter().enumerate() {
            let v = Virtual::Operand(r as u32);
            let used = last.contains_key(&v);
            let access = match (&read.walk, overwritten(r)) {
                (_, Some(k)) => Access::InPlace(k as u16),
                (None, None) => Access::Direct,
                (Some(walk), None) if walk.is_single() && used => {
                    let temp = pool.take(read.size);
                    at.insert(v, Reg::Temp(temp));
                    Access::Single { offset: walk.offset as usize, temp }
                }
                (Some(walk), None) => Access::Walk(walk.clone()),
            };
            // What a store overwrites is fetched before the tile's first result is written.
            match access {
                Access::Direct => {
                    at.insert(v, Reg::In(r as u16));
                }
                Access::InPlace(_) if used => {
                    let to = Reg::Temp(pool.take(read.size));
                    at.insert(v, to);
                    actions.push(Action::Fill { operand: r as u16, to });
                }
                Access::InPlace(_) | Access::Single { .. } | Access::Walk(_) => {}
            }
            operands.push(Operand { size: read.size, access });
        }
        // Results that are nothing but a copy of an operand.
        let mut copies: Vec<(&Virtual, &SmallVec<[u16; 2]>)> =
            stored.iter().filter(|(v, _)| matches!(v, Virtual::Operand(_))).collect();
        copies.sort_by_key(|(_, stores)| stores[0]);
        for (v, stores) in copies {
            let &Virtual::Operand(r) = v else { continue };
            for &k in stores {
                actions.push(Action::Fill { operand: r as u16, to: Reg::Out(k) });
            }
        }
        for (i, op) in self.operations.iter().enumerate() {
            let mut args = [None; 3];
            for (slot, &a) in args.iter_mut().zip(&op.args) {
                if let (Virtual::Operand(r), None) = (a, at.get(&a)) {
                    let to = Reg::Temp(pool.take(self.reads[r as usize].size));
                    actions.push(Action::Fill { operand: r as u16, to });
                    at.insert(a, to);
                }
                *slot = Some(at[&a]);
            }
            let v = Virtual::Result(i as u32);
            let to = match stored.get(&v) {
                Some(stores) => Reg::Out(stores[0]),
                None => Reg::Temp(pool.take(op.function.to.size())),
            };
            let kernel = Kernel::of(&op.function);
            actions.push(Action::Compute { function: op.function, kernel, args, to });
            at.insert(v, to);
            for &k in stored.get(&v).into_iter().flat_map(|s| &s[1..]) {
                actions.push(Action::Copy { from: to, to: Reg::Out(k) });
            }
            let ended = |a: &Virtual| last.get(a).is_none_or(|&l| l == i);
            let mut done: SmallVec<[Virtual; 4]> = op.args.iter().copied().filter(ended).collect();
            if ended(&v) {
                done.push(v);
            }
            done.sort_by_key(|v| match *v {
                Virtual::Operand(r) => (0, r),
                Virtual::Result(r) => (1, r),
            });
            done.dedup();
            for v in done {
                let whole_program = matches!(v, Virtual::Operand(r)
                    if matches!(operands[r as usize].access, Access::Single { .. }));
                if let (Reg::Temp(t), false) = (at[&v], whole_program) {
                    pool.give(t);
                }
            }
        }
        Program::new(
            self.count,
            operands,
            actions,
            stores.iter().map(|&(_, size)| size).collect(),
            pool.sizes,
        )
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
        let size = bytes / self.count;
        let result = self.values.get(&v)?;
        if matches!(result, Virtual::Operand(_)) {
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
                && (read.size, read.span) == (size, bytes)
                && ends_here(&read.root)
                && !copied(r)
                && self.reads.iter().filter(|other| other.root == read.root).count() == 1
        })
    }
}

/// Temporary registers: a free one of the same element size is used again.
#[derive(Default)]
struct Temps {
    sizes: Vec<usize>,
    free: Vec<u16>,
}

impl Temps {
    fn take(&mut self, size: usize) -> u16 {
        if let Some(i) = self.free.iter().rposition(|&t| self.sizes[t as usize] == size) {
            return self.free.swap_remove(i);
        }
        self.sizes.push(size);
        self.sizes.len() as u16 - 1
    }

    fn give(&mut self, t: u16) {
        self.free.push(t);
    }
}
