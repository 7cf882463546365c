//! Batch normalisation.

use super::{LowerError, Lowering};
use pam_ir::graph::{Node, ValueId};

type Result<T = ()> = std::result::Result<T, LowerError>;

/// `mul(div(x − μ, sqrt(v + ε)), w) + b` per channel, with the statistics of the batch in training and
/// the running ones otherwise; in training `running = mul(old, momentum) + mul(batch, 1 − momentum)`.
pub fn batch_norm(lo: &mut Lowering<'_, '_>, node: &Node) -> Result {
    let x = lo.input(node, 0)?;
    let rank = lo.shape(x).len();
    let spread = |lo: &mut Lowering<'_, '_>, i: usize| -> Result<ValueId> {
        let v = lo.input(node, i)?;
        lo.along(v, 1.min(rank - 1), rank)
    };
    let (w, b) = (spread(lo, 1)?, spread(lo, 2)?);
    let (old_mean, old_variance) = (spread(lo, 3)?, spread(lo, 4)?);
    let training = node.int("training_mode") == Some(1);
    let axes: Vec<usize> = (0..rank).filter(|&a| a != 1).collect();
    let mean = if training { lo.mean(x, &axes)? } else { old_mean };
    let centred = lo.sub(x, mean)?;
    let variance = if training {
        let square = lo.square(centred)?;
        lo.mean(square, &axes)?
    } else {
        old_variance
    };
    let stable = lo.add_scalar(variance, node.float("epsilon").unwrap_or(1e-5))?;
    let deviation = lo.sqrt(stable)?;
    let normal = lo.div(centred, deviation)?;
    let scaled = lo.mul(normal, w)?;
    let y = lo.add(scaled, b)?;
    lo.set(node, 0, y)?;
    let momentum = node.float("momentum").unwrap_or(0.9);
    for (i, old, new) in [(1, old_mean, mean), (2, old_variance, variance)] {
        if node.output(i).is_some() {
            let kept = lo.scale(old, momentum)?;
            let added = lo.scale(new, 1.0 - momentum)?;
            let running = lo.add(kept, added)?;
            let channels = lo.ty(running).elements();
            let running = lo.reshape(running, &[channels])?;
            lo.set(node, i, running)?;
        }
    }
    Ok(())
}
