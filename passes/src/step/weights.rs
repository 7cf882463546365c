//! Which constants of a forward graph are weights, and which of those are one.

use super::StepOptions;
use super::signature::Signature;
use crate::CompileError;
use crate::differentiate::is_detached;
use pam_ir::graph::{Graph, Node, Source, Value, ValueId};
use pam_ir::op::Op;
use pam_ir::tensor::Tensor;
use pam_ir::types::DType;
use std::collections::{HashMap, HashSet};

/// Numbers of such a size mask something; they are no weights.
const MASK: f64 = 1e30;

/// Makes the weights of a file out of its constants: one for each that was trained on its own when the model was
/// exported, under its own name.
///
/// One of PyTorch's exporters writes weights that begin equal once, and `Identity` nodes named as the others;
/// what such a file shares is then shared on purpose. Others just merge them, unless their signature shows that each
/// parameter is there.
pub(super) fn separate(graph: &mut Graph) {
    let complete = Signature::of(graph).is_some_and(|s| s.missing.is_empty());
    if !complete && !resolve(graph) {
        untie(graph);
    }
}

/// Reads constants under another name where they are read; whether there were any.
fn resolve(graph: &mut Graph) -> bool {
    let mut renamed: HashMap<ValueId, ValueId> = HashMap::new();
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        let (Op::Identity, Some(from), Some(to)) = (node.op, node.input(0), node.output(0)) else {
            continue;
        };
        let from = renamed.get(&from).copied().unwrap_or(from);
        let leaves = graph.outputs.iter().any(|o| o.value == to);
        if !is_constant(graph.value(from)) || leaves || is_detached(node) {
            continue;
        }
        // What is tied on purpose is one parameter with one name; another parameter's name is that of a weight of
        // its own. Other exporters name what reads a weight.
        let own = if is_path(&graph.value(to).name) || is_uniform(graph.value(from)) {
            let name = graph.value(to).name.clone();
            graph.values[to.index()].name = format!("{name}.Identity");
            graph.add_value(Value { name, ..graph.value(from).clone() })
        } else {
            from
        };
        renamed.insert(to, own);
    }
    for input in graph.nodes.iter_mut().flat_map(|n| &mut n.inputs).flatten() {
        *input = renamed.get(input).copied().unwrap_or(*input);
    }
    !renamed.is_empty()
}

/// Constants that are the transpose of another one, as exporters make them of weights that are used both ways:
/// the other one, and the transpose.
pub(super) fn transposed(graph: &Graph) -> Vec<(ValueId, ValueId)> {
    let matrix = |v: &&Value| v.ty.rank() == 2 && is_constant(v) && !is_uniform(v);
    let values = graph.values.iter().enumerate().filter(|(_, v)| matrix(v));
    let mut known: Vec<(ValueId, &Value)> = values.map(|(i, v)| (ValueId(i as u32), v)).collect();
    // A name that a module gave says which of the two is the weight.
    known.sort_by_key(|(_, v)| !is_path(&v.name));
    let mut pairs: Vec<(ValueId, ValueId)> = Vec::new();
    for (i, (of, a)) in known.iter().enumerate() {
        if pairs.iter().any(|(_, t)| t == of) {
            continue;
        }
        for (t, b) in &known[i + 1..] {
            if is_transpose(a, b) && !pairs.iter().any(|(_, other)| other == t) {
                pairs.push((*of, *t));
            }
        }
    }
    pairs
}

/// Whether b is the transpose of a, and not a itself as well.
fn is_transpose(a: &Value, b: &Value) -> bool {
    let [rows, columns] = a.ty.shape[..] else { return false };
    if b.ty.shape != [columns, rows] {
        return false;
    }
    let (Some(a), Some(b)) = (floats(a), floats(b)) else { return false };
    let at = |i: usize| a[i % rows * columns + i / rows].to_bits() == b[i].to_bits();
    a != b && (0..b.len()).all(at)
}

fn floats(v: &Value) -> Option<&[f32]> {
    v.data.as_ref()?.slice::<f32>()
}

