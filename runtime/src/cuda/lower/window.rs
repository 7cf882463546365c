//! Windows over space.

use super::super::CudaError;
use super::super::emit::{Header, number};
use super::super::order::Word;
use super::{Builder, small};
use crate::steps::window::{Col2Im, MaxPool};
use pam_ir::geometry::Window;

/// Mirrors `Window` in kernels/cuda/window.cuh.
fn windows(axes: &[Window], strides: &[usize], index: &[usize]) -> Result<Vec<u32>, CudaError> {
    if axes.len() > 4 {
        return Err(CudaError::Unsupported("windows over more than four axes".to_owned()));
    }
    // Axes that are not there have one element.
    let one = [1, 1, 1, 1, 1, 0, 0, 0];
    let mut table = one.repeat(4 - axes.len());
    for (a, (&stride, &index)) in axes.iter().zip(strides.iter().zip(index)) {
        for n in [a.input, a.kernel, a.output, a.stride, a.dilation] {
            table.push(small(n, "a window")?);
        }
        table.extend([a.before as i32 as u32, stride as u32, index as u32]);
    }
    Ok(table)
}

pub(super) fn max_pool(
    b: &mut Builder<'_, '_>,
    p: &MaxPool,
    outs: [usize; 2],
) -> Result<(), CudaError> {
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
    ];
    b.each(kernel, count, args);
    Ok(())
}

pub(super) fn col2im(b: &mut Builder<'_, '_>, c: &Col2Im, out: usize) -> Result<(), CudaError> {
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
    ];
    b.each(kernel, count, args);
    Ok(())
}
