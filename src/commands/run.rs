//! `pam-compile run`: execute once.

use super::compile::report_paths;
use super::prepare;
use crate::args::Run;
use crate::failure::Failure;
use crate::output::{check_paths, say};
use crate::source::{Source, Tolerance, input_values};
use pam_runtime::io::npz;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Executes a step once and writes its outputs.
pub fn run(args: &Run) -> Result<ExitCode, Failure> {
    let inputs = args.input.models.iter().chain(&args.inputs).chain(&args.input.inits);
    let inputs: Vec<&Path> = inputs.map(PathBuf::as_path).collect();
    let reports = report_paths(&args.report);
    check_paths(&inputs, &[&[args.outputs.as_path()], &reports[..]].concat())?;
    let values = input_values(args.inputs.as_ref())?;
    let source = Source::read_for(&args.input, Tolerance::default(), &values)?;
    let path = source.path();
    let (mut executor, target) = prepare(&source, &args.policy, &args.report, &args.device)?;
    let named = args.inputs.as_deref().unwrap_or(path);
    let outputs = executor.run(&values).map_err(|e| Failure::file(named, e))?;
    npz::write(&args.outputs, &outputs)?;
    if args.report.volume.verbose {
        let report = executor.plan().report;
        eprintln!(
            "{}: {} steps, {} bytes of intermediate values, {} of state, {} threads",
            path.display(),
            executor.plan().steps(),
            report.arena,
            report.state,
            executor.threads()
        );
    }
    if !args.report.volume.quiet {
        let n = outputs.len();
        say!("certified {target}, executed, wrote {n} outputs to {}", args.outputs.display());
    }
    Ok(ExitCode::SUCCESS)
}