/// What is trained, in the order of the values: nothing that is made of another weight.
pub(super) fn trained(
    graph: &Graph,
    options: &StepOptions,
    made: &[(ValueId, ValueId)],
) -> Vec<ValueId> {
    let outputs: Vec<(String, ValueId)> =
        graph.outputs.iter().map(|o| (o.name.clone(), o.value)).collect();
    let loss = options.loss.output(&outputs, |v| graph.ty(v).dtype);
    // Where there is none, making the loss will say so.
    let needed = loss
        .map_or_else(|| vec![true; graph.nodes.len()], |(_, loss)| differentiated(graph, *loss));
    let mut read = vec![false; graph.values.len()];
    let mut fixed = vec![false; graph.values.len()];
    // Where a single number is a weight, and not a constant of a formula.
    let mut weight = vec![false; graph.values.len()];
    for (node, _) in graph.nodes.iter().zip(&needed).filter(|(_, n)| **n) {
        for (i, v) in node.inputs.iter().enumerate() {
            let Some(v) = v else { continue };
            read[v.index()] |= i != 2 || node.op != Op::Gemm || node.float("beta") != Some(0.0);
            fixed[v.index()] |= parametrises(node.op, i);
            weight[v.index()] |= takes_weight(graph, node, i);
        }
    }
    let signature = Signature::of(graph);
    let looks_like_one = |i: usize, v: &Value, data: &Tensor| {
        let finite = || data.to_f64().is_some_and(|d| d.iter().all(|x| x.abs() < MASK));
        !fixed[i]
            && !is_constant_node(&v.name)
            && (v.ty.elements() > 1 || v.ty.elements() == 1 && (weight[i] || is_path(&v.name)))
            && finite()
    };
    let values = graph.values.iter().enumerate();
    let trained = values.filter(|(i, v)| {
        let Some(data) = &v.data else { return false };
        let known = signature.as_ref().and_then(|s| s.is_parameter(&v.name));
        read[*i]
            && !matches!(v.source, Source::Node { .. })
            && v.ty.dtype.is_float()
            && !options.is_frozen(&v.name)
            && known.unwrap_or_else(|| looks_like_one(*i, v, data))
    });
    let trained = trained.filter(|(i, _)| made.iter().all(|(_, t)| t.index() != *i));
    trained.map(|(i, _)| ValueId(i as u32)).collect()
}

/// The nodes that derivatives of a value flow through: those it depends on by way of floats.
fn differentiated(graph: &Graph, value: ValueId) -> Vec<bool> {
    let mut needed = vec![false; graph.nodes.len()];
    let mut stack = vec![value];
    while let Some(v) = stack.pop() {
        let Some(node) = graph.producer(v) else { continue };
        if is_detached(graph.node(node)) || std::mem::replace(&mut needed[node.index()], true) {
            continue;
        }
        let inputs = graph.node(node).inputs.iter().flatten();
        stack.extend(inputs.filter(|v| graph.ty(**v).dtype.is_float()));
    }
    needed
}

/// Refuses what cannot be trained, and names to freeze that nothing has.
pub(super) fn check(
    graph: &Graph,
    trained: &[ValueId],
    options: &StepOptions,
) -> Result<(), CompileError> {
    if trained.is_empty() {
        let reason = "the model holds no weights to train".to_owned();
        return Err(CompileError::general(reason, "give values to its inputs with --init"));
    }
    let weights = || trained.iter().map(|&v| graph.value(v));
    for regex in &options.freeze {
        if !graph.values.iter().any(|v| v.data.is_some() && regex.is_match(&v.name)) {
            let reason = format!("nothing to freeze has a name that matches /{regex}/");
            let some: Vec<String> = weights().take(5).map(|v| format!("`{}`", v.name)).collect();
            let remedy = format!("what is trained begins with {}", some.join(", "));
            return Err(CompileError::general(reason, &remedy));
        }
    }
    if let Some(v) = weights().find(|v| v.ty.dtype != DType::F32) {
        let reason =
            format!("the weight `{}` is {}, and what is trained must be f32", v.name, v.ty);
        return Err(CompileError::general(reason, "export the model in float32, or --freeze it"));
    }
    Ok(())
}

