//! Derivatives of matrix products and convolutions.

use super::selection::integers;
use super::vjp::{Result, Vjp};
use crate::lower::{LowerError, convolve};
use pam_ir::attr::Attr;
use pam_ir::geometry::{Window, windows};
use pam_ir::graph::ValueId;
use pam_ir::op::Op;
use pam_ir::types::{Type, broadcast};

/// `y = a · b`: approx `δa = matmul(δ, bᵀ)`, `δb = matmul(aᵀ, δ)`; exact the three-operand products.
pub(super) fn matmul(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (mut a, mut b, mut d) = (v.x(0)?, v.x(1)?, v.delta()?);
    let (shape_a, shape_b) = (v.shape(a), v.shape(b));
    // Vectors become matrices of one row or column.
    if let [k] = shape_a[..] {
        a = v.reshape(a, &[1, k])?;
        let mut shape = v.shape(d);
        shape.insert(shape.len() - usize::from(shape_b.len() > 1), 1);
        d = v.reshape(d, &shape)?;
    }
    if let [k] = shape_b[..] {
        b = v.reshape(b, &[k, 1])?;
        let shape = [&v.shape(d)[..], &[1]].concat();
        d = v.reshape(d, &shape)?;
    }
    // Rows of a batch that meet one matrix are rows of one matrix.
    let (rank_a, rank_b) = (v.shape(a).len(), v.shape(b).len());
    if rank_b == 2 && rank_a > 2 {
        let (k, n) = (v.shape(b)[0], v.shape(b)[1]);
        let rows = v.ty(d).elements().checked_div(n).unwrap_or(0);
        a = v.reshape(a, &[rows, k])?;
        d = v.reshape(d, &[rows, n])?;
    }
    if v.exact() {
        (a, b) = (batched(v, a, b)?, batched(v, b, a)?);
    }
    for (i, shape) in [(0, &shape_a), (1, &shape_b)] {
        if !v.wants(i) {
            continue;
        }
        let attrs = v.copied(&["offset", "mantissa"]);
        let cotangent = match (v.exact(), i) {
            (true, 0) => v.op(Op::PamMatMulGradA, &[a, b, d], &attrs)?,
            (true, _) => v.op(Op::PamMatMulGradB, &[a, b, d], &attrs)?,
            (false, 0) => {
                let turned = swapped(v, b)?;
                v.matmul(d, turned)?
            }
            (false, _) => {
                let turned = swapped(v, a)?;
                v.matmul(turned, d)?
            }
        };
        // Only where the number of elements is that of the operand has it another shape than ranks
        // and broadcasting explain.
        let cotangent = if v.ty(cotangent).elements() == shape.iter().product::<usize>() {
            v.reshape(cotangent, shape)?
        } else {
            cotangent
        };
        v.give(i, cotangent)?;
    }
    Ok(())
}

/// a with the batch axes of its product with b.
fn batched(v: &mut Vjp<'_, '_, '_>, a: ValueId, b: ValueId) -> Result<ValueId> {
    let (sa, sb) = (v.shape(a), v.shape(b));
    let batch = broadcast(&sa[..sa.len() - 2], &sb[..sb.len() - 2])
        .ok_or_else(|| LowerError("the batches do not broadcast".to_owned()))?;
    let shape = [&batch[..], &sa[sa.len() - 2..]].concat();
    v.expand(a, &shape)
}

/// A batch of matrices, each transposed.
fn swapped(v: &mut Vjp<'_, '_, '_>, x: ValueId) -> Result<ValueId> {
    let rank = v.shape(x).len();
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    v.transpose(x, &perm)
}

/// Sizes of a convolution: N samples, g groups of c input and o output channels.
struct Sizes {
    n: usize,
    g: usize,
    c: usize,
    o: usize,
    axes: Vec<Window>,
}

impl Sizes {
    fn list(&self, f: impl Fn(&Window) -> usize) -> Vec<usize> {
        self.axes.iter().map(f).collect()
    }
}

/// `y = conv(x, w) + b`: approx by two convolutions, exact by the three-operand products of the
/// windows with the kernels.
pub(super) fn conv(v: &mut Vjp<'_, '_, '_>) -> Result {
    let (x, w) = (v.shape(v.x(0)?), v.shape(v.x(1)?));
    let axes = v.call(|call| windows(call, &x[2..], &w[2..]))?;
    let g = v.node().int("group").unwrap_or(1) as usize;
    let sizes = Sizes { n: x[0], g, c: w[1], o: w[0] / g, axes };
    if v.wants(2) {
        let d = v.delta()?;
        let axes: Vec<usize> = (0..x.len()).filter(|&a| a != 1).collect();
        let sum = v.sum(d, &axes)?;
        let cotangent = v.reshape(sum, &w[..1])?;
        v.give(2, cotangent)?;
    }
    if v.exact() {
        return exact_conv(v, &sizes);
    }
    if v.wants(0) {
        let cotangent = by_input(v, &sizes)?;
        v.give(0, cotangent)?;
    }
    if v.wants(1) {
        let cotangent = by_kernel(v, &sizes)?;
        v.give(1, cotangent)?;
    }
    Ok(())
}

