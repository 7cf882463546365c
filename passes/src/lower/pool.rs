//! Pooling by averages and norms.

use super::layer_norm::p_norm;
use super::{LowerError, Lowering, pow};
use pam_ir::attr::Attr;
use pam_ir::geometry::{Window, windows};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;
use pam_ir::tensor::Tensor;

type Result<T = ()> = std::result::Result<T, LowerError>;

fn geometry(lo: &Lowering<'_, '_>, node: &Node) -> Result<Vec<Window>> {
    let kernel = node.ints("kernel_shape").unwrap_or(&[]);
    let kernel: Vec<usize> = kernel.iter().map(|&k| k as usize).collect();
    Ok(lo.with_call(node, |c| windows(c, &c.input(0)?.shape[2..], &kernel))?)
}

/// The sums over windows: one axis after the other, in each the elements of a window ascending, as
/// additions of strided slices of the padded input.
fn window_sums(lo: &mut Lowering<'_, '_>, x: ValueId, windows: &[Window]) -> Result<ValueId> {
    let mut v = x;
    for (i, w) in windows.iter().enumerate() {
        let axis = vec![(i + 2) as i64];
        // A window may reach beyond the pads where the output size was rounded up.
        let reach = (w.output - 1) * w.stride + (w.kernel - 1) * w.dilation + 1;
        let after = (reach as i64 - w.before - w.input as i64).max(w.after);
        if w.before != 0 || after != 0 {
            let attrs = [("pads", vec![w.before, after].into()), ("axes", axis.clone().into())];
            v = lo.op(Op::Pad, &[v], &attrs)?;
        }
        let mut sum = None;
        for tap in 0..w.kernel {
            let start = (tap * w.dilation) as i64;
            let attrs: [(&str, Attr); 4] = [
                ("starts", vec![start].into()),
                ("ends", vec![start + ((w.output - 1) * w.stride) as i64 + 1].into()),
                ("axes", axis.clone().into()),
                ("steps", vec![w.stride as i64].into()),
            ];
            let slice = lo.op(Op::Slice, &[v], &attrs)?;
            sum = Some(match sum {
                Some(s) => lo.add(s, slice)?,
                None => slice,
            });
        }
        v = sum.ok_or_else(|| LowerError("the kernel is empty".to_owned()))?;
    }
    Ok(v)
}

/// `div(Σ window, count)`, the count with or without the padding.
pub fn average_pool(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let windows = geometry(lo, node)?;
    let sums = window_sums(lo, x, &windows)?;
    let padding = node.int("count_include_pad") == Some(1);
    // What counts along each axis, for each output position.
    let counts: Vec<Vec<usize>> = windows
        .iter()
        .map(|w| {
            let (low, high) = if padding {
                (0, w.before + w.input as i64 + w.after)
            } else {
                (w.before, w.before + w.input as i64)
            };
            let count = |o: usize| {
                let taps = (0..w.kernel).map(|t| (o * w.stride + t * w.dilation) as i64);
                taps.filter(|at| (low..high).contains(at)).count()
            };
            (0..w.output).map(count).collect()
        })
        .collect();
    let shape: Vec<usize> = [1, 1].into_iter().chain(windows.iter().map(|w| w.output)).collect();
    let mut all = vec![1f32];
    for axis in &counts {
        all = all.iter().flat_map(|&c| axis.iter().map(move |&n| c * n as f32)).collect();
    }
    let count = match all.first() {
        Some(&first) if all.iter().all(|&c| c == first) => lo.scalar(first),
        _ => lo.constant(Tensor::new(shape, all)),
    };
    let y = lo.div(sums, count)?;
    lo.set(node, 0, y)
}

/// `div(Σ x, n)` over all spatial axes.
pub fn global_average_pool(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let axes: Vec<usize> = (2..lo.shape(x).len()).collect();
    let y = lo.mean(x, &axes)?;
    lo.set(node, 0, y)
}

/// `(Σ |x|^p)^(1/p)` over windows.
pub fn lp_pool(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let windows = geometry(lo, node)?;
    let p = node.int("p").filter(|&p| p > 0);
    let p = p.ok_or_else(|| LowerError("`p` is not positive".to_owned()))? as f32;
    let size = lo.abs(x)?;
    let power = pow::power(lo, size, p)?;
    let sums = window_sums(lo, power, &windows)?;
    let y = pow::root(lo, sums, p)?;
    lo.set(node, 0, y)
}

/// `(Σ |x|^p)^(1/p)` over all spatial axes.
pub fn global_lp_pool(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let axes: Vec<usize> = (2..lo.shape(x).len()).collect();
    let y = p_norm(lo, x, &axes, node.int("p").unwrap_or(2))?;
    lo.set(node, 0, y)
}
