//! A plan on a device: one arena, the steps recorded once for each half of the state.
//!
//! Programs that differ in their operands only share a launch. State stays on the device between steps.
//! Inputs that are not state exist twice, once for the runs that read the even half of the state and
//! once for the odd ones, so that the next batch is copied in while a run is under way. Indices out of
//! range are noted on the device and looked at when a result is read or the next run begins.

use super::CudaError;
use super::batch::{self, Batch};
use super::emit::Emitter;
use super::lower::Lowering;
use super::machine::{Buffer, Machine, Recording};
use super::order::{Orders, Places};
use super::source::{Source, sources};
use crate::error::RunError;
use crate::exec::data_bytes;
use crate::plan::{Place, Plan, Step, View};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Alignment of constants, in bytes.
const ALIGN: usize = 256;
/// A step that has met no index out of range.
const NO_FAULT: u64 = u64::MAX;

/// What was recorded; nothing for an empty list, which a device refuses.
type Recorded = Option<Box<dyn Recording>>;

/// An input that is not state: its bytes, and which of its two copies on the device hold them.
struct Mirror {
    bytes: Vec<u8>,
    current: [bool; 2],
    second: u64,
}

/// Where everything lies on the device.
struct Memory {
    arena: Buffer,
    /// The second copy of the inputs.
    _inputs: Buffer,
    _constants: Buffer,
    constants: Vec<u64>,
    /// Inputs that are not state, by where they lie in the arena.
    mirrors: BTreeMap<usize, Mirror>,
}

/// The CUDA backend of an executor.
pub(crate) struct Backend {
    machine: Box<dyn Machine>,
    memory: Memory,
    /// Kept while the recordings live.
    _workspace: Buffer,
    _steps: Vec<Orders>,
    _batches: Vec<Option<Batch>>,
    /// One word a step that can fault, and the number of the run.
    words: Buffer,
    /// What every plan may need and what was generated for this one.
    sources: Vec<Source>,
    faulting: Vec<(usize, usize)>,
    /// For either half of the state: the steps, and the copies that carry state, if there are any.
    recordings: [Recorded; 2],
    carries: [Recorded; 2],
    /// The half that the last run reads, until its faults have been looked at.
    running: Cell<Option<usize>>,
}

