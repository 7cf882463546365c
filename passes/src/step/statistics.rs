//! Running statistics of batch normalisations, which a training step carries on as state.

use super::StepOptions;
use pam_ir::graph::{Graph, NodeId, Source, Value, ValueId};
use pam_ir::op::Op;
use pam_ir::types::Type;
use std::collections::HashMap;

/// The running statistics of normalisations in training mode, and what they become in a step: none that is frozen.
///
/// The nodes get the outputs they lack. A normalisation that is applied several times updates them each time.
pub(super) fn running(graph: &mut Graph, options: &StepOptions) -> Vec<(ValueId, ValueId)> {
    let mut order: Vec<ValueId> = Vec::new();
    let mut latest: HashMap<ValueId, ValueId> = HashMap::new();
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        if node.op != Op::BatchNormalization || node.int("training_mode") != Some(1) {
            continue;
        }
        for (input, output) in [(3, 1), (4, 2)] {
            let Some(old) = graph.nodes[i].input(input) else { continue };
            let value = graph.value(old);
            if value.data.is_none() || options.is_frozen(&value.name) {
                continue;
            }
            let (name, ty) = (format!("{}.next", value.name), value.ty.clone());
            let new = graph.nodes[i].output(output);
            let new = new.unwrap_or_else(|| add_output(graph, NodeId(i as u32), output, &name, ty));
            match latest.insert(old, new) {
                Some(before) => graph.nodes[i].inputs[input] = Some(before),
                None => order.push(old),
            }
        }
    }
    order.into_iter().map(|old| (old, latest[&old])).collect()
}

fn add_output(graph: &mut Graph, node: NodeId, index: usize, name: &str, ty: Type) -> ValueId {
    let source = Source::Node { node, index: index as u32 };
    let value = graph.add_value(Value { name: name.to_owned(), ty, source, data: None });
    let outputs = &mut graph.nodes[node.index()].outputs;
    outputs.resize(outputs.len().max(index + 1), None);
    outputs[index] = Some(value);
    value
}
