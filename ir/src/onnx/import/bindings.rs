//! Which output is the new value of which input.
//!
//! Sources in order of trust: what the user says, the file's `training_info`, its `pam.bindings`
//! metadata, and names that differ by an affix only.

use super::super::error::OnnxError;
use super::super::proto::ModelProto;
use super::{ImportOptions, ModelFile};
use crate::graph::{Binding, Graph};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// Prefixes and suffixes that mark a new value.
const AFFIXES: [(&str, &str); 5] =
    [("new.", ""), ("", "_new"), ("", "_out"), ("next_", ""), ("new_", "")];

/// What the metadata of a model say: outputs, and the inputs whose next values they are.
pub(super) fn stated(
    model: &ModelProto,
) -> Option<Result<BTreeMap<String, String>, serde_json::Error>> {
    let property = model.metadata_props.iter().find(|p| p.key() == "pam.bindings")?;
    Some(serde_json::from_str(property.value()))
}

/// Finds the bindings of a graph.
///
/// # Errors
/// Where the user or the file binds something that does not exist or does not fit.
pub(super) fn find(
    files: &[ModelFile],
    graph: &Graph,
    options: &ImportOptions,
) -> Result<Vec<Binding>, OnnxError> {
    let inputs: HashMap<&str, _> =
        graph.inputs.iter().map(|&v| (graph.value(v).name.as_str(), v)).collect();
    let outputs: HashMap<&str, _> =
        graph.outputs.iter().map(|o| (o.name.as_str(), o.value)).collect();
    // By old value, so that a more trusted source wins and the result has the order of the inputs.
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut bind = |path: &Path, new: &str, old: &str, source: &str| {
        let error = |reason: String| {
            OnnxError::file(path, format!("{source}: {reason}"), "bind with --bind OUTPUT=INPUT")
        };
        let n = *outputs.get(new).ok_or_else(|| error(format!("no output is named `{new}`")))?;
        let o = *inputs.get(old).ok_or_else(|| error(format!("no input is named `{old}`")))?;
        if graph.ty(n) != graph.ty(o) {
            let (n, o) = (graph.ty(n), graph.ty(o));
            return Err(error(format!("output `{new}` is {n}, but input `{old}` is {o}")));
        }
        // A new value that goes elsewhere by what is trusted more does not go here as well.
        if found.values().all(|taken| taken != new) {
            found.entry(old.to_owned()).or_insert_with(|| new.to_owned());
        }
        Ok(())
    };
    let first = files.first().map_or(Path::new(""), |f| f.path.as_path());
    for (new, old) in &options.bind {
        bind(first, new, old, "--bind")?;
    }
    for file in files {
        for info in &file.model.training_info {
            for b in info.update_binding.iter().chain(&info.initialization_binding) {
                // training_info names a state first and its new value second, and may bind values
                // of its own algorithm graph, which is not part of this graph.
                if outputs.contains_key(b.value()) && inputs.contains_key(b.key()) {
                    bind(&file.path, b.value(), b.key(), "training_info")?;
                }
            }
        }
        if let Some(stated) = stated(&file.model) {
            let map = stated.map_err(|e| {
                let reason = format!("metadata `pam.bindings` is not a JSON object of names ({e})");
                OnnxError::file(&file.path, reason, "export it again")
            })?;
            for (new, old) in &map {
                bind(&file.path, new, old, "metadata `pam.bindings`")?;
            }
        }
    }
    let by_name = |old: &str| {
        let names = AFFIXES.iter().map(|(before, after)| format!("{before}{old}{after}"));
        names.into_iter().find(|new| match (outputs.get(new.as_str()), inputs.get(old)) {
            (Some(&n), Some(&o)) => graph.ty(n) == graph.ty(o),
            _ => false,
        })
    };
    let taken: BTreeSet<&String> = found.values().collect();
    let bindings = graph.inputs.iter().filter_map(|&v| {
        let old = graph.value(v).name.clone();
        let named = || by_name(&old).filter(|new| !taken.contains(new));
        let new = found.get(&old).cloned().or_else(named)?;
        Some(Binding { new, old })
    });
    Ok(bindings.collect())
}
