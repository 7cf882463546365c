//! Which nodes run together: the steps of a plan.
//!
//! An [`Item`] is an output of a node that has to be computed. Elementwise items over the same index
//! space are put in one step where that is legal, and so are reductions of its rows, what is computed
//! with the number of a row, and what reads such a number for each element of the row: a softmax or a
//! norm is one step. An item joins the latest step among those that make its operands, if that step is
//! such a program and reads nothing of the step out of order; all other operands are then ready before
//! that step. A second sweep, backwards, moves an elementwise item into the one step that uses it. Both
//! sweeps are linear.

use super::alias::Aliases;
use super::draft::{MAX_OPERANDS, MAX_OPERATIONS};
use super::pointwise::{self, Item};
use crate::exec::program::Per;
use crate::host::strided::Strided;
use pam_ir::graph::{Graph, NodeId, Source, ValueId};

/// Items that run together, in order.
#[derive(Clone, Debug)]
pub struct Group {
    /// The items.
    pub items: Vec<Item>,
    /// The index space of a program, without dimensions of size 1; `None` for a node that has a
    /// kernel of its own.
    pub space: Option<Vec<usize>>,
    /// Elements of the rows that a program reduces, or 1.
    pub row: usize,
}

/// An operand of an item, as grouping sees it.
struct Use {
    root: ValueId,
    /// How it is read, if it is a whole buffer.
    read: Option<Order>,
}

/// In which order a whole buffer is read.
enum Order {
    /// Element for element, in the same space.
    Direct,
    Walk(Strided),
}

impl Use {
    fn is_direct(&self) -> bool {
        matches!(self.read, Some(Order::Direct))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Users {
    None,
    One(usize),
    Many,
}

/// What an item is to a program.
enum Kind {
    /// Something for each element of this space.
    Elementwise(Vec<usize>),
    /// A reduction.
    Reduction(Rows),
}

/// An index space of rows.
struct Rows {
    space: Vec<usize>,
    row: usize,
    /// What is left when they are reduced.
    reduced: Vec<usize>,
}

#[derive(Default)]
struct Open {
    space: Option<Vec<usize>>,
    /// The length of the rows and the space of what they are reduced to, once there is a reduction.
    rows: Option<(usize, Vec<usize>)>,
    operations: usize,
    operands: usize,
}

impl Open {
    /// What an elementwise item over that space is to the program, if it can be part of it.
    fn per(&self, space: &[usize]) -> Option<Per> {
        if self.space.as_deref() == Some(space) {
            return Some(Per::Element);
        }
        let rows = self.rows.as_ref().filter(|(_, reduced)| reduced == space);
        rows.map(|_| Per::Row)
    }

    /// Whether a program can read one of its own values so.
    fn reads(&self, used: &Use, value: Per, per: Per) -> bool {
        match (&used.read, &self.rows, &self.space) {
            (Some(Order::Direct), ..) => value == per,
            (Some(Order::Walk(walk)), Some((row, _)), Some(space)) => {
                let count: usize = space.iter().product();
                (value, per) == (Per::Row, Per::Element)
                    && *walk == Strided::new(&[count / row, *row], &[1, 0], 0)
            }
            _ => false,
        }
    }

    /// Whether there is room for an item with so many operands, of which so many are read from memory.
    fn fits(&self, uses: usize, read: usize) -> bool {
        self.operations + operations(uses) <= MAX_OPERATIONS && self.operands + read <= MAX_OPERANDS
    }

    fn add(&mut self, uses: usize, read: usize) {
        self.operations += operations(uses);
        self.operands += read;
    }
}

/// The index space of a value.
pub fn space(graph: &Graph, v: ValueId) -> Vec<usize> {
    graph.ty(v).shape.iter().copied().filter(|&d| d != 1).collect()
}

/// The steps as they are found.
struct Grouping<'g> {
    graph: &'g Graph,
    aliases: &'g Aliases,
    open: Vec<Open>,
    items: Vec<(Item, usize)>,
    /// The step that makes a value, and what it is there.
    made: Vec<Option<(usize, Per)>>,
}

/// Groups everything that has to be computed. `kept` are the roots that leave the graph; without
/// `fuse` every item is a step of its own.
pub fn group(graph: &Graph, aliases: &Aliases, kept: &[bool], fuse: bool) -> Vec<Group> {
    let made = vec![None; graph.values.len()];
    let mut g = Grouping { graph, aliases, open: Vec::new(), items: Vec::new(), made };
    for (n, node) in graph.nodes.iter().enumerate() {
        let id = NodeId(n as u32);
        let wanted = node.outputs.iter().enumerate().filter_map(|(k, v)| v.map(|v| (k, v)));
        let computed = wanted.filter(|(_, v)| aliases.computed(graph, *v));
        let outputs: Vec<(usize, ValueId)> = computed.collect();
        if pointwise::is(graph, node) {
            for (output, v) in outputs {
                g.add(Item { node: id, output }, v, Kind::Elementwise(space(graph, v)), fuse);
            }
            continue;
        }
        let Some(&(output, v)) = outputs.first() else { continue };
        let item = Item { node: id, output: 0 };
        let rows = pointwise::reduction_of_rows(graph, node).filter(|_| fuse && output == 0);
        if let (Some((_, row)), Some(from)) = (rows, node.input(0)) {
            let rows = Rows { space: space(graph, from), row, reduced: space(graph, v) };
            g.add(item, v, Kind::Reduction(rows), fuse);
            continue;
        }
        g.items.push((item, g.open.len()));
        let step = (g.open.len(), Per::Element);
        outputs.iter().for_each(|(_, v)| g.made[v.index()] = Some(step));
        g.open.push(Open::default());
    }
    if fuse {
        g.sink(kept);
    }
    g.finish()
}

impl Grouping<'_> {
    /// Puts an item in the step it can join, or in one of its own.
    fn add(&mut self, item: Item, v: ValueId, kind: Kind, fuse: bool) {
        let uses = uses(self.graph, self.aliases, item);
        let made = |u: &Use| self.made[u.root.index()];
        let latest = uses.iter().filter_map(made).map(|(step, _)| step).max();
        let read = |m: usize| uses.iter().filter(|u| made(u).is_none_or(|(s, _)| s != m)).count();
        let fits = |m: &usize| self.open[*m].fits(uses.len(), read(*m));
        let joined = latest.filter(|m| fuse && fits(m)).and_then(|m| {
            let step = &self.open[m];
            let (per, reads) = match &kind {
                Kind::Elementwise(space) => (step.per(space)?, step.per(space)?),
                Kind::Reduction(rows) => {
                    let same = step.space.as_ref() == Some(&rows.space);
                    let fits = step.rows.as_ref().is_none_or(|(row, _)| *row == rows.row);
                    (same && fits).then_some((Per::Row, Per::Element))?
                }
            };
            let here = |u: &Use| made(u).filter(|(step, _)| *step == m);
            let legal = |u: &Use| here(u).is_none_or(|(_, value)| step.reads(u, value, reads));
            uses.iter().all(legal).then_some((m, per))
        });
        let (step, per) = joined.unwrap_or_else(|| {
            let (space, per) = match &kind {
                Kind::Elementwise(space) => (space, Per::Element),
                Kind::Reduction(rows) => (&rows.space, Per::Row),
            };
            self.open.push(Open { space: Some(space.clone()), ..Open::default() });
            (self.open.len() - 1, per)
        });
        if let Kind::Reduction(Rows { row, reduced, .. }) = kind {
            self.open[step].rows = Some((row, reduced));
        }
        let read = read(step);
        self.open[step].add(uses.len(), read);
        self.items.push((item, step));
        self.made[v.index()] = Some((step, per));
    }

