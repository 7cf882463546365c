//! Normalisations and their gradients.

use super::{Outputs, Result, Translation};
use crate::attr::Attr;
use crate::graph::{Source, ValueId};
use crate::op::Op;

/// The axes from `axis` on.
fn normalised(v: &Translation<'_, '_>, x: ValueId) -> Result<Vec<usize>> {
    Ok((v.axis(x, -1)?..v.rank(x)).collect())
}

/// `x / √(mean x² + ε) · scale`, and the reciprocal root.
pub(super) fn simplified_layer_norm(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, scale, epsilon) = (v.x(0)?, v.x(1)?, v.float("epsilon", 1e-5));
    let axes = normalised(v, x)?;
    let attrs: [(&str, Attr); 2] = [("axis", (axes[0] as i64).into()), ("epsilon", epsilon.into())];
    let y = v.op_with(Op::RMSNormalization, &[x, scale], &attrs)?;
    if v.outputs < 2 {
        return Ok(vec![Some(y)]);
    }
    let square = v.mul(x, x)?;
    let mean = v.reduce(Op::ReduceMean, square, &axes, true)?;
    let inverse = inverse_root(v, mean, epsilon)?;
    Ok(vec![Some(y), Some(inverse)])
}

fn inverse_root(v: &mut Translation<'_, '_>, variance: ValueId, epsilon: f32) -> Result {
    let sum = v.shifted(variance, f64::from(epsilon))?;
    let root = v.op(Op::Sqrt, &[sum])?;
    v.op(Op::Reciprocal, &[root])
}

/// `layer_norm(input + skip + bias)`; the fourth output is the sum.
pub(super) fn skip_layer_norm(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, skip, epsilon) = (v.x(0)?, v.x(1)?, v.float("epsilon", 1e-12));
    let mut sum = v.add(x, skip)?;
    if let Some(bias) = v.given(4) {
        sum = v.add(sum, bias)?;
    }
    let inputs = [Some(sum), v.given(2), v.given(3)];
    let attrs = [("epsilon", epsilon.into())];
    let mut outputs = v.op_n(Op::LayerNormalization, &inputs, &attrs, 3)?;
    outputs.push(Some(sum));
    outputs.truncate(v.outputs);
    Ok(outputs)
}

/// `rms_norm(input + skip + bias)`; the fourth output is the sum.
pub(super) fn skip_simplified_layer_norm(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, skip, scale, epsilon) = (v.x(0)?, v.x(1)?, v.x(2)?, v.float("epsilon", 1e-12));
    let mut sum = v.add(x, skip)?;
    if let Some(bias) = v.given(3) {
        sum = v.add(sum, bias)?;
    }
    let y = v.op_with(Op::RMSNormalization, &[sum, scale], &[("epsilon", epsilon.into())])?;
    let mut outputs = vec![Some(y), None, None, Some(sum)];
    outputs.truncate(v.outputs);
    Ok(outputs)
}

/// Batch normalisation that also returns the mean and the reciprocal root of the batch.
pub(super) fn batch_norm(v: &mut Translation<'_, '_>) -> Outputs {
    let x = v.x(0)?;
    let epsilon = v.float("epsilon", 1e-5);
    let training = v.int("training_mode", 0);
    let attrs = [
        ("epsilon", epsilon.into()),
        ("momentum", v.float("momentum", 0.9).into()),
        ("training_mode", training.into()),
    ];
    let inputs: Vec<Option<ValueId>> = (0..5).map(|i| v.given(i)).collect();
    let standard = if training != 0 { v.outputs.min(3) } else { 1 };
    let mut outputs = v.op_n(Op::BatchNormalization, &inputs, &attrs, standard)?;
    // onnxruntime writes the running statistics in place of its inputs.
    for (old, new) in [(3, 1), (4, 2)] {
        if let (Some(old), Some(Some(new))) = (v.given(old), outputs.get(new)) {
            let value = v.importer.builder.graph().value(old);
            if value.source == Source::Input {
                let name = value.name.clone();
                v.importer.update(&name, *new);
            }
        }
    }
    if v.outputs > 3 {
        let axes: Vec<usize> = (0..v.rank(x)).filter(|&a| a != 1).collect();
        let kept = v.reduce(Op::ReduceMean, x, &axes, true)?;
        let centred = v.sub(x, kept)?;
        let square = v.mul(centred, centred)?;
        let variance = v.reduce(Op::ReduceMean, square, &axes, false)?;
        let mean = v.reduce(Op::ReduceMean, x, &axes, false)?;
        outputs.resize(3, None);
        outputs.push(Some(mean));
        outputs.push(Some(inverse_root(v, variance, epsilon)?));
    }
    Ok(outputs)
}

