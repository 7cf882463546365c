//! Writing by index; see kernels/cuda/scatter.cu.

use super::super::CudaError;
use super::super::emit::{Header, code, number};
use super::super::order::{Order, Word};
use super::index;
use super::{Builder, small};
use crate::plan::Step;
use crate::steps::scatter::{Reduction, ScatterElements, ScatterNd};
use crate::steps::window::MaxUnpool;
use pam_ir::types::DType;

pub(super) fn elements(
    b: &mut Builder<'_, '_>,
    s: &ScatterElements,
    step: &Step,
    out: usize,
) -> Result<(), CudaError> {
    let updates = bytes_of(step, 2) / s.dtype.size();
    let mut args = vec![Word::In(1), Word::U32(code(s.at.dtype))];
    args.push(Word::U32(small(updates, "the updates")?));
    args.extend(index::elements(b, &s.at)?);
    let targets = ("pam_targets_elements", args, updates);
    let fold = Scatter { dtype: s.dtype, slice: 1, fold: s.reduction };
    let fault = b.fault(s.at.n);
    fold.lower(b, targets, fault, [Word::In(0), Word::In(2)], out)?;
    Ok(())
}

pub(super) fn tuples(
    b: &mut Builder<'_, '_>,
    s: &ScatterNd,
    step: &Step,
    out: usize,
) -> Result<(), CudaError> {
    let slice = s.at.slice.max(1);
    let updates = bytes_of(step, 2) / s.dtype.size() / slice;
    let (dims, largest) = index::tuples(b, &s.at)?;
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
    fold.lower(b, targets, fault, [Word::In(0), Word::In(2)], out)?;
    Ok(())
}

pub(super) fn unpool(
    b: &mut Builder<'_, '_>,
    u: &MaxUnpool,
    step: &Step,
    out: usize,
) -> Result<(), CudaError> {
    let updates = bytes_of(step, 0) / u.dtype.size();
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
    let fold = Scatter { dtype: u.dtype, slice: 1, fold: Reduction::None };
    let fault = b.fault(size);
    let targets = ("pam_targets_unpool", args, updates);
    fold.lower(b, targets, fault, [Word::U64(0), Word::In(0)], out)
}

/// Bytes of operand `i`; an operand is never overwritten by a step that is not elementwise.
fn bytes_of(step: &Step, i: usize) -> usize {
    step.ins.get(i).copied().flatten().map_or(0, |v| v.bytes)
}

/// What becomes of updates that have found their slices.
struct Scatter {
    dtype: DType,
    slice: usize,
    fold: Reduction,
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
            Reduction::None => "y".to_owned(),
            Reduction::Add => format!("add<{t}>(x, y)"),
            Reduction::Max => format!("larger_of<{t}>(x, y)"),
            Reduction::Min => format!("smaller_of<{t}>(x, y)"),
            Reduction::Mul if self.dtype.is_float() => format!("native_mul<{t}>(x, y)"),
            Reduction::Mul => format!("int_mul<{t}>(x, y)"),
        };
        let header = if fold.starts_with("native") { Header::Native } else { Header::Movement };
        let kernel = b.emit(header, format!("PAM_SCATTER(@, {t}, ({fold}))"));
        let slice = Word::U32(small(self.slice, "a slice")?);
        let args = vec![data, values, Word::Out(0), Word::U32(count), slice, heads, next];
        b.each(kernel, count as usize, args);
        Ok(())
    }
}
