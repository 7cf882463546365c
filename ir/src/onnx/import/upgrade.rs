//! Old forms of ops to the form of the op table.
//!
//! Most changes of ONNX moved an attribute to an operand (`axes`, `split`, `ratio`) and need nothing
//! here, since such operands are attributes in the IR under the same name. What is left is listed
//! below, with the opset in which the present form appeared.

use super::Importer;
use super::draft::Draft;
use crate::attr::{Attr, Attrs};
use crate::graph::ValueId;
use crate::op::{Op, normalize_axis};
use crate::tensor::Tensor;
use crate::types::DType;
use std::collections::BTreeMap;

/// Attributes that other forms of an op have and the row does not declare.
pub(super) fn is_former_attribute(op: Op, name: &str) -> bool {
    matches!(
        (op, name),
        (Op::Clip, "min" | "max")
            | (Op::Pad, "value")
            | (Op::TopK, "k")
            | (Op::BatchNormalization, "spatial" | "is_test" | "consumed_inputs")
            | (Op::Dropout, "is_test")
            | (Op::Cast, "saturate" | "round_mode")
            | (Op::SpaceToDepth, "mode")
    )
}

/// Brings a node of opset `version` to the form of the op table; nodes that have to stand before it
/// are appended.
pub(super) fn upgrade(
    importer: &mut Importer<'_>,
    mut draft: Draft,
    version: i64,
) -> Result<Draft, String> {
    match draft.op {
        // 13: the axis alone is normalised, before that all axes from it on, as one.
        Op::Softmax | Op::LogSoftmax | Op::Hardmax if version < 13 => {
            return flattened(importer, draft);
        }
        // 11: bounds are inputs. Not static, since they may be computed.
        Op::Clip => {
            let dtype = importer.input_type(&draft, 0)?.dtype;
            for (i, name) in ["min", "max"].into_iter().enumerate() {
                if let Some(Attr::Float(bound)) = draft.attrs.remove(name) {
                    let tensor = Tensor::scalar(bound);
                    let cast = crate::eval::cast(&tensor, dtype)
                        .ok_or(format!("bound `{name}` does not fit {dtype}"))?;
                    let value = importer.constant("bound", cast);
                    draft.inputs.resize(draft.inputs.len().max(i + 2), None);
                    draft.inputs[i + 1] = Some(value);
                }
            }
        }
        // 28: signed integers are shifted as well, which files of an older opset cannot say.
        Op::BitShift => {
            let unsigned = match importer.input_type(&draft, 0)?.dtype {
                DType::I8 => DType::U8,
                DType::I16 => DType::U16,
                DType::I32 => DType::U32,
                DType::I64 => DType::U64,
                _ => return Ok(draft),
            };
            return signed_shift(importer, &draft, unsigned);
        }
        // Exporters find the first truth value that holds, which the standard op does not.
        Op::ArgMax | Op::ArgMin if importer.input_type(&draft, 0)?.dtype == DType::Bool => {
            let x = draft.inputs[0];
            let attrs = Attrs::from([("to".to_owned(), DType::I32.into())]);
            draft.inputs[0] = Some(importer.before(Op::Cast, &[x], attrs)?);
        }
        // 11: the value is an input.
        Op::Pad => {
            if let Some(Attr::Float(fill)) = draft.attrs.remove("value") {
                let value = importer.constant("fill", Tensor::scalar(fill));
                draft.inputs.resize(draft.inputs.len().max(3), None);
                draft.inputs[2] = Some(value);
            }
        }
        // 10: k is an input.
        Op::TopK => {
            if let Some(k) = draft.attrs.remove("k") {
                draft.attrs.insert("K".to_owned(), k);
            }
        }
        // 14: training is an attribute; before, asking for more than one output meant it. The saved
        // statistics of outputs 3 and 4 are gone.
        Op::BatchNormalization => {
            for name in ["spatial", "is_test", "consumed_inputs"] {
                draft.attrs.remove(name);
            }
            if version < 14 && draft.outputs > 1 {
                draft.attrs.insert("training_mode".to_owned(), Attr::Int(1));
                draft.outputs = draft.outputs.min(3);
            }
        }
        Op::Dropout => {
            draft.attrs.remove("is_test");
        }
        // 11: other ways from an output position to the input; before, the scales are the second operand.
        Op::Resize if version < 11 => {
            if draft.inputs.len() == 2 {
                draft.inputs.insert(1, None);
            }
            for (name, value) in
                [("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")]
            {
                draft.attrs.insert(name.to_owned(), Attr::Str(value.to_owned()));
            }
        }
        // 18: the number of equal parts is stated.
        Op::Split => {
            let stated = draft.attrs.contains_key("split")
                || draft.attrs.contains_key("num_outputs")
                || draft.inputs.get(1).copied().flatten().is_some();
            if !stated {
                draft.attrs.insert("num_outputs".to_owned(), Attr::Int(draft.outputs as i64));
            }
        }
        // 28: there is another order of blocks.
        Op::SpaceToDepth => {
            let mode = draft.attrs.remove("mode");
            if mode == Some(Attr::Str("CRD".to_owned())) {
                return channels_first(importer, &draft);
            }
        }
        // 21: scale and bias are per channel, before that per group.
        Op::GroupNormalization if version < 21 => per_channel(importer, &mut draft)?,
        _ => {}
    }
    Ok(draft)
}