impl Backend {
    /// Allocates everything, compiles the plan's kernels and records its steps.
    pub fn new(plan: &Plan, mut machine: Box<dyn Machine>) -> Result<Backend, RunError> {
        let memory = Memory::new(plan, machine.as_ref())?;
        let mut emitter = Emitter::default();
        let mut steps = Vec::with_capacity(plan.steps.len());
        let arranged = batch::arrange(plan);
        let alone: BTreeSet<usize> =
            arranged.iter().filter(|list| list.len() == 1).map(|list| list[0]).collect();
        let mut lowering = Lowering { machine: machine.as_ref(), emitter: &mut emitter };
        for (s, step) in plan.steps.iter().enumerate() {
            let orders =
                if alone.contains(&s) { lowering.lower(step) } else { Ok(Orders::default()) };
            steps.push(orders.map_err(|e| match e {
                CudaError::Unsupported(_) | CudaError::TooLarge { .. } => {
                    plan.fault(s, e.to_string())
                }
                other => other.into(),
            })?);
        }
        let address = |v: &View, parity| memory.address(*v, parity);
        let mut batches = Vec::with_capacity(arranged.len());
        for list in &arranged {
            let together: Vec<&Step> = list.iter().map(|&s| &plan.steps[s]).collect();
            batches.push(match together.len() {
                1 => None,
                _ => Batch::new(machine.as_ref(), &mut emitter, &together, &address)?,
            });
        }
        let generated = emitter.sources();
        machine.load(&generated)?;
        let bytes = steps.iter().map(|s| s.workspace).max().unwrap_or(0);
        let workspace = machine.alloc(bytes, "the workspace of contractions and reductions")?;
        let faulting: Vec<(usize, usize)> =
            steps.iter().enumerate().filter_map(|(s, o)| Some((s, o.fault?))).collect();
        let words = machine.alloc(faulting.len() * 8 + 8, "the words of faults")?;
        // SAFETY: the range is the buffer's.
        unsafe { machine.fill(words.address(), 0xFF, words.bytes()) }?;

        let half = |parity: usize| {
            let address = |view: &View| memory.address(*view, parity);
            let mut give = || {
                for (list, batch) in arranged.iter().zip(&batches) {
                    let (s, shared) = (list[0], batch.as_ref().map(|b| b.orders(parity)));
                    let (orders, step) = (shared.as_ref().unwrap_or(&steps[s]), &plan.steps[s]);
                    let ins: Vec<u64> =
                        step.ins.iter().map(|v| v.as_ref().map_or(0, address)).collect();
                    let outs: Vec<u64> = step.outs.iter().map(address).collect();
                    let fault = faulting.iter().position(|f| f.0 == s).unwrap_or(0);
                    let places = Places {
                        ins: &ins,
                        outs: &outs,
                        workspace: workspace.address(),
                        fault: words.address() + 8 + 8 * fault as u64,
                        run: words.address(),
                    };
                    // SAFETY: the orders were made for these steps, whose operands lie there.
                    unsafe { orders.give(machine.as_ref(), &places) }?;
                }
                Ok(())
            };
            let some = plan.steps.iter().any(|s| !s.outs.is_empty());
            let steps = some.then(|| machine.record(&mut give)).transpose()?;
            let mut carry = || {
                for (from, to) in &plan.carry {
                    // SAFETY: the plan has laid both out, and state never overlaps its source.
                    unsafe { machine.copy(address(from), address(to), to.bytes) }?;
                }
                Ok(())
            };
            let some = plan.carry.iter().any(|c| c.1.bytes > 0);
            let carry = some.then(|| machine.record(&mut carry)).transpose()?;
            Ok::<_, CudaError>((steps, carry))
        };
        let (even, odd) = (half(0)?, half(1)?);
        // Inputs are copied in beside whatever is under way, and that includes the fills above.
        machine.synchronize()?;
        Ok(Backend {
            machine,
            memory,
            _workspace: workspace,
            _steps: steps,
            _batches: batches,
            words,
            sources: sources().into_iter().chain(generated).collect(),
            faulting,
            recordings: [even.0, odd.0],
            carries: [even.1, odd.1],
            running: Cell::new(None),
        })
    }
}

impl Memory {
    fn new(plan: &Plan, machine: &dyn Machine) -> Result<Memory, CudaError> {
        let arena = machine.alloc(plan.memory, "the arena of values, inputs and state")?;
        let mut mirrors = BTreeMap::new();
        let mut second = 0;
        for input in &plan.inputs {
            if let Place::At(at) = input.view.place {
                let bytes = vec![0; input.view.bytes];
                mirrors.insert(at, Mirror { bytes, current: [true; 2], second: second as u64 });
                second += input.view.bytes.next_multiple_of(ALIGN);
            }
        }
        let inputs = machine.alloc(second, "the second copy of the inputs")?;
        mirrors.values_mut().for_each(|m: &mut Mirror| m.second += inputs.address());
        for buffer in [&arena, &inputs] {
            // SAFETY: the range is the buffer's.
            unsafe { machine.fill(buffer.address(), 0, buffer.bytes()) }?;
        }
        let (buffer, constants) = constants(plan, machine)?;
        Ok(Memory { arena, _inputs: inputs, _constants: buffer, constants, mirrors })
    }

    /// The address of a view in one half.
    fn address(&self, view: View, parity: usize) -> u64 {
        match view.place {
            _ if view.bytes == 0 => 0,
            // A view may be a part of an input.
            Place::At(at) => match self.mirrors.range(..=at).next_back() {
                Some((&first, m)) if parity == 1 && at - first < m.bytes.len() => {
                    m.second + (at - first) as u64
                }
                _ => self.arena.address() + at as u64,
            },
            Place::Swap(halves) => self.arena.address() + halves[parity] as u64,
            Place::Constant { index, offset } => self.constants[index as usize] + offset as u64,
        }
    }
}

