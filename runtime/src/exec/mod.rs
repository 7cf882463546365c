//! Execution: runs the steps of a plan in order over its memory.
//!
//! An [`Executor`] takes the inputs as they stand, has its backend execute every step, and makes new
//! state the old state by exchanging the two halves, not by copying. Between runs inputs keep their
//! values, so that only what changes has to be set. The CPU is one [`Backend`]; the CUDA backend lives
//! in [`crate::cuda`].

pub mod compound;
mod cpu;
pub mod kernel;
pub mod memory;
pub mod program;
mod tiles;

use crate::cuda::Machine;
use crate::cuda::source::Source;
use crate::error::RunError;
use crate::plan::{Plan, PlanInput, PlanOutput, View};
use cpu::Cpu;
use pam_ir::tensor::{Data, Tensor};
use pam_ir::types::DType;
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

/// Where the steps of a plan are executed.
pub(crate) trait Backend {
    /// Lets `write` fill the memory of an input, for the run that reads this half of the state.
    fn write(
        &mut self,
        view: View,
        parity: usize,
        write: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), RunError>;

    /// The bytes of a view, once what was started has finished.
    fn read<'a>(
        &'a self,
        plan: &'a Plan,
        view: View,
        parity: usize,
    ) -> Result<Cow<'a, [u8]>, RunError>;

    /// Starts run number `run` of the plan on one half of the state; with `carry`, state whose new
    /// value lies elsewhere is copied to its place.
    fn start(&mut self, plan: &Plan, parity: usize, run: u64, carry: bool) -> Result<(), RunError>;

    /// Waits for what was started and says once if it has failed.
    fn finish(&self, _plan: &Plan) -> Result<(), RunError> {
        Ok(())
    }

    /// Threads of the CPU that work.
    fn threads(&self) -> usize;

    /// The architecture of a device and the sources of all kernels that run on it.
    fn kernels(&self) -> Option<(&str, &[Source])> {
        None
    }

    /// From now on, measures how long each step takes.
    fn measure(&mut self, _steps: usize) {}

    /// How long each step has taken, where that is measured.
    fn times(&self) -> &[Duration] {
        &[]
    }
}

/// Runs a plan.
pub struct Executor {
    plan: Plan,
    backend: Box<dyn Backend>,
    /// Which inputs have a value.
    given: Vec<bool>,
    names: HashMap<String, usize>,
    /// How many runs there were.
    runs: Cell<u64>,
    /// Which half of the state the last run read, and whether it made new state.
    parity: usize,
    stepped: Cell<bool>,
}

impl Executor {
    /// Allocates everything a plan needs on the CPU and gives inputs their defaults. `threads` of 0
    /// means one for each core.
    ///
    /// # Errors
    /// Where the system does not give the memory.
    pub fn new(plan: Plan, threads: usize) -> Result<Executor, RunError> {
        let backend = Cpu::new(&plan, threads)?;
        Executor::on(plan, Box::new(backend))
    }

    /// The same on a CUDA device, or on what answers like one.
    ///
    /// # Errors
    /// Where the device's memory is too small, a kernel cannot be compiled, or the plan holds
    /// something the device has no kernel for.
    pub fn cuda(plan: Plan, machine: Box<dyn Machine>) -> Result<Executor, RunError> {
        let backend = crate::cuda::Backend::new(&plan, machine)?;
        Executor::on(plan, Box::new(backend))
    }