    /// Moves elementwise items into the one program that uses them.
    fn sink(&mut self, kept: &[bool]) {
        let mut users = vec![Users::None; self.graph.values.len()];
        for (v, _) in kept.iter().enumerate().filter(|(_, k)| **k) {
            users[v] = Users::Many;
        }
        for (item, step) in self.items.iter_mut().rev() {
            let node = self.graph.node(item.node);
            let uses = uses(self.graph, self.aliases, *item);
            if let Some(v) = node.output(item.output).filter(|_| pointwise::is(self.graph, node))
                && let Users::One(to) = users[v.index()]
                && to != *step
                && self.open[to].space.as_ref() == Some(&space(self.graph, v))
                && self.open[to].fits(uses.len(), uses.len())
            {
                self.open[to].add(uses.len(), uses.len());
                *step = to;
            }
            let program = self.open[*step].space.is_some();
            for u in uses {
                let users = &mut users[u.root.index()];
                *users = match *users {
                    Users::None if program && u.is_direct() => Users::One(*step),
                    Users::One(s) if s == *step && u.is_direct() => Users::One(s),
                    _ => Users::Many,
                };
            }
        }
    }

    fn finish(self) -> Vec<Group> {
        let empty = |open: Open| {
            let row = open.rows.map_or(1, |(row, _)| row);
            Group { items: Vec::new(), space: open.space, row }
        };
        let mut groups: Vec<Group> = self.open.into_iter().map(empty).collect();
        for (item, step) in self.items {
            groups[step].items.push(item);
        }
        groups.retain(|g| !g.items.is_empty());
        for group in &mut groups {
            // A reduction by itself has a kernel that divides long rows.
            if let [item] = group.items[..]
                && !pointwise::is(self.graph, self.graph.node(item.node))
            {
                (group.space, group.row) = (None, 1);
            }
        }
        groups
    }
}

/// An upper bound of the operations an item becomes.
fn operations(uses: usize) -> usize {
    uses.max(1)
}

/// The operands of an item whose buffers are made by steps.
fn uses(graph: &Graph, aliases: &Aliases, item: Item) -> Vec<Use> {
    let node = graph.node(item.node);
    let elementwise = pointwise::is(graph, node);
    let same_space =
        |v| node.output(item.output).is_some_and(|to| space(graph, v) == space(graph, to));
    let inputs = node.inputs.iter().flatten();
    inputs
        .filter(|v| matches!(graph.value(aliases.of(**v).root).source, Source::Node { .. }))
        .map(|&v| {
            let alias = aliases.of(v);
            let order = || match pointwise::walk_of_operand(graph, node, item.output, v) {
                _ if !elementwise => Some(Order::Direct),
                Ok(Some(walk)) => Some(Order::Walk(walk)),
                Ok(None) if same_space(v) => Some(Order::Direct),
                _ => None,
            };
            let read = if alias.whole(graph, v) { order() } else { None };
            Use { root: alias.root, read }
        })
        .collect()
}
