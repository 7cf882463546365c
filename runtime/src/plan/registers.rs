//! The registers of a program, once it is known which of its results are stored and what they overwrite.

use super::draft::{Draft, Operation, Read, Virtual, Work};
use crate::exec::compound::Second;
use crate::exec::kernel::Kernel;
use crate::exec::program::{
    Access, Action, Compound, Format, Multiplied, Operand, Per, Program, Reg,
};
use pam_ir::graph::ValueId;
use pam_kernels::reduce::Reduction;
use smallvec::SmallVec;
use std::collections::{HashMap, HashSet};
use std::iter::successors;

/// The longest period of operands that are kept, where it is not that of the rows.
const MAX_PERIOD: usize = 1024;

impl Draft {
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
        let operations = self.merged(|v| stored.contains_key(&v));
        let period = self.period();
        let mut assignment = Assignment::new(self, &operations, &stored);
        let operands = assignment.operands(in_place, period);
        assignment.copies();
        (0..operations.len()).for_each(|i| assignment.operate(i));
        let Assignment { actions, pool, .. } = assignment;
        Program::new([self.count, self.row, period], operands, actions, outs, pool.formats)
    }

    /// After how many elements a read repeats itself, if that is soon enough for it to be kept.
    fn repeats(&self, read: &Read) -> Option<usize> {
        let walk = read.walk.as_ref()?;
        let period = walk.period();
        let soon = period < walk.count() && (period <= MAX_PERIOD || period == self.row);
        match read.format.per {
            Per::Element => soon.then_some(period),
            Per::Row => None,
            Per::Program => Some(1),
        }
    }

    /// After how many elements repeats what the program keeps in registers: a multiple of the row.
    fn period(&self) -> usize {
        let periods = self.reads.iter().filter_map(|r| self.repeats(r));
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
}

/// The registers so far, and what happens in them.
struct Assignment<'d> {
    draft: &'d Draft,
    operations: &'d [Operation],
    /// The results that hold a value.
    stored: &'d HashMap<Virtual, SmallVec<[u16; 2]>>,
    /// The operation that reads a value last. What is neither read nor stored is not computed.
    last: HashMap<Virtual, usize>,
    at: HashMap<Virtual, Reg>,
    pool: Temps,
    /// Operands in scratch that stay there during the whole program.
    kept: HashSet<Virtual>,
    actions: Vec<Action>,
}