/// Whether operand `i` of an op says how to compute, like statistics that are measured, bounds, exponents and the
/// weights of classes.
fn parametrises(op: Op, i: usize) -> bool {
    match op {
        Op::BatchNormalization => i >= 3,
        Op::SoftmaxCrossEntropyLoss | Op::NegativeLogLikelihoodLoss => i == 2,
        Op::Clip | Op::Pow | Op::OneHot => i >= 1,
        Op::Equal => true,
        _ => false,
    }
}

/// Whether operand `i` of a node is a weight whatever its size: a bias, a slope, or scale and shift of a norm.
fn takes_weight(graph: &Graph, node: &Node, i: usize) -> bool {
    match node.op {
        Op::Gemm | Op::Conv | Op::ConvTranspose => i >= 1,
        Op::MatMul => true,
        Op::PRelu => i == 1,
        Op::BatchNormalization
        | Op::InstanceNormalization
        | Op::GroupNormalization
        | Op::LayerNormalization
        | Op::RMSNormalization => i == 1 || i == 2,
        Op::Add => {
            let other = node.input(1 - i.min(1)).and_then(|v| graph.producer(v));
            other.is_some_and(|n| matches!(graph.node(n).op, Op::MatMul | Op::Conv))
        }
        _ => false,
    }
}

/// Whether a name is one that PyTorch's exporter gives to what `Constant` nodes make, `/rnn/Constant_1_output_0`:
/// tables and initial states, not weights.
fn is_constant_node(name: &str) -> bool {
    let own = name.rsplit('/').next().unwrap_or(name);
    own.strip_prefix("Constant").is_some_and(|rest| rest.contains("_output"))
}

/// Whether a name is that of a module's parameter, `encoder.0.scale`.
fn is_path(name: &str) -> bool {
    let word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_alphanumeric() || c == '_');
    let last = name.rsplit('.').next().unwrap_or(name);
    name.contains('.')
        && name.split('.').all(word)
        && last.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Whether a node stands in the module that a weight is named after, so that the weight is its own and not another
/// one that began equal: PyTorch's exporters name nodes, or their scopes, after the modules. Calls of a module
/// after the first one are numbered.
fn is_at_home(node: &Node, weight: &str) -> bool {
    let Some((module, _)) = weight.rsplit_once('.') else { return false };
    if let Some(scopes) = node.metadata.get("pkg.torch.onnx.name_scopes") {
        return scopes.split(['\'', '"']).any(|scope| scope == module);
    }
    let Some((path, _)) = node.name.strip_prefix('/').and_then(|n| n.rsplit_once('/')) else {
        return false;
    };
    let unnumbered = |segment: &str| -> String {
        let stem = segment.rsplit_once('_').filter(|(_, n)| n.parse::<u32>().is_ok());
        stem.map_or(segment, |(stem, _)| stem).to_owned()
    };
    path == module.replace('.', "/")
        || path.split('/').map(unnumbered).collect::<Vec<String>>().join(".") == module
}

