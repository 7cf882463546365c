//! The progress bar.

use super::metrics::{EpochMetrics, Progress, StepMetrics};
use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on stderr with loss and steps per second; one line an epoch.
#[derive(Default)]
pub struct Bar(Option<ProgressBar>);

impl Bar {
    fn say(&self, text: &str) {
        match &self.0 {
            // A bar that is not on a terminal prints nothing; what is said must still be read.
            Some(bar) if !bar.is_hidden() => bar.println(text),
            _ => eprintln!("{text}"),
        }
    }
}

impl Progress for Bar {
    fn start(&mut self, total: usize, done: usize) {
        let bar = ProgressBar::new(total as u64).with_position(done as u64);
        let template = "{bar:30} {pos}/{len} steps  {msg}  {per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        self.0 = Some(bar);
    }

    fn step(&mut self, metrics: &StepMetrics) {
        if let Some(bar) = &self.0 {
            if let Some(loss) = metrics.loss {
                bar.set_message(format!("loss {loss:.4}"));
            }
            bar.inc(1);
        }
    }

    fn epoch(&mut self, m: &EpochMetrics) {
        let number =
            |name: &str, x: Option<f64>| x.map(|x| format!("  {name} {x:.4}")).unwrap_or_default();
        let accuracy = m.test_accuracy.map(|a| format!("  test accuracy {:.1} %", a * 100.0));
        self.say(&format!(
            "epoch {}{}{}{}  {:.2} s",
            m.epoch + 1,
            number("loss", m.train_loss),
            number("test loss", m.test_loss),
            accuracy.unwrap_or_default(),
            m.seconds
        ));
    }

    fn note(&mut self, text: &str) {
        self.say(text);
    }
}
