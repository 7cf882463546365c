//! From the steps of a plan to orders for a device.

use super::CudaError;
use super::conv;
use super::contract::{Contraction, Kind, Shape, Strides, Workspace};
use super::emit::{Emitter, Header, code, number, program, raw};
use super::machine::{Machine, upload};
use super::order::{Order, Orders, Word};
use crate::plan::{Place, Step};
use crate::steps::Kernel;
use crate::steps::contract::{Layout, Matmul, MatmulGrad};
use crate::steps::reduce::Reduce;
use crate::steps::scatter::Reduction as Fold;
use crate::steps::window::{Col2Im, MaxPool, MaxUnpool};
use crate::steps::{gather, lookup, scatter};
use bytemuck::Pod;
use pam_ir::geometry::Window;
use pam_ir::types::DType;
use pam_kernels::contract::Arithmetic;
use pam_kernels::reduce::Reduction;

/// Blocks of a launch whose threads take several elements each.
const BLOCKS: usize = 4096;
/// Terms of a sum before its lanes are added.
const SUM_CHUNK: usize = 4096;

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
    fn pairs(&mut self, pairs: impl IntoIterator<Item = (usize, usize)>) -> Result<Word, CudaError> {
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
                let args = ins.chain((0..p.outs.len()).map(Word::Out)).collect();
                b.each(kernel, p.count, args);
            }
            Kernel::Matmul(m) => matmul(&mut b, m, out)?,
            Kernel::MatmulGrad(m) => matmul_grad(&mut b, m)?,
            Kernel::Conv(c) => conv::lower(&mut b, c, out)?,
            Kernel::Reduce(r) => reduce(&mut b, r, out)?,
            Kernel::Concat(c) => {
                let (mut at, rows) = (0, out / c.row.max(1));
                for (i, &part) in c.parts.iter().enumerate().filter(|(_, part)| **part > 0) {
                    let unit = unit(step, &[i], &[part, c.row, at]);
                    let kernel =
                        b.emit(Header::Movement, format!("PAM_COPY_ROWS(@, {})", raw(unit)));
                    let count = rows * part / unit;
                    let args = vec![
                        Word::In(i),
                        Word::Out(0),
                        Word::U32(small(count, "a concatenation")?),
                        Word::U32((part / unit) as u32),
                        Word::U64((c.row / unit) as u64),
                        Word::U64((at / unit) as u64),
                    ];
                    b.each(kernel, count, args);
                    at += part;
                }
            }
            Kernel::Lookup(l) => pad(&mut b, l, out)?,
            Kernel::Trilu(t) => {
                let count = out / t.size;
                let kernel = b.emit(Header::Movement, format!("PAM_TRIANGLE(@, {})", raw(t.size)));
                let args = vec![
                    Word::In(0),
                    Word::Out(0),
                    Word::U32(small(count, "a tensor")?),
                    Word::U32(t.height as u32),
                    Word::U32(t.width as u32),
                    Word::U32(t.k.clamp(i32::MIN.into(), i32::MAX.into()) as u32),
                    Word::U32(t.upper.into()),
                ];
                b.each(kernel, count, args);
            }
            Kernel::Reverse(r) => reverse(&mut b, r, unit(step, &[0], &[r.slice]), out)?,
            Kernel::Gather(g) => {
                let unit = unit(step, &[0], &[g.inner]);
                let kernel = b.emit(Header::Movement, format!("PAM_GATHER(@, {})", raw(unit)));
                let count = out / unit;
                let fault = b.fault(g.n);
                let args = vec![
                    Word::In(0),
                    Word::In(1),
                    Word::U32(code(g.indices)),
                    Word::Out(0),
                    Word::U32(small(count, "a tensor")?),
                    Word::U32(small(g.inner / unit, "a slice")?),
                    Word::U32(g.count as u32),
                    Word::U32(small(g.n, "a dimension")?),
                    fault,
                ];
                b.each(kernel, count, args);
            }
            Kernel::GatherElements(g) => {
                let count = small(out / g.size, "a tensor")?;
                let kernel =
                    b.emit(Header::Movement, format!("PAM_GATHER_ELEMENTS(@, {})", raw(g.size)));
                let mut args = vec![Word::In(0), Word::In(1), Word::U32(code(g.at.dtype))];
                args.extend([Word::Out(0), Word::U32(count)]);
                args.extend(elements(&mut b, &g.at)?);
                args.push(b.fault(g.at.n));
                b.each(kernel, count as usize, args);
            }
            Kernel::GatherNd(g) => {
                let count = small(out / g.size, "a tensor")?;
                let kernel = b.emit(Header::Movement, format!("PAM_GATHER_ND(@, {})", raw(g.size)));
                let (dims, largest) = tuples(&mut b, &g.at)?;
                let fault = b.fault(largest);
                let args = vec![
                    Word::In(0),
                    Word::In(1),
                    Word::U32(code(g.at.dtype)),
                    Word::Out(0),
                    Word::U32(count),
                    Word::U32(g.at.slice as u32),
                    dims,
                    Word::U32(g.at.dims.len() as u32),
                    Word::U32(g.at.batch.0 as u32),
                    Word::U64((g.at.batch.1 / g.at.slice.max(1)) as u64),
                    fault,
                ];
                b.each(kernel, count as usize, args);
            }
            Kernel::OneHot(o) => {
                let count = small(out / o.size, "a tensor")?;
                let kernel = b.emit(Header::Movement, format!("PAM_ONE_HOT(@, {})", raw(o.size)));
                let args = vec![
                    Word::In(0),
                    Word::U32(code(o.indices)),
                    Word::In(1),
                    Word::Out(0),
                    Word::U32(count),
                    Word::U32(o.depth as u32),
                    Word::U32(o.inner as u32),
                ];
                b.each(kernel, count as usize, args);
            }
            Kernel::ScatterElements(s) => {
                let updates = bytes_of(step, 2) / s.dtype.size();
                let mut args = vec![Word::In(1), Word::U32(code(s.at.dtype))];
                args.push(Word::U32(small(updates, "the updates")?));
                args.extend(elements(&mut b, &s.at)?);
                let targets = ("pam_targets_elements", args, updates);
                let fold = Scatter { dtype: s.dtype, slice: 1, fold: s.reduction };
                let fault = b.fault(s.at.n);
                fold.lower(&mut b, targets, fault, [Word::In(0), Word::In(2)], out)?;
            }
            Kernel::ScatterNd(s) => {
                let slice = s.at.slice.max(1);
                let updates = bytes_of(step, 2) / s.dtype.size() / slice;
                let (dims, largest) = tuples(&mut b, &s.at)?;
                let args = vec![
                    Word::In(1),
                    Word::U32(code(s.at.dtype)),
                    Word::U32(small(updates, "the updates")?),
                    dims,
                    Word::U32(s.at.dims.len() as u32),
                ];
                let targets = ("pam_targets_tuples", args, updates);
                let fold = Scatter { dtype: s.dtype, slice, fold: s.reduction };
                let fault = b.fault(largest);
                fold.lower(&mut b, targets, fault, [Word::In(0), Word::In(2)], out)?;
            }
            Kernel::MaxUnpool(u) => unpool(&mut b, u, bytes_of(step, 0), out)?,
            Kernel::ArgExtreme(a) => {
                let t = number(a.around.dtype);
                let text = format!("PAM_ARG(@, {t}, {}, {})", a.least, a.last);
                lines(&mut b, text, a.around.outer, a.around.n, a.around.inner, vec![])?;
            }
            Kernel::Hardmax(h) => {
                let text = format!("PAM_HARDMAX(@, {})", number(h.0.dtype));
                lines(&mut b, text, h.0.outer, h.0.n, h.0.inner, vec![])?;
            }
            Kernel::CumSum(c) => {
                let text = format!("PAM_CUMSUM(@, {})", number(c.around.dtype));
                let more = vec![Word::U32(c.exclusive.into()), Word::U32(c.reverse.into())];
                lines(&mut b, text, c.around.outer, c.around.n, c.around.inner, more)?;
            }
            Kernel::TopK(t) => {
                let a = t.around;
                let kernel = b.emit(Header::Lines, format!("PAM_TOPK(@, {})", number(a.dtype)));
                let count = a.outer * a.inner;
                let args = vec![
                    Word::In(0),
                    Word::Out(0),
                    Word::Out(1),
                    Word::U32(small(count, "the lines")?),
                    Word::U32(small(a.n, "a line")?),
                    Word::U32(small(a.inner, "a tensor")?),
                    Word::U32(t.k as u32),
                    Word::U32(t.largest.into()),
                ];
                b.each(kernel, count, args);
            }
            Kernel::MaxPool(p) => max_pool(&mut b, p, [out, bytes(1)])?,
            Kernel::Col2Im(c) => col2im(&mut b, c, out)?,
            Kernel::Uniform(u) => {
                let kernel = b.emit(Header::Movement, "PAM_UNIFORM(@)".to_owned());
                let count = small(out / 4, "a tensor")?;
                let [key0, key1] = u.key.map(Word::U32);
                let args = vec![Word::In(0), Word::Out(0), Word::U32(count), key0, key1];
                b.each(kernel, count as usize, args);
            }
            Kernel::Bernoulli(x) => {
                let (from, to) = (number(x.from), number(x.to));
                let kernel = b.emit(Header::Movement, format!("PAM_BERNOULLI(@, {from}, {to})"));
                let count = small(out / x.to.size(), "a tensor")?;
                let [key0, key1] = x.key.map(Word::U32);
                let args =
                    vec![Word::In(0), Word::Out(0), Word::U32(count), key0, key1, Word::Run];
                b.each(kernel, count as usize, args);
            }
        }
        b.orders.workspace = b.space.bytes();
        Ok(b.orders)
    }
}