/// Softmax over all axes from `axis` on: as a matrix, with the shape put back behind it.
fn flattened(importer: &mut Importer<'_>, mut draft: Draft) -> Result<Draft, String> {
    let ty = importer.input_type(&draft, 0)?.clone();
    let axis = match draft.attrs.get("axis") {
        Some(Attr::Int(axis)) => *axis,
        _ => 1,
    };
    if normalize_axis(axis, ty.rank())? + 1 == ty.rank() {
        draft.attrs.insert("axis".to_owned(), Attr::Int(-1));
        return Ok(draft);
    }
    let attrs = Attrs::from([("axis".to_owned(), Attr::Int(axis))]);
    let matrix = importer.before(Op::Flatten, &draft.inputs, attrs)?;
    let attrs = Attrs::from([("axis".to_owned(), Attr::Int(-1))]);
    let value = importer.before(draft.op, &[Some(matrix)], attrs)?;
    let shape = Attr::from(ty.shape.as_slice());
    Ok(Draft {
        op: Op::Reshape,
        inputs: vec![Some(value)],
        attrs: Attrs::from([("shape".to_owned(), shape)]),
        outputs: 1,
    })
}

/// A shift of signed integers by one of their patterns: to the right, negative ones are shifted as what they lack.
fn signed_shift(
    importer: &mut Importer<'_>,
    draft: &Draft,
    unsigned: DType,
) -> Result<Draft, String> {
    let (ty, by) = (importer.input_type(draft, 0)?.clone(), importer.input_type(draft, 1)?.clone());
    let [Some(x), Some(y)] = draft.inputs[..] else {
        return Err("an operand is missing".to_owned());
    };
    if by.dtype != ty.dtype {
        return Err(format!("shifts {ty} by {by}"));
    }
    let number = |importer: &mut Importer<'_>, n: i64| {
        let n = crate::eval::cast(&Tensor::scalar(n), ty.dtype);
        n.map(|n| importer.constant("c", n)).ok_or_else(|| format!("{ty} holds no integers"))
    };
    let to = [("to", unsigned.into())];
    let by = importer.made(Op::BitCast, &[y], &to)?;
    let shift = |importer: &mut Importer<'_>, x: ValueId, direction: &str| {
        let x = importer.made(Op::BitCast, &[x], &to)?;
        importer.made(Op::BitShift, &[x, by], &[("direction", direction.into())])
    };
    let attrs = Attrs::from([("to".to_owned(), ty.dtype.into())]);
    if draft.attrs.get("direction") == Some(&Attr::Str("LEFT".to_owned())) {
        let shifted = shift(importer, x, "LEFT")?;
        return Ok(Draft { op: Op::BitCast, inputs: vec![Some(shifted)], attrs, outputs: 1 });
    }
    let (zero, all) = (number(importer, 0)?, number(importer, -1)?);
    let negative = importer.made(Op::Less, &[x, zero], &[])?;
    let sign = importer.made(Op::Where, &[negative, all, zero], &[])?;
    let flipped = importer.made(Op::BitwiseXor, &[x, sign], &[])?;
    let shifted = shift(importer, flipped, "RIGHT")?;
    let shifted = importer.before(Op::BitCast, &[Some(shifted)], attrs)?;
    let inputs = vec![Some(shifted), Some(sign)];
    Ok(Draft { op: Op::BitwiseXor, inputs, attrs: Attrs::new(), outputs: 1 })
}

