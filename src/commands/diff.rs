//! `pam-compile diff`: what became of each node.

use crate::args::{Diff, Input};
use crate::failure::Failure;
use crate::output::say;
use crate::report::changes::changes;
use crate::report::grouped;
use crate::source::{Source, Tolerance};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Compares two models by node name.
pub fn diff(args: &Diff) -> Result<ExitCode, Failure> {
    let read = |path: &Path| {
        let input = Input::plain(vec![path.to_owned()], args.dims.clone());
        Source::read(&input, Tolerance { default_dim: Some(1), unknown_ops: true })
    };
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let changes = changes(&before.graph, &after.graph);
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for change in &changes {
        *kinds.entry(change.kind()).or_default() += 1;
        if !args.volume.quiet && (args.volume.verbose || change.kind() != "unchanged") {
            say!("{change}");
        }
    }
    let summary: Vec<String> =
        kinds.iter().map(|(kind, n)| format!("{} {kind}", grouped(*n as u128))).collect();
    say!("{} → {}: {}", args.before.display(), args.after.display(), summary.join(", "));
    Ok(ExitCode::SUCCESS)
}
