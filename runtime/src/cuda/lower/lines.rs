//! Work along one axis.

use super::super::CudaError;
use super::super::emit::{Header, number};
use super::super::order::Word;
use super::{Builder, small};
use crate::steps::axis::TopK;

/// A kernel with one thread a line of `n` elements, `inner` apart.
pub(super) fn lines(
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

pub(super) fn top_k(b: &mut Builder<'_, '_>, t: &TopK) -> Result<(), CudaError> {
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
    Ok(())
}