/// The blocks of an image as channels, those of each channel side by side.
fn channels_first(importer: &mut Importer<'_>, draft: &Draft) -> Result<Draft, String> {
    let ty = importer.input_type(draft, 0)?.clone();
    let block = match draft.attrs.get("blocksize") {
        Some(Attr::Int(b)) => usize::try_from(*b).ok().filter(|b| (1..=1 << 16).contains(b)),
        _ => None,
    };
    let (Some(b), [n, c, h, w]) = (block, &ty.shape[..]) else {
        return Err(format!("takes rank 4 and a positive `blocksize`, not {ty}"));
    };
    let shape = |dims: &[usize]| Attrs::from([("shape".to_owned(), Attr::from(dims))]);
    let blocks = [*n, *c, h / b, b, w / b, b];
    let apart = importer.before(Op::Reshape, &draft.inputs[..1], shape(&blocks))?;
    let perm = Attrs::from([("perm".to_owned(), [0usize, 1, 3, 5, 2, 4].as_slice().into())]);
    let turned = importer.before(Op::Transpose, &[Some(apart)], perm)?;
    let attrs = shape(&[*n, c * b * b, h / b, w / b]);
    Ok(Draft { op: Op::Reshape, inputs: vec![Some(turned)], attrs, outputs: 1 })
}

fn per_channel(importer: &mut Importer<'_>, draft: &mut Draft) -> Result<(), String> {
    let ty = importer.input_type(draft, 0)?.clone();
    let channels = *ty.shape.get(1).ok_or("the input has no channels")? as i64;
    for i in 1..draft.inputs.len() {
        let groups = importer.input_type(draft, i)?.elements() as i64;
        if groups == 0 || channels % groups != 0 {
            return Err(format!("{channels} channels do not divide into {groups} groups"));
        }
        let mut v = draft.inputs[i];
        for (op, shape) in [
            (Op::Reshape, vec![groups, 1]),
            (Op::Expand, vec![groups, channels / groups]),
            (Op::Reshape, vec![channels]),
        ] {
            let attrs = Attrs::from([("shape".to_owned(), Attr::Ints(shape))]);
            v = Some(importer.before(op, &[v], attrs)?);
        }
        draft.inputs[i] = v;
    }
    Ok(())
}

impl Importer<'_> {
    /// The type of a required input of a draft.
    pub(super) fn input_type(
        &self,
        draft: &Draft,
        i: usize,
    ) -> Result<&crate::types::Type, String> {
        let value =
            draft.inputs.get(i).copied().flatten().ok_or(format!("input {i} is missing"))?;
        Ok(self.builder.ty(value))
    }

    /// Appends a node of one output under a made-up name, before the node at hand.
    pub(super) fn before(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        attrs: Attrs,
    ) -> Result<ValueId, String> {
        let label = self.builder.scope.name.clone();
        let name = format!("{label}.{}", op.name());
        let draft = Draft { op, inputs: inputs.to_vec(), attrs, outputs: 1 };
        let values = self.append(draft, &label, &[&name], "", BTreeMap::new())?;
        values.first().copied().flatten().ok_or(format!("{} gave no value", op.name()))
    }

    /// [`before`](Self::before), of operands that are all given.
    pub(super) fn made(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        attrs: &[(&str, Attr)],
    ) -> Result<ValueId, String> {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        let attrs: Attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        self.before(op, &inputs, attrs)
    }
}
