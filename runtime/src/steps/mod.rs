//! Kernels with their geometry resolved: what a step of a plan does.
//!
//! A kernel is lowered from a node once, when planning: attributes are read, axes made
//! non-negative, shapes turned into loop bounds. Running it is arithmetic on slices only. The
//! arithmetic of f32 comes from `pam-kernels`; what is here moves elements, follows indices and
//! serves the other element types.

pub(crate) mod axis;
pub(crate) mod concat;
pub mod contract;
pub(crate) mod gather;
pub(crate) mod lookup;
mod pool;
pub(crate) mod random;
pub(crate) mod reduce;
pub(crate) mod scatter;
pub mod source;
pub(crate) mod window;

use crate::exec::memory::Outs;
use crate::exec::program::Program;
use crate::host::number::{of, of_mut};
use bytemuck::Pod;
use pam_ir::geometry::{Window, windows};
use pam_ir::graph::{Graph, Node, ValueId};
use pam_ir::op::Op;
use pam_ir::types::Type;
use pam_kernels::Pool;
use smallvec::SmallVec;

/// What a kernel works on during one step.
pub struct Io<'m> {
    /// Operands; empty where omitted.
    pub ins: SmallVec<[&'m [u8]; 8]>,
    /// Results; empty where nobody asked for them.
    pub outs: Outs<'m>,
    /// Scratch of all threads, as much each as [`Kernel::scratch`] says.
    pub scratch: &'m mut [u8],
    /// The threads.
    pub pool: &'m Pool,
    /// How many runs came before.
    pub run: u64,
    /// Whether all that a run works on is more than caches hold.
    pub far: bool,
}

impl<'m> Io<'m> {
    /// Operand `i`.
    pub fn input<T: Pod>(&self, i: usize) -> &'m [T] {
        of(self.ins.get(i).copied().unwrap_or_default())
    }

    /// Result `k`; it can be taken once.
    pub fn output<T: Pod>(&mut self, k: usize) -> &'m mut [T] {
        of_mut(self.outs.get_mut(k).map(std::mem::take).unwrap_or_default())
    }
}

macro_rules! kernels {
    ($($variant:ident($t:ty),)*) => {
        /// What a step does.
        pub enum Kernel {
            $(#[doc = concat!("See `", stringify!($t), "`.")] $variant($t),)*
        }

        impl Kernel {
            /// Runs it.
            ///
            /// # Errors
            /// Where the data does not fit, such as an index out of range.
            pub fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
                match self { $(Kernel::$variant(k) => k.run(io),)* }
            }

            /// Bytes of scratch one thread needs.
            pub fn scratch(&self) -> usize {
                match self { $(Kernel::$variant(k) => k.scratch(),)* }
            }

            /// Its name.
            pub fn name(&self) -> &'static str {
                match self { $(Kernel::$variant(_) => stringify!($variant),)* }
            }
        }

        $(impl From<$t> for Kernel {
            fn from(k: $t) -> Kernel {
                Kernel::$variant(k)
            }
        })*
    };
}

kernels! {
    Program(Program),
    Matmul(contract::Matmul),
    MatmulGrad(contract::MatmulGrad),
    Conv(contract::Conv),
    Reduce(reduce::Reduce),
    Concat(concat::Concat),
    Lookup(lookup::Lookup),
    Trilu(lookup::Trilu),
    Reverse(lookup::Reverse),
    Gather(gather::Gather),
    GatherElements(gather::GatherElements),
    GatherNd(gather::GatherNd),
    OneHot(gather::OneHot),
    ScatterElements(scatter::ScatterElements),
    ScatterNd(scatter::ScatterNd),
    ArgExtreme(axis::ArgExtreme),
    Hardmax(axis::Hardmax),
    CumSum(axis::CumSum),
    TopK(axis::TopK),
    MaxPool(window::MaxPool),
    MaxUnpool(window::MaxUnpool),
    Col2Im(window::Col2Im),
    Uniform(random::Uniform),
    Bernoulli(random::Bernoulli),
}

trait Step {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String>;
    fn scratch(&self) -> usize {
        0
    }
}

impl Step for Program {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        Program::execute(self, io);
        Ok(())
    }

    fn scratch(&self) -> usize {
        Program::scratch(self)
    }
}

