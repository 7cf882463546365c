//! Random numbers.

use super::super::CudaError;
use super::super::emit::{Header, number};
use super::super::order::Word;
use super::{Builder, small};
use crate::steps::random::{Bernoulli, Uniform};

pub(super) fn uniform(b: &mut Builder<'_, '_>, u: &Uniform, out: usize) -> Result<(), CudaError> {
    let kernel = b.emit(Header::Movement, "PAM_UNIFORM(@)".to_owned());
    let count = small(out / 4, "a tensor")?;
    let [key0, key1] = u.key.map(Word::U32);
    let args = vec![Word::In(0), Word::Out(0), Word::U32(count), key0, key1];
    b.each(kernel, count as usize, args);
    Ok(())
}

pub(super) fn bernoulli(
    b: &mut Builder<'_, '_>,
    x: &Bernoulli,
    out: usize,
) -> Result<(), CudaError> {
    let (from, to) = (number(x.from), number(x.to));
    let kernel = b.emit(Header::Movement, format!("PAM_BERNOULLI(@, {from}, {to})"));
    let count = small(out / x.to.size(), "a tensor")?;
    let [key0, key1] = x.key.map(Word::U32);
    let args = vec![Word::In(0), Word::Out(0), Word::U32(count), key0, key1, Word::Run];
    b.each(kernel, count as usize, args);
    Ok(())
}
