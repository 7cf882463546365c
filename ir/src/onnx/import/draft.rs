//! What upgrades and translations work on.

use crate::attr::Attrs;
use crate::graph::ValueId;
use crate::op::Op;

/// A node that is about to be appended.
pub(super) struct Draft {
    pub op: Op,
    pub inputs: Vec<Option<ValueId>>,
    pub attrs: Attrs,
    pub outputs: usize,
}
