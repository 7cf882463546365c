//! Which nodes run together: the steps of a plan.
//!
//! An [`Item`] is an output of a node that has to be computed. Elementwise items over the same index
//! space are put in one step where that is legal: an item joins the latest step among those that
//! make its operands, if that step is an elementwise program over the same index space and reads
//! nothing of the step out of order; all other operands are then ready before that step. A second
//! sweep, backwards, moves an item into the one step that uses it. Both sweeps are linear.

use super::alias::Aliases;
use super::draft::{MAX_OPERANDS, MAX_OPERATIONS};
use super::pointwise;
use pam_ir::graph::{Graph, NodeId, Source, ValueId};

/// An output of a node, or all outputs of a node that is not elementwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The node.
    pub node: NodeId,
    /// The output, for elementwise items.
    pub output: usize,
}

/// Items that run together, in order.
#[derive(Clone, Debug)]
pub struct Group {
    /// The items.
    pub items: Vec<Item>,
    /// The index space of an elementwise program, without dimensions of size 1; `None` for a node
    /// that has a kernel of its own.
    pub space: Option<Vec<usize>>,
}

/// An operand of an item, as grouping sees it.
struct Use {
    root: ValueId,
    direct: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Users {
    None,
    One(usize),
    Many,
}

struct Open {
    space: Option<Vec<usize>>,
    operations: usize,
    operands: usize,
}

/// The index space of a value.
pub fn space(graph: &Graph, v: ValueId) -> Vec<usize> {
    graph.ty(v).shape.iter().copied().filter(|&d| d != 1).collect()
}

/// Groups everything that has to be computed. `kept` are the roots that leave the graph; without
/// `fuse` every item is a step of its own.
pub fn group(graph: &Graph, aliases: &Aliases, kept: &[bool], fuse: bool) -> Vec<Group> {
    let mut items: Vec<(Item, usize)> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut step_of: Vec<Option<usize>> = vec![None; graph.values.len()];
    for (n, node) in graph.nodes.iter().enumerate() {
        let id = NodeId(n as u32);
        let outputs = || {
            let wanted = node.outputs.iter().enumerate();
            wanted
                .filter_map(|(k, v)| v.map(|v| (k, v)))
                .filter(|(_, v)| aliases.computed(graph, *v))
        };
        if !pointwise::is(graph, node) {
            if outputs().next().is_some() {
                let step = open.len();
                open.push(Open { space: None, operations: 0, operands: 0 });
                items.push((Item { node: id, output: 0 }, step));
                outputs().for_each(|(_, v)| step_of[v.index()] = Some(step));
            }
            continue;
        }
        for (k, v) in outputs() {
            let item = Item { node: id, output: k };
            let space = space(graph, v);
            let uses = uses(graph, aliases, item);
            let latest = uses.iter().filter_map(|u| step_of[u.root.index()]).max();
            let step = latest.filter(|&m| {
                let step = &open[m];
                let direct = uses.iter().all(|u| u.direct || step_of[u.root.index()] != Some(m));
                fuse && direct && step.space.as_ref() == Some(&space) && fits(step, uses.len())
            });
            let step = step.unwrap_or_else(|| {
                open.push(Open { space: Some(space), operations: 0, operands: 0 });
                open.len() - 1
            });
            open[step].operations += operations(uses.len());
            open[step].operands += uses.len();
            items.push((item, step));
            step_of[v.index()] = Some(step);
        }
    }
    if fuse {
        sink(graph, aliases, kept, &mut items, &mut open);
    }
    let mut groups: Vec<Group> =
        open.into_iter().map(|o| Group { items: Vec::new(), space: o.space }).collect();
    for (item, step) in items {
        groups[step].items.push(item);
    }
    groups.retain(|g| !g.items.is_empty());
    groups
}

/// An upper bound of the operations an item becomes.
fn operations(uses: usize) -> usize {
    uses.max(1)
}

fn fits(step: &Open, uses: usize) -> bool {
    step.operations + operations(uses) <= MAX_OPERATIONS && step.operands + uses <= MAX_OPERANDS
}

/// Moves items into the one program that uses them.
fn sink(
    graph: &Graph,
    aliases: &Aliases,
    kept: &[bool],
    items: &mut [(Item, usize)],
    open: &mut [Open],
) {
    let mut users = vec![Users::None; graph.values.len()];
    for (v, _) in kept.iter().enumerate().filter(|(_, k)| **k) {
        users[v] = Users::Many;
    }
    for (item, step) in items.iter_mut().rev() {
        let uses = uses(graph, aliases, *item);
        if let (Some(space), Some(v)) =
            (&open[*step].space, graph.node(item.node).output(item.output))
            && let Users::One(to) = users[v.index()]
            && to != *step
            && open[to].space.as_ref() == Some(space)
            && fits(&open[to], uses.len())
        {
            open[to].operations += operations(uses.len());
            open[to].operands += uses.len();
            *step = to;
        }
        let program = open[*step].space.is_some();
        for u in uses {
            let users = &mut users[u.root.index()];
            *users = match *users {
                Users::None if program && u.direct => Users::One(*step),
                Users::One(s) if s == *step && u.direct => Users::One(s),
                _ => Users::Many,
            };
        }
    }
}

/// The operands of an item whose buffers are made by steps.
fn uses(graph: &Graph, aliases: &Aliases, item: Item) -> Vec<Use> {
    let node = graph.node(item.node);
    let inputs = node.inputs.iter().flatten();
    inputs
        .filter(|v| matches!(graph.value(aliases.of(**v).root).source, Source::Node { .. }))
        .map(|&v| {
            let to = node.output(item.output);
            let direct = pointwise::walk_of_operand(graph, node, item.output, v)
                .is_ok_and(|walk| walk.is_none())
                && to.is_some_and(|to| space(graph, v) == space(graph, to));
            let alias = aliases.of(v);
            Use { root: alias.root, direct: direct && alias.whole(graph, v) }
        })
        .collect()
}
