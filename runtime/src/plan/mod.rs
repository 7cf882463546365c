//! Planning: from a certified graph to steps over fixed memory.
//!
//! [`plan`] is the only way to something that runs, and it takes nothing but a [`Certified`] graph.
//! In this order it
//!
//! 1. finds values that are only another view of a value ([`alias`]),
//! 2. puts elementwise nodes and reductions of rows together into programs ([`group`]),
//! 3. decides where each value lives: constants and inputs in memory of their own, new state in
//!    the half of the state that is not being read, everything else in one arena,
//! 4. lets results take over the memory of operands that end there,
//! 5. lays the arena out by lifetime ([`arena`]),
//! 6. resolves every operand of every step to an offset.
//!
//! All of it is linear in the number of nodes, or n·log n, but for the second way of laying out an arena,
//! which long plans do without. Nothing is decided while running.

pub mod alias;
pub mod arena;
mod compound;
pub mod draft;
pub mod group;
pub mod movement;
mod places;
pub mod pointwise;
mod registers;

use crate::error::{PlanError, RunError};
use crate::steps::Kernel;
use crate::steps::contract::{self, Layout};
use alias::Aliases;
use draft::Draft;
use group::{Group, group};
use pam_ir::certify::Certified;
use pam_ir::graph::{Graph, Node, NodeId, ValueId};
use pam_ir::op::{Level, Op};
use pam_ir::tensor::Tensor;
use pam_ir::types::Type;
use places::Addresses;
use pointwise::Literals;
use std::collections::HashMap;

/// How to plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Run elementwise nodes and reductions of rows together.
    pub fuse: bool,
    /// Let results take over the memory of operands.
    pub in_place: bool,
}

impl Default for PlanOptions {
    fn default() -> PlanOptions {
        PlanOptions { fuse: true, in_place: true }
    }
}

/// Where bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At an offset of the memory.
    At(usize),
    /// At the first offset in even runs and at the second in odd ones: carried state.
    Swap([usize; 2]),
    /// In a constant.
    Constant {
        /// Its number.
        index: u32,
        /// Where in it, in bytes.
        offset: usize,
    },
}

/// A range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Where it begins.
    pub place: Place,
    /// Its length.
    pub bytes: usize,
}

/// One step: a kernel and the memory it works on.
pub struct Step {
    /// What is computed.
    pub kernel: Kernel,
    /// What is read; `None` for omitted optional operands and operands that are overwritten.
    pub ins: Box<[Option<View>]>,
    /// What is written; empty views for results nobody asked for.
    pub outs: Box<[View]>,
    /// The first node of the step, for messages.
    pub node: NodeId,
}

/// An input of the plan.
#[derive(Clone, Debug)]
pub struct PlanInput {
    /// Name.
    pub name: String,
    /// Type.
    pub ty: Type,
    /// The value it has if none is given; an executor takes it out.
    pub(crate) default: Option<Tensor>,
    /// Its memory.
    pub view: View,
    /// The output whose value it takes after each run, if it is carried state.
    pub bound_to: Option<String>,
}

/// An output of the plan.
#[derive(Clone, Debug)]
pub struct PlanOutput {
    /// Name.
    pub name: String,
    /// Type.
    pub ty: Type,
    /// Its memory, valid until the next run.
    pub view: View,
}

/// How much memory a plan needs, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// The arena of intermediate values.
    pub arena: usize,
    /// The largest sum of intermediate values that exist at the same step.
    pub live: usize,
    /// Inputs that are not state.
    pub inputs: usize,
    /// State, both halves.
    pub state: usize,
    /// Constants.
    pub constants: usize,
    /// Scratch of one thread.
    pub scratch: usize,
}

