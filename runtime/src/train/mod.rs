//! The training loop: feeds batches to a step, carries its state, measures and saves.
//!
//! A step is any graph with state bindings. Its inputs without default are the batch; an input `lr`
//! (or another, by option) takes the learning rate of the schedule. What the loop computes itself
//! (the schedule, means of losses, accuracy) is arithmetic of the host, not of the step.
//!
//! Everything that decides the result is a function of the seed, the epoch and the step, so that a
//! run that was interrupted and resumed gives the same bits as one that was not.

mod bar;
mod checkpoint;
mod data;
mod metrics;
mod places;
mod schedule;

pub use bar::Bar;
pub use data::Dataset;
pub use metrics::{EpochMetrics, Progress, Silent, StepMetrics};
pub use schedule::{Schedule, Shape};

use crate::error::{IoError, RunError};
use crate::exec::{Executor, data_bytes};
use checkpoint::Position;
use data::Feeds;
use metrics::Log;
use pam_ir::tensor::Tensor;
use pam_kernels::random::threefry;
use places::{learning_rate, logits_output, loss_output, step_count};
use std::path::PathBuf;
use std::time::Instant;

/// Why training cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The step cannot run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The data does not fit the step.
    #[error("data: {0}")]
    Data(String),
    /// An option does not fit the step.
    #[error("{0}")]
    Option(String),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Passes over the training data.
    pub epochs: usize,
    /// Samples a step; must be what the step was exported for.
    pub batch_size: Option<usize>,
    /// The largest learning rate; the default of the step's input if not given.
    pub lr: Option<f64>,
    /// How the learning rate goes.
    pub schedule: Schedule,
    /// The input that takes the learning rate.
    pub lr_input: String,
    /// Seed of the shuffling.
    pub seed: u64,
    /// The output that holds the loss; `loss`, or the only scalar, if not given.
    pub loss: Option<String>,
    /// The output whose largest element is the prediction; `logits`, or the only one that fits the
    /// labels, if not given.
    pub logits: Option<String>,
    /// Where to write metrics, one JSON object a line.
    pub metrics: Option<PathBuf>,
    /// Where to write the state after the last step, and after every epoch.
    pub state: Option<PathBuf>,
    /// Also write the state every so many steps.
    pub save_every: Option<usize>,
    /// A state to go on from.
    pub resume: Option<PathBuf>,
    /// Stop after so many steps in all, as if interrupted there.
    pub stop_after: Option<usize>,
}

impl Default for TrainOptions {
    fn default() -> TrainOptions {
        TrainOptions {
            epochs: 1,
            batch_size: None,
            lr: None,
            schedule: Schedule::default(),
            lr_input: "lr".to_owned(),
            seed: 0,
            loss: None,
            logits: None,
            metrics: None,
            state: None,
            save_every: None,
            resume: None,
            stop_after: None,
        }
    }
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Steps run in all, those before a resumption included.
    pub steps: usize,
    /// Loss of the last step.
    pub loss: Option<f64>,
    /// Metrics of the last epoch, if it is whole.
    pub epoch: Option<EpochMetrics>,
}

/// Trains.
///
/// # Errors
/// Where the data, an option or the state to resume from does not fit the step, the step cannot
/// run, or a file cannot be written.
pub fn train(
    executor: &mut Executor,
    data: &Dataset,
    options: &TrainOptions,
    progress: &mut dyn Progress,
) -> Result<Summary, TrainError> {
    let lr = learning_rate(executor, options)?;
    let feeds = Feeds::new(executor, data, &options.lr_input)?;
    Training::new(executor, feeds, options, lr)?.train(progress)
}

struct Training<'a> {
    executor: &'a mut Executor,
    feeds: Feeds,
    options: &'a TrainOptions,
    lr: Option<(usize, f64)>,
    /// The input that counts the steps.
    count: Option<usize>,
    loss: Option<String>,
    logits: Option<String>,
    log: Log,
    at: Position,
    /// Whether the batch of the next step has been fed.
    fed: bool,
}

