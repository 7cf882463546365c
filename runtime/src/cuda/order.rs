//! What a step of a plan does on the device: a list of orders whose operands are named, so that they
//! can be given for either half of the state.

use super::CudaError;
use super::contract::Contraction;
use super::machine::{Arg, Buffer, Machine};

/// An argument of a launch before addresses are known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word {
    /// A 32-bit number.
    U32(u32),
    /// A 64-bit number, or the address of a table.
    U64(u64),
    /// Operand `i` of the step; 0 where it is omitted.
    In(usize),
    /// Result `k` of the step; 0 where nobody asked for it.
    Out(usize),
    /// A place in the workspace.
    Work(u64),
    /// Where the step notes an index out of range.
    Fault,
    /// The number of the run.
    Run,
}

/// One thing the device is told to do.
pub(super) enum Order {
    /// Launch a kernel with blocks of 256 threads.
    Launch { kernel: String, grid: (u32, u32, u32), args: Vec<Word> },
    /// Fill bytes.
    Fill { at: Word, value: u8, bytes: usize },
    /// A contraction of left, right and own into out.
    Contract { contraction: Box<Contraction>, operands: [Word; 4] },
}

/// The orders of a step, with the tables they read.
#[derive(Default)]
pub(super) struct Orders {
    pub list: Vec<Order>,
    /// Kept while the plan lives.
    pub tables: Vec<Buffer>,
    /// Bytes of workspace used.
    pub workspace: usize,
    /// The size that an index is out of range of, where one can be.
    pub fault: Option<usize>,
}

/// Addresses of a step's operands for one half of the state.
pub(super) struct Places<'a> {
    pub ins: &'a [u64],
    pub outs: &'a [u64],
    pub workspace: u64,
    pub fault: u64,
    pub run: u64,
}

impl Places<'_> {
    fn arg(&self, word: Word) -> Arg {
        match word {
            Word::U32(x) => Arg::U32(x),
            _ => Arg::U64(self.address(word)),
        }
    }

    fn address(&self, word: Word) -> u64 {
        match word {
            Word::U32(x) => x.into(),
            Word::U64(x) => x,
            Word::In(i) => self.ins.get(i).copied().unwrap_or(0),
            Word::Out(k) => self.outs.get(k).copied().unwrap_or(0),
            Word::Work(at) => self.workspace + at,
            Word::Fault => self.fault,
            Word::Run => self.run,
        }
    }
}

impl Orders {
    /// Gives the orders to a machine.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// The places must be those that the orders were made for.
    pub unsafe fn give(&self, machine: &dyn Machine, places: &Places<'_>) -> Result<(), CudaError> {
        for order in &self.list {
            // SAFETY: lowering has written the arguments after the kernels' parameter lists, and the
            // caller vouches for the places.
            unsafe {
                match order {
                    Order::Launch { kernel, grid, args } => {
                        let args: Vec<Arg> = args.iter().map(|&w| places.arg(w)).collect();
                        machine.launch(kernel, *grid, 256, &args)?;
                    }
                    Order::Fill { at, value, bytes } => {
                        machine.fill(places.address(*at), *value, *bytes)?;
                    }
                    Order::Contract { contraction, operands } => {
                        let operands = operands.map(|w| places.address(w));
                        contraction.launch(machine, places.workspace, operands)?;
                    }
                }
            }
        }
        Ok(())
    }
}
