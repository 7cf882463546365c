//! Every rule: what it makes, that it is legal, what it computes.

mod cases;
mod eval;
mod functions;
mod integers;

use pam_ir::certify::{Target, certify};
use pam_ir::graph::Graph;
use pam_ir::op::{Level, Op};
use pam_ir::text::{brief, parse};
use pam_ir::verify::verify;
use pam_passes::lower::rule;
use pam_passes::{Policy, compile, expand};
use std::collections::BTreeSet;

fn parsed(name: &str, text: &str) -> Graph {
    parse(text, &[]).unwrap_or_else(|e| panic!("{name}: {e}\n{text}"))
}

fn compiled(name: &str, graph: &Graph, preset: &str) -> Graph {
    let policy = Policy::preset(preset).unwrap();
    let compiled = compile(graph, &policy).unwrap_or_else(|e| panic!("{name}: {e}"));
    compiled.graph
}

/// The stem of a snapshot's file.
fn stem(name: &str) -> String {
    let ok = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' };
    name.trim().chars().map(ok).collect()
}

#[test]
fn rules_make_what_they_say() {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        for (name, text) in cases::all() {
            let before = parsed(&name, &text);
            let after = compiled(&name, &before, "approx");
            if let Err(faults) = verify(&after) {
                panic!("{name}: {}", faults[0]);
            }
            let shown = format!("{}->\n{}", brief(&before), brief(&after));
            insta::assert_snapshot!(stem(&name), shown);
        }
    });
}

#[test]
fn rules_end_in_primitives() {
    for (name, text) in cases::all() {
        let after = compiled(&name, &parsed(&name, &text), "approx");
        if let Err(violations) = certify(after, Target::MultiplicationFree) {
            panic!("{name}: {}", violations[0]);
        }
    }
}

#[test]
fn composites_expand_natively() {
    for (name, text) in cases::all() {
        let native = compiled(&name, &parsed(&name, &text), "native");
        let expanded = expand(&native).unwrap_or_else(|e| panic!("{name}: {e}"));
        if let Err(faults) = verify(&expanded) {
            panic!("{name}: {}", faults[0]);
        }
        let composite = |level| level == Level::Composite;
        assert!(!expanded.nodes.iter().any(|n| composite(n.op.level())), "{name}");
    }
}

/// Nothing is left to lower in what has been lowered.
#[test]
fn lowering_ends() {
    for (name, text) in cases::all() {
        let once = compiled(&name, &parsed(&name, &text), "approx");
        let twice = compile(&once, &Policy::preset("approx").unwrap()).unwrap();
        assert_eq!(twice.rewrites, [], "{name}");
    }
}

#[test]
fn every_rule_has_a_case() {
    let covered: BTreeSet<Op> = cases::all()
        .iter()
        .flat_map(|(name, text)| parsed(name, text).nodes.into_iter().map(|n| n.op))
        .collect();
    // A gradient is computed by differentiating a graph, not by a rule.
    let lowered = Op::all().filter(|&op| rule(op).is_some() && op != Op::Gradient);
    for op in lowered {
        assert!(covered.contains(&op), "{}", op.name());
    }
}
