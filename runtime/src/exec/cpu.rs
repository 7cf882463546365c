//! Running on the CPU: one block of memory, scratch for each thread, and a pool.

use super::memory::{self, Memory, Rest, split};
use super::program::BEYOND_CACHES;
use super::{Backend, data_bytes};
use crate::error::RunError;
use crate::plan::{Place, Plan, View};
use crate::steps::Io;
use pam_ir::tensor::Tensor;
use pam_kernels::Pool;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// The CPU.
pub(super) struct Cpu {
    memory: Memory,
    scratch: Memory,
    pool: Pool,
    /// How long each step has taken so far, where that is asked for.
    times: Option<Vec<Duration>>,
}

impl Cpu {
    /// Allocates everything a plan needs. `threads` of 0 means one for each core.
    pub fn new(plan: &Plan, threads: usize) -> Result<Cpu, RunError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads };
        let pool = Pool::new(threads).map_err(|reason| RunError::Threads { reason })?;
        let scratch = plan.report.scratch.saturating_mul(pool.threads());
        let allocate = |bytes| Memory::new(bytes).ok_or(RunError::OutOfMemory { bytes });
        let (memory, scratch) = (allocate(plan.memory)?, allocate(scratch)?);
        Ok(Cpu { memory, scratch, pool, times: None })
    }
}

impl Backend for Cpu {
    fn write(
        &mut self,
        view: View,
        parity: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), RunError> {
        let at = offset(&view, parity);
        write(&mut self.memory.bytes_mut()[at..][..view.bytes]);
        Ok(())
    }

    fn read<'a>(
        &'a self,
        plan: &'a Plan,
        view: View,
        parity: usize,
    ) -> Result<Cow<'a, [u8]>, RunError> {
        Ok(Cow::Borrowed(match view.place {
            Place::Constant { index, offset } => {
                &data_bytes(&plan.constants[index as usize])[offset..][..view.bytes]
            }
            Place::At(_) | Place::Swap(_) => {
                &self.memory.bytes()[offset(&view, parity)..][..view.bytes]
            }
        }))
    }

    fn start(&mut self, plan: &Plan, parity: usize, run: u64, carry: bool) -> Result<(), RunError> {
        let Cpu { memory, scratch, pool, times } = self;
        // The whole run is one task, so that its steps need not be handed over one by one.
        pool.run(|| steps(plan, parity, run, memory, scratch, pool, times.as_deref_mut()))?;
        for (from, to) in plan.carry.iter().filter(|_| carry) {
            let (mut outs, rest) = split(memory.bytes_mut(), &[(offset(to, parity), to.bytes)]);
            outs[0].copy_from_slice(read(&rest, &plan.constants, *from, parity));
        }
        Ok(())
    }

    fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn measure(&mut self, steps: usize) {
        self.times = Some(vec![Duration::ZERO; steps]);
    }

    fn times(&self) -> &[Duration] {
        self.times.as_deref().unwrap_or_default()
    }
}

/// Runs all steps in order.
fn steps(
    plan: &Plan,
    parity: usize,
    run: u64,
    memory: &mut Memory,
    scratch: &mut Memory,
    pool: &Pool,
    mut times: Option<&mut [Duration]>,
) -> Result<(), RunError> {
    let far = plan.memory + plan.report.constants >= BEYOND_CACHES;
    for (s, step) in plan.steps.iter().enumerate() {
        let began = times.is_some().then(Instant::now);
        let at = |v: &View| (offset(v, parity), v.bytes);
        let ranges: SmallVec<[(usize, usize); memory::MAX_OUTS]> =
            step.outs.iter().map(at).collect();
        let (outs, rest) = split(memory.bytes_mut(), &ranges);
        let read = |v: &Option<View>| match v {
            Some(v) => read(&rest, &plan.constants, *v, parity),
            None => &[],
        };
        let ins = step.ins.iter().map(read).collect();
        let mut io = Io { ins, outs, scratch: scratch.bytes_mut(), pool, run, far };
        step.kernel.run(&mut io).map_err(|reason| plan.fault(s, reason))?;
        if let (Some(began), Some(times)) = (began, &mut times) {
            times[s] += began.elapsed();
        }
    }
    Ok(())
}

/// Where in memory a view lies that is not a constant.
fn offset(view: &View, parity: usize) -> usize {
    match view.place {
        Place::At(at) => at,
        Place::Swap(halves) => halves[parity],
        Place::Constant { .. } => unreachable!("constants are not written"),
    }
}

fn read<'m>(rest: &Rest<'m>, constants: &'m [Tensor], view: View, parity: usize) -> &'m [u8] {
    match view.place {
        Place::Constant { index, offset } => {
            &data_bytes(&constants[index as usize])[offset..][..view.bytes]
        }
        Place::At(_) | Place::Swap(_) => rest.get(offset(&view, parity), view.bytes),
    }
}
