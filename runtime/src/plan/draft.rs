//! Elementwise programs before memory is assigned: a group of nodes over one index space.
//!
//! A draft collects the operations of its nodes, reductions of rows among them, and the tensors they
//! read from memory. What its nodes hand to each other stays in registers; [`Draft::finish`] assigns
//! these and decides which results are stored.

use crate::exec::kernel::Kernel;
use crate::exec::program::{Access, Action, Format, Multiplied, Operand, Per, Program, Reg};
use crate::host::pointwise::Function;
use crate::host::strided::Strided;
use pam_ir::graph::ValueId;
use pam_kernels::reduce::{Product, Reduction};
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
    /// What its register holds.
    pub format: Format,
    /// How many bytes of the buffer the operand spans.
    pub span: usize,
    /// In which order; `None` reads element i for element i, or for row i.
    pub walk: Option<Strided>,
}

/// The longest period of operands that are kept.
const MAX_PERIOD: usize = 1024;

/// After how many elements a read repeats itself, if that is soon enough for it to be kept.
fn repeats(read: &Read) -> Option<usize> {
    let walk = read.walk.as_ref()?;
    let period = walk.period();
    let soon = period <= MAX_PERIOD && period < walk.count();
    (read.format.per == Per::Program || read.format.per == Per::Element && soon).then_some(period)
}

#[derive(Clone, Copy)]
enum Work {
    Compute(Function),
    Reduce(Reduction),
    /// Sums the products of two operands.
    SumProducts(Function, Product),
    Spread,
}

#[derive(Clone)]
struct Operation {
    work: Work,
    args: SmallVec<[Virtual; 3]>,
    format: Format,
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
    operations: Vec<Operation>,
    values: HashMap<ValueId, Virtual>,
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

