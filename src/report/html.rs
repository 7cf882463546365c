//! The report as one self-contained page: no script, no font, no network.

use super::changes::{Change, changes};
use super::grouped;
use super::json::Report;
use crate::source::Source;
use crate::step::Step;
use pam_ir::graph::Graph;
use pam_ir::role::Component;
use std::collections::BTreeSet;
use std::fmt::Write;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--soft:#8881}\
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
table{border-collapse:collapse;width:100%}td,th{padding:.2rem .6rem;border-bottom:1px solid var(--line);text-align:left}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
pre{margin:.2rem 0;padding:.4rem .6rem;background:var(--soft);overflow-x:auto;font:13px/1.4 ui-monospace,monospace}\
summary{cursor:pointer;padding:.1rem 0}.rule{color:#777}.before{border-left:3px solid #c33}.after{border-left:3px solid #393}\
.holds{color:#282;font-weight:600}.broken{color:#c22;font-weight:600}";

/// The page.
pub fn page(report: &Report, source: &Source, step: &Step) -> String {
    let mut out = String::new();
    let title = escape(&format!("{} under {}", report.model.path, report.policy));
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    summary(&mut out, report);
    multiplications(&mut out, report);
    census(&mut out, report);
    let empty = Graph::default();
    let after = step.verdict.as_ref().map_or(&empty, |c| c.graph());
    nodes(&mut out, &changes(&source.graph, after));
    kernels(&mut out, report);
    certificate(&mut out, report);
    out.push_str("</html>\n");
    out
}

fn summary(out: &mut String, report: &Report) {
    let c = &report.certificate;
    let (class, word) = if c.holds { ("holds", "certified") } else { ("broken", "not certified") };
    let roles: Vec<String> = report.roles.iter().map(|(r, n)| format!("{r} {n}")).collect();
    let cost = &report.cost;
    let _ = write!(
        out,
        "<p><span class={class}>{word}</span> {}. {} nodes, opset {}, {}. Roles from {}: {}. \
         {} nodes rewritten; folded {}.</p>\n\
         <p>Energy of the products of one step: {:.3} µJ before, {:.3} µJ after ({}).</p>\n",
        c.target,
        grouped(report.model.nodes as u128),
        report.model.opset,
        escape(&report.model.producer),
        report.evidence,
        roles.join(", "),
        report.rewrites.len(),
        c.constant_folded,
        cost.before.energy_uj,
        cost.after.energy_uj,
        cost.source
    );
}

fn multiplications(out: &mut String, report: &Report) {
    out.push_str(
        "<h2>Scalar multiplications of one step</h2>\n<table><tr><th>component<th class=n>before\
         <th class=n>after</tr>\n",
    );
    let mut row = |name: &str, before: u64, after: u64| {
        let (before, after) = (grouped(before.into()), grouped(after.into()));
        let _ = writeln!(out, "<tr><td>{name}<td class=n>{before}<td class=n>{after}</tr>");
    };
    for component in Component::ALL {
        if let Some(b) = report.multiplies.by_component.get(component.name()) {
            row(component.name(), b.before.scalars, b.after.scalars);
        }
    }
    row("total", report.multiplies.before.scalars, report.multiplies.after.scalars);
    out.push_str("</table>\n");
}

fn census(out: &mut String, report: &Report) {
    let (before, after) = (&report.census.before, &report.census.after);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    out.push_str("<h2>Ops</h2>\n<table><tr><th>op<th class=n>before<th class=n>after</tr>\n");
    for name in names {
        let number = |c: &pam_ir::audit::Census| grouped(c.get(name).copied().unwrap_or(0) as u128);
        let (b, a) = (number(before), number(after));
        let name = escape(name);
        let _ = writeln!(out, "<tr><td>{name}<td class=n>{b}<td class=n>{a}</tr>");
    }
    out.push_str("</table>\n");
}

fn nodes(out: &mut String, changes: &[Change]) {
    let unchanged = changes.iter().filter(|c| c.kind() == "unchanged").count();
    let _ = writeln!(out, "<h2>Nodes</h2>\n<p>{} are unchanged.</p>", grouped(unchanged as u128));
    for change in changes.iter().filter(|c| c.kind() != "unchanged") {
        let _ = writeln!(
            out,
            "<details><summary>{} <span class=rule>{} {}</span></summary>",
            escape(&change.name),
            change.kind(),
            escape(&change.rules.join(", "))
        );
        for (class, lines) in [("before", &change.before), ("after", &change.after)] {
            if !lines.is_empty() {
                let _ = writeln!(out, "<pre class={class}>{}</pre>", escape(&lines.join("\n")));
            }
        }
        out.push_str("</details>\n");
    }
}

fn kernels(out: &mut String, report: &Report) {
    out.push_str(
        "<h2>Kernels of this program</h2>\n<table><tr><th>kernel<th class=n>instructions\
         <th class=n>multiply floats<th class=n>multiply integers</tr>\n",
    );
    for k in &report.kernels {
        let _ = writeln!(
            out,
            "<tr><td>{}<td class=n>{}<td class=n>{}<td class=n>{}</tr>",
            escape(&k.name),
            k.instructions,
            k.float_multiplies,
            k.integer_multiplies
        );
    }
    out.push_str("</table>\n");
}

fn certificate(out: &mut String, report: &Report) {
    // What a structure serializes to without maps of odd keys cannot fail.
    let json = serde_json::to_string_pretty(&report.certificate).unwrap_or_default();
    let _ = writeln!(
        out,
        "<h2>Certificate</h2>\n<pre>{}</pre>\n<p>{} {}; model SHA-256 {}</p>",
        escape(&json),
        report.tool.name,
        report.tool.version,
        report.model.sha256
    );
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
    out
}