/// With x̂ = (x − mean) · inv and w = δ · scale: `inv · (w − mean w − x̂ · mean(x̂ · w))`; the gradients of
/// scale and bias are sums of δ · x̂ and δ.
pub(super) fn layer_norm_grad(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, mean) = (v.x(1)?, v.x(3)?);
    let centred = v.sub(x, mean)?;
    let inverse = v.x(4)?;
    layer_norm_gradients(v, centred, inverse, true)
}

/// The same without a mean and a bias.
pub(super) fn simplified_layer_norm_grad(v: &mut Translation<'_, '_>) -> Outputs {
    let (x, inverse) = (v.x(1)?, v.x(3)?);
    layer_norm_gradients(v, x, inverse, false)
}

fn layer_norm_gradients(
    v: &mut Translation<'_, '_>,
    centred: ValueId,
    inverse: ValueId,
    has_mean: bool,
) -> Outputs {
    let (d, scale) = (v.x(0)?, v.x(2)?);
    let axes = normalised(v, d)?;
    let rows: Vec<usize> = (0..axes[0]).collect();
    let unit = v.mul(centred, inverse)?;
    let weighted = v.mul(d, scale)?;
    let along = v.mul(unit, weighted)?;
    let along = v.reduce(Op::ReduceMean, along, &axes, true)?;
    let pull = v.mul(unit, along)?;
    let mut inner = weighted;
    if has_mean {
        let mean = v.reduce(Op::ReduceMean, weighted, &axes, true)?;
        inner = v.sub(inner, mean)?;
    }
    inner = v.sub(inner, pull)?;
    let by_x = v.mul(inner, inverse)?;
    let product = v.mul(d, unit)?;
    let by_scale = v.reduce(Op::ReduceSum, product, &rows, false)?;
    let by_bias = v.reduce(Op::ReduceSum, d, &rows, false)?;
    Ok(vec![Some(by_x), Some(by_scale), Some(by_bias)])
}

/// `scale · inv · (δ − mean δ − x̂ · mean(δ · x̂))` for each channel.
pub(super) fn batch_norm_grad(v: &mut Translation<'_, '_>) -> Outputs {
    let (d, x) = (v.x(0)?, v.x(1)?);
    let rank = v.rank(x);
    let axes: Vec<usize> = (0..rank).filter(|&a| a != 1).collect();
    let mut along = |i: usize| -> Result {
        let channel = v.x(i)?;
        let mut shape = vec![1; rank];
        shape[1] = v.ty(channel).elements();
        v.reshape(channel, &shape)
    };
    let (scale, mean, inverse) = (along(2)?, along(3)?, along(4)?);
    let centred = v.sub(x, mean)?;
    let unit = v.mul(centred, inverse)?;
    let product = v.mul(d, unit)?;
    let (mean_d, mean_p) = (
        v.reduce(Op::ReduceMean, d, &axes, true)?,
        v.reduce(Op::ReduceMean, product, &axes, true)?,
    );
    let pull = v.mul(unit, mean_p)?;
    let inner = v.sub(d, mean_d)?;
    let inner = v.sub(inner, pull)?;
    let factor = v.mul(scale, inverse)?;
    let by_x = v.mul(inner, factor)?;
    let by_scale = v.reduce(Op::ReduceSum, product, &axes, false)?;
    let by_bias = v.reduce(Op::ReduceSum, d, &axes, false)?;
    Ok(vec![Some(by_x), Some(by_scale), Some(by_bias)])
}