impl<'a> Training<'a> {
    fn new(
        executor: &'a mut Executor,
        feeds: Feeds,
        options: &'a TrainOptions,
        lr: Option<(usize, f64)>,
    ) -> Result<Training<'a>, TrainError> {
        let batch = feeds.batch;
        if let Some(asked) = options.batch_size.filter(|&b| b != batch) {
            return Err(TrainError::Option(format!(
                "--batch-size {asked}, but the step was exported for batches of {batch}; use \
                 --batch-size {batch}, or --dim where its batch dimension has a name"
            )));
        }
        if feeds.samples < batch {
            let samples = feeds.samples;
            let reason = format!("{samples} training samples are less than a batch of {batch}");
            return Err(TrainError::Data(reason));
        }
        let mut at = Position::start(options.seed, batch);
        if let Some(path) = &options.resume {
            at = checkpoint::load(path, executor, at)?;
        }
        let log = Log::open(options.metrics.as_deref(), options.resume.is_some())?;
        let loss = loss_output(executor, options)?;
        let logits = logits_output(executor, options, &feeds)?;
        let count = step_count(executor, &feeds);
        Ok(Training { executor, feeds, options, lr, count, loss, logits, log, at, fed: false })
    }

    fn train(&mut self, progress: &mut dyn Progress) -> Result<Summary, TrainError> {
        let batches = self.feeds.samples / self.feeds.batch;
        let total = batches * self.options.epochs;
        let dropped = self.feeds.samples % self.feeds.batch;
        progress.start(total, self.at.step);
        if dropped > 0 {
            let samples = self.feeds.samples;
            progress.note(&format!(
                "{samples} samples make {batches} batches; the {dropped} left over are dropped \
                 (others after each shuffle)"
            ));
        }
        let mut summary = Summary { steps: self.at.step, ..Summary::default() };
        while self.at.epoch < self.options.epochs {
            let began = Instant::now();
            let order = shuffle(self.feeds.samples, self.options.seed, self.at.epoch);
            while self.at.batch < batches {
                if self.options.stop_after.is_some_and(|stop| self.at.step >= stop) {
                    self.save()?;
                    return Ok(summary);
                }
                let mut chosen = order.chunks_exact(self.feeds.batch).skip(self.at.batch);
                let now = chosen.next().unwrap_or_default();
                summary.loss = self.step(now, chosen.next(), total, progress)?;
                summary.steps = self.at.step;
                summary.epoch = None;
                let every = self.options.save_every.filter(|&n| n > 0);
                if every.is_some_and(|n| self.at.step.is_multiple_of(n)) {
                    self.save()?;
                }
            }
            let epoch = self.end_epoch(batches, began)?;
            progress.epoch(&epoch);
            summary.epoch = Some(epoch);
            self.save()?;
        }
        Ok(summary)
    }

    fn step(
        &mut self,
        chosen: &[u32],
        next: Option<&[u32]>,
        total: usize,
        progress: &mut dyn Progress,
    ) -> Result<Option<f64>, TrainError> {
        let began = Instant::now();
        if !std::mem::take(&mut self.fed) {
            self.feeds.feed(self.executor, chosen, false)?;
        }
        let lr = self.lr.map(|(input, peak)| {
            let lr = (peak * self.options.schedule.factor(self.at.step, total)) as f32;
            self.executor.feed(input, |bytes| bytes.copy_from_slice(&lr.to_ne_bytes()))?;
            Ok::<f32, RunError>(lr)
        });
        let lr = lr.transpose()?;
        if let Some(input) = self.count {
            let count = self.at.step as i64;
            self.executor.feed(input, |bytes| bytes.copy_from_slice(&count.to_ne_bytes()))?;
        }
        self.executor.step()?;
        // A device takes the next batch while it computes.
        if let Some(next) = next {
            self.feeds.feed(self.executor, next, false)?;
            self.fed = true;
        }
        let loss = self.loss()?;
        self.at.step += 1;
        self.at.batch += 1;
        self.at.losses += loss.unwrap_or(0.0);
        let metrics = StepMetrics {
            step: self.at.step,
            epoch: self.at.epoch,
            loss,
            lr,
            steps_per_second: 1.0 / began.elapsed().as_secs_f64().max(1e-9),
        };
        if loss.is_some_and(f64::is_nan) && !self.at.nan {
            self.at.nan = true;
            progress.note(&format!("the loss is NaN at step {}", self.at.step));
        }
        self.log.write(&metrics)?;
        progress.step(&metrics);
        Ok(loss)
    }

    fn end_epoch(&mut self, batches: usize, began: Instant) -> Result<EpochMetrics, TrainError> {
        let seconds = began.elapsed().as_secs_f64();
        let (test_loss, test_accuracy) = self.test()?;
        let epoch = EpochMetrics {
            epoch: self.at.epoch,
            step: self.at.step,
            train_loss: self.loss.as_ref().map(|_| self.at.losses / batches as f64),
            test_loss,
            test_accuracy,
            seconds,
        };
        self.log.write(&epoch)?;
        self.at.epoch += 1;
        (self.at.batch, self.at.losses) = (0, 0.0);
        Ok(epoch)
    }

    /// Loss and accuracy over the test data, the state left alone. The last batch is filled up
    /// with samples from the beginning, which are not counted; its loss is left out.
    fn test(&mut self) -> Result<(Option<f64>, Option<f64>), TrainError> {
        let (samples, batch) = (self.feeds.test_samples, self.feeds.batch);
        if samples == 0 {
            return Ok((None, None));
        }
        let (mut losses, mut whole, mut right) = (0.0, 0, 0);
        for start in (0..samples).step_by(batch) {
            let chosen: Vec<u32> = (start..start + batch).map(|i| (i % samples) as u32).collect();
            self.feeds.feed(self.executor, &chosen, true)?;
            self.executor.evaluate()?;
            let counted = batch.min(samples - start);
            if counted == batch {
                losses += self.loss()?.unwrap_or(0.0);
                whole += 1;
            }
            if let (Some(name), Some(labels)) = (&self.logits, self.feeds.labels(&chosen)) {
                let logits = self.executor.output(name)?;
                let per_sample = labels.len() / batch;
                right += metrics::right(&logits, &labels[..counted * per_sample], batch);
            }
        }
        let loss = self.loss.as_ref().filter(|_| whole > 0).map(|_| losses / f64::from(whole));
        let targets = self.feeds.labels_per_sample() * samples;
        let accuracy = self.logits.as_ref().map(|_| right as f64 / targets as f64);
        Ok((loss, accuracy))
    }

    fn loss(&self) -> Result<Option<f64>, TrainError> {
        match &self.loss {
            Some(name) => Ok(self.executor.output(name)?.as_scalar_f64()),
            None => Ok(None),
        }
    }

    fn save(&self) -> Result<(), TrainError> {
        match &self.options.state {
            Some(path) => Ok(checkpoint::save(path, self.executor, &self.at)?),
            None => Ok(()),
        }
    }
}

/// The order of the samples in an epoch: sorted by random words, so that no multiplication and no
/// state is involved.
fn shuffle(samples: usize, seed: u64, epoch: usize) -> Vec<u32> {
    let key = [seed as u32, (seed >> 32) as u32];
    let mut order: Vec<([u32; 2], u32)> =
        (0..samples as u32).map(|i| (threefry(key, [epoch as u32, i]), i)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, i)| i).collect()
}

/// Copies the chosen rows of a tensor.
fn rows(tensor: &Tensor, chosen: &[u32], out: &mut [u8]) {
    let size = out.len() / chosen.len().max(1);
    if size > 0 {
        let data = data_bytes(tensor);
        for (to, &i) in out.chunks_mut(size).zip(chosen) {
            to.copy_from_slice(&data[i as usize * size..][..size]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_is_a_permutation_that_depends_on_seed_and_epoch() {
        let order = shuffle(1000, 7, 3);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, &x)| i == x as usize));
        assert_eq!(order, shuffle(1000, 7, 3));
        assert_ne!(order, shuffle(1000, 7, 4));
        assert_ne!(order, shuffle(1000, 8, 3));
        assert_ne!(order, sorted);
    }
}
