//! Values that need no memory of their own: the same elements, in the same order, as part of
//! another value's buffer. Reshaping costs nothing, and so does cutting along the outermost
//! dimension.

use super::movement;
use pam_ir::graph::{Graph, Node, Source, ValueId};
use pam_ir::op::Op;

/// Where a value lies: in the buffer of another value, or in its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The value whose buffer it is.
    pub root: ValueId,
    /// Where it begins, in bytes.
    pub offset: usize,
}

impl Alias {
    /// Whether `v`, of which this is the alias, is the whole buffer.
    pub fn whole(self, graph: &Graph, v: ValueId) -> bool {
        self.offset == 0 && graph.ty(v).bytes() == graph.ty(self.root).bytes()
    }
}

/// The aliases of all values.
pub struct Aliases(Vec<Alias>);

impl Aliases {
    /// Finds them.
    ///
    /// # Errors
    /// The node whose attributes do not fit its shapes, and how.
    pub fn new(graph: &Graph) -> Result<Aliases, (&Node, String)> {
        let own = |i| Alias { root: ValueId(i), offset: 0 };
        let mut aliases: Vec<Alias> = (0..graph.values.len() as u32).map(own).collect();
        for node in &graph.nodes {
            for (k, v) in node.outputs.iter().enumerate() {
                let (Some(v), Some(input)) = (*v, node.input(0)) else { continue };
                if graph.ty(v).elements() == 0 {
                    continue;
                }
                let walk = movement::walk(graph, node, k).map_err(|reason| (node, reason))?;
                if let Some(walk) = walk.filter(|w| w.is_contiguous()) {
                    let from = aliases[input.index()];
                    let offset = walk.offset as usize * graph.ty(input).dtype.size();
                    aliases[v.index()] = Alias { root: from.root, offset: from.offset + offset };
                }
            }
        }
        Ok(Aliases(aliases))
    }

    /// The alias of a value.
    pub fn of(&self, v: ValueId) -> Alias {
        self.0[v.index()]
    }

    /// Whether a step has to compute a value: it is neither an alias, nor empty, nor known when
    /// planning.
    pub fn computed(&self, graph: &Graph, v: ValueId) -> bool {
        let Source::Node { node, .. } = graph.value(v).source else { return false };
        self.of(v).root == v
            && graph.ty(v).elements() > 0
            && !known_when_planning(graph.node(node).op)
    }
}

/// Ops whose result depends on shapes and attributes only.
pub fn known_when_planning(op: Op) -> bool {
    matches!(op, Op::Shape | Op::Size | Op::Range | Op::EyeLike)
}