    /// Assigns registers. `stores` are the values that leave the program; `in_place` says for a store
    /// which read's memory it takes over.
    pub fn finish(&self, stores: &[ValueId], in_place: &[Option<usize>]) -> Program {
        let mut stored: HashMap<Virtual, SmallVec<[u16; 2]>> = HashMap::new();
        let mut outs = SmallVec::new();
        for (k, root) in stores.iter().enumerate() {
            let v = self.values[root];
            stored.entry(v).or_default().push(k as u16);
            outs.extend(self.format(v));
        }
        let operations = self.products_summed(|v| stored.contains_key(&v));
        let period = self.period();
        let overwritten = |r: usize| in_place.iter().position(|p| *p == Some(r));
        // Where each register is read last. What is neither read nor stored is not computed.
        let mut last: HashMap<Virtual, usize> = HashMap::new();
        let lives = |last: &HashMap<Virtual, usize>, i: usize| {
            let v = Virtual::Result(i as u32);
            last.contains_key(&v) || stored.contains_key(&v)
        };
        for (i, op) in operations.iter().enumerate().rev() {
            if lives(&last, i) {
                op.args.iter().for_each(|&a| _ = last.entry(a).or_insert(i));
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
                (Some(walk), None) => Access::Walk(walk.clone()),
            };
            let kept = (used && repeats(read).is_some_and(|p| period.is_multiple_of(p)))
                .then(|| pool.take(read.format));
            if let Some(temp) = kept {
                at.insert(v, Reg::Temp(temp));
            }
            // What a store overwrites is fetched before the tile's first result is written.
            match access {
                Access::Direct => {
                    at.insert(v, Reg::In(r as u16));
                }
                Access::InPlace(_) if used => {
                    let to = Reg::Temp(pool.take(read.format));
                    at.insert(v, to);
                    actions.push(Action::Fill { operand: r as u16, to });
                }
                Access::InPlace(_) | Access::Walk(_) => {}
            }
            operands.push(Operand { format: read.format, access, kept });
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
        for (i, op) in operations.iter().enumerate().filter(|(i, _)| lives(&last, *i)) {
            let mut args = [None; 3];
            for (slot, &a) in args.iter_mut().zip(&op.args) {
                if let (Virtual::Operand(r), None) = (a, at.get(&a)) {
                    let to = Reg::Temp(pool.take(self.reads[r as usize].format));
                    actions.push(Action::Fill { operand: r as u16, to });
                    at.insert(a, to);
                }
                *slot = Some(at[&a]);
            }
            let v = Virtual::Result(i as u32);
            let to = match stored.get(&v) {
                Some(stores) => Reg::Out(stores[0]),
                None => Reg::Temp(pool.take(op.format)),
            };
            actions.push(match (&op.work, args[0]) {
                (Work::Compute(function), _) => {
                    let kernel = Kernel::of(function);
                    Action::Compute { function: *function, kernel, args, to }
                }
                (Work::Reduce(reduction), Some(from)) => {
                    Action::Reduce { reduction: *reduction, from, by: None, to }
                }
                (&Work::SumProducts(function, product), Some(from)) => {
                    let by = args[1].map(|by| Multiplied { function, product, by });
                    Action::Reduce { reduction: Reduction::Sum, from, by, to }
                }
                (Work::Spread, Some(from)) => Action::Spread { from, to },
                (_, None) => unreachable!("what is not computed has an operand"),
            });
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
                    if operands[r as usize].kept.is_some());
                if let (Reg::Temp(t), false) = (at[&v], whole_program) {
                    pool.give(t);
                }
            }
        }
        Program::new([self.count, self.row, period], operands, actions, outs, pool.formats)
    }

    /// The operations, but that sums of products take what is multiplied where nothing else needs the
    /// products.
    fn products_summed(&self, stored: impl Fn(Virtual) -> bool) -> Vec<Operation> {
        let mut users = vec![0; self.operations.len()];
        for arg in self.operations.iter().flat_map(|o| &o.args) {
            if let Virtual::Result(i) = arg {
                users[*i as usize] += 1;
            }
        }
        let mut operations = self.operations.clone();
        for i in 0..operations.len() {
            let (Work::Reduce(Reduction::Sum), &[Virtual::Result(p)]) =
                (operations[i].work, &operations[i].args[..])
            else {
                continue;
            };
            let Operation { work, args, .. } = &operations[p as usize];
            let sum = match work {
                Work::Compute(f) => Kernel::of(f).product().map(|p| Work::SumProducts(*f, p)),
                _ => None,
            };
            let whole = |v: &Virtual| self.format(*v).is_some_and(|f| f.per == Per::Element);
            let free = users[p as usize] == 1 && !stored(Virtual::Result(p));
            if let Some(work) = sum.filter(|_| free && args.iter().all(whole)) {
                operations[i] = Operation { work, args: args.clone(), ..operations[i] };
            }
        }
        operations
    }

    /// After how many elements repeats what the program keeps in registers: a multiple of the row.
    fn period(&self) -> usize {
        let periods = self.reads.iter().filter_map(repeats);
        let period = periods.filter(|p| *p > 1 && p.is_multiple_of(self.row)).max();
        match period {
            // Whole cache lines, where they are not too many.
            Some(p) if self.row == 1 => (1..=64)
                .map(|n| n * p)
                .find(|n| n.is_multiple_of(64))
                .filter(|n| *n <= MAX_PERIOD)
                .unwrap_or(p),
            Some(p) => p,
            None => self.row,
        }
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

/// Temporary registers: a free one of the same format is used again.
#[derive(Default)]
struct Temps {
    formats: Vec<Format>,
    free: Vec<u16>,
}

impl Temps {
    fn take(&mut self, format: Format) -> u16 {
        if let Some(i) = self.free.iter().rposition(|&t| self.formats[t as usize] == format) {
            return self.free.swap_remove(i);
        }
        self.formats.push(format);
        self.formats.len() as u16 - 1
    }

    fn give(&mut self, t: u16) {
        self.free.push(t);
    }
}
