//! Whether a file's functions are what the certificate takes them for.

use super::OPSET;
use super::export::export;
use super::functions::function;
use super::proto::{ModelProto, NodeProto};
use crate::graph::Graph;
use std::collections::{BTreeMap, BTreeSet};

/// Compares what a file says of the PA primitives with what it must say: its functions of the domain
/// `pam` with those of `functions`, and the attributes of its `pam` nodes, helpers included, with those
/// that follow from the graph imported from it.
///
/// # Errors
/// Every difference, one line each.
pub fn check_functions(model: &ModelProto, graph: &Graph) -> Result<(), Vec<String>> {
    let mut faults = Vec::new();
    for f in model.functions.iter().filter(|f| f.domain() == "pam") {
        if function(f.name()).as_ref() != Some(f) {
            faults.push(format!("function pam.{} is not the canonical one", f.name()));
        }
    }
    let pam = |m: &ModelProto| -> Vec<NodeProto> {
        let nodes = m.graph.iter().flat_map(|g| &g.node);
        nodes.filter(|n| n.domain() == "pam").cloned().collect()
    };
    let defined =
        |name: &str| model.functions.iter().any(|f| f.domain() == "pam" && f.name() == name);
    let called: BTreeSet<String> = pam(model).iter().map(|n| n.op_type().to_owned()).collect();
    for name in called.iter().filter(|name| !defined(name)) {
        faults.push(format!("nothing defines pam.{name}, which the graph calls"));
    }
    let opset = model.opset_import.iter().find(|o| matches!(o.domain(), "" | "ai.onnx"));
    if !called.is_empty() && opset.is_none_or(|o| o.version() < OPSET) {
        faults.push(format!("its opset has no bodies of PA primitives, which need {OPSET}"));
    }
    match export(graph, model, &BTreeMap::new()) {
        Err(e) => faults.push(e),
        Ok(again) => {
            let (own, expected) = (pam(model), pam(&again));
            if own.len() != expected.len() {
                let (n, m) = (own.len(), expected.len());
                faults
                    .push(format!("the graph calls {n} PA primitives outside functions, not {m}"));
            }
            for (a, b) in own.iter().zip(&expected) {
                if a.attribute != b.attribute {
                    faults.push(format!("node `{}`: helper attributes do not fit", a.name()));
                }
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}
