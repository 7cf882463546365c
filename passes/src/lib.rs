//! The pipeline that rewrites a training step.
//!
//! [`compile`] runs these passes in order, each a rebuilding of the whole graph:
//!
//! 1. `fold`: what constants determine is computed now; what no output needs is dropped.
//! 2. `roles`: each node is forward, loss, backward, optimizer or metric.
//! 3. `components`: each node belongs to a unit that a policy addresses.
//! 4. [`policy`]: each node gets the mode in which it is to multiply.
//! 5. [`lower`]: nodes that are not native are rewritten in additions and PA primitives.
//!    Where a forward node's derivative is to be exact, the imported backward pass is discarded and
//!    [`differentiate`] makes a new one from the lowered forward pass.
//! 6. `simplify`: equal nodes are joined, identities dropped.
//!
//! [`step`] makes a training step of a forward graph before all this.
//!
//! The result carries no promise: whether it is legal for a target is decided by
//! `pam_ir::certify`, which knows nothing of what stands here. [`expand`] is the lowering under
//! native arithmetic, for executing what stays native.

mod components;
pub mod differentiate;
mod fold;
pub mod lower;
pub mod policy;
mod roles;
mod simplify;
pub mod step;

use differentiate::Regenerated;
pub use differentiate::{Detach, GradientEvidence, Gradients, Recognised};
pub use fold::Folded;
pub use policy::{Backward, Multiplier, Policy};
pub use roles::Evidence;

use lower::{Arithmetic, Lowering, integer_rule, rule};
use pam_ir::build::{Rebuild, Scope};
use pam_ir::graph::{Graph, Node};
use pam_ir::op::{Level, Op};
use pam_ir::role::{Component, Mode, Role};
use std::fmt;

/// A graph that cannot be compiled under a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// Name of the node, where the reason lies in one.
    pub node: Option<String>,
    /// Its op.
    pub op: String,
    /// What is wrong.
    pub reason: String,
    /// What the user can do.
    pub remedy: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = &self.node {
            write!(f, "node `{node}` ({}): ", self.op)?;
        }
        write!(f, "{}", self.reason)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl std::error::Error for CompileError {}

impl CompileError {
    /// An error that lies in no single node.
    fn general(reason: String, remedy: &str) -> CompileError {
        CompileError { node: None, op: String::new(), reason, remedy: remedy.to_owned() }
    }

    fn at(node: &Node, reason: impl Into<String>, remedy: &str) -> CompileError {
        CompileError {
            node: Some(node.name.clone()),
            op: node.op.onnx_name().to_owned(),
            reason: reason.into(),
            remedy: remedy.to_owned(),
        }
    }
}

/// One node that a rule has rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Name of the node.
    pub node: String,
    /// Its op.
    pub op: &'static str,
    /// The rule.
    pub rule: &'static str,
    /// Its component.
    pub component: Component,
    /// The mode the policy gave it.
    pub mode: Mode,
}

/// What compiling a graph gives.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The graph after the first four passes: folded and labelled, but not rewritten.
    pub source: Graph,
    /// The rewritten graph.
    pub graph: Graph,
    /// Every rewriting, in the order of the nodes.
    pub rewrites: Vec<Rewrite>,
    /// What was computed when compiling.
    pub folded: Folded,
    /// How the roles were found.
    pub evidence: Evidence,
    /// How many nodes each entry of the policy's overrides caught.
    pub caught: Vec<usize>,
    /// The gradients that were computed anew; none if the imported backward pass was kept.
    pub gradients: Option<Gradients>,
}

/// Rewrites a graph under a policy.
///
/// # Errors
/// Names the node that cannot be rewritten.
pub fn compile(graph: &Graph, policy: &Policy) -> Result<Compiled, CompileError> {
    compile_with(graph, policy, &Recognised::default())
}