/// The largest size in bytes in which operands of these numbers and extents can be copied.
fn unit(step: &Step, operands: &[usize], extents: &[usize]) -> usize {
    let offset = |i: &usize| match step.ins[*i].map(|v| v.place) {
        Some(Place::At(at)) => at,
        Some(Place::Swap([even, odd])) => even | odd,
        Some(Place::Constant { offset, .. }) => offset,
        None => 0,
    };
    let all = operands.iter().map(offset).chain(extents.iter().copied());
    1 << all.fold(3, |bits, n: usize| n.trailing_zeros().min(bits))
}

/// Bytes of operand `i`; an operand is never overwritten by a step that is not elementwise.
fn bytes_of(step: &Step, i: usize) -> usize {
    step.ins.get(i).copied().flatten().map_or(0, |v| v.bytes)
}

fn strides(layout: &Layout, turned: bool) -> Strides {
    let (row, col) = (layout.row as u64, layout.col as u64);
    if turned { Strides { row: col, col: row } } else { Strides { row, col } }
}

fn matmul(b: &mut Builder<'_, '_>, m: &Matmul, out: usize) -> Result<(), CudaError> {
    let [rows, cols, depth] = m.sizes;
    let batch = m.a.offsets.iter().zip(&m.b.offsets);
    if depth == 0 {
        b.orders.list.push(Order::Fill { at: Word::Out(0), value: 0, bytes: out });
        return Ok(());
    }
    let (offset, mantissa) = match (m.arithmetic, m.dtype) {
        (Arithmetic::Pa { offset, mantissa }, DType::F32) => (offset, mantissa),
        _ => {
            let kernel =
                b.emit(Header::Native, format!("PAM_NATIVE_PRODUCT(@, {})", number(m.dtype)));
            let count = out / m.dtype.size();
            let offsets = b.pairs(batch.map(|(&a, &b)| (a, b)))?;
            let args = vec![
                Word::In(0),
                Word::In(1),
                Word::Out(0),
                Word::U32(small(count, "a product")?),
                Word::U32(rows as u32),
                Word::U32(cols as u32),
                Word::U32(small(depth, "the depth of a product")?),
                offsets,
                Word::U64(m.a.row as u64),
                Word::U64(m.a.col as u64),
                Word::U64(m.b.row as u64),
                Word::U64(m.b.col as u64),
            ];
            b.each(kernel, count, args);
            return Ok(());
        }
    };
    let dense = Strides { row: cols as u64, col: 1 };
    let entry = |(i, (&a, &b)): (usize, (&usize, &usize))| {
        [a as u64, b as u64, (i * rows * cols) as u64, 0]
    };
    let shape = Shape {
        kind: Kind::Product,
        rows: small(rows, "the rows of a product")?,
        cols: small(cols, "the columns of a product")?,
        depth: small(depth, "the depth of a product")?,
        left: strides(&m.a, false),
        right: strides(&m.b, false),
        out: dense,
        own: dense,
        batch: batch.enumerate().map(entry).collect(),
        offset,
        mantissa,
    };
    contract(b, shape, [Word::In(0), Word::In(1), Word::U64(0), Word::Out(0)])
}

