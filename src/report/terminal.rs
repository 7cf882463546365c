//! The report on one screen.

use super::counts::Count;
use super::grouped;
use super::json::{BeforeAfter, Report};
use pam_ir::role::{Component, Role};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How many ops and rules a line names; the JSON report has all.
const NAMED: usize = 6;

/// The report as text, without what was written where.
pub fn render(report: &Report, parameters: usize, verbose: bool) -> String {
    let mut out = String::new();
    let m = &report.model;
    let _ = writeln!(
        out,
        "{}: {} nodes, opset {}, {} parameters; policy {}{}",
        m.path,
        grouped(m.nodes as u128),
        m.opset,
        grouped(parameters as u128),
        report.policy,
        options(report)
    );
    multiplications(&mut out, report);
    let _ = writeln!(out, "\nops        {}", changes(report, verbose));
    let _ = writeln!(out, "roles      {} ({})", roles(report), report.evidence);
    let _ = writeln!(out, "rewritten  {}", rewrites(report, verbose));
    if let Some(g) = &report.gradients {
        let _ = write!(out, "gradients  {} computed anew, found by {}", g.parameters, g.evidence);
        let _ = match (g.disagreement, &g.worst) {
            (Some(d), Some(p)) => writeln!(out, "; natively within {d:.1e} of the imported ({p})"),
            _ => writeln!(out),
        };
        for name in g.names.iter().filter(|_| verbose) {
            let _ = writeln!(out, "gradient   of {name}");
        }
    }
    let _ = writeln!(out, "folded     {}", report.certificate.constant_folded);
    let (before, after) = (&report.cost.before, &report.cost.after);
    let _ = writeln!(
        out,
        "silicon    {:.3} µJ before, {:.3} µJ after in the products of one step (45 nm)",
        before.energy_uj, after.energy_uj
    );
    if verbose {
        for rule in &report.rules {
            let _ = writeln!(out, "rule       {} decided {} nodes", rule.rule, rule.nodes);
        }
        for native in &report.certificate.native {
            let _ = writeln!(
                out,
                "native     {} ({}, {}): {} scalars",
                native.node,
                native.op,
                native.component,
                grouped(native.scalars.into())
            );
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn options(report: &Report) -> String {
    let mut text = String::new();
    for rule in &report.rules {
        let _ = write!(text, ", {}", rule.rule);
    }
    if report.mantissa < 23 {
        let _ = write!(text, ", mantissa {}", report.mantissa);
    }
    if report.offset != 1.0 {
        let _ = write!(text, ", offset {}", report.offset);
    }
    text
}

fn multiplications(out: &mut String, report: &Report) {
    let row = |out: &mut String, name: &str, before: u64, after: u64| {
        let (before, after) = (grouped(before.into()), grouped(after.into()));
        let _ = writeln!(out, "  {name:<12}{before:>20}{after:>20}");
    };
    let _ = writeln!(out, "\n{:<14}{:>20}{:>20}", "multiplications", "before", "after");
    let by = &report.multiplies.by_component;
    for component in Component::ALL {
        let Some(BeforeAfter { before, after }) = by.get(component.name()) else { continue };
        if before.scalars > 0 || after.scalars > 0 {
            row(out, component.name(), before.scalars, after.scalars);
        }
    }
    let Count { scalars: before, .. } = report.multiplies.before;
    row(out, "total", before, report.multiplies.after.scalars);
    let exact = report.multiplies.exact_scalings;
    if exact.nodes > 0 {
        let scalars = grouped(exact.scalars.into());
        let _ = writeln!(
            out,
            "  {scalars} scalings by powers of two in {} nodes are exact exponent additions",
            exact.nodes
        );
    }
}

/// The ops whose number changed most.
fn changes(report: &Report, verbose: bool) -> String {
    let (before, after) = (&report.census.before, &report.census.after);
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut changes: Vec<(usize, &String, usize, usize)> = names
        .into_iter()
        .map(|n| (n, *before.get(n).unwrap_or(&0), *after.get(n).unwrap_or(&0)))
        .filter(|(_, b, a)| b != a)
        .map(|(n, b, a)| (b.abs_diff(a), n, b, a))
        .collect();
    changes.sort_by(|x, y| y.0.cmp(&x.0).then(x.1.cmp(y.1)));
    let shown = changes.iter().map(|(_, n, b, a)| format!("{n} {b}→{a}"));
    named(shown.collect(), verbose)
}

fn roles(report: &Report) -> String {
    let all = Role::ALL.iter().filter_map(|r| {
        let nodes = report.roles.get(r.name()).filter(|n| **n > 0)?;
        Some(format!("{r} {nodes}"))
    });
    all.collect::<Vec<_>>().join(", ")
}

fn rewrites(report: &Report, verbose: bool) -> String {
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    for r in &report.rewrites {
        *rules.entry(r.rule).or_default() += 1;
    }
    let mut rules: Vec<(&str, usize)> = rules.into_iter().collect();
    rules.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let list = named(rules.iter().map(|(rule, n)| format!("{rule} {n}")).collect(), verbose);
    format!("{} nodes: {list}", report.rewrites.len())
}

fn named(items: Vec<String>, all: bool) -> String {
    let shown = if all { items.len() } else { NAMED.min(items.len()) };
    let mut text = items[..shown].join(", ");
    if shown < items.len() {
        let _ = write!(text, " and {} more", items.len() - shown);
    }
    if text.is_empty() { "none".to_owned() } else { text }
}
