//! Model-local functions are inlined.

use super::super::error::OnnxError;
use super::super::proto::{AttributeProto, FunctionProto, NodeProto};
use super::place::Site;
use super::{Context, Importer, Names, is_standard};
use crate::graph::ValueId;
use std::collections::{BTreeMap, HashMap};

/// The attributes of a call: those given, then the function's defaults.
pub(super) type Arguments<'f> = HashMap<&'f str, &'f AttributeProto>;

/// Calls may not nest deeper; ONNX forbids recursion.
const DEPTH_LIMIT: usize = 64;

impl Importer<'_> {
    pub(super) fn call(
        &mut self,
        site: &Site<'_>,
        function: &FunctionProto,
    ) -> Result<Vec<Option<ValueId>>, OnnxError> {
        let &Site { context, node, label, inputs, .. } = site;
        let error = |reason: &str| site.error(reason, "export it again");
        if context.depth >= DEPTH_LIMIT {
            return Err(error("functions call each other without end"));
        }
        if inputs.len() > function.input.len() || node.output.len() > function.output.len() {
            return Err(error("the call has more operands than the function"));
        }
        let mut arguments: Arguments<'_> =
            function.attribute_proto.iter().map(|a| (a.name(), a)).collect();
        for attribute in &node.attribute {
            match resolve(context, attribute) {
                Some(a) => arguments.insert(attribute.name(), a),
                None => arguments.remove(attribute.name()),
            };
        }
        let mut opsets: BTreeMap<&str, i64> = context.opsets.clone();
        for o in &function.opset_import {
            let domain = if is_standard(o.domain()) { "" } else { o.domain() };
            opsets.insert(domain, o.version());
        }
        let stated = HashMap::new();
        let inner = Context {
            path: context.path,
            opsets,
            functions: context.functions,
            stated: &stated,
            arguments: Some(&arguments),
            prefix: format!("{label}/"),
            depth: context.depth + 1,
        };
        let mut names = Names::default();
        for (i, name) in function.input.iter().enumerate() {
            if let Some(value) = inputs.get(i).copied().flatten() {
                self.define(&inner, &mut names, name, value)?;
            }
        }
        // An omitted input of a function is an omitted input of the nodes that read it.
        let given = |n: &String| names.get(n).is_some() || !function.input.contains(n);
        let nodes: Vec<NodeProto> = function
            .node
            .iter()
            .map(|n| {
                let mut n = n.clone();
                for input in &mut n.input {
                    if !given(input) {
                        input.clear();
                    }
                }
                n
            })
            .collect();
        self.body(&inner, &mut names, &nodes)?;
        let outputs = function.output.iter().take(node.output.len());
        outputs
            .map(|name| {
                names.get(name).map(Some).ok_or_else(|| {
                    error(&format!("output `{name}` of the function is computed by no node"))
                })
            })
            .collect()
    }
}

/// The attribute itself, or what the call gives for the one it refers to.
pub(super) fn resolve<'f>(
    context: &Context<'f>,
    attribute: &'f AttributeProto,
) -> Option<&'f AttributeProto> {
    match attribute.ref_attr_name() {
        "" => Some(attribute),
        name => context.arguments?.get(name).copied(),
    }
}