fn contract(b: &mut Builder<'_, '_>, shape: Shape, operands: [Word; 4]) -> Result<(), CudaError> {
    let contraction = Box::new(Contraction::new(b.machine, shape)?);
    b.space.take(contraction.workspace() as u64);
    b.orders.list.push(Order::Contract { contraction, operands });
    Ok(())
}

fn matmul_grad(b: &mut Builder<'_, '_>, g: &MatmulGrad) -> Result<(), CudaError> {
    let [m, n, k] = g.sizes;
    let [a, right, delta] = &g.operands;
    let ((offset, mantissa), kind) = (g.numbers, Kind::ExactGradient);
    let size = |x: usize| small(x, "a product");
    // By b, the product is the same with rows and columns exchanged.
    let (own, other, turned) = if g.by_a { (a, right, false) } else { (right, a, true) };
    let (rows, cols, depth) = if g.by_a { (m, k, n) } else { (n, k, m) };
    let entry = |i: usize| {
        let at = [delta.offsets[i], other.offsets[i], i * rows * cols, own.offsets[i]];
        at.map(|x| x as u64)
    };
    if depth == 0 {
        let bytes = delta.offsets.len() * rows * cols * 4;
        b.orders.list.push(Order::Fill { at: Word::Out(0), value: 0, bytes });
        return Ok(());
    }
    let shape = Shape {
        kind,
        rows: size(rows)?,
        cols: size(cols)?,
        depth: size(depth)?,
        left: strides(delta, turned),
        right: strides(other, !turned),
        out: match turned {
            true => Strides { row: 1, col: rows as u64 },
            false => Strides { row: cols as u64, col: 1 },
        },
        own: strides(own, turned),
        batch: (0..delta.offsets.len()).map(entry).collect(),
        offset,
        mantissa,
    };
    let (own, other) = if g.by_a { (0, 1) } else { (1, 0) };
    contract(b, shape, [Word::In(2), Word::In(other), Word::In(own), Word::Out(0)])
}

