//! A new backward pass in the place of the imported one.

use super::{DifferentiateError, Gradients, gradients};
use crate::lower::{Arithmetic, Lowering};
use crate::{CompileError, Rewrite, lower_node};
use pam_ir::build::Rebuild;
use pam_ir::graph::{Graph, Node, NodeId, Output, ValueId};
use pam_ir::op::{Level, Op};
use pam_ir::role::Mode;
use pam_ir::tensor::Tensor;
use pam_ir::types::Type;
use std::collections::HashMap;

/// A training step with a backward pass of its own.
pub(crate) enum Regenerated {
    /// The lowered step and what was rewritten.
    Whole(Box<(Graph, Vec<Rewrite>)>),
    /// Nothing, since by these of the parameters the forward pass has no derivative.
    Flat(Vec<String>),
}

/// Lowers a labelled training step with a backward pass of its own: the forward pass is lowered and
/// differentiated, and the optimizer takes the new gradients in the place of the imported ones, of
/// which nothing is left but what kept gradients need.
pub(crate) fn regenerate(
    graph: &Graph,
    found: &Gradients,
    arithmetic: Arithmetic,
) -> Result<Regenerated, CompileError> {
    let values = by_name(graph);
    let cut: Vec<ValueId> = found.pairs.iter().map(|(_, g)| values[g.as_str()]).collect();
    let parameters: Vec<&str> = found.pairs.iter().map(|(p, _)| p.as_str()).collect();
    let wanted: Vec<ValueId> = parameters.iter().map(|p| values[*p]).collect();
    let loss = values[found.loss.as_str()];
    if graph.producer(loss).is_none() {
        let reason = format!("the loss `{}` is not computed by the model", found.loss);
        return Err(CompileError::general(reason, "name another loss"));
    }
    let (before, after) = parts(graph, loss, &cut);
    let on_path = graph.ancestors([loss]);
    let on_path: Vec<bool> = before.iter().chain(&after).map(|n| on_path[n.index()]).collect();
    let mut ordered = graph.with_nodes(&[&before[..], &after[..]].concat());
    found.detach.unmark(&mut ordered);
    let (mut rewrites, mut flat) = (Vec::new(), Vec::new());
    let rebuilt = ordered.rebuild(|r, id, node| {
        let decomposed = on_path[id.index()] && node.mode == Mode::Native;
        forward(r, node, decomposed, arithmetic, &mut rewrites)?;
        if id.index() + 1 == before.len() {
            let new = differentiate(r, arithmetic, loss, &wanted, &found.loss)?;
            for ((&old, new), parameter) in cut.iter().zip(new).zip(&parameters) {
                match new {
                    Some(new) => r.set(old, new),
                    None => flat.push((*parameter).to_owned()),
                }
            }
            if let Some(parameter) = flat.first() {
                return Err(unreached(parameter));
            }
        }
        Ok(())
    });
    match rebuilt {
        // One gradient at least is to be had.
        Err(_) if (1..cut.len()).contains(&flat.len()) => Ok(Regenerated::Flat(flat)),
        rebuilt => Ok(Regenerated::Whole(Box::new((rebuilt?, rewrites)))),
    }
}

/// Lowers a labelled graph with its ops `Gradient` answered where they stand: by the derivatives of all that comes
/// before them, other gradients included.
pub(crate) fn answer(
    graph: &Graph,
    arithmetic: Arithmetic,
) -> Result<(Graph, Vec<Rewrite>), CompileError> {
    let asks = |n: &&Node| n.op == Op::Gradient;
    let losses = graph.nodes.iter().filter(asks).filter_map(|n| n.input(0));
    let on_path = graph.ancestors(losses);
    let mut rewrites = Vec::new();
    let answered = graph.rebuild(|r, id, node| {
        let (Op::Gradient, Some(loss)) = (node.op, node.input(0)) else {
            let decomposed = on_path[id.index()] && node.mode == Mode::Native;
            return forward(r, node, decomposed, arithmetic, &mut rewrites);
        };
        let wanted: Vec<ValueId> = node.inputs[1..].iter().flatten().copied().collect();
        let new = differentiate(r, arithmetic, loss, &wanted, &graph.value(loss).name)?;
        let path = graph.ancestors([loss]);
        let read = |v: ValueId| {
            let mut nodes = graph.nodes.iter().zip(&path).filter(|(_, on_path)| **on_path);
            nodes.any(|(node, _)| node.inputs.contains(&Some(v)))
        };
        for ((old, new), &by) in node.outputs.iter().zip(new).zip(&wanted) {
            let Some(old) = *old else { continue };
            // What is constant between its steps has a derivative, too, which is 0; but it trains nothing.
            let name = graph.value(by).name.as_str();
            let trained = graph.bindings.iter().any(|b| b.old == name);
            let new = match new {
                Some(new) => new,
                None if trained || !read(by) => return Err(unreached(name)),
                None => zeros(r, graph.ty(by))?,
            };
            r.set(old, new);
        }
        Ok(())
    })?;
    Ok((answered, rewrites))
}

