//! From the steps of a plan to orders for a device.

mod contract;
mod conv;
mod index;
mod lines;
mod random;
mod reduce;
mod scatter;
mod window;

use super::CudaError;
use super::contract::Workspace;
use super::emit::{Emitter, Header, number};
use super::machine::{Machine, upload};
use super::order::{Order, Orders, Word};
use super::program::program;
use crate::plan::Step;
use crate::steps::Kernel;
use bytemuck::Pod;

/// Blocks of a launch whose threads take several elements each.
const BLOCKS: usize = 4096;

/// Lowers the steps of one plan.
pub(super) struct Lowering<'m> {
    pub machine: &'m dyn Machine,
    pub emitter: &'m mut Emitter,
}

/// A step in the making.
pub(super) struct Builder<'b, 'm> {
    pub machine: &'m dyn Machine,
    emitter: &'b mut Emitter,
    pub orders: Orders,
    pub space: Workspace,
}

/// A size that the kernels count in 32 bits.
pub(super) fn small(n: usize, what: &str) -> Result<u32, CudaError> {
    u32::try_from(n).map_err(|_| CudaError::TooLarge { what: format!("{what} ({n})") })
}

impl Builder<'_, '_> {
    pub fn launch(&mut self, kernel: impl Into<String>, grid: (u32, u32, u32), args: Vec<Word>) {
        self.orders.list.push(Order::Launch { kernel: kernel.into(), grid, args });
    }

    /// Launches a kernel whose threads go over `count` elements.
    pub fn each(&mut self, kernel: impl Into<String>, count: usize, args: Vec<Word>) {
        let blocks = count.div_ceil(256).clamp(1, BLOCKS) as u32;
        self.launch(kernel, (blocks, 1, 1), args);
    }

    pub fn emit(&mut self, header: Header, definition: String) -> String {
        self.emitter.kernel(header, &definition)
    }

    pub fn table<T: Pod>(&mut self, values: &[T]) -> Result<Word, CudaError> {
        let buffer = upload(self.machine, values, "a table of a step")?;
        let address = buffer.address();
        self.orders.tables.push(buffer);
        Ok(Word::U64(address))
    }

    /// Pairs of a dimension and a stride, as the kernels read them.
    fn pairs(
        &mut self,
        pairs: impl IntoIterator<Item = (usize, usize)>,
    ) -> Result<Word, CudaError> {
        let list: Vec<u64> = pairs.into_iter().flat_map(|(a, b)| [a as u64, b as u64]).collect();
        self.table(&list)
    }

    fn fault(&mut self, n: usize) -> Word {
        self.orders.fault = Some(n);
        Word::Fault
    }
}

impl Lowering<'_> {
    /// The orders of a step.
    ///
    /// # Errors
    /// Names what has no device form or does not fit.
    pub fn lower(&mut self, step: &Step) -> Result<Orders, CudaError> {
        let mut b = Builder {
            machine: self.machine,
            emitter: self.emitter,
            orders: Orders::default(),
            space: Workspace::default(),
        };
        let bytes = |k: usize| step.outs.get(k).map_or(0, |v| v.bytes);
        let out = bytes(0);
        match &step.kernel {
            Kernel::Program(p) => {
                small(p.count, "an elementwise program")?;
                let (header, text) = program(p).map_err(CudaError::Unsupported)?;
                let kernel = b.emit(header, text);
                let direct = |i: &usize| step.ins[*i].is_some();
                let ins = (0..p.operands.len()).filter(direct).map(Word::In);
                let args = ins
                    .chain((0..p.outs.len()).map(Word::Out))
                    .chain([Word::U32((p.count / p.row) as u32)]);
                // A row has sixteen threads.
                let threads = if p.row == 1 { p.count } else { p.count / p.row * 16 };
                b.each(kernel, threads, args.collect());
            }
            Kernel::Matmul(m) => contract::matmul(&mut b, m, out)?,
            Kernel::MatmulGrad(m) => contract::matmul_grad(&mut b, m)?,
            Kernel::Conv(c) => conv::lower(&mut b, c, out)?,
            Kernel::Reduce(r) => reduce::reduce(&mut b, r, out)?,
            Kernel::Concat(c) => index::concat(&mut b, c, step, out)?,
            Kernel::Lookup(l) => index::pad(&mut b, l, out)?,
            Kernel::Trilu(t) => index::triangle(&mut b, t, out)?,
            Kernel::Reverse(r) => index::reverse(&mut b, r, step, out)?,
            Kernel::Gather(g) => index::gather(&mut b, g, step, out)?,
            Kernel::GatherElements(g) => index::gather_elements(&mut b, g, out)?,
            Kernel::GatherNd(g) => index::gather_nd(&mut b, g, out)?,
            Kernel::OneHot(o) => index::one_hot(&mut b, o, out)?,
            Kernel::ScatterElements(s) => scatter::elements(&mut b, s, step, out)?,
            Kernel::ScatterNd(s) => scatter::tuples(&mut b, s, step, out)?,
            Kernel::MaxUnpool(u) => scatter::unpool(&mut b, u, step, out)?,
            Kernel::ArgExtreme(a) => {
                let t = number(a.around.dtype);
                let text = format!("PAM_ARG(@, {t}, {}, {})", a.least, a.last);
                lines::lines(&mut b, text, a.around.outer, a.around.n, a.around.inner, vec![])?;
            }
            Kernel::Hardmax(h) => {
                let text = format!("PAM_HARDMAX(@, {})", number(h.0.dtype));
                lines::lines(&mut b, text, h.0.outer, h.0.n, h.0.inner, vec![])?;
            }
            Kernel::CumSum(c) => {
                let text = format!("PAM_CUMSUM(@, {})", number(c.around.dtype));
                let more = vec![Word::U32(c.exclusive.into()), Word::U32(c.reverse.into())];
                lines::lines(&mut b, text, c.around.outer, c.around.n, c.around.inner, more)?;
            }
            Kernel::TopK(t) => lines::top_k(&mut b, t)?,
            Kernel::MaxPool(p) => window::max_pool(&mut b, p, [out, bytes(1)])?,
            Kernel::Col2Im(c) => window::col2im(&mut b, c, out)?,
            Kernel::Uniform(u) => random::uniform(&mut b, u, out)?,
            Kernel::Bernoulli(x) => random::bernoulli(&mut b, x, out)?,
        }
        b.orders.workspace = b.space.bytes();
        Ok(b.orders)
    }
}
