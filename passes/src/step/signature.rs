//! What PyTorch's exporter says of a program: which of its tensors are parameters, and which are not.
//!
//! ```text
//! # inputs
//! p_l_weight: PARAMETER target='l.weight'
//! b_l_table: BUFFER target='l.table' persistent=True
//! c_l_lifted_tensor_0: CONSTANT_TENSOR target='l.lifted_tensor_0'
//! x: USER_INPUT
//!
//! # outputs
//! getitem_3: BUFFER_MUTATION target='norm.running_mean'
//! linear: USER_OUTPUT
//! ```

use crate::differentiate::lost_detach;
use pam_ir::graph::Graph;
use pam_ir::op::Op;
use std::collections::BTreeSet;

/// The key among the metadata of the graph.
const KEY: &str = "pkg.torch.export.ExportedProgram.graph_signature";

/// The tensors that a program was exported with, by the names they have in the module.
pub(super) struct Signature<'g> {
    parameters: BTreeSet<&'g str>,
    others: BTreeSet<&'g str>,
    /// Buffers that the program writes anew.
    updated: Vec<&'g str>,
    /// Parameters that the graph has no value for: they were folded into others, or nothing reads them.
    pub(super) missing: Vec<&'g str>,
}

impl<'g> Signature<'g> {
    /// The signature of a graph that carries one.
    pub(super) fn of(graph: &'g Graph) -> Option<Signature<'g>> {
        let text = graph.meta.graph_properties.get(KEY)?;
        let (mut parameters, mut others) = (BTreeSet::new(), BTreeSet::new());
        let mut updated = Vec::new();
        for line in text.lines() {
            let Some((_, (kind, rest))) =
                line.split_once(": ").and_then(|(n, r)| Some((n, r.split_once(" target='")?)))
            else {
                continue;
            };
            let Some((target, _)) = rest.split_once('\'') else { continue };
            match kind {
                "PARAMETER" => drop(parameters.insert(target)),
                "BUFFER" | "CONSTANT_TENSOR" => drop(others.insert(target)),
                "BUFFER_MUTATION" => updated.push(target),
                _ => {}
            }
        }
        let present: BTreeSet<&str> = graph.values.iter().map(|v| v.name.as_str()).collect();
        let missing = parameters.difference(&present).copied().collect();
        (!parameters.is_empty()).then_some(Signature { parameters, others, updated, missing })
    }

    /// Whether what has this name is a parameter, where that is known: what is neither named nor can have come from a
    /// parameter that is missing is none.
    pub(super) fn is_parameter(&self, name: &str) -> Option<bool> {
        if self.parameters.contains(name) {
            return Some(true);
        }
        (self.others.contains(name) || self.missing.is_empty()).then_some(false)
    }
}

/// What a user should know of a step that [`super::build`] made of an exported program: parameters that were folded
/// or merged, so that others are trained in their place, and updates of buffers or ends of derivatives that were lost.
pub fn warnings(step: &Graph) -> Vec<String> {
    let Some(signature) = Signature::of(step) else { return Vec::new() };
    let mut warnings = Vec::new();
    let gradients = step.nodes.iter().filter(|n| n.op == Op::Gradient);
    let trained = gradients.flat_map(|n| n.inputs.iter().skip(1).flatten());
    let names = trained.map(|&v| step.value(v).name.as_str());
    let unknown: Vec<&str> = names.filter(|name| !signature.parameters.contains(name)).collect();
    if !unknown.is_empty() {
        warnings.push(format!(
            "{} trained in place of parameters that were folded or merged on export (the file names nothing {}); \
             torch.onnx.export(…, optimize=False) keeps each as it is",
            some(&unknown),
            some(&signature.missing)
        ));
    }
    if lost_detach(step) {
        warnings.push(
            "derivatives flow through a `detach()` that was optimised away on export; \
             torch.onnx.export(…, optimize=False) keeps it"
                .to_owned(),
        );
    }
    let bound = |buffer: &&str| step.bindings.iter().any(|b| b.old == **buffer);
    let lost: Vec<&str> = signature.updated.iter().copied().filter(|b| !bound(b)).collect();
    if !lost.is_empty() {
        warnings.push(format!(
            "the exported program updates {}, but the file does not: its normalisations may be those of inference; \
             export with model.eval(), or the whole step with pam_export",
            some(&lost)
        ));
    }
    warnings
}

/// A few names, and how many more there are.
fn some(names: &[&str]) -> String {
    const LISTED: usize = 5;
    let quoted: Vec<String> = names.iter().take(LISTED).map(|n| format!("`{n}`")).collect();
    let more = names.len().saturating_sub(LISTED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    quoted.join(", ") + &rest
}
