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
use std::collections::HashMap;

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
            let kept = (used && self.repeats(read).is_some_and(|p| period.is_multiple_of(p)))
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
            let mut args: SmallVec<[Reg; 4]> = SmallVec::new();
            for &a in &op.args {
                if let (Virtual::Operand(r), None) = (a, at.get(&a)) {
                    let to = Reg::Temp(pool.take(self.reads[r as usize].format));
                    actions.push(Action::Fill { operand: r as u16, to });
                    at.insert(a, to);
                }
                args.push(at[&a]);
            }
            let v = Virtual::Result(i as u32);
            // What has a place already, the loop of another operation computes.
            let known = at.contains_key(&v);
            let mut place = |v: Virtual, op: &Operation| {
                *at.entry(v).or_insert_with(|| match stored.get(&v) {
                    Some(stores) => Reg::Out(stores[0]),
                    None => Reg::Temp(pool.take(op.format)),
                })
            };
            let to = place(v, op);
            if !known {
                let mut action = op.action(&args, to);
                if let Action::Compound(Compound { pattern, sums, .. }) = &mut action
                    && pattern.sums
                {
                    let sum = operations
                        .iter()
                        .enumerate()
                        .position(|(j, o)| o.sums(v) && lives(&last, j));
                    *sums = sum.map(|j| place(Virtual::Result(j as u32), &operations[j]));
                }
                actions.push(action);
            }
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
