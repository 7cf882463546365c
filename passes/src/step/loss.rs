//! Losses.

use super::{number, one, scope, settings};
use crate::CompileError;
use pam_ir::attr::Attr;
use pam_ir::build::{BuildError, Builder};
use pam_ir::graph::ValueId;
use pam_ir::op::Op;
use pam_ir::role::{Component, Role};
use pam_ir::types::{DType, Type};

/// A loss.
#[derive(Clone, Debug, PartialEq)]
pub enum LossSpec {
    /// Mean cross entropy of the first output against the input `labels` of i64, whose shape is that of
    /// the output without its axis of classes. As in PyTorch, labels of −100 do not count, and
    /// `label_smoothing` spreads its share evenly over the classes.
    CrossEntropy {
        /// The axis of classes; negative ones count from the end.
        axis: i64,
        /// The share that is spread.
        label_smoothing: f64,
        /// Labels that do not count.
        ignore_index: i64,
    },
    /// Mean squared difference of the first output from the input `target`.
    MeanSquaredError,
    /// An output of the model that is the loss already.
    Output(String),
}

impl LossSpec {
    /// Reads `cross-entropy[:axis=…,label_smoothing=…,ignore_index=…]`, `mse` or the name of an output.
    ///
    /// # Errors
    /// Says which setting is wrong.
    pub fn parse(text: &str) -> Result<LossSpec, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        match name {
            "cross-entropy" => {
                let (mut axis, mut label_smoothing, mut ignore_index) = (-1, 0.0, -100);
                for (name, value) in settings(rest)? {
                    match name {
                        "label_smoothing" if (0.0..1.0).contains(&value) => label_smoothing = value,
                        "label_smoothing" => {
                            return Err(format!("`{name}` is {value}, not in [0, 1)"));
                        }
                        "axis" | "ignore_index" if value.fract() != 0.0 => {
                            return Err(format!("`{name}` is {value}, not a whole number"));
                        }
                        "ignore_index" => ignore_index = value as i64,
                        "axis" => axis = value as i64,
                        _ => {
                            let known = "axis, label_smoothing and ignore_index";
                            return Err(format!("no setting `{name}`; there are {known}"));
                        }
                    }
                }
                Ok(LossSpec::CrossEntropy { axis, label_smoothing, ignore_index })
            }
            "mse" if rest.is_empty() => Ok(LossSpec::MeanSquaredError),
            "mse" => Err("mse has no settings".to_owned()),
            _ => Ok(LossSpec::Output(text.to_owned())),
        }
    }

    /// The output that the loss is, or is made of, where there is such a one.
    pub(super) fn output<'o>(
        &self,
        outputs: &'o [(String, ValueId)],
        dtype: impl Fn(ValueId) -> DType,
    ) -> Option<&'o (String, ValueId)> {
        outputs.iter().find(|(name, v)| match self {
            LossSpec::Output(wanted) => name == wanted,
            _ => dtype(*v) == DType::F32,
        })
    }

    /// Appends the loss; its name, its value, and whether it is a new output.
    pub(super) fn append(
        &self,
        b: &mut Builder,
        outputs: &[(String, ValueId)],
    ) -> Result<(String, ValueId, bool), CompileError> {
        let output = self.output(outputs, |v| b.ty(v).dtype);
        if let LossSpec::Output(name) = self {
            let Some((_, v)) = output else {
                let known: Vec<String> = outputs.iter().map(|(n, _)| format!("`{n}`")).collect();
                let reason = format!("no output is named `{name}`; there are {}", known.join(", "));
                return Err(CompileError::general(reason, "name one, or use cross-entropy or mse"));
            };
            let ty = b.ty(*v);
            if !ty.dtype.is_float() || ty.elements() != 1 {
                let reason = format!("output `{name}` is {ty}, but a loss is one float");
                return Err(CompileError::general(reason, "name a scalar output"));
            }
            return Ok((name.clone(), *v, false));
        }
        let Some((name, scores)) = output else {
            let reason = "the model has no output of f32 to compute a loss from".to_owned();
            return Err(CompileError::general(reason, "name a scalar output as --loss"));
        };
        b.scope = scope("loss", Role::Loss, Component::Loss);
        let ty = b.ty(*scores).clone();
        let loss = match self {
            LossSpec::CrossEntropy { axis, label_smoothing, ignore_index } => {
                let rank = ty.rank() as i64;
                let Some(axis) = (-rank..rank).contains(axis).then(|| axis.rem_euclid(rank)) else {
                    let reason =
                        format!("output `{name}` is {ty} and has no axis {axis} of classes");
                    return Err(CompileError::general(reason, "name a scalar output as --loss"));
                };
                cross_entropy(b, *scores, &ty, axis as usize, *label_smoothing, *ignore_index)
            }
            _ => mean_squared_error(b, *scores, &ty),
        };
        let loss = loss.map_err(|e| CompileError::general(e.to_string(), ""))?;
        Ok(("loss".to_owned(), loss, true))
    }
}