impl<'d> Assignment<'d> {
    fn new(
        draft: &'d Draft,
        operations: &'d [Operation],
        stored: &'d HashMap<Virtual, SmallVec<[u16; 2]>>,
    ) -> Assignment<'d> {
        let mut assignment = Assignment {
            draft,
            operations,
            stored,
            last: HashMap::new(),
            at: HashMap::new(),
            pool: Temps::default(),
            kept: HashSet::new(),
            actions: Vec::new(),
        };
        for (i, op) in operations.iter().enumerate().rev() {
            if assignment.lives(i) {
                op.args.iter().for_each(|&a| _ = assignment.last.entry(a).or_insert(i));
            }
        }
        assignment
    }

    /// Whether the result of an operation is needed.
    fn lives(&self, i: usize) -> bool {
        let v = Virtual::Result(i as u32);
        self.last.contains_key(&v) || self.stored.contains_key(&v)
    }

    /// How operands are read. Those that repeat themselves after `period` elements are kept; what a result overwrites
    /// is fetched before the first result of a tile is written.
    fn operands(&mut self, in_place: &[Option<usize>], period: usize) -> Vec<Operand> {
        let overwritten = |r: usize| in_place.iter().position(|p| *p == Some(r));
        let mut operands = Vec::with_capacity(self.draft.reads.len());
        for (r, read) in self.draft.reads.iter().enumerate() {
            let v = Virtual::Operand(r as u32);
            let used = self.last.contains_key(&v);
            let access = match (&read.walk, overwritten(r)) {
                (_, Some(k)) => Access::InPlace(k as u16),
                (None, None) => Access::Direct,
                (Some(walk), None) => Access::Walk(walk.clone()),
            };
            let kept = (used && self.draft.repeats(read).is_some_and(|p| period.is_multiple_of(p)))
                .then(|| self.pool.take(read.format));
            if let Some(temp) = kept {
                self.at.insert(v, Reg::Temp(temp));
                self.kept.insert(v);
            }
            match access {
                Access::Direct => _ = self.at.insert(v, Reg::In(r as u16)),
                Access::InPlace(_) if used => _ = self.fill(r as u32),
                Access::InPlace(_) | Access::Walk(_) => {}
            }
            operands.push(Operand { format: read.format, access, kept });
        }
        operands
    }

    /// Fetches an operand into scratch.
    fn fill(&mut self, r: u32) -> Reg {
        let to = Reg::Temp(self.pool.take(self.draft.reads[r as usize].format));
        self.actions.push(Action::Fill { operand: r as u16, to });
        self.at.insert(Virtual::Operand(r), to);
        to
    }

    /// Results that are nothing but a copy of an operand.
    fn copies(&mut self) {
        let copies = self.stored.iter().filter_map(|(v, stores)| match *v {
            Virtual::Operand(r) => Some((r as u16, stores)),
            Virtual::Result(_) => None,
        });
        let mut copies: Vec<_> = copies.collect();
        copies.sort_by_key(|(_, stores)| stores[0]);
        for (operand, stores) in copies {
            let fills = stores.iter().map(|&k| Action::Fill { operand, to: Reg::Out(k) });
            self.actions.extend(fills);
        }
    }

    /// What an operation does, if its result is needed.
    fn operate(&mut self, i: usize) {
        if !self.lives(i) {
            return;
        }
        let op = &self.operations[i];
        let mut args: SmallVec<[Reg; 4]> = SmallVec::new();
        for &a in &op.args {
            args.push(match (a, self.at.get(&a)) {
                (_, Some(reg)) => *reg,
                (Virtual::Operand(r), None) => self.fill(r),
                (Virtual::Result(_), None) => {
                    unreachable!("results are computed before they are read")
                }
            });
        }
        let v = Virtual::Result(i as u32);
        // What has a place already, the loop of another operation computes.
        let known = self.at.contains_key(&v);
        let to = self.place(i);
        if !known {
            let mut action = op.action(&args, to);
            if let Action::Compound(Compound { pattern, sums, .. }) = &mut action
                && pattern.sums
            {
                let mut all = 0..self.operations.len();
                let sum = all.find(|j| self.operations[*j].sums(v) && self.lives(*j));
                *sums = sum.map(|j| self.place(j));
            }
            self.actions.push(action);
        }
        for &k in self.stored.get(&v).into_iter().flat_map(|s| &s[1..]) {
            self.actions.push(Action::Copy { from: to, to: Reg::Out(k) });
        }
        let ended = |a: &Virtual| self.last.get(a).is_none_or(|&l| l == i);
        // The register of what is overwritten goes on as that of the result.
        let mut done: SmallVec<[Virtual; 4]> =
            op.args.iter().copied().filter(|a| ended(a) && self.at[a] != to).collect();
        if ended(&v) {
            done.push(v);
        }
        done.sort_by_key(|v| match *v {
            Virtual::Operand(r) => (0, r),
            Virtual::Result(r) => (1, r),
        });
        done.dedup();
        for v in done {
            if let (Reg::Temp(t), false) = (self.at[&v], self.kept.contains(&v)) {
                self.pool.give(t);
            }
        }
    }

    /// The register of the result of an operation.
    fn place(&mut self, i: usize) -> Reg {
        let v = Virtual::Result(i as u32);
        if let Some(to) = self.at.get(&v) {
            return *to;
        }
        let op = &self.operations[i];
        let to = match op.args.first().filter(|a| self.heir(a) == Some(v)) {
            Some(overwritten) => self.at[overwritten],
            None => {
                let end = successors(Some(v), |v| self.heir(v)).last();
                match end.and_then(|end| self.stored.get(&end)) {
                    Some(stores) => Reg::Out(stores[0]),
                    None => Reg::Temp(self.pool.take(op.format)),
                }
            }
        };
        self.at.insert(v, to);
        to
    }

    /// What is written in place of a result, which nothing needs any more then.
    fn heir(&self, v: &Virtual) -> Option<Virtual> {
        let user = *self.last.get(v)?;
        let Operation { work: Work::Compute(function), args, format } = &self.operations[user]
        else {
            return None;
        };
        let whole = |v: &Virtual| self.draft.format(*v).is_some_and(|f| f.per == Per::Element);
        let fits = matches!(v, Virtual::Result(_))
            && !self.stored.contains_key(v)
            && Kernel::of(function).overwrites()
            && matches!(&args[..], [first, by] if first == v && whole(first) && !whole(by))
            && self.draft.format(*v) == Some(*format);
        fits.then_some(Virtual::Result(user as u32))
    }
}

impl Operation {
    /// Whether it is the sums of a value along rows.
    fn sums(&self, v: Virtual) -> bool {
        matches!(self.work, Work::Reduce(Reduction::Sum)) && self.args[0] == v
    }

    /// What happens to a tile, given the registers of the operands and of the result.
    fn action(&self, args: &[Reg], to: Reg) -> Action {
        let second = args.get(1).copied();
        match self.work {
            Work::Compute(function) => {
                let mut all = [None; 3];
                all.iter_mut().zip(args).for_each(|(all, arg)| *all = Some(*arg));
                Action::Compute { function, kernel: Kernel::of(&function), args: all, to }
            }
            Work::Reduce(reduction) => Action::Reduce { reduction, from: args[0], by: None, to },
            Work::SumProducts(function, product) => {
                let by = second.map(|by| Multiplied { function, product, by });
                Action::Reduce { reduction: Reduction::Sum, from: args[0], by, to }
            }
            Work::Spread => Action::Spread { from: args[0], to },
            Work::Compound(pattern, functions) => {
                let mut others = args[1..].iter().copied();
                let seconds = pattern.links.iter().map(|(_, second)| match second {
                    Second::Missing => None,
                    Second::Row | Second::Element => others.next(),
                });
                let links = functions.into_iter().flatten().zip(seconds).collect();
                Action::Compound(Compound { pattern, from: args[0], links, to, sums: None })
            }
        }
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
