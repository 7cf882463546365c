//! A list of nodes: order, names, and what kind of thing each node is.

use super::super::error::OnnxError;
use super::super::proto::{GraphProto, NodeProto};
use super::flex::is_flex_attention;
use super::place::{Site, at, label};
use super::training::{is_gradient, referred};
use super::{Context, Importer, Names, is_standard};
use crate::graph::ValueId;
use crate::order::topological;
use std::collections::{BTreeSet, HashMap};

impl Importer<'_> {
    /// Appends the nodes of a body and defines their outputs in `names`.
    pub(super) fn body(
        &mut self,
        context: &Context<'_>,
        names: &mut Names<'_>,
        nodes: &[NodeProto],
    ) -> Result<(), OnnxError> {
        for i in order(context, nodes)? {
            let node = &nodes[i];
            if self.budget == 0 {
                let reason = "unrolling makes more nodes than the compiler accepts";
                return Err(at(context, node, i, reason, "shorten the loop"));
            }
            self.budget -= 1;
            let label = label(context, node, i);
            if let Some(made) = self.sequence_node(context, names, node, &label, i) {
                made?;
                continue;
            }
            let error = |reason: String, remedy: &str| at(context, node, i, &reason, remedy);
            let mut given = BTreeSet::new();
            if let Some(twice) = node.attribute.iter().find(|a| !given.insert(a.name())) {
                let reason = format!("attribute `{}` is given twice", twice.name());
                return Err(error(reason, "export it again"));
            }
            let mut inputs = Vec::with_capacity(node.input.len());
            for name in &node.input {
                inputs.push(match name.as_str() {
                    "" => None,
                    name => Some(names.get(name).ok_or_else(|| {
                        error(format!("input `{name}` is defined by nothing"), "export it again")
                    })?),
                });
            }
            let outputs = self.dispatch(&Site {
                context,
                names,
                node,
                label: &label,
                inputs: &inputs,
                position: i,
            })?;
            for (name, value) in node.output.iter().zip(outputs) {
                if let (false, Some(value)) = (name.is_empty(), value) {
                    self.define(context, names, name, value)?;
                }
            }
        }
        Ok(())
    }

    /// Appends one node, whatever it stands for; its outputs in order.
    fn dispatch(&mut self, site: &Site<'_>) -> Result<Vec<Option<ValueId>>, OnnxError> {
        let &Site { context, node, label, inputs, .. } = site;
        let key = (node.domain(), node.op_type(), node.overload());
        let result = match context.functions.get(&key) {
            // The functions of the pam domain are primitives that are never looked into here.
            Some(function) if node.domain() != "pam" => {
                return self.call(site, function);
            }
            _ if is_gradient(node) => return self.gradient(site),
            _ if is_flex_attention(node) => return self.flex_attention(site),
            _ if !is_standard(node.domain()) => self.standard(context, node, label, inputs),
            _ => match node.op_type() {
                "If" => return self.branch(site),
                "Loop" => return self.unroll_loop(site),
                "Scan" => return self.unroll_scan(site),
                "Constant" => self.constant_node(context, node),
                _ => self.standard(context, node, label, inputs),
            },
        };
        result.map_err(|reason| site.error(&reason, ""))
    }
}

/// The nodes of a body in topological order.
fn order(context: &Context<'_>, nodes: &[NodeProto]) -> Result<Vec<usize>, OnnxError> {
    let mut producer: HashMap<&str, usize> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            producer.insert(output, i);
        }
    }
    let mut edges = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let mut read = |name: &str| {
            if let Some(&p) = producer.get(name) {
                edges.push((p, i));
            }
        };
        node.input.iter().for_each(|n| read(n));
        if is_gradient(node) {
            referred(node).for_each(|n| read(&n));
        }
        for graph in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
            captured(graph, &mut read);
        }
    }
    topological(nodes.len(), &edges).map_err(|cycle| {
        let first = cycle.first().copied().unwrap_or(0);
        let node = &nodes[first];
        if let Some(name) = node.output.iter().find(|o| node.input.contains(o)) {
            let reason = format!("its output `{name}` has the name of what it reads");
            return at(context, node, first, &reason, "export it again");
        }
        let members: Vec<String> = cycle.iter().map(|&i| label(context, &nodes[i], i)).collect();
        let shown = members.iter().take(4).cloned().collect::<Vec<_>>().join("`, `");
        let more = if members.len() > 4 { " and more" } else { "" };
        let reason = format!("the nodes `{shown}`{more} form a cycle");
        at(context, node, first, &reason, "export it again")
    })
}

/// The names that a subgraph reads; its own are among them, which does no harm.
fn captured(graph: &GraphProto, read: &mut impl FnMut(&str)) {
    graph.output.iter().for_each(|o| read(o.name()));
    for node in &graph.node {
        node.input.iter().for_each(|n| read(n));
        for inner in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
            captured(inner, read);
        }
    }
}