fn reduce(b: &mut Builder<'_, '_>, r: &Reduce, out: usize) -> Result<(), CudaError> {
    let size = r.dtype.size();
    let between = (0..r.passes.len().saturating_sub(1)).map(|i| r.left(i)).max().unwrap_or(0);
    let halves = [0, 1].map(|_| b.space.take((between * size) as u64));
    let mut from = Word::In(0);
    for (i, &[outer, reduced, inner]) in r.passes.iter().enumerate() {
        let to = match i + 1 == r.passes.len() {
            true => Word::Out(0),
            false => Word::Work(halves[i % 2]),
        };
        let what = match r.reduction {
            // What the first pass leaves is positive.
            Reduction::SumAbs if i > 0 => Reduction::Sum,
            other => other,
        };
        let left = outer * inner;
        if reduced == 0 && r.dtype == DType::F32 && matches!(what, Reduction::Sum | Reduction::SumAbs)
        {
            b.orders.list.push(Order::Fill { at: to, value: 0, bytes: out });
        } else if r.dtype == DType::F32 && reduced > 0 {
            sums(b, what, [outer, reduced, inner], from, to)?;
        } else {
            let (start, step) = match what {
                Reduction::Sum => ("0", "add<T>(y, x)"),
                Reduction::SumAbs => ("0", "add<T>(y, absolute<T>(x))"),
                Reduction::Max => ("Number<T>::lowest()", "larger_of<T>(y, x)"),
                Reduction::Min => ("Number<T>::highest()", "smaller_of<T>(y, x)"),
            };
            let t = number(r.dtype);
            let text = format!("PAM_FOLD(@, {t}, {start}, ({step}))");
            let kernel = b.emit(Header::Lines, text.replace("<T>", &format!("<{t}>")));
            let args = vec![
                from,
                to,
                Word::U32(small(left, "the lines")?),
                Word::U32(small(reduced, "a line")?),
                Word::U32(small(inner, "a tensor")?),
            ];
            b.each(kernel, left, args);
        }
        from = to;
    }
    Ok(())
}