/// Rewrites a graph under a policy, with gradients that were recognised by their values, see
/// [`uncertain`].
///
/// # Errors
/// Names the node that cannot be rewritten.
pub fn compile_with(
    graph: &Graph,
    policy: &Policy,
    recognised: &Recognised,
) -> Result<Compiled, CompileError> {
    let Labelled { source, folded, evidence, caught } = label(graph, policy, recognised);
    let arithmetic =
        policy.arithmetic().map_err(|e| CompileError::general(e, "use one of them"))?;
    let mut gradients = gradients(&source, policy, recognised)?;
    if let Some((parameter, _)) = gradients.iter().flat_map(|g| &g.open).next() {
        let reason = format!("which value is the gradient of `{parameter}` is not clear");
        return Err(CompileError::general(reason, "name it in the metadata `pam.gradients`"));
    }
    let (lowered, rewrites) = match &mut gradients {
        Some(found) if found.evidence == GradientEvidence::Op => {
            differentiate::answer(&source, arithmetic)?
        }
        Some(found) if !found.pairs.is_empty() => loop {
            match differentiate::regenerate(&source, found, arithmetic)? {
                Regenerated::Whole(made) => break *made,
                Regenerated::Flat(parameters) => found.keep(&parameters),
            }
        },
        _ => lower(&source, arithmetic)?,
    };
    check(&lowered, "lowering");
    let mut graph = simplify::simplify(&lowered);
    let names = graph.unique_node_names();
    for (node, name) in graph.nodes.iter_mut().zip(names) {
        node.name = name;
    }
    check(&graph, "simplifying");
    Ok(Compiled { source, graph, rewrites, folded, evidence, caught, gradients })
}

/// A graph after the first four passes.
struct Labelled {
    source: Graph,
    folded: Folded,
    evidence: Evidence,
    caught: Vec<usize>,
}

fn label(graph: &Graph, policy: &Policy, recognised: &Recognised) -> Labelled {
    let (mut source, folded) = fold::fold(graph);
    let evidence = roles::assign(&mut source, recognised);
    components::assign(&mut source);
    let caught = policy.assign(&mut source);
    check(&source, "labelling");
    Labelled { source, folded, evidence, caught }
}

/// The labelled graph and its imported gradients, where they are to be computed anew. Whoever can execute the graph of
/// [`gradient_check`] recognises by the values which they are, which marks of the exporter end derivatives, and which
/// are no derivatives of the forward pass.
///
/// # Errors
/// Where the graph cannot be differentiated under the policy.
pub fn uncertain(
    graph: &Graph,
    policy: &Policy,
) -> Result<Option<(Graph, Gradients)>, CompileError> {
    if policy.backward != Backward::Regenerate && !policy.wants_exact() {
        return Ok(None);
    }
    let nothing = Recognised::default();
    let source = label(graph, policy, &nothing).source;
    let found = gradients(&source, policy, &nothing)?;
    Ok(found.filter(|g| g.evidence != GradientEvidence::Op).map(|g| (source, g)))
}

/// Whether a graph has marks of the exporter that end derivatives, where `detach()` was.
pub fn detaches(graph: &Graph) -> bool {
    graph.nodes.iter().any(differentiate::is_detached)
}

/// The gradients that are to be computed anew; none where the imported backward pass is kept.
fn gradients(
    graph: &Graph,
    policy: &Policy,
    recognised: &Recognised,
) -> Result<Option<Gradients>, CompileError> {
    let forward = |n: &&Node| matches!(n.role, Role::Forward | Role::Loss);
    let exact = graph.nodes.iter().filter(forward).find(|n| n.mode == Mode::Exact && multiplies(n));
    if graph.nodes.iter().any(|n| n.op == Op::Gradient) {
        return differentiate::find(graph, recognised).map_err(|e| CompileError::general(e, ""));
    }
    match (policy.backward, exact) {
        (Backward::Keep, Some(node)) => {
            let reason = "its derivative is to be exact, but the backward pass is kept";
            return Err(CompileError::at(node, reason, "leave `--backward keep` out"));
        }
        (Backward::Auto | Backward::Keep, None) => return Ok(None),
        _ => {}
    }
    let error = CompileError::general;
    let found = differentiate::find(graph, recognised)
        .map_err(|e| error(e, "name it in the metadata `pam.gradients`, or use approx"))?;
    match found {
        // A forward pass alone has no backward pass to replace.
        None if graph.bindings.is_empty() && policy.backward == Backward::Auto => Ok(None),
        None => {
            let reason = "no loss with trained parameters is found to differentiate".to_owned();
            Err(error(
                reason,
                "name the loss in the metadata `pam.loss`, or bind state with --bind",
            ))
        }
        found => Ok(found),
    }
}

