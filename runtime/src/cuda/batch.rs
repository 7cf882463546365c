//! Programs that differ in nothing but their operands, such as the updates of all weights, run as one
//! launch.
//!
//! A step joins the last launch of the same program among the steps just before it, unless it reads what
//! one of the steps in between writes, or the other way round. Memory is compared, not values, since the
//! arena uses its bytes again.

use super::CudaError;
use super::emit::Emitter;
use super::machine::{Buffer, Machine, upload};
use super::order::{Order, Orders, Word};
use super::program::{ITEM_BLOCK, program_of_items, words};
use crate::exec::program::Program;
use crate::plan::{Place, Plan, Step, View};
use crate::steps::Kernel;
use std::collections::HashMap;
use std::ops::Range;

/// How many steps a step may be moved across.
const REACH: usize = 64;

/// The steps of a plan as launches: each a list of steps, the most of them of one.
pub(super) fn arrange(plan: &Plan) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut last: HashMap<String, usize> = HashMap::new();
    for (s, step) in plan.steps.iter().enumerate() {
        let text = plain(step).and_then(|p| program_of_items(p).ok()).map(|(_, text)| text);
        let Some(text) = text else {
            batches.push(vec![s]);
            continue;
        };
        let joined = last.get(&text).copied().filter(|&b| {
            let between = batches[b..].iter().flatten();
            batches.len() - b <= REACH && between.clone().all(|&t| free(step, &plan.steps[t]))
        });
        match joined {
            Some(b) => batches[b].push(s),
            None => {
                last.insert(text, batches.len());
                batches.push(vec![s]);
            }
        }
    }
    batches
}

/// The program of a step, if it may share a launch.
fn plain(step: &Step) -> Option<&Program> {
    match &step.kernel {
        Kernel::Program(p) if p.row == 1 && u32::try_from(p.count).is_ok() => Some(p),
        _ => None,
    }
}

/// Whether neither of two steps writes what the other one reads or writes.
fn free(a: &Step, b: &Step) -> bool {
    let touches = |step: &Step, out: &View| {
        let mut views = step.ins.iter().flatten().chain(&step.outs);
        views.any(|v| overlap(v, out))
    };
    !a.outs.iter().any(|out| touches(b, out)) && !b.outs.iter().any(|out| touches(a, out))
}

fn overlap(a: &View, b: &View) -> bool {
    let ranges = |v: &View| -> [Range<usize>; 2] {
        let range = |at: usize| at..at + v.bytes;
        match v.place {
            Place::At(at) => [range(at), 0..0],
            Place::Swap(halves) => halves.map(range),
            Place::Constant { .. } => [0..0, 0..0],
        }
    };
    let meet = |a: &Range<usize>, b: &Range<usize>| a.start.max(b.start) < a.end.min(b.end);
    ranges(a).iter().any(|a| ranges(b).iter().any(|b| meet(a, b)))
}

/// One launch for several steps of the same program: its kernel and the table of either half of the state.
pub(super) struct Batch {
    kernel: String,
    blocks: u32,
    items: u32,
    tables: [Buffer; 2],
}

impl Batch {
    /// The batch of these steps, whose views lie where `address` says.
    ///
    /// # Errors
    /// Where there are too many elements, or the device has no room for the tables.
    pub fn new(
        machine: &dyn Machine,
        emitter: &mut Emitter,
        steps: &[&Step],
        address: &dyn Fn(&View, usize) -> u64,
    ) -> Result<Option<Batch>, CudaError> {
        let Some(first) = steps.first().and_then(|s| plain(s)) else { return Ok(None) };
        let (header, text) = program_of_items(first).map_err(CudaError::Unsupported)?;
        let kernel = emitter.kernel(header, &text);
        let mut blocks = 0;
        let mut tables = [Vec::new(), Vec::new()];
        for step in steps {
            let count = plain(step).map_or(0, |p| p.count);
            for (parity, table) in tables.iter_mut().enumerate() {
                table.extend([blocks as u64, count as u64]);
                let views = step.ins.iter().flatten().chain(&step.outs);
                table.extend(views.map(|v| address(v, parity)));
            }
            blocks += count.div_ceil(ITEM_BLOCK);
        }
        debug_assert_eq!(tables[0].len(), steps.len() * words(first));
        let too_large = |_| CudaError::TooLarge { what: format!("a launch of {blocks} blocks") };
        let blocks = u32::try_from(blocks).map_err(too_large)?;
        let [even, odd] = &tables;
        let table = |words: &Vec<u64>| upload(machine, words, "a table of operands");
        let tables = [table(even)?, table(odd)?];
        Ok(Some(Batch { kernel, blocks, items: steps.len() as u32, tables }))
    }

    /// Its orders for one half of the state.
    pub fn orders(&self, parity: usize) -> Orders {
        let args = vec![Word::U64(self.tables[parity].address()), Word::U32(self.items)];
        let launch = Order::Launch { kernel: self.kernel.clone(), grid: (self.blocks, 1, 1), args };
        Orders { list: vec![launch], ..Orders::default() }
    }
}
