//! What is measured, where it goes, and how predictions are judged.

use crate::error::IoError;
use pam_ir::tensor::Tensor;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepMetrics {
    /// Steps so far, this one included.
    pub step: usize,
    /// The epoch, counted from 0.
    pub epoch: usize,
    /// The loss, if the step has one.
    pub loss: Option<f64>,
    /// The learning rate, if the step takes one.
    pub lr: Option<f32>,
    /// Steps a second, from this one.
    pub steps_per_second: f64,
}

/// The end of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochMetrics {
    /// The epoch, counted from 0.
    pub epoch: usize,
    /// Steps so far.
    pub step: usize,
    /// Mean loss of the epoch's steps.
    pub train_loss: Option<f64>,
    /// Mean loss over the whole batches of the test data.
    pub test_loss: Option<f64>,
    /// Share of right predictions over the test data.
    pub test_accuracy: Option<f64>,
    /// Duration of the epoch's steps.
    pub seconds: f64,
}

/// Who watches.
pub trait Progress {
    /// Training begins: so many steps in all, so many of them done before.
    fn start(&mut self, total: usize, done: usize);
    /// A step is done.
    fn step(&mut self, metrics: &StepMetrics);
    /// An epoch is done.
    fn epoch(&mut self, metrics: &EpochMetrics);
    /// Something worth saying once.
    fn note(&mut self, text: &str);
}

/// Nobody watches.
pub struct Silent;

impl Progress for Silent {
    fn start(&mut self, _: usize, _: usize) {}
    fn step(&mut self, _: &StepMetrics) {}
    fn epoch(&mut self, _: &EpochMetrics) {}
    fn note(&mut self, _: &str) {}
}

/// The file of metrics: one JSON object a line, each written at once. Steps have a `loss`, epochs
/// a `train_loss`; a loss that is no number is `null`.
pub(super) struct Log(Option<(PathBuf, File)>);

impl Log {
    /// Opens the file, anew or behind what is there.
    pub(super) fn open(path: Option<&Path>, append: bool) -> Result<Log, IoError> {
        let Some(path) = path else { return Ok(Log(None)) };
        let mut options = File::options();
        options.create(true).write(true).append(append).truncate(!append);
        match options.open(path) {
            Ok(file) => Ok(Log(Some((path.to_owned(), file)))),
            Err(source) => Err(IoError::File { path: path.to_owned(), source }),
        }
    }

    pub(super) fn write(&mut self, line: &impl Serialize) -> Result<(), IoError> {
        let Some((path, file)) = &mut self.0 else { return Ok(()) };
        let written = serde_json::to_string(line).map_err(std::io::Error::other);
        let written = written.and_then(|line| file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(|source| IoError::File { path: path.clone(), source })
    }
}

/// The axis of logits along which the classes lie, given the shape of the labels.
pub(super) fn class_axis(logits: &[usize], labels: &[usize]) -> Option<usize> {
    if logits.len() != labels.len() + 1 {
        return None;
    }
    let fits =
        |axis: usize| logits[..axis] == labels[..axis] && logits[axis + 1..] == labels[axis..];
    let last = labels.len();
    [last, 1].into_iter().find(|&axis| axis <= last && logits[axis] > 1 && fits(axis))
}

/// How many of the first samples of a batch are predicted right: the largest logit is the label's.
pub(super) fn right(logits: &Tensor, labels: &[i64], batch: usize) -> usize {
    let Some(x) = logits.slice::<f32>() else { return 0 };
    let shape = logits.shape();
    // Labels lie in the order of the logits without their class axis.
    let total: usize = x.len() / shape.last().copied().unwrap_or(1).max(1);
    let last = shape.len() <= 2 || total / batch.max(1) == labels.len() / batch.max(1);
    let axis = if last { shape.len() - 1 } else { 1 };
    let (classes, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let judge = |(i, &label): (usize, &i64)| {
        let at = |c: usize| x[(i / inner * classes + c) * inner + i % inner];
        let best = (1..classes).fold(0, |b, c| if at(c) > at(b) { c } else { b });
        usize::try_from(label) == Ok(best)
    };
    labels.iter().enumerate().filter(|&l| judge(l)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_are_judged_along_the_class_axis() {
        assert_eq!(class_axis(&[4, 10], &[4]), Some(1));
        assert_eq!(class_axis(&[4, 7, 10], &[4, 7]), Some(2));
        assert_eq!(class_axis(&[4, 10, 7], &[4, 7]), Some(1));
        assert_eq!(class_axis(&[4], &[4]), None);
        let logits = Tensor::new([2, 3], vec![0.0f32, 2.0, 1.0, 5.0, -1.0, 0.0]);
        assert_eq!(right(&logits, &[1, 0], 2), 2);
        assert_eq!(right(&logits, &[1, 1], 2), 1);
        assert_eq!(right(&logits, &[1], 2), 1);
    }
}