/// The graph that computes the gradients of a compiled step both ways, natively, to compare them.
///
/// # Errors
/// Names the node that has no derivative.
pub fn gradient_check(source: &Graph, gradients: &Gradients) -> Result<Graph, CompileError> {
    differentiate::check_graph(source, gradients)
}

/// Decomposes the composite ops that are left into ops that the runtime executes, natively.
///
/// # Errors
/// Names the node that cannot be decomposed.
pub fn expand(graph: &Graph) -> Result<Graph, CompileError> {
    let expanded = graph.rebuild(|r, _, node| {
        // Native ops are executed as they stand, but some have operands that only a rule resolves,
        // and the runtime's remainder has but one sign.
        let float = node.output(0).is_some_and(|v| graph.ty(v).dtype.is_float());
        let resolved = node.op == Op::Conv || node.op == Op::Mod && float;
        let composite = node.op.level() == Level::Composite;
        let Some((name, rule)) = rule(node.op).filter(|_| composite || resolved) else {
            r.copy(node);
            return Ok(());
        };
        r.to.scope = Scope::of(node, name);
        rule(&mut Lowering::new(r, Arithmetic::Native), node)
            .map_err(|e| CompileError::at(node, e.to_string(), ""))
    })?;
    Ok(simplify::simplify(&expanded))
}

/// In builds with debug assertions every pass is followed by the verifier: a graph that is not well
/// formed is a defect of the pass.
fn check(graph: &Graph, pass: &str) {
    if cfg!(debug_assertions)
        && let Err(faults) = pam_ir::verify::verify(graph)
    {
        panic!("after {pass}: {}", faults[0]);
    }
}

fn multiplies(node: &Node) -> bool {
    matches!(node.op.level(), Level::Native | Level::Composite)
}

/// Applies the rules to every node that is not native.
fn lower(graph: &Graph, arithmetic: Arithmetic) -> Result<(Graph, Vec<Rewrite>), CompileError> {
    let mut rewrites = Vec::new();
    let lowered =
        graph.rebuild(|r, _, node| lower_node(r, node, arithmetic, false, &mut rewrites))?;
    Ok((lowered, rewrites))
}

/// Lowers one node if its mode asks for it, or in any case; copies it otherwise.
fn lower_node(
    r: &mut Rebuild<'_>,
    node: &Node,
    arithmetic: Arithmetic,
    always: bool,
    rewrites: &mut Vec<Rewrite>,
) -> Result<(), CompileError> {
    let float = node.inputs.iter().chain(&node.outputs).flatten();
    let float = float.map(|&v| r.old.ty(v).dtype).any(|d| d.is_float());
    // PA primitives are of floats: what multiplies integers is left for the certifier to refuse.
    let found = match (float, node.op.level()) {
        (true, _) => rule(node.op),
        (false, Level::Composite) if r.old.multiplies(node) == 0 => rule(node.op),
        (false, Level::Composite) => None,
        (false, _) => integer_rule(node.op),
    };
    let Some((name, rule)) = found.filter(|_| always || node.mode != Mode::Native) else {
        r.copy(node);
        return Ok(());
    };
    r.to.scope = Scope::of(node, name);
    rule(&mut Lowering::new(r, arithmetic), node)
        .map_err(|e| CompileError::at(node, e.to_string(), "export it in other ops"))?;
    rewrites.push(Rewrite {
        node: node.name.clone(),
        op: node.op.onnx_name(),
        rule: name,
        component: node.component,
        mode: node.mode,
    });
    Ok(())
}
