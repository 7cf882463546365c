//! Ops whose result depends on shapes and attributes only: evaluated when planning.

use super::Site;
use crate::host::number::{Number, with_type};
use pam_ir::attr::Attr;
use pam_ir::graph::{Graph, Node};
use pam_ir::op::Op;
use pam_ir::tensor::Tensor;

/// The result of the node.
///
/// # Errors
/// Where its attributes are missing or the op is not one of these.
pub fn evaluate(graph: &Graph, node: &Node) -> Result<Tensor, String> {
    let site = Site { graph, node };
    let to = site.output(0)?;
    match node.op {
        Op::Shape => {
            let shape = &site.input(0)?.shape;
            let rank = shape.len() as i64;
            let clamp = |i: i64| (if i < 0 { i + rank } else { i }).clamp(0, rank) as usize;
            let (start, end) = (clamp(site.int("start")?), clamp(node.int("end").unwrap_or(rank)));
            let dims = shape.get(start..end).unwrap_or_default();
            Ok(Tensor::vector(dims.iter().map(|&d| d as i64).collect()))
        }
        Op::Size => Ok(Tensor::scalar(site.input(0)?.elements() as i64)),
        Op::Range => {
            let bound = |name: &str| match node.attr(name) {
                Some(Attr::Tensor(t)) => {
                    let float = t.to_f64().and_then(|v| v.first().copied());
                    let int = t.to_i64().and_then(|v| v.first().copied());
                    float.or(int.map(|i| i as f64)).ok_or_else(|| format!("`{name}` is empty"))
                }
                _ => Err(format!("attribute `{name}` is missing")),
            };
            let (start, delta) = (bound("start")?, bound("delta")?);
            fill(to, |i| start + i as f64 * delta)
        }
        Op::EyeLike => {
            let k = site.int("k")?;
            let columns = to.shape.get(1).copied().unwrap_or(1).max(1);
            fill(to, |i| f64::from((i % columns) as i64 - (i / columns) as i64 == k))
        }
        op => Err(format!("{} is not evaluated when planning", op.name())),
    }
}

fn fill(ty: &pam_ir::types::Type, f: impl Fn(usize) -> f64) -> Result<Tensor, String> {
    let bytes: Vec<u8> = with_type!(ty.dtype, T => {
        let elements: Vec<T> =
            (0..ty.elements()).map(|i| <T as Number>::convert(f(i))).collect();
        bytemuck::cast_slice(&elements).to_vec()
    });
    Tensor::from_le_bytes(ty, &bytes).ok_or_else(|| "the result is too large".to_owned())
}
