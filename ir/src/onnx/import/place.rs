//! Where in a file something is: names of nodes, and errors at them.

use super::super::error::{At, OnnxError};
use super::super::proto::{AttributeProto, GraphProto, NodeProto};
use super::{Context, Names, is_standard};
use crate::graph::ValueId;

/// A node that the importer stands at.
pub(super) struct Site<'s> {
    pub context: &'s Context<'s>,
    /// The names that are visible.
    pub names: &'s Names<'s>,
    pub node: &'s NodeProto,
    pub label: &'s str,
    /// Its operands, those left out as `None`.
    pub inputs: &'s [Option<ValueId>],
    /// The number of the node in its list.
    pub position: usize,
}

impl Site<'_> {
    /// An error at the node.
    pub(super) fn error(&self, reason: &str, remedy: &str) -> OnnxError {
        at(self.context, self.node, self.position, reason, remedy)
    }

    /// An attribute of the node, by name.
    pub(super) fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|a| a.name() == name)
    }

    /// A graph that the node has as an attribute.
    pub(super) fn graph(&self, name: &str) -> Option<&GraphProto> {
        self.attribute(name)?.g.as_ref()
    }
}

/// An error at a node.
pub(super) fn at(
    context: &Context<'_>,
    node: &NodeProto,
    position: usize,
    reason: &str,
    remedy: &str,
) -> OnnxError {
    OnnxError {
        path: context.path.to_owned(),
        at: Some(Box::new(place(context, node, position))),
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// What an error says of a node.
pub(super) fn place(context: &Context<'_>, node: &NodeProto, position: usize) -> At {
    let domain = if is_standard(node.domain()) { "" } else { node.domain() };
    let op = match domain {
        "" => node.op_type().to_owned(),
        domain => format!("{domain}::{}", node.op_type()),
    };
    let version = context.opsets.get(domain).copied().unwrap_or(0);
    At { node: label(context, node, position), op, version }
}

/// The name of a node, or one made from its first output where it has none.
pub(super) fn label(context: &Context<'_>, node: &NodeProto, position: usize) -> String {
    let own = match (node.name(), node.output.iter().find(|o| !o.is_empty())) {
        ("", Some(output)) => format!("{}:{output}", node.op_type()),
        ("", None) => format!("{}#{position}", node.op_type()),
        (name, _) => name.to_owned(),
    };
    format!("{}{own}", context.prefix)
}