/// A window whose pads behind follow from the number of outputs.
fn sized(window: Window) -> Window {
    let extent = (window.input as i64 - 1) * window.input_dilation as i64 + 1;
    let span = (window.kernel as i64 - 1) * window.dilation as i64 + 1;
    let reach = (window.output as i64 - 1) * window.stride as i64 + span;
    Window { after: reach - extent - window.before, ..window }
}

/// The convolution of δ, dilated by the stride, with the flipped kernel whose channels are exchanged.
fn by_input(v: &mut Vjp<'_, '_, '_>, s: &Sizes) -> Result<ValueId> {
    let (w, d) = (v.x(1)?, v.delta()?);
    let kernel = s.list(|a| a.kernel);
    let split = v.reshape(w, &[&[s.g, s.o, s.c], &kernel[..]].concat())?;
    let perm: Vec<usize> = [0, 2, 1].into_iter().chain(3..kernel.len() + 3).collect();
    let turned = v.transpose(split, &perm)?;
    let turned = v.reshape(turned, &[&[s.g * s.c, s.o], &kernel[..]].concat())?;
    let flipped = v.reversed(turned, &(2..kernel.len() + 2).collect::<Vec<_>>())?;
    let geometry: Vec<Window> = s
        .axes
        .iter()
        .map(|a| {
            sized(Window {
                input: a.output,
                output: a.input,
                stride: a.input_dilation,
                input_dilation: a.stride,
                before: (a.kernel as i64 - 1) * a.dilation as i64 - a.before,
                ..*a
            })
        })
        .collect();
    convolve(v, d, flipped, &geometry, s.g as i64)
}

/// The convolution of the input with δ as its kernel, dilated by the stride, samples taking the place
/// of channels.
fn by_kernel(v: &mut Vjp<'_, '_, '_>, s: &Sizes) -> Result<ValueId> {
    let (x, d) = (v.x(0)?, v.delta()?);
    let (from, kernel) = (s.list(|a| a.input), s.list(|a| a.kernel));
    let split = v.reshape(x, &[&[s.n, s.g, s.c], &from[..]].concat())?;
    let perm: Vec<usize> = [2, 1, 0].into_iter().chain(3..from.len() + 3).collect();
    let turned = v.transpose(split, &perm)?;
    let images = v.reshape(turned, &[&[s.c, s.g * s.n], &from[..]].concat())?;
    let perm: Vec<usize> = [1, 0].into_iter().chain(2..from.len() + 2).collect();
    let kernels = v.transpose(d, &perm)?;
    let geometry: Vec<Window> = s
        .axes
        .iter()
        .map(|a| {
            sized(Window {
                kernel: a.output,
                output: a.kernel,
                stride: a.dilation,
                dilation: a.stride,
                ..*a
            })
        })
        .collect();
    let y = convolve(v, images, kernels, &geometry, s.g as i64)?;
    debug_assert_eq!(v.shape(y)[2..], kernel);
    v.transpose(y, &perm)
}

