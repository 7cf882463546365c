//! `pam-compile run`: execute once.

use super::compile::{report_files, report_paths};
use crate::args::Run;
use crate::failure::Failure;
use crate::output::{check_paths, say};
use crate::report::json::Report;
use crate::source::{Source, Tolerance, input_values};
use crate::step::{Step, certified, executor, policy, refutation};
use pam_runtime::io::{npz, write_together};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Executes a step once and writes its outputs.
pub fn run(args: &Run) -> Result<ExitCode, Failure> {
    let inputs = args.input.models.iter().chain(&args.inputs).chain(&args.input.inits);
    let inputs: Vec<&Path> = inputs.map(PathBuf::as_path).collect();
    let reports = report_paths(&args.report);
    check_paths(&inputs, &[&[args.outputs.as_path()], &reports[..]].concat())?;
    let source = Source::read(&args.input, Tolerance::default())?;
    let path = source.path();
    let certified = if reports.is_empty() {
        certified(&source, &args.policy)?
    } else {
        let step = Step::compile(&source, policy(&args.policy)?)?;
        let mut report = Report::of(&source, &step, None);
        let files = report_files(&args.report, &mut report, &source, &step)?;
        if let Err(violations) = &step.verdict {
            write_together(&files)?;
            return Err(refutation(path, violations));
        }
        write_together(&files)?;
        step.certified(path)?
    };
    let target = certified.target().name();
    let mut executor = executor(path, certified, &args.device)?;
    let values = input_values(args.inputs.as_ref())?;
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