/// One pass of a reduction of floats in the documented order.
fn sums(
    b: &mut Builder<'_, '_>,
    what: Reduction,
    [outer, reduced, inner]: [usize; 3],
    from: Word,
    to: Word,
) -> Result<(), CudaError> {
    let chunks = reduced.div_ceil(SUM_CHUNK);
    let (left, code) = (outer * inner, what as u32);
    let partial = match chunks {
        1 => to,
        _ => Word::Work(b.space.take((left * chunks * 4) as u64)),
    };
    let (o, r, i) =
        (small(outer, "a tensor")?, small(reduced, "a line")?, small(inner, "a tensor")?);
    let c = chunks as u32;
    // The grid has at most 65 535 blocks across; more rows go in several launches of one shape.
    if inner == 1 {
        if chunks > 1 && outer > 65_535 {
            return Err(CudaError::TooLarge { what: format!("a reduction of {outer} long rows") });
        }
        let grid = if chunks == 1 { (o.div_ceil(16), 1, 1) } else { (c.div_ceil(16), o, 1) };
        let numbers = [o, r, code, c].map(Word::U32);
        b.launch("pam_reduce_rows", grid, [&[from][..], &numbers, &[partial]].concat());
    } else {
        if outer > 65_535 || chunks > 65_535 {
            return Err(CudaError::TooLarge { what: format!("a reduction of {outer} planes") });
        }
        let numbers = [o, r, i, code].map(Word::U32);
        let args = [&[from][..], &numbers, &[partial]].concat();
        b.launch("pam_reduce_columns", (i.div_ceil(32), c, o), args);
    }
    if chunks > 1 {
        let args =
            vec![partial, to, Word::U64(left as u64), Word::U32(c), Word::U32(code)];
        b.launch("pam_reduce_chunks", (small(left, "a tensor")?.div_ceil(256), 1, 1), args);
    }
    Ok(())
}

fn lines(
    b: &mut Builder<'_, '_>,
    text: String,
    outer: usize,
    n: usize,
    inner: usize,
    more: Vec<Word>,
) -> Result<(), CudaError> {
    let kernel = b.emit(Header::Lines, text);
    let count = outer * inner;
    let mut args = vec![
        Word::In(0),
        Word::Out(0),
        Word::U32(small(count, "the lines")?),
        Word::U32(small(n, "a line")?),
        Word::U32(small(inner, "a tensor")?),
    ];
    args.extend(more);
    b.each(kernel, count, args);
    Ok(())
}

