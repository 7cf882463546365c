//! Convolutions.

use super::{LowerError, Lowering};
use pam_ir::attr::Attr;
use pam_ir::geometry::{Window, transposed_windows, windows};
use pam_ir::graph::{Node, ValueId};

type Result<T = ()> = std::result::Result<T, LowerError>;

/// `pam.conv(x, w) + b` with explicit strides, pads and dilations.
pub fn conv(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (x, w) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let geometry =
        lo.with_call(node, |c| windows(c, &c.input(0)?.shape[2..], &c.input(1)?.shape[2..]))?;
    let y = convolve(lo, x, w, &geometry, node.int("group").unwrap_or(1))?;
    finish(lo, node, y)
}

/// `pam.conv(x, w') + b` with the input dilated by the stride and the kernel w' flipped, its input
/// and output channels exchanged within each group.
pub fn conv_transpose(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let (x, w) = (lo.input(node, 0)?, lo.input(node, 1)?);
    let geometry = lo.with_call(node, |c| {
        transposed_windows(c, &c.input(0)?.shape[2..], &c.input(1)?.shape[2..])
    })?;
    let groups = node.int("group").unwrap_or(1);
    let flipped = flip(lo, w, groups as usize)?;
    let y = convolve(lo, x, flipped, &geometry, groups)?;
    finish(lo, node, y)
}

/// A convolution of resolved geometry; attributes that are all ones and zeros are left out.
pub(crate) fn convolve(
    lo: &mut Lowering<'_, '_>,
    x: ValueId,
    w: ValueId,
    geometry: &[Window],
    groups: i64,
) -> Result<ValueId> {
    let list = |f: fn(&Window) -> usize| geometry.iter().map(|w| f(w) as i64).collect::<Vec<i64>>();
    let pads = geometry.iter().map(|w| w.before).chain(geometry.iter().map(|w| w.after));
    let pads: Vec<i64> = pads.collect();
    let mut attrs: Vec<(&str, Attr)> = Vec::new();
    for (name, values) in [
        ("strides", list(|w| w.stride)),
        ("dilations", list(|w| w.dilation)),
        ("input_dilations", list(|w| w.input_dilation)),
    ] {
        if values.iter().any(|&v| v != 1) {
            attrs.push((name, values.into()));
        }
    }
    if pads.iter().any(|&v| v != 0) {
        attrs.push(("pads", pads.into()));
    }
    if groups != 1 {
        attrs.push(("group", groups.into()));
    }
    lo.conv(x, w, &attrs)
}

fn flip(lo: &mut Lowering<'_, '_>, w: ValueId, groups: usize) -> Result<ValueId> {
    let shape = lo.shape(w);
    let (inputs, outputs, kernel) = (shape[0], shape[1], &shape[2..]);
    let mut v = w;
    if groups != 1 {
        v = lo.reshape(v, &[&[groups, inputs / groups, outputs], kernel].concat())?;
        let perm: Vec<usize> = [0, 2, 1].into_iter().chain(3..kernel.len() + 3).collect();
        v = lo.transpose(v, &perm)?;
        v = lo.reshape(v, &[&[groups * outputs, inputs / groups], kernel].concat())?;
    } else {
        let perm: Vec<usize> = [1, 0].into_iter().chain(2..shape.len()).collect();
        v = lo.transpose(v, &perm)?;
    }
    lo.reversed(v, &(2..shape.len()).collect::<Vec<_>>())
}

fn finish(lo: &mut Lowering<'_, '_>, node: &Node, mut y: ValueId) -> Result {
    if let Some(b) = lo.get(node, 2)? {
        let rank = lo.shape(y).len();
        let b = lo.along(b, 1, rank)?;
        y = lo.add(y, b)?;
    }
    lo.set(node, 0, y)
}