/// What an executor runs.
pub struct Plan {
    /// Steps in order.
    pub(crate) steps: Vec<Step>,
    /// Inputs in the order of the graph.
    pub inputs: Vec<PlanInput>,
    /// Outputs in the order of the graph.
    pub outputs: Vec<PlanOutput>,
    /// State whose new value lies elsewhere and has to be copied after a run.
    pub(crate) carry: Vec<(View, View)>,
    /// Constants, including those that planning made.
    pub(crate) constants: Vec<Tensor>,
    /// Size of arena, inputs and state together.
    pub(crate) memory: usize,
    /// Names and ops of the nodes, for messages.
    pub(crate) nodes: Vec<(String, &'static str)>,
    /// How much memory is needed.
    pub report: MemoryReport,
}

impl Plan {
    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The error of a step that met data it cannot work on.
    pub(crate) fn fault(&self, step: usize, reason: String) -> RunError {
        let (node, op) = self.nodes[self.steps[step].node.index()].clone();
        RunError::Node { node, op, reason }
    }

    /// Number of elementwise programs among the steps, and of the operations in them.
    pub fn programs(&self) -> (usize, usize) {
        let operations = self.steps.iter().filter_map(|s| match &s.kernel {
            Kernel::Program(p) => Some(p.operations()),
            _ => None,
        });
        operations.fold((0, 0), |(n, sum), ops| (n + 1, sum + ops))
    }
}

/// Plans a certified graph.
///
/// # Errors
/// Names the node that cannot be executed, or says that memory cannot hold the buffers.
pub fn plan(certified: &Certified, options: PlanOptions) -> Result<Plan, PlanError> {
    Planner::new(certified.graph())?.plan(options)
}

struct Planner<'g> {
    graph: &'g Graph,
    aliases: Aliases,
    literals: Literals,
    /// Roots that leave the graph.
    kept: Vec<bool>,
    /// For an input that is state: its number among the bindings. For a computed root: the binding
    /// into whose new half it is written.
    state: HashMap<ValueId, usize>,
    next: HashMap<ValueId, usize>,
    /// Old and new value of each binding.
    bindings: Vec<(ValueId, ValueId)>,
}

/// A step whose memory is not assigned yet.
struct Sketch {
    node: NodeId,
    draft: Option<Draft>,
    reads: Vec<Option<(ValueId, usize, usize)>>,
    /// For the operands of a matrix product: how their matrices lie, if not densely.
    views: Vec<Option<Layout>>,
    stores: Vec<Option<ValueId>>,
    in_place: Vec<Option<usize>>,
}

fn unsupported(node: &Node, reason: String) -> PlanError {
    PlanError::Unsupported { node: node.name.clone(), op: node.op.onnx_name(), reason }
}

