//! Gradients, which no rule can compute from one node.

use super::{LowerError, Lowering};
use pam_ir::graph::Node;

/// A gradient is computed by differentiating the graph; where that has not been possible, the node says
/// so.
pub fn gradient(_: &mut Lowering<'_, '_>, _: &Node) -> Result<(), LowerError> {
    Err(LowerError("a gradient is not computed by itself, but with its graph".to_owned()))
}
