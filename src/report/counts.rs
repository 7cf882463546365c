//! What a report counts of a graph, and `verify` counts again.

use pam_ir::audit::{Tally, audit};
use pam_ir::certify::native_multiplies;
use pam_ir::cost::{F32_MUL_PJ, F32_MUL_UM2, INT32_ADD_PJ, INT32_ADD_UM2, pa_total};
use pam_ir::graph::Graph;
use pam_ir::op::Op;
use pam_ir::role::Component;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub nodes: usize,
    pub scalars: u64,
}

impl From<Tally> for Count {
    fn from(t: Tally) -> Count {
        Count { nodes: t.nodes, scalars: u64::try_from(t.scalars).unwrap_or(u64::MAX) }
    }
}

#[derive(Serialize, Deserialize)]
pub struct Silicon {
    /// Native multiplications and PA operations of one step.
    pub multiplications: u64,
    pub pa_operations: u64,
    /// Of one step, in microjoules.
    pub energy_uj: f64,
    /// Of one multiplier, in square micrometres: a PA multiplier if no native one is needed.
    pub area_um2: f64,
}

impl Silicon {
    /// Whether both say the same, up to the last digits of decimal numbers.
    pub fn agrees(&self, other: &Silicon) -> bool {
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs();
        self.multiplications == other.multiplications
            && self.pa_operations == other.pa_operations
            && near(self.energy_uj, other.energy_uj)
            && near(self.area_um2, other.area_um2)
    }
}

/// The native multiplications of each component of a graph.
pub fn by_component(graph: &Graph) -> BTreeMap<&'static str, Count> {
    let multiplies = native_multiplies(graph);
    let of = |component: Component| -> Count {
        let own = multiplies.iter().filter(|m| m.component == component);
        own.map(|m| Tally { nodes: 1, scalars: m.scalars }).sum::<Tally>().into()
    };
    Component::ALL.iter().map(|&c| (c.name(), of(c))).collect()
}

/// The scalings of a graph by powers of two.
pub fn exact_scalings(graph: &Graph) -> Count {
    let scalings = graph.nodes.iter().filter(|n| n.op == Op::PamScale);
    let elements = scalings.map(|n| n.output(0).map_or(0, |v| graph.ty(v).elements() as u128));
    elements.map(|scalars| Tally { nodes: 1, scalars }).sum::<Tally>().into()
}

/// What a graph's multiplications and PA operations cost.
pub fn silicon(graph: &Graph) -> Silicon {
    let (native, pa) = (audit(graph).total().scalars, pa_total(graph).scalars);
    Silicon {
        multiplications: u64::try_from(native).unwrap_or(u64::MAX),
        pa_operations: u64::try_from(pa).unwrap_or(u64::MAX),
        energy_uj: (native as f64 * F32_MUL_PJ + pa as f64 * INT32_ADD_PJ) * 1e-6,
        area_um2: if native > 0 { F32_MUL_UM2 } else { INT32_ADD_UM2 },
    }
}
