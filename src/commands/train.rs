//! `pam-compile train`: the training loop.

use super::compile::report_paths;
use super::prepare;
use crate::args::{Course, Train};
use crate::failure::Failure;
use crate::output::{check_paths, say};
use crate::source::{Source, Tolerance};
use pam_runtime::train::{
    Bar, Dataset, Progress, Schedule, Shape, Silent, TrainError, TrainOptions,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Trains a step on data.
pub fn train(args: &Train) -> Result<ExitCode, Failure> {
    let state = args.state.clone().unwrap_or_else(|| {
        let stem = args.input.models[0].file_stem().unwrap_or_default().to_string_lossy();
        PathBuf::from(format!("{stem}.state.safetensors"))
    });
    let inputs = args.input.models.iter().chain(&args.input.inits).chain([&args.data]);
    let inputs: Vec<&Path> = inputs.map(PathBuf::as_path).collect();
    let mut outputs = report_paths(&args.report);
    outputs.extend(args.metrics.as_deref());
    outputs.push(&state);
    check_paths(&inputs, &outputs)?;

    let source =
        Source::read(&args.input, Tolerance { default_dim: args.batch_size, unknown_ops: false })?;
    let path = source.path();
    if source.defaulted_dims.len() > 1 {
        let dims: Vec<&str> = source.defaulted_dims.iter().map(String::as_str).collect();
        let reason =
            format!("has the symbolic dimensions {}; give each with --dim", dims.join(", "));
        return Err(Failure::file(path, reason));
    }
    let (mut executor, target) = prepare(&source, &args.policy, &args.report, &args.device)?;
    if executor.plan().inputs.iter().all(|i| i.bound_to.is_none()) {
        let reason = "carries no state from step to step, so nothing is trained; bind outputs to \
                      inputs with --bind OUT=IN";
        return Err(Failure::file(path, reason));
    }
    let data = Dataset::read(&args.data)?;
    let is_input = |name: &&str| executor.plan().inputs.iter().any(|i| i.name == *name);
    if let Some(name) = args.lr_input.as_ref().filter(|n| !is_input(&n.as_str())) {
        let single = executor.plan().inputs.iter().filter(|i| i.ty.elements() == 1);
        let single: Vec<String> = single.take(5).map(|i| format!("`{}`", i.name)).collect();
        let reason = format!(
            "--lr-input {name}: there is no such input; single numbers are {}",
            single.join(", ")
        );
        return Err(Failure::file(path, reason));
    }
    let lr_input = args.lr_input.clone().unwrap_or_else(|| {
        ["lr", "learning_rate"].into_iter().find(is_input).unwrap_or("lr").to_owned()
    });
    let options = TrainOptions {
        epochs: args.epochs,
        batch_size: args.batch_size,
        lr: args.lr,
        schedule: Schedule {
            shape: match args.schedule {
                Course::Constant => Shape::Constant,
                Course::Cosine => Shape::Cosine,
            },
            warmup: args.warmup,
        },
        lr_input,
        seed: args.seed,
        loss: args.loss_output.clone(),
        logits: args.logits_output.clone(),
        metrics: args.metrics.clone(),
        state: Some(state.clone()),
        save_every: args.save_every,
        resume: args.resume.clone(),
        stop_after: args.stop_after,
    };
    let quiet = args.report.volume.quiet;
    let mut progress: Box<dyn Progress> =
        if quiet { Box::new(Silent) } else { Box::new(Bar::default()) };
    let summary = pam_runtime::train::train(&mut executor, &data, &options, progress.as_mut())
        .map_err(|e| match e {
            TrainError::Data(_) => Failure::file(&args.data, e),
            TrainError::Run(_) => Failure::file(path, e),
            TrainError::Io(_) | TrainError::Option(_) => Failure::new(e.to_string()),
        })?;
    if !quiet {
        let number = |name: &str, x: Option<f64>| x.map(|x| format!(", {name} {x:.4}"));
        let epoch = summary.epoch.as_ref();
        let accuracy = epoch.and_then(|e| e.test_accuracy);
        say!(
            "{target}: {} steps{}{}; state in {}",
            summary.steps,
            number("loss", epoch.and_then(|e| e.train_loss).or(summary.loss)).unwrap_or_default(),
            accuracy.map(|a| format!(", test accuracy {:.1} %", a * 100.0)).unwrap_or_default(),
            state.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}