fn cross_entropy(
    b: &mut Builder,
    scores: ValueId,
    ty: &Type,
    axis: usize,
    smoothing: f64,
    ignore: i64,
) -> Result<ValueId, BuildError> {
    let mut batch = ty.shape.clone();
    let classes = batch.remove(axis);
    let rows: usize = batch.iter().product();
    let mut last: Vec<usize> = (0..ty.rank()).filter(|&a| a != axis).collect();
    last.push(axis);
    let scores = b.node(Op::Transpose, &[scores], &one("perm", last.as_slice()))?;
    let labels = b.input("labels", Type::new(DType::I64, batch), None);
    let flat = |shape: &[usize]| -> [(&str, Attr); 1] { one("shape", shape) };
    let scores = b.node(Op::Reshape, &[scores], &flat(&[rows, classes]))?;
    let labels = b.node(Op::Reshape, &[labels], &flat(&[rows]))?;
    let attrs: [(&str, Attr); 2] = [("ignore_index", ignore.into()), ("reduction", "mean".into())];
    let inputs = [Some(scores), Some(labels)];
    if smoothing == 0.0 {
        return Ok(b.node_n(Op::SoftmaxCrossEntropyLoss, &inputs, &attrs, 1)?[0]);
    }
    let both = b.node_n(Op::SoftmaxCrossEntropyLoss, &inputs, &attrs, 2)?;
    let (own, log) = (both[0], both[1]);
    // The mean over classes of −log p, over the rows that count.
    let axes: [(&str, Attr); 2] = [("axes", vec![1i64].into()), ("keepdims", 0i64.into())];
    let mean = b.node(Op::ReduceMean, &[log], &axes)?;
    let ignored = b.scalar(ignore);
    let skipped = b.node(Op::Equal, &[labels, ignored], &[])?;
    let (zero, unit) = (number(b, 0.0), number(b, 1.0));
    let counted = b.node(Op::Where, &[skipped, zero, mean], &[])?;
    let ones = b.node(Op::Where, &[skipped, zero, unit], &[])?;
    let all: [(&str, Attr); 2] = [("axes", vec![0i64].into()), ("keepdims", 0i64.into())];
    let (sum, count) =
        (b.node(Op::ReduceSum, &[counted], &all)?, b.node(Op::ReduceSum, &[ones], &all)?);
    let spread = b.node(Op::Div, &[sum, count], &[])?;
    let (keep, share) = (number(b, 1.0 - smoothing), number(b, smoothing));
    let own = b.node(Op::Mul, &[own, keep], &[])?;
    let spread = b.node(Op::Mul, &[spread, share], &[])?;
    b.node(Op::Sub, &[own, spread], &[])
}

fn mean_squared_error(b: &mut Builder, output: ValueId, ty: &Type) -> Result<ValueId, BuildError> {
    let target = b.input("target", ty.clone(), None);
    let difference = b.node(Op::Sub, &[output, target], &[])?;
    let square = b.node(Op::Mul, &[difference, difference], &[])?;
    b.node(Op::ReduceMean, &[square], &one("keepdims", 0i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading() {
        let plain = LossSpec::CrossEntropy { axis: -1, label_smoothing: 0.0, ignore_index: -100 };
        assert_eq!(LossSpec::parse("cross-entropy"), Ok(plain));
        let smooth = LossSpec::CrossEntropy { axis: 1, label_smoothing: 0.1, ignore_index: 0 };
        let text = "cross-entropy:axis=1,label_smoothing=0.1,ignore_index=0";
        assert_eq!(LossSpec::parse(text), Ok(smooth));
        assert_eq!(LossSpec::parse("total"), Ok(LossSpec::Output("total".to_owned())));
        for bad in [
            "mse:x=1",
            "cross-entropy:label_smoothing=1",
            "cross-entropy:axis=0.5",
            "cross-entropy:smooth=0.1",
        ] {
            assert!(LossSpec::parse(bad).is_err(), "{bad}");
        }
    }
}