impl<'g> Planner<'g> {
    fn new(graph: &'g Graph) -> Result<Planner<'g>, PlanError> {
        let composite = |n: &&Node| matches!(n.op.level(), Level::Composite | Level::Opaque);
        if let Some(node) = graph.nodes.iter().find(composite) {
            let reason = "is not executable as it stands; compile the model first".to_owned();
            return Err(unsupported(node, reason));
        }
        let aliases = Aliases::new(graph).map_err(|(node, reason)| unsupported(node, reason))?;
        let mut planner = Planner {
            graph,
            aliases,
            literals: Literals::new(graph),
            kept: vec![false; graph.values.len()],
            state: HashMap::new(),
            next: HashMap::new(),
            bindings: Vec::new(),
        };
        let outputs: HashMap<&str, ValueId> =
            graph.outputs.iter().map(|o| (o.name.as_str(), o.value)).collect();
        let inputs: HashMap<&str, ValueId> =
            graph.inputs.iter().map(|&v| (graph.value(v).name.as_str(), v)).collect();
        for b in &graph.bindings {
            let (Some(&new), Some(&old)) =
                (outputs.get(b.new.as_str()), inputs.get(b.old.as_str()))
            else {
                continue;
            };
            let index = planner.bindings.len();
            planner.bindings.push((old, new));
            planner.state.insert(old, index);
            let alias = planner.aliases.of(new);
            let computed = planner.aliases.computed(graph, alias.root);
            if computed && alias.whole(graph, new) {
                planner.next.entry(alias.root).or_insert(index);
            }
        }
        for o in &graph.outputs {
            planner.kept[planner.aliases.of(o.value).root.index()] = true;
        }
        Ok(planner)
    }

    fn plan(mut self, options: PlanOptions) -> Result<Plan, PlanError> {
        let groups = group(self.graph, &self.aliases, &self.kept, options.fuse);
        let mut sketches =
            groups.iter().map(|g| self.sketch(g)).collect::<Result<Vec<Sketch>, PlanError>>()?;
        let last = self.last_uses(&mut sketches);
        for (s, sketch) in sketches.iter_mut().enumerate() {
            if sketch.draft.is_some() {
                // What no other step reads stays in registers.
                let leaves = |v: &ValueId| self.kept[v.index()] || last[v.index()] > Some(s);
                sketch.stores.retain(|v| v.as_ref().is_some_and(leaves));
            }
        }
        let mut memory = self.memory(&mut sketches, &last, options)?;
        let mut steps = Vec::with_capacity(sketches.len());
        let mut scratch = 0;
        for sketch in sketches {
            let step = self.step(sketch, &mut memory)?;
            scratch = scratch.max(step.kernel.scratch());
            steps.push(step);
        }
        self.finish(steps, memory, scratch)
    }

    /// Collects what a group reads and writes.
    fn sketch(&mut self, group: &Group) -> Result<Sketch, PlanError> {
        let graph = self.graph;
        let first = group.items[0];
        let node = graph.node(first.node);
        let Some(space) = &group.space else {
            let mut reads: Vec<Option<(ValueId, usize, usize)>> =
                node.inputs.iter().map(|v| v.map(|v| self.read(v))).collect();
            let mut views = vec![None; reads.len()];
            if matches!(
                node.op,
                Op::MatMul | Op::PamMatMul | Op::PamMatMulGradA | Op::PamMatMulGradB
            ) {
                for (i, v) in node.inputs.iter().enumerate() {
                    if let Some((read, layout)) = v.and_then(|v| self.matrices(v, i == 0)) {
                        (reads[i], views[i]) = (Some(read), Some(layout));
                    }
                }
            }
            let stored = |v: &Option<ValueId>| v.filter(|&v| self.aliases.computed(graph, v));
            let stores: Vec<Option<ValueId>> = node.outputs.iter().map(stored).collect();
            let in_place = vec![None; stores.len()];
            return Ok(Sketch { node: first.node, draft: None, reads, views, stores, in_place });
        };
        let mut draft = Draft::new(space.iter().product(), group.row);
        let mut stores = Vec::new();
        for &item in &group.items {
            let node = graph.node(item.node);
            pointwise::append(&mut draft, graph, &self.aliases, &mut self.literals, item)
                .map_err(|reason| unsupported(node, reason))?;
            stores.push(node.output(item.output));
        }
        let reads = draft.reads.iter().map(|r| Some((r.root, r.offset, r.span))).collect();
        let (draft, views) = (Some(draft), Vec::new());
        Ok(Sketch { node: first.node, draft, reads, views, stores, in_place: Vec::new() })
    }

    /// An operand of a matrix product that a movement along strides makes is read from where the
    /// movement reads it.
    fn matrices(&self, v: ValueId, left: bool) -> Option<((ValueId, usize, usize), Layout)> {
        let graph = self.graph;
        let alias = self.aliases.of(v);
        let producer = graph.node(graph.producer(alias.root)?);
        let walk = movement::walk(graph, producer, 0).ok()??;
        if producer.output(0) != Some(alias.root) || !alias.whole(graph, v) {
            return None;
        }
        let (rows, cols) = contract::matrix(&graph.ty(v).shape, left);
        Some((self.read(producer.input(0)?), Layout::of(&walk, rows, cols)?))
    }

    fn read(&self, v: ValueId) -> (ValueId, usize, usize) {
        let alias = self.aliases.of(v);
        (alias.root, alias.offset, self.graph.ty(v).bytes())
    }

    /// The last step that reads each root. Steps that make nothing anybody reads are dropped.
    fn last_uses(&self, sketches: &mut Vec<Sketch>) -> Vec<Option<usize>> {
        let mut used = self.kept.clone();
        used.resize(self.graph.values.len() + self.literals.tensors.len(), false);
        let mut live = vec![false; sketches.len()];
        for (s, sketch) in sketches.iter().enumerate().rev() {
            live[s] = sketch.stores.iter().flatten().any(|v| used[v.index()]);
            if live[s] {
                sketch.reads.iter().flatten().for_each(|(root, ..)| used[root.index()] = true);
            }
        }
        let mut keep = live.into_iter();
        sketches.retain(|_| keep.next() == Some(true));
        let mut last = vec![None; used.len()];
        for (s, sketch) in sketches.iter().enumerate() {
            for (root, ..) in sketch.reads.iter().flatten() {
                last[root.index()] = Some(s);
            }
        }
        last
    }

    fn step(&self, sketch: Sketch, memory: &mut Addresses) -> Result<Step, PlanError> {
        let graph = self.graph;
        let node = graph.node(sketch.node);
        let mut ins = Vec::with_capacity(sketch.reads.len());
        for (r, read) in sketch.reads.iter().enumerate() {
            let gone = sketch.in_place.contains(&Some(r));
            ins.push(match read {
                Some(read) if !gone => Some(self.view(*read, memory)?),
                _ => None,
            });
        }
        let none = View { place: Place::At(0), bytes: 0 };
        let mut outs = Vec::with_capacity(sketch.stores.len());
        for store in &sketch.stores {
            outs.push(match store {
                Some(v) => self.view((*v, 0, graph.ty(*v).bytes()), memory)?,
                None => none,
            });
        }
        let kernel = match sketch.draft {
            Some(draft) => {
                let stores: Vec<ValueId> = sketch.stores.iter().filter_map(|v| *v).collect();
                Kernel::Program(draft.finish(&stores, &sketch.in_place))
            }
            None => Kernel::lower(graph, node, &sketch.views)
                .map_err(|reason| unsupported(node, reason))?,
        };
        Ok(Step { kernel, ins: ins.into(), outs: outs.into(), node: sketch.node })
    }

    fn finish(
        self,
        steps: Vec<Step>,
        mut memory: Addresses,
        scratch: usize,
    ) -> Result<Plan, PlanError> {
        let graph = self.graph;
        let mut bound: HashMap<ValueId, &str> = HashMap::new();
        for b in &graph.bindings {
            if let Some(v) = graph.inputs.iter().find(|v| graph.value(**v).name == b.old) {
                bound.insert(*v, &b.new);
            }
        }
        let mut inputs = Vec::with_capacity(graph.inputs.len());
        for &v in &graph.inputs {
            let value = graph.value(v);
            inputs.push(PlanInput {
                name: value.name.clone(),
                ty: value.ty.clone(),
                default: value.data.clone(),
                view: self.view((v, 0, value.ty.bytes()), &mut memory)?,
                bound_to: bound.get(&v).map(|s| (*s).to_owned()),
            });
        }
        let mut outputs = Vec::with_capacity(graph.outputs.len());
        for o in &graph.outputs {
            let view = self.view(self.read(o.value), &mut memory)?;
            outputs.push(PlanOutput { name: o.name.clone(), ty: graph.ty(o.value).clone(), view });
        }
        let mut carry = Vec::new();
        for (i, &(_, new)) in self.bindings.iter().enumerate() {
            if self.next.get(&self.aliases.of(new).root) != Some(&i) {
                let [even, odd] = memory.halves[i];
                let bytes = graph.ty(new).bytes();
                let to = View { place: Place::Swap([odd, even]), bytes };
                carry.push((self.view(self.read(new), &mut memory)?, to));
            }
        }
        let constants = memory.constants.iter().map(|t| t.ty().bytes()).sum();
        Ok(Plan {
            steps,
            inputs,
            outputs,
            carry,
            memory: memory.memory,
            report: MemoryReport { constants, scratch, ..memory.report },
            constants: memory.constants,
            nodes: graph.nodes.iter().map(|n| (n.name.clone(), n.op.onnx_name())).collect(),
        })
    }
}
