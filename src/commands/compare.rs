//! `pam-compile compare`: rewritten against native, output by output.

use crate::args::{Compare, Engine};
use crate::failure::Failure;
use crate::output::say;
use crate::source::{Source, Tolerance, input_values};
use crate::step::{certified, executor, native};
use pam_ir::tensor::Tensor;
use std::path::Path;
use std::process::ExitCode;

/// Runs both and prints the relative error of each output.
pub fn compare(args: &Compare) -> Result<ExitCode, Failure> {
    let values = input_values(args.inputs.as_ref())?;
    let source = Source::read_for(&args.input, Tolerance::default(), &values)?;
    let path = source.path();
    if source.stated_target().is_some() {
        let reason = "is compiled already; compare its source, which can still be run natively";
        return Err(Failure::file(path, reason));
    }
    let named = args.inputs.as_deref().unwrap_or(path);
    let reference = match args.engine {
        Engine::Runtime => {
            let mut executor = executor(path, &native(&source)?, &args.device)?;
            executor.run(&values).map_err(|e| Failure::file(named, e))?
        }
        Engine::Tract => tract(&source, &values)?,
    };
    let mut executor = executor(path, &certified(&source, &args.policy)?, &args.device)?;
    let rewritten = executor.run(&values).map_err(|e| Failure::file(named, e))?;
    let width = rewritten.iter().map(|(n, _)| n.chars().count()).max().unwrap_or(0).max(6);
    if !args.volume.quiet {
        say!("{:<width$}  {:>12}  {:>12}  {:>12}", "output", "relative", "largest", "mean");
    }
    for (name, tensor) in &rewritten {
        let Some((_, other)) = reference.iter().find(|(n, _)| n == name) else { continue };
        let text = match Error::between(tensor, other) {
            Some(e) => format!("{:>12.3e}  {:>12.3e}  {:>12.3e}", e.relative, e.largest, e.mean),
            None if tensor == other => format!("{:>12}", "equal"),
            None => format!("{:>12}", "different"),
        };
        say!("{name:<width$}  {text}");
    }
    Ok(ExitCode::SUCCESS)
}

/// How far a float output is from its reference.
struct Error {
    /// Root of the summed squares of the differences over that of the reference.
    relative: f64,
    /// Largest difference over the largest magnitude of the reference.
    largest: f64,
    /// Mean difference, with its sign, over the mean magnitude of the reference.
    mean: f64,
}

impl Error {
    fn between(a: &Tensor, b: &Tensor) -> Option<Error> {
        if !a.dtype().is_float() || a.ty() != b.ty() {
            return None;
        }
        let (a, b) = (a.to_f64()?, b.to_f64()?);
        // Equal infinities and NaNs on both sides are no difference.
        let gap = |x: f64, y: f64| if x == y || x.is_nan() && y.is_nan() { 0.0 } else { x - y };
        let gaps = || a.iter().zip(&b).map(|(&x, &y)| gap(x, y));
        let ratio = |x: f64, y: f64| if x == 0.0 { 0.0 } else { x / y };
        let sum = |x: f64, y: f64| x + y;
        let finite = || b.iter().copied().filter(|x| x.is_finite());
        Some(Error {
            relative: ratio(
                gaps().map(|d| d * d).fold(0.0, sum).sqrt(),
                finite().map(|x| x * x).fold(0.0, sum).sqrt(),
            ),
            largest: ratio(
                gaps().map(f64::abs).fold(0.0, f64::max),
                finite().map(f64::abs).fold(0.0, f64::max),
            ),
            mean: ratio(gaps().fold(0.0, sum), finite().map(f64::abs).fold(0.0, sum)),
        })
    }
}

#[cfg(feature = "tract")]
fn tract(source: &Source, values: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, Failure> {
    let path: &Path = source.path();
    if source.files.len() > 1 {
        return Err(Failure::file(path, "tract runs one model; compare with --engine runtime"));
    }
    let bytes = crate::source::read_bytes(path)?;
    pam_runtime::engine::tract::run(path, &bytes, values).map_err(|e| Failure::new(e.to_string()))
}

#[cfg(not(feature = "tract"))]
fn tract(source: &Source, _: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, Failure> {
    let reason = "this build has no tract; build with --features tract or use --engine runtime";
    Err(Failure::file(source.path(), reason))
}
