//! `pam-compile MODEL.onnx…`: rewrite, certify, write.

use crate::args::{Compile, ReportArgs};
use crate::failure::Failure;
use crate::output::{check_paths, say, written};
use crate::report::json::Report;
use crate::report::{html, terminal};
use crate::source::{FOLDED, POLICY, Source, Tolerance};
use crate::step::{Step, folded_text, parameters, policy, refutation};
use pam_ir::onnx::external::sha256_hex;
use pam_runtime::io::write_together;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Compiles models into one certified model.
pub fn compile(args: &Compile) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let first = &args.input.models[0];
    let path = args.output.clone().unwrap_or_else(|| first.with_extension("pam.onnx"));
    let reports = report_paths(&args.report);
    let inputs: Vec<&Path> =
        args.input.models.iter().chain(&args.input.inits).map(PathBuf::as_path).collect();
    check_paths(&inputs, &[&[path.as_path()], &reports[..]].concat())?;
    let policy = policy(&args.policy)?;
    let source = Source::read(&args.input, Tolerance::default())?;
    let step = Step::compile(&source, policy)?;
    step.warn(source.path());
    let certified = match &step.verdict {
        Ok(certified) => certified,
        Err(violations) => {
            // The model is not written, but what is wrong with it may be read by scripts.
            let mut report = Report::of(&source, &step, None);
            write_together(&report_files(&args.report, &mut report, &source, &step)?)?;
            return Err(refutation(first, violations));
        }
    };
    let stated = [(POLICY, step.policy.name.clone()), (FOLDED, folded_text(&step.compiled))];
    let output = written(&source, certified, &stated, &path)?;
    let mut report = Report::of(&source, &step, Some(sha256_hex(&output.model)));
    let mut files = report_files(&args.report, &mut report, &source, &step)?;
    let bytes = output.model.len() + output.data.as_ref().map_or(0, |(_, d)| d.len());
    files.extend(output.data);
    files.push((path.clone(), output.model));
    write_together(&files)?;
    if !args.report.volume.quiet {
        let parameters = parameters(&source.graph);
        say!("{}", terminal::render(&report, parameters, args.report.volume.verbose));
        say!("\ncertified  {}", certified.target().name());
        say!("wrote      {} ({bytes} bytes) in {:.2?}", path.display(), began.elapsed());
    }
    Ok(ExitCode::SUCCESS)
}

/// Where reports are asked for.
pub fn report_paths(args: &ReportArgs) -> Vec<&Path> {
    args.report.iter().chain(&args.html).map(PathBuf::as_path).collect()
}

/// The report files that are asked for; what is written is completed by the audit of the kernels.
pub fn report_files(
    args: &ReportArgs,
    report: &mut Report,
    source: &Source,
    step: &Step,
) -> Result<Vec<(PathBuf, Vec<u8>)>, Failure> {
    let mut files = Vec::new();
    if report_paths(args).is_empty() {
        return Ok(files);
    }
    if report.kernels.is_empty() {
        report.audit_kernels();
    }
    if let Some(path) = &args.report {
        let mut json = serde_json::to_vec_pretty(report).map_err(|e| Failure::file(path, e))?;
        json.push(b'\n');
        files.push((path.clone(), json));
    }
    if let Some(path) = &args.html {
        files.push((path.clone(), html::page(report, source, step).into_bytes()));
    }
    Ok(files)
}
