//! The execution of programs: tile after tile, divided among threads.

use super::memory::Outs;
use super::program::{
    Access, Action, CACHE_LINE, Compound, Counts, FEW, Format, Multiplied, Operand, Per, Program,
    Reg,
};
use crate::host::number::{of, of_mut, with_size};
use crate::steps::Io;
use pam_kernels::Pool;
use pam_kernels::compound::compute;
use pam_kernels::memory::{Intent, prefetch, stream};
use pam_kernels::reduce::{reduce_rows, sum_products};
use smallvec::SmallVec;
use std::slice::Chunks;

/// Elements below which a program runs on one thread: handing over costs more than it gains.
const GRAIN: usize = 16 * 1024;

/// What all tiles of a program have in common.
#[derive(Clone, Copy)]
struct Task<'t> {
    /// The memory of the operands; nothing for those that are read in place.
    ins: &'t [&'t [u8]],
    /// Whether it lies beyond the caches.
    far: bool,
    pool: &'t Pool,
}

impl Program {
    /// Runs it on what there is for a step, with the scratch of all threads.
    pub fn execute(&self, io: &mut Io<'_>) {
        let parts = io.pool.threads().min(self.count.div_ceil(GRAIN)).max(1);
        let (outs, scratch) = (std::mem::take(&mut io.outs), std::mem::take(&mut io.scratch));
        let task = Task { ins: &io.ins, far: io.far, pool: io.pool };
        self.divide(0, self.count, parts, task, outs, scratch);
    }

    fn divide<'m>(
        &self,
        from: usize,
        to: usize,
        parts: usize,
        task: Task<'_>,
        outs: Outs<'m>,
        scratch: &'m mut [u8],
    ) {
        let left = parts / 2;
        let middle = from + ((to - from) / parts.max(1) * left) / self.tile * self.tile;
        if parts <= 1 {
            return self.serial(from, to, task, outs, scratch);
        }
        let (mut low, mut high) = (Outs::new(), Outs::new());
        let counts = self.counts(middle - from);
        for (out, f) in outs.into_iter().zip(&self.outs) {
            let (l, h) = out.split_at_mut(counts.bytes(*f));
            low.push(l);
            high.push(h);
        }
        let (low_scratch, high_scratch) = scratch.split_at_mut(left * self.scratch());
        task.pool.join(
            || self.divide(from, middle, left, task, low, low_scratch),
            || self.divide(middle, to, parts - left, task, high, high_scratch),
        );
    }

    /// Tiles `from..to` on this thread; `outs` begin at `from`.
    fn serial<'m>(
        &self,
        from: usize,
        to: usize,
        Task { ins, far, .. }: Task<'_>,
        mut outs: Outs<'m>,
        mut scratch: &'m mut [u8],
    ) {
        let mut n = self.counts(self.tile.min(to - from));
        let room = |scratch: &mut &'m mut [u8], f: &Format| {
            let (room, rest) = std::mem::take(scratch).split_at_mut(self.room(f));
            *scratch = rest;
            &mut room[..n.bytes(*f)]
        };
        let mut own: SmallVec<[&mut [u8]; 24]> = SmallVec::new();
        own.extend(self.temps.iter().map(|f| room(&mut scratch, f)));
        for (operand, bytes) in self.operands.iter().zip(ins) {
            if let (Access::Walk(walk), Some(temp)) = (&operand.access, operand.kept) {
                with_size!(operand.format.size, T => {
                    walk.read(of::<T>(bytes), 0, of_mut::<T>(own[temp as usize]));
                });
            }
        }
        // Results that are written past the caches are computed in scratch.
        let outs_at = own.len();
        let streamed: SmallVec<[bool; 4]> = (0..outs.len()).map(|k| self.streams(k)).collect();
        own.extend(self.outs.iter().zip(&streamed).map(|(f, streamed)| match streamed {
            true => room(&mut scratch, f),
            false => &mut [],
        }));
        let mut targets = Outs::new();
        let mut tiles: SmallVec<[&[u8]; 16]> = ins.into();
        let mut at = self.counts(from);
        while at.elements < to {
            if at.elements + n.elements > to {
                n = self.counts(to - at.elements);
                let formats = self.temps.iter().chain(&self.outs);
                for (register, f) in own.iter_mut().zip(formats).filter(|(r, _)| !r.is_empty()) {
                    let whole = std::mem::take(register);
                    *register = &mut whole[..n.bytes(*f)];
                }
            }
            for ((tile, operand), bytes) in tiles.iter_mut().zip(&self.operands).zip(ins) {
                if operand.access == Access::Direct {
                    *tile = &bytes[at.bytes(operand.format)..][..n.bytes(operand.format)];
                }
            }
            for (k, (out, f)) in outs.iter_mut().zip(&self.outs).enumerate() {
                let (tile, rest) = std::mem::take(out).split_at_mut(n.bytes(*f));
                *out = rest;
                match streamed[k] {
                    true => targets.push(tile),
                    false => own[outs_at + k] = tile,
                }
            }
            let mut ahead = if far { self.ahead(ins, &outs, at + n, to) } else { SmallVec::new() };
            let mut tile = Tile { program: self, at, ins: &tiles, own: &mut own };
            for action in &self.actions {
                for (shares, intent) in &mut ahead {
                    if let Some(share) = shares.next() {
                        prefetch(share, *intent);
                    }
                }
                tile.act(action);
            }
            let results = own[outs_at..].iter().zip(&streamed).filter(|(_, streamed)| **streamed);
            results.zip(targets.drain(..)).for_each(|((from, _), to)| stream(from, to));
            at = at + n;
        }
    }

    /// What is fetched of the tile that begins at `at` while the one before it is computed: a share before
    /// each action, so that the memory is always at work. A short program only waits for the memory; and what lies
    /// in a cache, the processor fetches faster than it executes instructions to do so.
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
        let outs = self.outs.iter().zip(outs).enumerate();
        let outs = outs.filter(|(k, (f, _))| whole(f) && !self.streams(*k));
        let written = outs.map(|(_, (f, bytes))| (shares(bytes, 0, f.size), Intent::Write));
        read.chain(written).collect()
    }
}