/// A graph in native arithmetic that computes the gradient of each parameter twice: `imported.<p>` as the file has it,
/// and `regenerated.<p>` by differentiating the forward pass, if that has a derivative. For a parameter whose gradient is
/// not known, `candidate.<p>.<i>` are the values that may be it.
pub(crate) fn check_graph(graph: &Graph, found: &Gradients) -> Result<Graph, CompileError> {
    let values = by_name(graph);
    let loss = values[found.loss.as_str()];
    let mut native = graph.clone();
    found.detach.unmark(&mut native);
    native.bindings.clear();
    native.outputs.clear();
    let mut output = |name: String, value: ValueId| native.outputs.push(Output { name, value });
    for (p, g) in &found.pairs {
        output(format!("imported.{p}"), values[g.as_str()]);
    }
    for (p, possible) in &found.open {
        for (i, g) in possible.iter().enumerate() {
            output(format!("candidate.{p}.{i}"), values[g.as_str()]);
        }
    }
    output("loss".to_owned(), loss);
    for node in &mut native.nodes {
        node.mode = Mode::Native;
    }
    let needed = native.ancestors(native.outputs.iter().map(|o| o.value));
    let nodes: Vec<NodeId> = ids(&native).filter(|n| needed[n.index()]).collect();
    let native = native.with_nodes(&nodes);
    let on_path = native.ancestors([loss]);
    let parameters = found.pairs.iter().map(|(p, _)| p).chain(found.open.iter().map(|(p, _)| p));
    let parameters: Vec<&str> = parameters.map(String::as_str).collect();
    let wanted: Vec<ValueId> = parameters.iter().map(|p| values[*p]).collect();
    let arithmetic = Arithmetic::Portable;
    native.rebuild(|r, id, node| {
        forward(r, node, on_path[id.index()], arithmetic, &mut Vec::new())?;
        if id.index() + 1 == nodes.len() {
            let new = differentiate(r, arithmetic, loss, &wanted, &found.loss)?;
            for (p, v) in parameters.iter().zip(new) {
                v.iter().for_each(|&v| r.to.output(&format!("regenerated.{p}"), v));
            }
        }
        Ok(())
    })
}

/// Lowers a node as its mode asks; one that stays native and is to be differentiated is decomposed.
fn forward(
    r: &mut Rebuild<'_>,
    node: &Node,
    decomposed: bool,
    arithmetic: Arithmetic,
    rewrites: &mut Vec<Rewrite>,
) -> Result<(), CompileError> {
    if decomposed && node.op.level() == Level::Composite {
        return lower_node(r, node, Arithmetic::Portable, true, rewrites);
    }
    lower_node(r, node, arithmetic, false, rewrites)
}

/// The derivatives of a loss, of this name in messages, by values; `None` where no path leads from one.
fn differentiate(
    r: &mut Rebuild<'_>,
    arithmetic: Arithmetic,
    loss: ValueId,
    wanted: &[ValueId],
    name: &str,
) -> Result<Vec<Option<ValueId>>, CompileError> {
    let inputs: Vec<ValueId> = wanted.iter().map(|&v| r.get(v)).collect();
    let loss = r.get(loss);
    gradients(r, arithmetic, loss, &inputs).map_err(|e| error(name, e))
}

/// Zeros of a type.
fn zeros(r: &mut Rebuild<'_>, ty: &Type) -> Result<ValueId, CompileError> {
    let lo = &mut Lowering::new(r, Arithmetic::Native);
    let zero = pam_ir::eval::cast(&Tensor::scalar(0f32), ty.dtype).unwrap_or(Tensor::scalar(0f32));
    let zero = lo.constant(zero);
    let made = lo.expand(zero, &ty.shape);
    made.map_err(|e| CompileError::general(e.to_string(), ""))
}

fn unreached(parameter: &str) -> CompileError {
    let reason = format!("no path leads from the parameter `{parameter}` to the loss");
    let remedy = "with --loss, --freeze it; a backward pass that the file holds is kept by the modes approx and native";
    CompileError::general(reason, remedy)
}

fn error(loss: &str, e: DifferentiateError) -> CompileError {
    let remedy = "write it in other ops; a backward pass that the file holds is kept by the modes approx \
                  and native";
    match e.node {
        Some(node) => {
            let source = node.origin.as_ref();
            let name = source.map_or(node.name.clone(), |o| o.node.to_string());
            let op = source.map_or(node.op.onnx_name().to_owned(), |o| o.op.to_string());
            let made = if op == node.op.onnx_name() {
                String::new()
            } else {
                format!(" (in its {})", node.op.onnx_name())
            };
            let reason = format!("{}{made}", e.reason);
            CompileError { node: Some(name), op, reason, remedy: remedy.to_owned() }
        }
        None => CompileError::general(format!("`{loss}`: {}", e.reason), remedy),
    }
}

fn by_name(graph: &Graph) -> HashMap<&str, ValueId> {
    let values = graph.values.iter().enumerate();
    values.map(|(i, v)| (v.name.as_str(), ValueId(i as u32))).collect()
}

fn ids(graph: &Graph) -> impl Iterator<Item = NodeId> {
    (0..graph.nodes.len() as u32).map(NodeId)
}

/// The nodes that the loss and the outputs need if the values `cut` are given: those that do not depend on one of
/// them, then those that do, each in order.
fn parts(graph: &Graph, loss: ValueId, cut: &[ValueId]) -> (Vec<NodeId>, Vec<NodeId>) {
    let mut given = vec![false; graph.values.len()];
    cut.iter().for_each(|v| given[v.index()] = true);
    let mut needed = vec![false; graph.nodes.len()];
    let roots = graph.outputs.iter().map(|o| o.value).chain([loss]);
    let roots = roots.filter(|v| !given[v.index()]);
    let mut stack: Vec<NodeId> = roots.filter_map(|v| graph.producer(v)).collect();
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut needed[id.index()], true) {
            let inputs = graph.node(id).inputs.iter().flatten();
            let open = inputs.filter(|v| !given[v.index()]);
            stack.extend(open.filter_map(|&v| graph.producer(v)));
        }
    }
    let mut depends = given;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for id in ids(graph).filter(|n| needed[n.index()]) {
        let node = graph.node(id);
        if node.inputs.iter().flatten().any(|v| depends[v.index()]) {
            node.outputs.iter().flatten().for_each(|v| depends[v.index()] = true);
            after.push(id);
        } else {
            before.push(id);
        }
    }
    (before, after)
}
