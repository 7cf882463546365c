//! The commands, one file each.

pub mod audit;
pub mod compare;
pub mod compile;
pub mod diff;
pub mod ops;
pub mod run;
pub mod train;
pub mod verify;

use crate::args::{Device, PolicyArgs, ReportArgs};
use crate::failure::Failure;
use crate::report::json::Report;
use crate::source::Source;
use crate::step::{Step, certified, executor, policy, refutation};
use pam_runtime::Executor;
use pam_runtime::io::write_together;

/// A step on the device asked for, the reports that are asked for written, and the target it was
/// certified for.
fn prepare(
    source: &Source,
    policies: &PolicyArgs,
    reports: &ReportArgs,
    device: &Device,
) -> Result<(Executor, &'static str), Failure> {
    let path = source.path();
    if compile::report_paths(reports).is_empty() {
        let certified = certified(source, policies)?;
        return Ok((executor(path, &certified, device)?, certified.target().name()));
    }
    let step = Step::compile(source, policy(policies)?)?;
    let mut report = Report::of(source, &step, None);
    if let Err(violations) = &step.verdict {
        // What is wrong may be read by scripts.
        write_together(&compile::report_files(reports, &mut report, source, &step)?)?;
        return Err(refutation(path, violations));
    }
    let certified = step.certified(path)?;
    let executor = executor(path, certified, device)?;
    report.audit_kernels();
    if let Some((arch, sources)) = executor.kernels() {
        report.audit_device(arch, sources, device.nvrtc.as_deref());
    }
    write_together(&compile::report_files(reports, &mut report, source, &step)?)?;
    Ok((executor, certified.target().name()))
}