/// The axes of elements along an axis: their table, its length, the axis's stride and size.
fn elements(b: &mut Builder<'_, '_>, at: &gather::Elements) -> Result<[Word; 4], CudaError> {
    let axes = at.outer.iter().copied().chain([(at.row, at.step)]);
    let table = b.pairs(axes)?;
    Ok([
        table,
        Word::U32(at.outer.len() as u32 + 1),
        Word::U64(at.axis_stride as u64),
        Word::U32(small(at.n, "a dimension")?),
    ])
}

/// The members of index tuples, their strides in slices, and the largest dimension.
fn tuples(b: &mut Builder<'_, '_>, at: &gather::Tuples) -> Result<(Word, usize), CudaError> {
    let slice = at.slice.max(1);
    let table = b.pairs(at.dims.iter().map(|&(n, stride)| (n, stride / slice)))?;
    Ok((table, at.dims.iter().map(|d| d.0).max().unwrap_or(0)))
}

fn pad(b: &mut Builder<'_, '_>, l: &lookup::Lookup, out: usize) -> Result<(), CudaError> {
    let kernel = b.emit(Header::Movement, format!("PAM_PAD(@, {})", raw(l.size)));
    let lengths: Vec<u32> = l.tables.iter().map(|t| t.len() as u32).collect();
    let entry = |e: &Option<usize>| e.map_or(u32::MAX, |e| e as u32);
    let tables: Vec<u32> = l.tables.iter().flatten().map(entry).collect();
    let count = small(out / l.size, "a tensor")?;
    let border = if l.border { Word::In(1) } else { Word::U64(0) };
    let args = vec![
        Word::In(0),
        border,
        Word::Out(0),
        Word::U32(count),
        b.table(&lengths)?,
        b.table(&tables)?,
        Word::U32(lengths.len() as u32),
        Word::U32(tables.len() as u32),
    ];
    b.each(kernel, count as usize, args);
    Ok(())
}

fn reverse(
    b: &mut Builder<'_, '_>,
    r: &lookup::Reverse,
    unit: usize,
    out: usize,
) -> Result<(), CudaError> {
    let kernel = b.emit(Header::Movement, format!("PAM_REVERSE(@, {})", raw(unit)));
    let count = small(out / unit, "a tensor")?;
    let fault = b.fault(r.time + 1);
    let args = vec![
        Word::In(0),
        Word::In(1),
        Word::U32(code(r.lengths)),
        Word::Out(0),
        Word::U32(count),
        Word::U32(r.time as u32),
        Word::U32(r.batch as u32),
        Word::U32((r.slice / unit) as u32),
        Word::U32(r.time_first.into()),
        fault,
    ];
    b.each(kernel, count as usize, args);
    Ok(())
}

/// Writing by index; see kernels/cuda/scatter.cu.
struct Scatter {
    dtype: DType,
    slice: usize,
    fold: Fold,
}

impl Scatter {
    fn lower(
        &self,
        b: &mut Builder<'_, '_>,
        (kernel, mut args, updates): (&str, Vec<Word>, usize),
        fault: Word,
        [data, values]: [Word; 2],
        out: usize,
    ) -> Result<(), CudaError> {
        let t = number(self.dtype);
        let count = small(out / self.dtype.size(), "a tensor")?;
        let slices = count as usize / self.slice;
        let [targets, next] = [0, 1].map(|_| Word::Work(b.space.take(updates as u64 * 4)));
        let heads = Word::Work(b.space.take(slices as u64 * 4));
        b.orders.list.push(Order::Fill { at: heads, value: 0xFF, bytes: slices * 4 });
        args.extend([targets, fault]);
        b.each(kernel, updates, args);
        let n = Word::U32(updates as u32);
        b.each("pam_link", updates, vec![targets, n, heads, next]);
        b.each("pam_sort_links", slices, vec![Word::U32(slices as u32), heads, next]);
        let fold = match self.fold {
            Fold::None => "y".to_owned(),
            Fold::Add => format!("add<{t}>(x, y)"),
            Fold::Max => format!("larger_of<{t}>(x, y)"),
            Fold::Min => format!("smaller_of<{t}>(x, y)"),
            Fold::Mul if self.dtype.is_float() => format!("native_mul<{t}>(x, y)"),
            Fold::Mul => format!("int_mul<{t}>(x, y)"),
        };
        let header =
            if fold.starts_with("native") { Header::Native } else { Header::Movement };
        let kernel = b.emit(header, format!("PAM_SCATTER(@, {t}, ({fold}))"));
        let slice = Word::U32(small(self.slice, "a slice")?);
        let args = vec![data, values, Word::Out(0), Word::U32(count), slice, heads, next];
        b.each(kernel, count as usize, args);
        Ok(())
    }
}