/// A node with its types at hand.
#[derive(Clone, Copy)]
pub(crate) struct Site<'g> {
    graph: &'g Graph,
    node: &'g Node,
}

impl<'g> Site<'g> {
    fn ty(&self, v: Option<ValueId>, what: &str, i: usize) -> Result<&'g Type, String> {
        v.map(|v| self.graph.ty(v)).ok_or_else(|| format!("{what} {i} is missing"))
    }

    /// The type of an operand.
    fn input(&self, i: usize) -> Result<&'g Type, String> {
        self.ty(self.node.input(i), "input", i)
    }

    /// The type of a result.
    fn output(&self, k: usize) -> Result<&'g Type, String> {
        self.ty(self.node.output(k), "output", k)
    }

    /// An integer attribute that has a default or is required.
    fn int(&self, name: &str) -> Result<i64, String> {
        self.node.int(name).ok_or_else(|| format!("attribute `{name}` is missing"))
    }

    /// A list of integers.
    fn ints(&self, name: &str) -> Result<&'g [i64], String> {
        self.node.ints(name).ok_or_else(|| format!("attribute `{name}` is missing"))
    }

    /// The windows of the node over an image.
    fn windows(&self, image: &[usize], kernel: &[usize]) -> Result<Vec<Window>, String> {
        self.graph.with_call(self.node, |call| windows(call, image, kernel))
    }

    /// An axis, made non-negative for a rank.
    fn axis(&self, name: &str, rank: usize) -> Result<usize, String> {
        pam_ir::op::normalize_axis(self.int(name)?, rank)
    }
}

impl Kernel {
    /// The kernel of a node that is not elementwise. `views` says for the operands of a matrix
    /// product where they lie, if not densely.
    ///
    /// # Errors
    /// Where there is none for the op or its types.
    pub fn lower(
        graph: &Graph,
        node: &Node,
        views: &[Option<contract::Layout>],
    ) -> Result<Kernel, String> {
        let site = Site { graph, node };
        Ok(match node.op {
            Op::MatMul | Op::PamMatMul => contract::Matmul::lower(site, views)?.into(),
            Op::PamMatMulGradA | Op::PamMatMulGradB => {
                contract::MatmulGrad::lower(site, views)?.into()
            }
            Op::Conv | Op::PamConv => contract::Conv::lower(site)?.into(),
            Op::ReduceSum | Op::ReduceMax | Op::ReduceMin | Op::GlobalMaxPool => {
                reduce::Reduce::lower(site)?.into()
            }
            Op::Concat => concat::Concat::lower(site)?.into(),
            Op::Pad | Op::CenterCropPad => lookup::Lookup::lower(site)?.into(),
            Op::Trilu => lookup::Trilu::lower(site)?.into(),
            Op::ReverseSequence => lookup::Reverse::lower(site)?.into(),
            Op::Gather => gather::Gather::lower(site)?.into(),
            Op::GatherElements => gather::GatherElements::lower(site)?.into(),
            Op::GatherND => gather::GatherNd::lower(site)?.into(),
            Op::OneHot => gather::OneHot::lower(site)?.into(),
            Op::ScatterElements => scatter::ScatterElements::lower(site)?.into(),
            Op::ScatterND => scatter::ScatterNd::lower(site)?.into(),
            Op::ArgMax | Op::ArgMin => axis::ArgExtreme::lower(site)?.into(),
            Op::Hardmax => axis::Hardmax::lower(site)?.into(),
            Op::CumSum => axis::CumSum::lower(site)?.into(),
            Op::TopK => axis::TopK::lower(site)?.into(),
            Op::MaxPool => window::MaxPool::lower(site)?.into(),
            Op::MaxUnpool => window::MaxUnpool::lower(site)?.into(),
            Op::Col2Im => window::Col2Im::lower(site)?.into(),
            Op::PamUniform => random::Uniform::lower(site)?.into(),
            Op::Bernoulli => random::Bernoulli::lower(site)?.into(),
            _ => {
                let types = node.inputs.iter().flatten().map(|&v| graph.ty(v).to_string());
                let types = types.collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "the runtime has no kernel for it on ({types}); cast the operands to f32"
                ));
            }
        })
    }
}
