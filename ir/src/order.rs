//! Graph algorithms, on petgraph.

use crate::graph::{Graph, NodeId, ValueId};
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, Reversed};

/// Puts items with dependencies in a topological order that keeps the given order where it already
/// is one.
///
/// `edges` holds (before, after) pairs of positions below `count`.
///
/// # Errors
/// The positions of one cycle's members, ascending.
pub fn topological(count: usize, edges: &[(usize, usize)]) -> Result<Vec<usize>, Vec<usize>> {
    // Exporters nearly always write nodes in order, and then that order is the one to keep.
    if edges.iter().all(|(a, b)| a < b) {
        return Ok((0..count).collect());
    }
    let graph = dependency_graph(count, edges);
    match toposort(&graph, None) {
        Ok(order) => Ok(order.into_iter().map(NodeIndex::index).collect()),
        Err(_) => {
            let cycle = tarjan_scc(&graph)
                .into_iter()
                .find(|c| c.len() > 1 || graph.contains_edge(c[0], c[0]))
                .unwrap_or_default();
            let mut members: Vec<usize> = cycle.into_iter().map(NodeIndex::index).collect();
            members.sort_unstable();
            Err(members)
        }
    }
}

fn dependency_graph(count: usize, edges: &[(usize, usize)]) -> DiGraph<(), (), u32> {
    let mut graph = DiGraph::with_capacity(count, edges.len());
    for _ in 0..count {
        graph.add_node(());
    }
    // Visiting neighbours newest edge first is petgraph's order, so edges go in backwards.
    for &(a, b) in edges.iter().rev() {
        graph.add_edge(NodeIndex::new(a), NodeIndex::new(b), ());
    }
    graph
}

impl Graph {
    /// The dependencies between nodes as a petgraph graph whose node indices are those of
    /// [`Graph::nodes`].
    pub fn dependencies(&self) -> DiGraph<(), (), u32> {
        let mut edges = Vec::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let producers = node.inputs.iter().flatten().filter_map(|&v| self.producer(v));
            edges.extend(producers.map(|p| (p.index(), i)));
        }
        dependency_graph(self.nodes.len(), &edges)
    }

    /// Marks the nodes that the values depend on.
    pub fn ancestors(&self, values: impl IntoIterator<Item = ValueId>) -> Vec<bool> {
        let graph = self.dependencies();
        let starts = values.into_iter().filter_map(|v| self.producer(v));
        reach(Reversed(&graph), starts, self.nodes.len())
    }

    /// Marks the nodes that depend on the values.
    pub fn descendants(&self, values: impl IntoIterator<Item = ValueId>) -> Vec<bool> {
        let mut wanted = vec![false; self.values.len()];
        for v in values {
            wanted[v.index()] = true;
        }
        let graph = self.dependencies();
        let reads = |n: &crate::graph::Node| n.inputs.iter().flatten().any(|v| wanted[v.index()]);
        let starts = self.nodes.iter().enumerate().filter(|(_, n)| reads(n));
        reach(&graph, starts.map(|(i, _)| NodeId(i as u32)), self.nodes.len())
    }
}

fn reach<G>(graph: G, starts: impl Iterator<Item = NodeId>, count: usize) -> Vec<bool>
where
    G: petgraph::visit::IntoNeighbors<NodeId = NodeIndex<u32>>
        + petgraph::visit::Visitable<NodeId = NodeIndex<u32>>,
    G::Map: petgraph::visit::VisitMap<NodeIndex<u32>>,
{
    let mut dfs = Dfs::empty(graph);
    let mut reached = vec![false; count];
    for start in starts {
        dfs.move_to(NodeIndex::new(start.index()));
        while let Some(n) = dfs.next(graph) {
            reached[n.index()] = true;
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::topological;

    #[test]
    fn keeps_an_order_and_finds_cycles() {
        assert_eq!(topological(3, &[(0, 2), (1, 2)]), Ok(vec![0, 1, 2]));
        let order = topological(3, &[(2, 0), (0, 1)]).unwrap();
        assert_eq!(order, [2, 0, 1]);
        assert_eq!(topological(4, &[(3, 0), (1, 2), (2, 1)]), Err(vec![1, 2]));
        assert_eq!(topological(1, &[(0, 0)]), Err(vec![0]));
    }
}
