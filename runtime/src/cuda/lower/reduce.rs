//! Reductions: of floats in the documented order, of other types in order along the axis.

use super::super::CudaError;
use super::super::emit::{Header, number};
use super::super::order::{Order, Word};
use super::{Builder, small};
use crate::steps::reduce::Reduce;
use pam_ir::types::DType;
use pam_kernels::reduce::Reduction;

/// Terms of a sum before its lanes are added.
const SUM_CHUNK: usize = 4096;

pub(super) fn reduce(b: &mut Builder<'_, '_>, r: &Reduce, out: usize) -> Result<(), CudaError> {
    let size = r.dtype.size();
    let between = (0..r.passes.len().saturating_sub(1)).map(|i| r.left(i)).max().unwrap_or(0);
    let halves = [0, 1].map(|_| b.space.take((between * size) as u64));
    let (what, mut from) = (r.reduction, Word::In(0));
    for (i, &[outer, reduced, inner]) in r.passes.iter().enumerate() {
        let to = match i + 1 == r.passes.len() {
            true => Word::Out(0),
            false => Word::Work(halves[i % 2]),
        };
        let left = outer * inner;
        if reduced == 0 && r.dtype == DType::F32 && what == Reduction::Sum {
            b.orders.list.push(Order::Fill { at: to, value: 0, bytes: out });
        } else if r.dtype == DType::F32 && reduced > 0 {
            sums(b, what, [outer, reduced, inner], from, to)?;
        } else {
            let (start, step) = match what {
                Reduction::Sum => ("0", "add<T>(y, x)"),
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
    // But for its first axis, a grid has at most 65 535 blocks along each.
    const GRID: u32 = 65_535;
    if inner == 1 {
        let high = o.min(GRID);
        let grid = match chunks {
            1 => (o.div_ceil(16), 1, 1),
            _ => (c.div_ceil(16), high, o.div_ceil(high)),
        };
        let numbers = [o, r, code, c].map(Word::U32);
        b.launch("pam_reduce_rows", grid, [&[from][..], &numbers, &[partial]].concat());
    } else {
        if c > GRID {
            return Err(CudaError::TooLarge { what: format!("a reduction of {reduced} rows") });
        }
        let numbers = [o, r, i, code].map(Word::U32);
        let args = [&[from][..], &numbers, &[partial]].concat();
        b.launch("pam_reduce_columns", (i.div_ceil(32), c, o.min(GRID)), args);
    }
    if chunks > 1 {
        let args = vec![partial, to, Word::U64(left as u64), Word::U32(c), Word::U32(code)];
        b.launch("pam_reduce_chunks", (small(left, "a tensor")?.div_ceil(256), 1, 1), args);
    }
    Ok(())
}