fn unpool(
    b: &mut Builder<'_, '_>,
    u: &MaxUnpool,
    data: usize,
    out: usize,
) -> Result<(), CudaError> {
    let updates = data / u.dtype.size();
    let size: usize = u.from.iter().product();
    let axes = b.pairs(u.from.iter().copied().zip(u.to.iter().copied()))?;
    let args = vec![
        Word::In(1),
        Word::U32(code(u.indices)),
        Word::U32(small(updates, "the updates")?),
        axes,
        Word::U32(u.from.len() as u32),
        Word::U64(size as u64),
    ];
    let fold = Scatter { dtype: u.dtype, slice: 1, fold: scatter::Reduction::None };
    let fault = b.fault(size);
    let targets = ("pam_targets_unpool", args, updates);
    fold.lower(b, targets, fault, [Word::U64(0), Word::In(0)], out)
}

/// Mirrors `Window` in kernels/cuda/window.cuh.
fn windows(axes: &[Window], strides: &[usize], index: &[usize]) -> Result<Vec<u32>, CudaError> {
    if axes.len() > 4 {
        return Err(CudaError::Unsupported("windows over more than four axes".to_owned()));
    }
    let mut table = Vec::new();
    for (a, (&stride, &index)) in axes.iter().zip(strides.iter().zip(index)) {
        for n in [a.input, a.kernel, a.output, a.stride, a.dilation] {
            table.push(small(n, "a window")?);
        }
        table.extend([a.before as i32 as u32, stride as u32, index as u32]);
    }
    Ok(table)
}

fn max_pool(b: &mut Builder<'_, '_>, p: &MaxPool, outs: [usize; 2]) -> Result<(), CudaError> {
    let kernel = b.emit(Header::Window, format!("PAM_MAX_POOL(@, {})", number(p.dtype)));
    let count = (outs[0] / p.dtype.size()).max(outs[1] / 8);
    let axes = windows(&p.axes, &p.strides, &p.index_strides)?;
    let args = vec![
        Word::In(0),
        Word::Out(0),
        Word::Out(1),
        Word::U32(small(count, "a tensor")?),
        Word::U32(small(p.windows, "an image")?),
        Word::U32(small(p.image, "an image")?),
        b.table(&axes)?,
        Word::U32(p.axes.len() as u32),
    ];
    b.each(kernel, count, args);
    Ok(())
}

fn col2im(b: &mut Builder<'_, '_>, c: &Col2Im, out: usize) -> Result<(), CudaError> {
    let kernel = b.emit(Header::Window, format!("PAM_COL2IM(@, {})", number(c.dtype)));
    let count = out / c.dtype.size();
    let axes = windows(&c.axes, &c.strides, &c.strides)?;
    let args = vec![
        Word::In(0),
        Word::Out(0),
        Word::U32(small(count, "a tensor")?),
        Word::U32(small(c.image, "an image")?),
        Word::U32(small(c.windows, "an image")?),
        Word::U32(small(c.block, "a window")?),
        b.table(&axes)?,
        Word::U32(c.axes.len() as u32),
    ];
    b.each(kernel, count, args);
    Ok(())
}