/// The windows of x become rows: `y[g] = windows[g] · kernels[g]`, whose exact derivatives are those of
/// a matrix product. Sums run over output channels for x, then over the windows that an element is in,
/// ascending; for w over samples and windows.
fn exact_conv(v: &mut Vjp<'_, '_, '_>, s: &Sizes) -> Result {
    let (x, w, d) = (v.x(0)?, v.x(1)?, v.delta()?);
    let dtype = v.ty(x).dtype;
    let mut padded = x;
    for (i, a) in s.axes.iter().enumerate() {
        padded = v.dilate(padded, i + 2, a.input_dilation)?;
    }
    let pads = |sign: i64| -> [(&str, Attr); 1] {
        let before = s.axes.iter().map(|a| sign * a.before);
        let pads: Vec<i64> = [0, 0]
            .into_iter()
            .chain(before)
            .chain([0, 0])
            .chain(s.axes.iter().map(|a| sign * a.after))
            .collect();
        [("pads", pads.into())]
    };
    let dilated = v.shape(padded);
    let is_padded = s.axes.iter().any(|a| a.before != 0 || a.after != 0);
    if is_padded {
        padded = v.op(Op::Pad, &[padded], &pads(1))?;
    }
    let padded_shape = v.shape(padded);
    let positions: usize = padded_shape[2..].iter().product();
    let taps: usize = s.list(|a| a.kernel).iter().product();
    let outputs: usize = s.list(|a| a.output).iter().product();
    let places = places(&s.axes, &padded_shape[2..]);

    let flat = v.reshape(padded, &[s.n, s.g * s.c, positions])?;
    let index = integers(v, &[outputs, taps], places.clone());
    let gathered = v.op(Op::Gather, &[flat, index], &[("axis", 2i64.into())])?;
    let split = v.reshape(gathered, &[s.n, s.g, s.c, outputs, taps])?;
    let turned = v.transpose(split, &[1, 0, 3, 2, 4])?;
    let rows = v.reshape(turned, &[s.g, s.n * outputs, s.c * taps])?;
    let kernels = v.reshape(w, &[s.g, s.o, s.c * taps])?;
    let kernels = v.transpose(kernels, &[0, 2, 1])?;
    let split = v.reshape(d, &[s.n, s.g, s.o, outputs])?;
    let turned = v.transpose(split, &[1, 0, 3, 2])?;
    let d = v.reshape(turned, &[s.g, s.n * outputs, s.o])?;
    let attrs = v.copied(&["offset", "mantissa"]);
    if v.wants(1) {
        let product = v.op(Op::PamMatMulGradB, &[rows, kernels, d], &attrs)?;
        let turned = v.transpose(product, &[0, 2, 1])?;
        let shape = v.shape(w);
        let cotangent = v.reshape(turned, &shape)?;
        v.give(1, cotangent)?;
    }
    if v.wants(0) {
        let product = v.op(Op::PamMatMulGradA, &[rows, kernels, d], &attrs)?;
        let split = v.reshape(product, &[s.g, s.n, outputs, s.c, taps])?;
        let turned = v.transpose(split, &[2, 4, 1, 0, 3])?;
        let updates = v.reshape(turned, &[outputs * taps, s.n * s.g * s.c])?;
        let index = integers(v, &[outputs * taps, 1], places);
        let zeros = v.zeros(&Type::new(dtype, [positions, s.n * s.g * s.c]))?;
        let sums = v.op(Op::ScatterND, &[zeros, index, updates], &[("reduction", "add".into())])?;
        let turned = v.transpose(sums, &[1, 0])?;
        let mut cotangent = v.reshape(turned, &padded_shape)?;
        if is_padded {
            cotangent = v.op(Op::Pad, &[cotangent], &pads(-1))?;
        }
        debug_assert_eq!(v.shape(cotangent), dilated);
        for (i, a) in s.axes.iter().enumerate() {
            if a.input_dilation > 1 {
                let attrs: [(&str, Attr); 4] = [
                    ("starts", vec![0i64].into()),
                    ("ends", vec![i64::MAX].into()),
                    ("axes", vec![i as i64 + 2].into()),
                    ("steps", vec![a.input_dilation as i64].into()),
                ];
                cotangent = v.op(Op::Slice, &[cotangent], &attrs)?;
            }
        }
        v.give(0, cotangent)?;
    }
    Ok(())
}

/// For each window, in the order of the outputs, the positions of its elements in the padded input.
fn places(axes: &[Window], padded: &[usize]) -> Vec<i64> {
    let mut windows: Vec<i64> = vec![0];
    let mut taps: Vec<i64> = vec![0];
    for (a, &size) in axes.iter().zip(padded) {
        let extend = |known: &[i64], count: usize, step: usize| -> Vec<i64> {
            let along = |k: &i64| {
                let start = k * size as i64;
                (0..count as i64).map(move |i| start + i * step as i64)
            };
            known.iter().flat_map(along).collect()
        };
        windows = extend(&windows, a.output, a.stride);
        taps = extend(&taps, a.kernel, a.dilation);
    }
    windows.iter().flat_map(|w| taps.iter().map(move |t| w + t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_strides_and_dilations() {
        let axis = |kernel, stride, dilation, output| Window {
            input: 0,
            kernel,
            stride,
            dilation,
            input_dilation: 1,
            before: 0,
            after: 0,
            output,
        };
        let axes = [axis(2, 1, 2, 2), axis(2, 3, 1, 2)];
        // Rows of 5: windows at 0, 3, 5, 8; elements at 0, 1, 10, 11 of each.
        let expected: Vec<i64> =
            [0, 3, 5, 8].iter().flat_map(|w| [0, 1, 10, 11].map(|t| w + t)).collect();
        assert_eq!(places(&axes, &[4, 5]), expected);
    }
}
