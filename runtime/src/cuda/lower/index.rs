//! Moving elements by tables and indices.

use super::super::CudaError;
use super::super::emit::{Header, code, raw};
use super::super::order::Word;
use super::{Builder, small};
use crate::plan::{Place, Step};
use crate::steps::concat::Concat;
use crate::steps::gather::{self, Gather, GatherElements, GatherNd, OneHot};
use crate::steps::lookup::{Lookup, Reverse, Trilu};

pub(super) fn concat(
    b: &mut Builder<'_, '_>,
    c: &Concat,
    step: &Step,
    out: usize,
) -> Result<(), CudaError> {
    let (mut at, rows) = (0, out / c.row.max(1));
    for (i, &part) in c.parts.iter().enumerate().filter(|(_, part)| **part > 0) {
        let unit = unit(step, &[i], &[part, c.row, at]);
        let kernel = b.emit(Header::Movement, format!("PAM_COPY_ROWS(@, {})", raw(unit)));
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
    Ok(())
}

pub(super) fn triangle(b: &mut Builder<'_, '_>, t: &Trilu, out: usize) -> Result<(), CudaError> {
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
    Ok(())
}

pub(super) fn gather(
    b: &mut Builder<'_, '_>,
    g: &Gather,
    step: &Step,
    out: usize,
) -> Result<(), CudaError> {
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
    Ok(())
}

pub(super) fn gather_elements(
    b: &mut Builder<'_, '_>,
    g: &GatherElements,
    out: usize,
) -> Result<(), CudaError> {
    let count = small(out / g.size, "a tensor")?;
    let kernel = b.emit(Header::Movement, format!("PAM_GATHER_ELEMENTS(@, {})", raw(g.size)));
    let mut args = vec![Word::In(0), Word::In(1), Word::U32(code(g.at.dtype))];
    args.extend([Word::Out(0), Word::U32(count)]);
    args.extend(elements(b, &g.at)?);
    args.push(b.fault(g.at.n));
    b.each(kernel, count as usize, args);
    Ok(())
}

pub(super) fn gather_nd(
    b: &mut Builder<'_, '_>,
    g: &GatherNd,
    out: usize,
) -> Result<(), CudaError> {
    let count = small(out / g.size, "a tensor")?;
    let kernel = b.emit(Header::Movement, format!("PAM_GATHER_ND(@, {})", raw(g.size)));
    let (dims, largest) = tuples(b, &g.at)?;
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
    Ok(())
}

pub(super) fn one_hot(b: &mut Builder<'_, '_>, o: &OneHot, out: usize) -> Result<(), CudaError> {
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
    Ok(())
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

/// The axes of elements along an axis: their table, its length, the axis's stride and size.
pub(super) fn elements(
    b: &mut Builder<'_, '_>,
    at: &gather::Elements,
) -> Result<[Word; 4], CudaError> {
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
pub(super) fn tuples(
    b: &mut Builder<'_, '_>,
    at: &gather::Tuples,
) -> Result<(Word, usize), CudaError> {
    let slice = at.slice.max(1);
    let table = b.pairs(at.dims.iter().map(|&(n, stride)| (n, stride / slice)))?;
    Ok((table, at.dims.iter().map(|d| d.0).max().unwrap_or(0)))
}

pub(super) fn pad(b: &mut Builder<'_, '_>, l: &Lookup, out: usize) -> Result<(), CudaError> {
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

pub(super) fn reverse(
    b: &mut Builder<'_, '_>,
    r: &Reverse,
    step: &Step,
    out: usize,
) -> Result<(), CudaError> {
    let unit = unit(step, &[0], &[r.slice]);
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