/// The constants of a plan on the device, and where each lies.
fn constants(plan: &Plan, machine: &dyn Machine) -> Result<(Buffer, Vec<u64>), CudaError> {
    let sizes = plan.constants.iter().map(|t| t.ty().bytes().next_multiple_of(ALIGN));
    let buffer = machine.alloc(sizes.clone().sum(), "the constants")?;
    let mut at = buffer.address();
    let mut places = Vec::with_capacity(plan.constants.len());
    for (tensor, size) in plan.constants.iter().zip(sizes) {
        // SAFETY: the buffer holds the sum of the sizes.
        unsafe { machine.write(at, data_bytes(tensor)) }?;
        places.push(at);
        at += size as u64;
    }
    Ok((buffer, places))
}

impl crate::exec::Backend for Backend {
    fn write(
        &mut self,
        view: View,
        parity: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), RunError> {
        let address = self.memory.address(view, parity);
        if self.running.get() == Some(parity) {
            // A run that made no new state: the next one reads the same copies.
            self.machine.synchronize()?;
        }
        let mirror = match view.place {
            Place::At(at) => self.memory.mirrors.get_mut(&at),
            _ => None,
        };
        // SAFETY: the address is that of an input or of the old state. What is under way reads the
        // other copy of an input; of state it reads one half and writes the other, so that it has
        // to be over first.
        unsafe {
            match mirror {
                Some(mirror) => {
                    write(&mut mirror.bytes);
                    self.machine.stage(address, &mirror.bytes)?;
                    mirror.current = [parity == 0, parity == 1];
                }
                None => {
                    let mut bytes = vec![0; view.bytes];
                    write(&mut bytes);
                    self.machine.synchronize()?;
                    self.machine.write(address, &bytes)?;
                }
            }
        }
        Ok(())
    }

    fn read<'a>(
        &'a self,
        _: &'a Plan,
        view: View,
        parity: usize,
    ) -> Result<Cow<'a, [u8]>, RunError> {
        let mut bytes = vec![0; view.bytes];
        // SAFETY: the plan has laid the view out.
        unsafe { self.machine.read(self.memory.address(view, parity), &mut bytes) }?;
        Ok(Cow::Owned(bytes))
    }

    fn start(&mut self, _: &Plan, parity: usize, run: u64, carry: bool) -> Result<(), RunError> {
        let Memory { arena, mirrors, .. } = &mut self.memory;
        for (&at, mirror) in mirrors {
            if !std::mem::replace(&mut mirror.current[parity], true) {
                let address = if parity == 0 { arena.address() + at as u64 } else { mirror.second };
                // SAFETY: as in `write`.
                unsafe { self.machine.stage(address, &mirror.bytes) }?;
            }
        }
        let mut words = vec![NO_FAULT; self.faulting.len() + 1];
        words[0] = run;
        // SAFETY: the range is the buffer's, and no run is under way.
        unsafe { self.machine.write(self.words.address(), bytemuck::cast_slice(&words)) }?;
        let carry = if carry { self.carries[parity].as_ref() } else { None };
        for recorded in self.recordings[parity].iter().chain(carry) {
            recorded.replay()?;
        }
        self.running.set(Some(parity));
        Ok(())
    }

    fn finish(&self, plan: &Plan) -> Result<(), RunError> {
        if self.running.take().is_none() {
            return Ok(());
        }
        let mut words = vec![0u64; self.faulting.len() + 1];
        // SAFETY: the range is the buffer's.
        unsafe { self.machine.read(self.words.address(), bytemuck::cast_slice_mut(&mut words)) }?;
        for (&(step, n), &word) in self.faulting.iter().zip(&words[1..]) {
            if word != NO_FAULT {
                let index = (word ^ 1 << 63) as i64;
                let reason = format!("index {index} is out of range for a dimension of {n}");
                return Err(plan.fault(step, reason));
            }
        }
        Ok(())
    }

    fn threads(&self) -> usize {
        1
    }

    fn kernels(&self) -> Option<(&str, &[Source])> {
        Some((self.machine.arch(), &self.sources))
    }
}