    fn on(mut plan: Plan, backend: Box<dyn Backend>) -> Result<Executor, RunError> {
        let defaults: Vec<Option<Tensor>> =
            plan.inputs.iter_mut().map(|p| p.default.take()).collect();
        let mut executor = Executor {
            backend,
            given: vec![false; plan.inputs.len()],
            names: plan.inputs.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect(),
            runs: Cell::new(0),
            parity: 0,
            stepped: Cell::new(false),
            plan,
        };
        for (i, default) in defaults.iter().enumerate() {
            if let Some(default) = default {
                executor.store(i, default)?;
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
        self.backend.threads()
    }

    /// Of a device, its architecture and the sources of all kernels that the plan runs there, those
    /// generated for it included; nothing for the CPU.
    pub fn kernels(&self) -> Option<(&str, &[Source])> {
        self.backend.kernels()
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
        self.store(i, value)
    }

    /// Lets `write` fill the memory of an input, given by its position among the plan's inputs.
    ///
    /// # Errors
    /// Where the device cannot be written.
    ///
    /// # Panics
    /// Where there is no such position.
    pub fn feed(&mut self, input: usize, mut write: impl FnMut(&mut [u8])) -> Result<(), RunError> {
        let view = self.plan.inputs[input].view;
        let now = self.now();
        self.backend.write(view, now, &mut write)?;
        self.given[input] = true;
        Ok(())
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
        self.settle()?;
        let bytes = self.backend.read(&self.plan, *view, self.now())?;
        Ok(tensor(ty.dtype, &ty.shape, &bytes))
    }

    /// Runs once. On a device the run may still be under way when this returns; whatever reads its
    /// results waits for it.
    ///
    /// # Errors
    /// Where an input has no value, or a node meets data it cannot work on (on a device: where the run
    /// before did); state is then as before.
    pub fn step(&mut self) -> Result<(), RunError> {
        self.execute(true)?;
        self.runs.set(self.runs.get() + 1);
        Ok(())
    }

    /// Runs once without making new state the old state: outputs can be read, but the next run
    /// starts from the same state.
    ///
    /// # Errors
    /// As [`Executor::step`].
    pub fn evaluate(&mut self) -> Result<(), RunError> {
        self.execute(false)
    }

    fn execute(&mut self, carry: bool) -> Result<(), RunError> {
        if let Some(i) = self.given.iter().position(|g| !g) {
            let PlanInput { name, ty, .. } = &self.plan.inputs[i];
            return Err(RunError::MissingInput { name: name.clone(), expected: ty.to_string() });
        }
        self.settle()?;
        let parity = self.now();
        self.backend.start(&self.plan, parity, self.runs.get(), carry)?;
        self.parity = parity;
        self.stepped.set(carry);
        Ok(())
    }

    /// Waits for the last run; one that has failed has not happened.
    fn settle(&self) -> Result<(), RunError> {
        self.backend.finish(&self.plan).inspect_err(|_| {
            self.runs.set(self.runs.get() - u64::from(self.stepped.take()));
        })
    }

    /// From now on, measures how long each step takes.
    pub fn measure(&mut self) {
        self.backend.measure(self.plan.steps.len());
    }

    /// How long each step has taken since [`Executor::measure`]: the name and op of its first node,
    /// what serves it, and the time of all runs together.
    pub fn times(&self) -> impl Iterator<Item = (&str, &'static str, &'static str, Duration)> {
        let steps = self.plan.steps.iter().zip(self.backend.times());
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
        self.fetch(output)
    }

    /// Every output of the last run, in order.
    ///
    /// # Errors
    /// Where the run, on a device, met data it cannot work on.
    pub fn outputs(&self) -> Result<Vec<(String, Tensor)>, RunError> {
        self.plan.outputs.iter().map(|o| Ok((o.name.clone(), self.fetch(o)?))).collect()
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
        self.outputs()
    }

    fn fetch(&self, o: &PlanOutput) -> Result<Tensor, RunError> {
        self.settle()?;
        let bytes = self.backend.read(&self.plan, o.view, self.parity)?;
        Ok(tensor(o.ty.dtype, &o.ty.shape, &bytes))
    }

    fn input(&self, name: &str) -> Result<usize, RunError> {
        self.names.get(name).copied().ok_or_else(|| RunError::UnknownInput {
            name: name.to_owned(),
            known: list(self.plan.inputs.iter().map(|p| p.name.as_str())),
        })
    }

    /// Which half of the state is the old one in the next run.
    fn now(&self) -> usize {
        (self.runs.get() % 2) as usize
    }

    fn store(&mut self, i: usize, value: &Tensor) -> Result<(), RunError> {
        self.feed(i, |bytes| bytes.copy_from_slice(data_bytes(value)))
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
