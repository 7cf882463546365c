//! Random numbers.

use super::trigonometry::turn_sin;
use super::{LowerError, Lowering};
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::Op;
use pam_ir::types::DType;

type Result<T = ()> = std::result::Result<T, LowerError>;

/// The key of a node's random numbers: the seed, and a hash of the node's name (FNV-1a with its
/// multiplication by 16777619 written as shifts and additions).
pub(super) fn key(node: &Node, seed: u32) -> [u32; 2] {
    let hash = node.name.bytes().fold(0x811C_9DC5u32, |h, byte| {
        let h = h ^ u32::from(byte);
        [1, 4, 7, 8, 24].iter().fold(h, |sum, shift| sum.wrapping_add(h << shift))
    });
    [seed, hash]
}

/// Uniform numbers in [0, 1) that depend on the key, the step and the element.
pub(super) fn uniform_of(
    lo: &mut Lowering<'_, '_>,
    key: [u32; 2],
    shape: &[usize],
) -> Result<ValueId> {
    let step = lo.step();
    let key: Vec<i64> = key.iter().map(|&k| i64::from(k)).collect();
    lo.op(Op::PamUniform, &[step], &[("key", key.into()), ("shape", shape.into())])
}

fn seed(node: &Node) -> u32 {
    node.float("seed").map_or(0, f32::to_bits)
}

/// The shape of the output.
fn shape(lo: &Lowering<'_, '_>, node: &Node) -> Result<Vec<usize>> {
    let types = lo.with_call(node, |c| (node.op.row().infer)(c))?;
    Ok(types[0].shape.clone())
}

/// `low + mul(u, high − low)`.
pub fn uniform(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let shape = shape(lo, node)?;
    let u = uniform_of(lo, key(node, seed(node)), &shape)?;
    let (low, high) = (node.float("low").unwrap_or(0.0), node.float("high").unwrap_or(1.0));
    let scaled = lo.scale(u, high - low)?;
    let y = if low == 0.0 { scaled } else { lo.add_scalar(scaled, low)? };
    lo.set(node, 0, y)
}

/// `mean + mul(scale, mul(sqrt(−2 · log(1 − u)), sin(2π · v)))` (Box and Muller) with uniform u, v.
pub fn normal(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let shape = shape(lo, node)?;
    let [seed, hash] = key(node, seed(node));
    let u = uniform_of(lo, [seed, hash], &shape)?;
    let v = uniform_of(lo, [seed ^ 1, hash], &shape)?;
    let one = lo.scalar(1f32);
    let rest = lo.sub(one, u)?;
    let log = lo.log(rest)?;
    let twice = lo.scale(log, -2.0)?;
    let radius = lo.sqrt(twice)?;
    let wave = turn_sin(lo, v, 0.0)?;
    let unit = lo.mul(radius, wave)?;
    let scaled = lo.scale(unit, node.float("scale").unwrap_or(1.0))?;
    let mean = node.float("mean").unwrap_or(0.0);
    let y = if mean == 0.0 { scaled } else { lo.add_scalar(scaled, mean)? };
    lo.set(node, 0, y)
}

/// `u < p`.
pub fn bernoulli(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let p = lo.input(node, 0)?;
    let shape = lo.shape(p);
    let u = uniform_of(lo, key(node, seed(node)), &shape)?;
    let hit = lo.op(Op::Less, &[u, p], &[])?;
    let dtype = lo.with_call(node, |c| c.dtype("dtype")).unwrap_or(DType::F32);
    let y = if dtype == DType::Bool { hit } else { lo.cast(hit, dtype)? };
    lo.set(node, 0, y)
}
