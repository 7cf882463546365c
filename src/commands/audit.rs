//! `pam-compile audit`: what a file, or the kernels, multiply as they stand.

use crate::args::{Audit, Input};
use crate::failure::Failure;
use crate::output::{check_paths, say};
use crate::report::counts::Count;
use crate::report::grouped;
use crate::report::json::{Kernel, NativeReport, SCHEMA, TOOL, ViolationReport, model};
use crate::source::{Source, Tolerance};
use pam_ir::audit::{Audit as Findings, audit as audit_graph, census};
use pam_ir::graph::Node;
use pam_ir::op::Level;
use pam_kernels::audit::{AUDITED_BY, KernelAudit, Kind, audit_self};
use pam_runtime::cuda::audit::audit as audit_sources;
use pam_runtime::cuda::source::sources;
use pam_runtime::io::write_together;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How many nodes of an op are named without `-v`.
const NAMED: usize = 4;

/// Audits models.
pub fn audit(args: &Audit) -> Result<ExitCode, Failure> {
    if args.kernels {
        return kernels(args);
    }
    let input = Input::plain(args.models.clone(), args.dims.clone());
    let inputs: Vec<&Path> = args.models.iter().map(PathBuf::as_path).collect();
    check_paths(&inputs, &args.report.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let source = Source::read(&input, Tolerance { default_dim: Some(1), unknown_ops: true })?;
    let mut findings = audit_graph(&source.graph);
    if let Err(faults) = source.check_functions() {
        // A function that is not what its name says may do anything.
        findings.unknown.extend(faults.into_iter().map(|reason| pam_ir::certify::Violation {
            code: pam_ir::certify::Code::UnknownOp,
            node: "functions of the file".to_owned(),
            op: "pam".to_owned(),
            line: String::new(),
            reason,
        }));
    }
    if let (true, Some(node)) = (findings.is_clean(), undecided(&source)) {
        let dims: Vec<&str> = source.defaulted_dims.iter().map(String::as_str).collect();
        let reason = format!(
            "with sizes of 1, node `{node}` does nothing, or not all that it may do; give the size of {} with --dim",
            dims.join(", ")
        );
        return Err(Failure::file(source.path(), reason));
    }
    if let Some(path) = &args.report {
        write_together(&[(path.clone(), json(&source, &findings)?)])?;
    }
    if !args.volume.quiet {
        print(&source, &findings, args.volume.verbose);
    }
    Ok(if findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A node that may multiply with other sizes than those that were made up for symbolic dimensions.
fn undecided(source: &Source) -> Option<&str> {
    if source.defaulted_dims.is_empty() {
        return None;
    }
    let empty = |n: &&Node| {
        let mut outputs = n.outputs.iter().flatten();
        let multiplies = matches!(n.op.level(), Level::Native | Level::Composite);
        multiplies && outputs.any(|&v| source.graph.ty(v).elements() == 0)
    };
    let empty = source.graph.nodes.iter().find(empty).map(|n| n.name.as_str());
    empty.or(source.left_out.first().map(String::as_str))
}

fn print(source: &Source, findings: &Findings, verbose: bool) {
    let path = source.path().display();
    if !source.defaulted_dims.is_empty() {
        let dims: Vec<&str> = source.defaulted_dims.iter().map(String::as_str).collect();
        eprintln!("{path}: counted with 1 for {}; give sizes with --dim", dims.join(", "));
    }
    source.record().into_iter().for_each(|note| eprintln!("{note}"));
    let mut by_op: BTreeMap<(bool, &str), Vec<(&str, u128)>> = BTreeMap::new();
    for m in &findings.multiplies {
        by_op.entry((!m.float, m.op)).or_default().push((&m.node, m.scalars));
    }
    for ((integer, op), nodes) in &by_op {
        let scalars: u128 = nodes.iter().map(|n| n.1).sum();
        let kind = if *integer { " (integers)" } else { "" };
        say!("{op}{kind}: {} in {}", count(scalars, "scalar"), count(nodes.len() as u128, "node"));
        let shown = if verbose { nodes.len() } else { NAMED };
        for (node, scalars) in nodes.iter().take(shown) {
            say!("  {node}  {}", grouped(*scalars));
        }
        if nodes.len() > shown {
            say!("  … and {} more (-v names all)", nodes.len() - shown);
        }
    }
    for v in &findings.unknown {
        say!("unknown: node `{}` ({}): {}", v.node, v.op, v.reason);
    }
    if findings.fixed > 0 {
        say!(
            "not counted: {} of constant shape arithmetic",
            count(findings.fixed as u128, "integer node")
        );
    }
    if findings.is_clean() {
        say!("{path}: no native multiplication");
    } else {
        let total = findings.total();
        say!(
            "{path}: {} in {}",
            count(total.scalars, "native multiplication"),
            count(total.nodes as u128, "node")
        );
    }
}

fn count(n: u128, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

fn json(source: &Source, findings: &Findings) -> Result<Vec<u8>, Failure> {
    let multiplies: Vec<NativeReport> = findings.multiplies.iter().map(Into::into).collect();
    let unknown: Vec<ViolationReport> = findings.unknown.iter().map(Into::into).collect();
    let report = serde_json::json!({
        "schema": SCHEMA,
        "model": model(source),
        "census": { "before": census(&source.graph) },
        "multiplies": { "before": Count::from(findings.total()), "nodes": multiplies },
        "unknown": unknown,
        "tool": TOOL,
    });
    let mut bytes = serde_json::to_vec_pretty(&report).map_err(|e| Failure::new(e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Audits the machine code of the kernels.
fn kernels(args: &Audit) -> Result<ExitCode, Failure> {
    let (kernels, auditor) = match args.device.as_str() {
        "cpu" => (audit_self().map_err(|e| Failure::new(e.to_string()))?, AUDITED_BY.to_owned()),
        "cuda" => audit_sources(&sources(), &args.arch, args.nvrtc.as_deref())
            .map_err(|e| Failure::new(format!("audit --kernels --device cuda: {e}")))?,
        other => {
            let reason = "there are no kernels for it; use cpu or cuda";
            return Err(Failure::new(format!("audit --kernels --device {other}: {reason}")));
        }
    };
    let backend = match args.device.as_str() {
        "cuda" => format!("cuda {}", args.arch),
        other => other.to_owned(),
    };
    if let Some(path) = &args.report {
        let report = serde_json::json!({
            "schema": SCHEMA,
            "kernels": kernels.iter().map(|k| Kernel::of(k, &backend, &auditor)).collect::<Vec<_>>(),
            "tool": TOOL,
        });
        let mut bytes =
            serde_json::to_vec_pretty(&report).map_err(|e| Failure::new(e.to_string()))?;
        bytes.push(b'\n');
        write_together(&[(path.clone(), bytes)])?;
    }
    let clean = kernels.iter().all(KernelAudit::is_clean);
    if !args.volume.quiet {
        print_kernels(&kernels, &auditor, args.volume.verbose);
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn print_kernels(kernels: &[KernelAudit], auditor: &str, verbose: bool) {
    say!("{:>12}{:>8}{:>10}  kernel", "instructions", "floats", "integers");
    for k in kernels {
        let (floats, integers) = (k.float_multiplies(), k.integer_multiplies());
        say!("{:>12}{floats:>8}{integers:>10}  {}", k.instructions, k.name);
        let listed = k.findings.iter().filter(|f| verbose || f.kind != Kind::ScalarIntegerMultiply);
        for f in listed {
            say!("{:>30}  {:#x}: {} ({:?})", "", f.address, f.text, f.kind);
        }
    }
    let instructions: usize = kernels.iter().map(|k| k.instructions).sum();
    let floats: usize = kernels.iter().map(KernelAudit::float_multiplies).sum();
    let vectors: usize = kernels.iter().map(|k| k.count(Kind::VectorIntegerMultiply)).sum();
    let scalars: usize = kernels.iter().map(|k| k.count(Kind::ScalarIntegerMultiply)).sum();
    say!(
        "{} kernels, {} instructions: {floats} multiply or divide floats, {vectors} vectors of \
         integers, {scalars} scalar integers (addresses); {auditor}",
        kernels.len(),
        grouped(instructions as u128)
    );
}
