//! Where every value of a plan lives: state in its halves, inputs in memory of their own, constants
//! among the constants, everything else in the arena.

use super::arena::{Lifetime, aligned, layout};
use super::{MemoryReport, Place, PlanOptions, Planner, Sketch, View, unsupported};
use crate::error::PlanError;
use pam_ir::graph::{Source, ValueId};
use pam_ir::tensor::Tensor;
use std::collections::HashMap;

/// Where the roots live.
pub(super) struct Addresses {
    pub places: HashMap<ValueId, Place>,
    pub halves: Vec<[usize; 2]>,
    pub constants: Vec<Tensor>,
    pub memory: usize,
    pub report: MemoryReport,
}

impl Planner<'_> {
    /// Decides where every root lives.
    pub(super) fn memory(
        &self,
        sketches: &mut [Sketch],
        last: &[Option<usize>],
        options: PlanOptions,
    ) -> Result<Addresses, PlanError> {
        let graph = self.graph;
        let end = sketches.len();
        let mut buffer_of: HashMap<ValueId, usize> = HashMap::new();
        let mut buffers: Vec<Lifetime> = Vec::new();
        for (s, sketch) in sketches.iter_mut().enumerate() {
            sketch.in_place.clear();
            let mut taken: Vec<ValueId> = Vec::new();
            for store in &sketch.stores {
                let mut overwritten = None;
                if let Some(v) = store.filter(|v| !self.next.contains_key(v)) {
                    let kept = self.kept[v.index()];
                    let until = if kept { end } else { last[v.index()].unwrap_or(s).max(s) };
                    let ends_here = |root: &ValueId| {
                        options.in_place
                            && buffer_of.contains_key(root)
                            && !self.kept[root.index()]
                            && last[root.index()] == Some(s)
                            && !taken.contains(root)
                    };
                    overwritten = sketch.draft.as_ref().and_then(|d| {
                        d.overwritable(v, graph.ty(v).bytes(), &sketch.stores, ends_here)
                    });
                    let buffer = match overwritten {
                        Some(r) => {
                            let root = sketch.draft.as_ref().map(|d| d.reads[r].root);
                            let root = root.unwrap_or(v);
                            taken.push(root);
                            buffer_of[&root]
                        }
                        None => {
                            let bytes = graph.ty(v).bytes();
                            buffers.push(Lifetime { bytes, first: s, last: s });
                            buffers.len() - 1
                        }
                    };
                    buffers[buffer].last = until;
                    buffer_of.insert(v, buffer);
                }
                sketch.in_place.push(overwritten);
            }
        }
        let arena = layout(&buffers).ok_or(PlanError::TooLarge)?;
        let mut at = arena.peak;
        let mut take = |bytes: usize| {
            let offset = at;
            at = at.checked_add(aligned(bytes)?)?;
            Some(offset)
        };
        let mut places: HashMap<ValueId, Place> = HashMap::new();
        for (&v, &b) in &buffer_of {
            places.insert(v, Place::At(arena.offsets[b]));
        }
        let mut halves = Vec::with_capacity(self.bindings.len());
        for &(old, _) in &self.bindings {
            let mut half = || take(graph.ty(old).bytes()).ok_or(PlanError::TooLarge);
            halves.push([half()?, half()?]);
        }
        let state: usize = at - arena.peak;
        let mut take = |bytes: usize| {
            let offset = at;
            at = at.checked_add(aligned(bytes)?)?;
            Some(offset)
        };
        for &v in &graph.inputs {
            let place = match self.state.get(&v) {
                Some(&i) => Place::Swap(halves[i]),
                None => Place::At(take(graph.ty(v).bytes()).ok_or(PlanError::TooLarge)?),
            };
            places.insert(v, place);
        }
        for (&v, &i) in &self.next {
            places.insert(v, Place::Swap([halves[i][1], halves[i][0]]));
        }
        let report = MemoryReport {
            arena: arena.peak,
            live: arena.live,
            inputs: at - arena.peak - state,
            state,
            ..MemoryReport::default()
        };
        Ok(Addresses { places, halves, constants: Vec::new(), memory: at, report })
    }

    /// The view of part of a root.
    pub(super) fn view(
        &self,
        (root, offset, bytes): (ValueId, usize, usize),
        memory: &mut Addresses,
    ) -> Result<View, PlanError> {
        let place = match memory.places.get(&root) {
            Some(&place) => place,
            None => {
                let index = memory.constants.len() as u32;
                memory.constants.push(self.constant(root)?);
                let place = Place::Constant { index, offset: 0 };
                memory.places.insert(root, place);
                place
            }
        };
        let place = match place {
            Place::At(at) => Place::At(at + offset),
            Place::Swap([even, odd]) => Place::Swap([even + offset, odd + offset]),
            Place::Constant { index, offset: at } => Place::Constant { index, offset: at + offset },
        };
        Ok(View { place, bytes })
    }

    /// The elements of a root that is known now: a constant, a literal, or what depends on shapes
    /// only.
    fn constant(&self, root: ValueId) -> Result<Tensor, PlanError> {
        let Some(value) = self.graph.values.get(root.index()) else {
            return Ok(self.literals.tensors[root.index() - self.graph.values.len()].clone());
        };
        match (value.source, &value.data) {
            (Source::Constant, Some(data)) => Ok(data.clone()),
            (Source::Node { node, .. }, _) if value.ty.elements() > 0 => {
                let node = self.graph.node(node);
                crate::steps::source::evaluate(self.graph, node)
                    .map_err(|reason| unsupported(node, reason))
            }
            _ => Ok(Tensor::zeros(&value.ty)),
        }
    }
}
