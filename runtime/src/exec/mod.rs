//! Execution: runs the steps of a plan in order over its memory.
//!
//! An [`Executor`] owns the memory, the scratch and the threads. A run takes the inputs as they
//! stand, executes every step, and makes new state the old state by exchanging the two halves, not
//! by copying. Between runs inputs keep their values, so that only what changes has to be set.

pub mod kernel;
pub mod memory;
pub mod program;

use crate::error::RunError;
use crate::plan::{Place, Plan, PlanInput, PlanOutput, View};
use crate::steps::Io;
use memory::{Memory, Rest, split};
use pam_ir::tensor::{Data, Tensor};
use pam_ir::types::DType;
use pam_kernels::Pool;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Runs a plan.
pub struct Executor {
    plan: Plan,
    memory: Memory,
    scratch: Memory,
    pool: Pool,
    /// Which inputs have a value.
    given: Vec<bool>,
    names: HashMap<String, usize>,
    /// How many runs there were.
    runs: u64,
    /// Which half of the state the last run read.
    parity: usize,
    /// How long each step has taken so far, where that is asked for.
    times: Option<Vec<Duration>>,
}

impl Executor {
    /// Allocates everything a plan needs and gives inputs their defaults. `threads` of 0 means one
    /// for each core.
    ///
    /// # Errors
    /// Where the system does not give the memory.
    pub fn new(plan: Plan, threads: usize) -> Result<Executor, RunError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads };
        let pool = Pool::new(threads).map_err(|reason| RunError::Threads { reason })?;
        let scratch = plan.report.scratch.saturating_mul(pool.threads());
        let allocate = |bytes| Memory::new(bytes).ok_or(RunError::OutOfMemory { bytes });
        let mut executor = Executor {
            memory: allocate(plan.memory)?,
            scratch: allocate(scratch)?,
            pool,
            given: vec![false; plan.inputs.len()],
            names: plan.inputs.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect(),
            runs: 0,
            parity: 0,
            times: None,
            plan,
        };
        for i in 0..executor.plan.inputs.len() {
            if let Some(default) = executor.plan.inputs[i].default.take() {
                executor.store(i, &default);
            }
        }
        Ok(executor)
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The threads it runs on.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Gives an input a value, which it keeps until it is given another (or, if it is state, until
    /// the next run).
    ///
    /// # Errors
    /// Where there is no such input, or the value has another type or shape.
    pub fn set(&mut self, name: &str, value: &Tensor) -> Result<(), RunError> {
        let i = self.input(name)?;
        let PlanInput { name, ty, .. } = &self.plan.inputs[i];
        if value.ty() != *ty {
            return Err(RunError::WrongInput {
                name: name.clone(),
                expected: ty.to_string(),
                got: value.ty().to_string(),
            });
        }
        self.store(i, value);
        Ok(())
    }

    /// Lets `write` fill the memory of an input, given by its position among the plan's inputs.
    ///
    /// # Panics
    /// Where there is no such position.
    pub fn feed(&mut self, input: usize, write: impl FnOnce(&mut [u8])) {
        let view = self.plan.inputs[input].view;
        let at = offset(&view, self.now());
        write(&mut self.memory.bytes_mut()[at..][..view.bytes]);
        self.given[input] = true;
    }

    /// Whether an input, given by its position among the plan's inputs, has a value.
    pub fn is_given(&self, input: usize) -> bool {
        self.given[input]
    }

    /// The value of an input as it stands: for carried state, the newest.
    ///
    /// # Errors
    /// Where there is no such input.
    pub fn value(&self, name: &str) -> Result<Tensor, RunError> {
        let i = self.input(name)?;
        let PlanInput { ty, view, .. } = &self.plan.inputs[i];
        Ok(tensor(ty.dtype, &ty.shape, self.bytes(*view, self.now())))
    }

    /// Runs once.
    ///
    /// # Errors
    /// Where an input has no value, or a node meets data it cannot work on; state is then as
    /// before.
    pub fn step(&mut self) -> Result<(), RunError> {
        self.execute()?;
        let parity = self.parity;
        for (from, to) in &self.plan.carry {
            let (mut outs, rest) =
                split(self.memory.bytes_mut(), &[(offset(to, parity), to.bytes)]);
            outs[0].copy_from_slice(read(&rest, &self.plan.constants, *from, parity));
        }
        self.runs += 1;
        Ok(())
    }

    /// Runs once without making new state the old state: outputs can be read, but the next run
    /// starts from the same state.
    ///
    /// # Errors
    /// As [`Executor::step`].
    pub fn evaluate(&mut self) -> Result<(), RunError> {
        self.execute()
    }

    fn execute(&mut self) -> Result<(), RunError> {
        if let Some(i) = self.given.iter().position(|g| !g) {
            let PlanInput { name, ty, .. } = &self.plan.inputs[i];
            return Err(RunError::MissingInput { name: name.clone(), expected: ty.to_string() });
        }
        let parity = self.now();
        for (s, step) in self.plan.steps.iter().enumerate() {
            let began = self.times.is_some().then(Instant::now);
            let at = |v: &View| (offset(v, parity), v.bytes);
            let ranges: SmallVec<[(usize, usize); memory::MAX_OUTS]> =
                step.outs.iter().map(at).collect();
            let (outs, rest) = split(self.memory.bytes_mut(), &ranges);
            let read = |v: &Option<View>| match v {
                Some(v) => read(&rest, &self.plan.constants, *v, parity),
                None => &[],
            };
            let mut io = Io {
                ins: step.ins.iter().map(read).collect(),
                outs,
                scratch: self.scratch.bytes_mut(),
                pool: &self.pool,
                run: self.runs,
            };
            step.kernel.run(&mut io).map_err(|reason| {
                let (node, op) = self.plan.nodes[step.node.index()].clone();
                RunError::Node { node, op, reason }
            })?;
            if let (Some(began), Some(times)) = (began, &mut self.times) {
                times[s] += began.elapsed();
            }
        }
        self.parity = parity;
        Ok(())
    }

    /// From now on, measures how long each step takes.
    pub fn measure(&mut self) {
        self.times = Some(vec![Duration::ZERO; self.plan.steps.len()]);
    }

    /// How long each step has taken since [`Executor::measure`]: the name and op of its first node,
    /// what serves it, and the time of all runs together.
    pub fn times(&self) -> impl Iterator<Item = (&str, &'static str, &'static str, Duration)> {
        let steps = self.plan.steps.iter().zip(self.times.iter().flatten());
        steps.map(|(step, &time)| {
            let (name, op) = &self.plan.nodes[step.node.index()];
            (name.as_str(), *op, step.kernel.name(), time)
        })
    }

    /// An output of the last run.
    ///
    /// # Errors
    /// Where there is no such output.
    pub fn output(&self, name: &str) -> Result<Tensor, RunError> {
        let output = self.plan.outputs.iter().find(|o| o.name == name);
        let output = output.ok_or_else(|| RunError::UnknownOutput {
            name: name.to_owned(),
            known: list(self.plan.outputs.iter().map(|o| o.name.as_str())),
        })?;
        Ok(self.fetch(output))
    }

    /// Every output of the last run, in order.
    pub fn outputs(&self) -> Vec<(String, Tensor)> {
        self.plan.outputs.iter().map(|o| (o.name.clone(), self.fetch(o))).collect()
    }

    /// Gives inputs their values, runs once and returns the outputs.
    ///
    /// # Errors
    /// As [`Executor::set`] and [`Executor::step`].
    pub fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, RunError> {
        for (name, value) in inputs {
            self.set(name, value)?;
        }
        self.step()?;
        Ok(self.outputs())
    }

    fn fetch(&self, o: &PlanOutput) -> Tensor {
        tensor(o.ty.dtype, &o.ty.shape, self.bytes(o.view, self.parity))
    }

    fn input(&self, name: &str) -> Result<usize, RunError> {
        self.names.get(name).copied().ok_or_else(|| RunError::UnknownInput {
            name: name.to_owned(),
            known: list(self.plan.inputs.iter().map(|p| p.name.as_str())),
        })
    }

    /// Which half of the state is the old one in the next run.
    fn now(&self) -> usize {
        (self.runs % 2) as usize
    }

    fn store(&mut self, i: usize, value: &Tensor) {
        let view = self.plan.inputs[i].view;
        let at = offset(&view, self.now());
        self.memory.bytes_mut()[at..][..view.bytes].copy_from_slice(data_bytes(value));
        self.given[i] = true;
    }

    fn bytes(&self, view: View, parity: usize) -> &[u8] {
        match view.place {
            Place::Constant { index, offset } => {
                &data_bytes(&self.plan.constants[index as usize])[offset..][..view.bytes]
            }
            Place::At(_) | Place::Swap(_) => {
                &self.memory.bytes()[offset(&view, parity)..][..view.bytes]
            }
        }
    }
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

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// The elements of a tensor as they lie in memory.
pub(crate) fn data_bytes(tensor: &Tensor) -> &[u8] {
    match tensor.data() {
        Data::F32(v) => bytemuck::cast_slice(v),
        Data::F64(v) => bytemuck::cast_slice(v),
        Data::F16(v) => bytemuck::cast_slice(v),
        Data::BF16(v) => bytemuck::cast_slice(v),
        Data::I64(v) => bytemuck::cast_slice(v),
        Data::I32(v) => bytemuck::cast_slice(v),
        Data::I16(v) => bytemuck::cast_slice(v),
        Data::I8(v) => bytemuck::cast_slice(v),
        Data::U64(v) => bytemuck::cast_slice(v),
        Data::U32(v) => bytemuck::cast_slice(v),
        Data::U16(v) => bytemuck::cast_slice(v),
        Data::U8(v) => v,
        Data::Bool(v) => bytemuck::cast_slice(v),
    }
}

/// A tensor of elements as they lie in memory.
pub(crate) fn tensor(dtype: DType, shape: &[usize], bytes: &[u8]) -> Tensor {
    fn copy<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
        bytemuck::cast_slice(bytes).to_vec()
    }
    let data = match dtype {
        DType::F32 => Data::F32(copy(bytes)),
        DType::F64 => Data::F64(copy(bytes)),
        DType::F16 => Data::F16(copy(bytes)),
        DType::BF16 => Data::BF16(copy(bytes)),
        DType::I64 => Data::I64(copy(bytes)),
        DType::I32 => Data::I32(copy(bytes)),
        DType::I16 => Data::I16(copy(bytes)),
        DType::I8 => Data::I8(copy(bytes)),
        DType::U64 => Data::U64(copy(bytes)),
        DType::U32 => Data::U32(copy(bytes)),
        DType::U16 => Data::U16(copy(bytes)),
        DType::U8 => Data::U8(copy(bytes)),
        DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
    };
    Tensor::from_data(shape, data).expect("a view has the size of its type")
}