/// Exporters merge weights that begin equal, such as the zeros of biases: a constant whose elements are
/// all equal becomes one for each layer that reads it. Weights that differ in their elements are tied
/// on purpose, and what belongs to a layer that is applied several times is tied with it. What is known to be no
/// parameter stays one.
fn untie(graph: &mut Graph) {
    let layers = nearest_layers(graph);
    let signature = Signature::of(graph);
    let known = |v: &Value| signature.as_ref().and_then(|s| s.is_parameter(&v.name));
    let shared = |v: &Value| is_constant(v) && is_uniform(v) && known(v) != Some(false);
    let shared: Vec<bool> = graph.values.iter().map(shared).collect();
    let mut copies: HashMap<(ValueId, Tie), ValueId> = HashMap::new();
    let mut known: HashMap<ValueId, usize> = HashMap::new();
    let mut ordinals: HashMap<(ValueId, Option<usize>), usize> = HashMap::new();
    let mut taken: HashSet<String> = graph.values.iter().map(|v| v.name.clone()).collect();
    for node in &graph.nodes {
        let own = node.inputs.iter().flatten().filter(|v| is_at_home(node, &graph.value(**v).name));
        known.extend(own.map(|v| (*v, 1)));
    }
    for (i, layer) in layers.into_iter().enumerate() {
        for slot in 0..graph.nodes[i].inputs.len() {
            let Some(v) = graph.nodes[i].inputs[slot] else { continue };
            if !shared[v.index()] || is_at_home(&graph.nodes[i], &graph.value(v).name) {
                continue;
            }
            // Readers behind one application of a layer are different ones; their like behind another
            // application are the same.
            let ordinal = ordinals.entry((v, layer.map(|l| l.node))).or_insert(0);
            let tie = match layer {
                Some(layer) => Tie::Layer(layer.weight, *ordinal),
                None => Tie::Reader(i, slot),
            };
            *ordinal += 1;
            let copy = *copies.entry((v, tie)).or_insert_with(|| {
                let n = known.entry(v).or_insert(0);
                *n += 1;
                if *n == 1 {
                    return v;
                }
                let mut copy = graph.value(v).clone();
                while !taken.insert(format!("{}.{n}", copy.name)) {
                    *n += 1;
                }
                copy.name = format!("{}.{n}", copy.name);
                graph.add_value(copy)
            });
            graph.nodes[i].inputs[slot] = Some(copy);
        }
    }
}

/// What readers of one weight have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Tie {
    /// The weight of the layer they follow, and as which of those that follow it.
    Layer(ValueId, usize),
    /// Nothing: one reader.
    Reader(usize, usize),
}

/// A node that reads a weight whose elements differ.
#[derive(Clone, Copy)]
struct Layer {
    node: usize,
    weight: ValueId,
}

/// For each node the layer it is, or the last one among those before it; for one that nothing but constants is before,
/// like what takes biases apart, that of what reads it first.
fn nearest_layers(graph: &Graph) -> Vec<Option<Layer>> {
    let mut layers: Vec<Option<Layer>> = Vec::with_capacity(graph.nodes.len());
    for (i, node) in graph.nodes.iter().enumerate() {
        let own = node.inputs.iter().flatten().find(|v| {
            let value = graph.value(**v);
            is_constant(value) && !is_uniform(value)
        });
        let before = |v: &ValueId| layers[graph.producer(*v)?.index()];
        layers.push(match own {
            Some(&weight) => Some(Layer { node: i, weight }),
            None => node.inputs.iter().flatten().filter_map(before).max_by_key(|l| l.node),
        });
    }
    let mut constant = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        constant[i] = node.inputs.iter().flatten().all(|v| match graph.value(*v).source {
            Source::Constant => true,
            Source::Node { node, .. } => constant[node.index()],
            _ => false,
        });
    }
    for (i, reader) in graph.nodes.iter().enumerate().rev() {
        let Some(layer) = layers[i] else { continue };
        for before in reader.inputs.iter().flatten().filter_map(|v| graph.producer(*v)) {
            let before = before.index();
            if constant[before] && layers[before].is_none_or(|l| l.node > layer.node) {
                layers[before] = Some(layer);
            }
        }
    }
    layers
}

fn is_constant(v: &Value) -> bool {
    v.source == Source::Constant && v.ty.dtype.is_float() && v.ty.elements() > 1
}

fn is_uniform(v: &Value) -> bool {
    // Without a copy where it may be a large one.
    if let Some(d) = floats(v) {
        return d.iter().all(|x| *x == d[0]);
    }
    let data = v.data.as_ref().and_then(Tensor::to_f64);
    data.is_some_and(|d| d.iter().all(|x| *x == d[0]))
}