/// The registers while one tile is computed.
struct Tile<'t, 'm> {
    program: &'t Program,
    /// What lies before it in the index space.
    at: Counts,
    /// The operands: tiles of those that are read in place, else the whole.
    ins: &'t [&'t [u8]],
    /// Scratch, then the tiles of the results.
    own: &'t mut [&'m mut [u8]],
}

impl<'m> Tile<'_, 'm> {
    /// Does one thing.
    fn act(&mut self, action: &Action) {
        match action {
            Action::Fill { operand, to } => self.fill(*operand, *to),
            Action::Copy { from, to } => {
                self.write(*to, |tile, out| out.copy_from_slice(tile.get(*from)));
            }
            Action::Compute { kernel, args, to, .. } => self.write(*to, |tile, out| {
                let arg = |i: usize| args[i].map_or(&[][..], |r| tile.get(r));
                match args[0] == Some(*to) {
                    true => kernel.overwrite(out, arg(1)),
                    false => kernel.compute([arg(0), arg(1), arg(2)], out),
                }
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
            Action::Compound(Compound { pattern, from, links, to, sums }) => {
                let summed = sums.map(|sums| (sums, self.take(sums)));
                let (to, out) = (*to, self.take(*to));
                let mut others = links.iter().filter_map(|(_, other)| *other);
                let by = [(); 3].map(|()| others.next().map_or(&[][..], |r| of(self.get(r))));
                let (x, row) = (of(self.get(*from)), self.program.row);
                match summed {
                    Some((reg, sums)) => {
                        compute(pattern.compound, row, x, by, of_mut(out), of_mut(sums));
                        self.put(reg, sums);
                    }
                    None => compute(pattern.compound, row, x, by, of_mut(out), &mut []),
                }
                self.put(to, out);
            }
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

    /// Takes a register to write out of the set, so that the others can be read meanwhile.
    fn take(&mut self, reg: Reg) -> &'m mut [u8] {
        let index = self.index(reg);
        std::mem::take(&mut self.own[index])
    }

    /// Puts it back.
    fn put(&mut self, reg: Reg, register: &'m mut [u8]) {
        let index = self.index(reg);
        self.own[index] = register;
    }

    fn write(&mut self, to: Reg, f: impl FnOnce(&Self, &mut [u8])) {
        let register = self.take(to);
        f(self, register);
        self.put(to, register);
    }
}
