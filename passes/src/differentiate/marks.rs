//! Where the derivative of a forward pass ends although its ops have one. A graph does not show it, but PyTorch's
//! exporter notes with each node the call that it came from:
//!
//! ```text
//! %detach : [num_users=1] = call_function[target=torch.ops.aten.detach.default](args = (%linear,), kwargs = {})
//! ```

use pam_ir::graph::{Graph, Node, ValueId};
use pam_ir::op::Op;

/// The key among the metadata of a node.
const KEY: &str = "pkg.torch.onnx.fx_node";

/// Which `detach` end a derivative. Where a whole step was recorded, PyTorch's own code has put in some: around
/// parameters and the loss, and where a derivative is itself differentiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detach {
    /// All of them.
    #[default]
    All,
    /// Those that are neither of an input nor give an output.
    Inner,
    /// None of them.
    None,
}

impl Detach {
    /// All choices, that which believes most in what the file says first.
    pub const CHOICES: [Detach; 3] = [Detach::All, Detach::Inner, Detach::None];

    /// Takes the mark off the nodes of a graph that end no derivative.
    pub(super) fn unmark(self, graph: &mut Graph) {
        let mut outer = vec![false; graph.values.len()];
        graph.inputs.iter().for_each(|v| outer[v.index()] = true);
        let mut given = vec![false; graph.values.len()];
        graph.outputs.iter().for_each(|o| given[o.value.index()] = true);
        // Several of them may follow each other.
        for node in graph.nodes.iter().rev().filter(|n| is_detached(n)) {
            if let (Some(x), Some(y)) = (node.input(0), node.output(0)) {
                given[x.index()] |= given[y.index()];
            }
        }
        for node in graph.nodes.iter_mut().filter(|n| is_detached(n)) {
            let (Some(x), Some(y)) = (node.input(0), node.output(0)) else { continue };
            outer[y.index()] = outer[x.index()];
            if self == Detach::None
                || self == Detach::Inner && (outer[x.index()] || given[y.index()])
            {
                node.metadata.remove(KEY);
            }
        }
    }

    /// The first choice from this one on with which the loss is seen to depend on all of some values.
    pub(super) fn reaching(self, graph: &Graph, loss: ValueId, wanted: &[ValueId]) -> Detach {
        let reaches = |choice: &Detach| {
            let mut unmarked = graph.clone();
            choice.unmark(&mut unmarked);
            let mut needed = vec![false; graph.values.len()];
            needed[loss.index()] = true;
            for node in unmarked.nodes.iter().rev().filter(|n| !is_detached(n)) {
                if node.outputs.iter().flatten().any(|v| needed[v.index()]) {
                    node.inputs.iter().flatten().for_each(|v| needed[v.index()] = true);
                }
            }
            wanted.iter().all(|v| needed[v.index()])
        };
        let from = Detach::CHOICES.into_iter().filter(|choice| *choice >= self);
        if !graph.nodes.iter().any(is_detached) {
            return self;
        }
        from.clone().find(reaches).unwrap_or(Detach::None)
    }
}

/// Whether a node is what `detach()` became.
pub(crate) fn is_detached(node: &Node) -> bool {
    node.op == Op::Identity && call(node).is_some_and(|(target, _)| target.starts_with("detach"))
}

/// Whether nodes read what `detach()` gave, but none is what it became: the exporter has dropped it.
pub(crate) fn lost_detach(graph: &Graph) -> bool {
    let reads = |node: &Node| {
        call(node).is_some_and(|(_, arguments)| {
            arguments.split([',', ' ', '[', ']', '(', ')']).any(|a| a.starts_with("%detach"))
        })
    };
    graph.nodes.iter().any(reads) && !graph.nodes.iter().any(is_detached)
}

/// The row of an embedding's table that is not trained, its `padding_idx`, where a node gathers such rows.
pub(super) fn padding_row(node: &Node) -> Option<i64> {
    let (target, arguments) = call(node)?;
    if node.op != Op::Gather || !target.starts_with("embedding.") {
        return None;
    }
    let row = arguments.split(", ").nth(2)?.parse().ok()?;
    // PyTorch's default is −1, which is no row.
    Some(row).filter(|&r: &i64| r >= 0)
}

/// The name of the function of ATen that was called, and its arguments.
fn call(node: &Node) -> Option<(&str, &str)> {
    let (_, call) = node.metadata.get(KEY)?.split_once("[target=torch.ops.aten.")?;
    let (target, rest) = call.split_once("](args = (")?;
    let (arguments, _) = rest.split_once("), kwargs")?;
    Some((target, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pam_ir::build::Builder;
    use pam_ir::tensor::Tensor;

    #[test]
    fn padding_rows() {
        let row = |arguments: &str| {
            let mut b = Builder::new("g");
            let table = b.constant("w", Tensor::new(vec![3], vec![1f32, 2.0, 3.0]));
            let index = b.constant("i", Tensor::new(vec![1], vec![0i64]));
            b.node(Op::Gather, &[table, index], &[]).unwrap();
            let mut node = b.finish().nodes.remove(0);
            let target = "call_function[target=torch.ops.aten.embedding.default]";
            let text =
                format!("%e : [num_users=1] = {target}(args = ({arguments}), kwargs = {{}})");
            node.metadata.insert(KEY.to_owned(), text);
            padding_row(&node)
        };
        assert_eq!(row("%p_e_weight, %i, 2"), Some(2));
        assert_eq!(row("%p_e_weight, %i, 0, False, False"), Some(0));
        assert_eq!(row("%p_e_weight, %i, -1, True"), None);
        assert_eq!(row("%p_e_weight, %i"), None);
    }
}
