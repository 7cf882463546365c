//! Control flow whose course is known when compiling.
//!
//! An `If` with a known condition is its branch; with an unknown one both branches are computed and
//! the results selected, since nodes have no effects. A `Loop` with a known number of rounds and a
//! `Scan` are unrolled.

use super::super::error::OnnxError;
use super::super::proto::GraphProto;
use super::super::tensor as tensors;
use super::place::Site;
use super::{Context, Importer, Names};
use crate::attr::{Attr, Attrs};
use crate::graph::{Source, ValueId};
use crate::op::{Op, normalize_axis};
use crate::tensor::Tensor;
use crate::types::Type;
use std::collections::HashMap;

type Values = Vec<Option<ValueId>>;

/// A loop that only its condition ends may not go on for longer.
const ROUNDS_WITHOUT_LIMIT: i64 = 10_000;

impl Importer<'_> {
    pub(super) fn branch(&mut self, site: &Site<'_>) -> Result<Values, OnnxError> {
        let &Site { label, inputs, .. } = site;
        let error = |reason: &str| site.error(reason, "export without `If`");
        let condition = inputs.first().copied().flatten().ok_or(error("has no condition"))?;
        let known = self.known.get(&condition).and_then(|t| t.to_i64()).map(|v| v == [1]);
        let side = |this: &mut Self, name: &str| {
            let graph = site.graph(name).ok_or(error(&format!("has no `{name}`")))?;
            this.subgraph(site, graph, &format!("{label}/{name}/"), &[])
        };
        if let Some(taken) = known {
            self.left_out.push(label.to_owned());
            return side(self, if taken { "then_branch" } else { "else_branch" });
        }
        let yes = side(self, "then_branch")?;
        let no = side(self, "else_branch")?;
        self.builder.scope.name = label.to_owned();
        let attrs = Attrs::from([("shape".to_owned(), Attr::Ints(vec![]))]);
        let flag = self.before(Op::Reshape, &[Some(condition)], attrs).map_err(|e| error(&e))?;
        let mut outputs = Vec::new();
        for (y, n) in yes.into_iter().zip(no) {
            let same = match (y, n) {
                (Some(y), Some(n)) => self.builder.ty(y) == self.builder.ty(n),
                _ => false,
            };
            if !same {
                return Err(error("depends on data and its branches differ in type"));
            }
            if [y, n].into_iter().flatten().any(|v| self.sequences.is_known(v)) {
                return Err(error("depends on data and its branches give sequences"));
            }
            let value = self.before(Op::Where, &[Some(flag), y, n], Attrs::new());
            outputs.push(Some(value.map_err(|e| error(&e))?));
        }
        Ok(outputs)
    }

    pub(super) fn unroll_loop(&mut self, site: &Site<'_>) -> Result<Values, OnnxError> {
        let &Site { node, label, inputs, .. } = site;
        let error = |reason: &str| site.error(reason, "export it unrolled");
        let graph = site.graph("body").ok_or(error("has no body"))?;
        let rounds = match inputs.first().copied().flatten() {
            None => i64::MAX,
            Some(v) => match self.known.get(&v).and_then(|t| t.to_i64()).as_deref() {
                Some(&[n]) => n,
                _ => return Err(error("the number of rounds depends on data")),
            },
        };
        let mut going = match inputs.get(1).copied().flatten() {
            None => true,
            Some(v) => self.flag(v).ok_or(error("the condition depends on data"))?,
        };
        self.builder.scope.name = label.to_owned();
        let mut state = self.starts(inputs.get(2..).unwrap_or_default()).map_err(|e| error(&e))?;
        let carried = state.len();
        let condition = inputs.get(1).copied().flatten();
        let condition = condition
            .unwrap_or_else(|| self.constant(&format!("{label}/cond"), Tensor::scalar(true)));
        let mut scanned: Vec<Values> = Vec::new();
        let mut round = 0;
        while going && round < rounds {
            if rounds == i64::MAX && round == ROUNDS_WITHOUT_LIMIT {
                return Err(error("has no number of rounds, and its condition does not end it"));
            }
            let prefix = format!("{label}/{round}/");
            let number = self.constant(&format!("{prefix}iteration"), Tensor::scalar(round));
            let mut given = vec![Some(number), Some(condition)];
            given.extend(&state);
            let results = self.subgraph(site, graph, &prefix, &given)?;
            let Some((Some(next), rest)) = results.split_first() else {
                return Err(error("the body gives no condition"));
            };
            if rest.len() < carried {
                return Err(error("the body gives too few values"));
            }
            going = self.flag(*next).ok_or(error("the condition depends on data"))?;
            state = rest[..carried].to_vec();
            scanned.push(rest[carried..].to_vec());
            round += 1;
        }
        if scanned.is_empty() {
            self.left_out.push(label.to_owned());
        }
        if scanned.is_empty() && node.output.len() > carried {
            return Err(error("it runs no round, so its scan outputs have no shape"));
        }
        self.builder.scope.name = label.to_owned();
        let stacked = self.stack(&scanned, &[]).map_err(|e| error(&e))?;
        state.extend(stacked);
        Ok(state)
    }

    pub(super) fn unroll_scan(&mut self, site: &Site<'_>) -> Result<Values, OnnxError> {
        let &Site { context, node, label, inputs, .. } = site;
        let error = |reason: &str| site.error(reason, "export it unrolled");
        let graph = site.graph("body").ok_or(error("has no body"))?;
        let list = |name: &str, i: usize| {
            site.attribute(name).and_then(|a| a.ints.get(i).copied()).unwrap_or(0)
        };
        if context.opsets.get("").is_some_and(|version| *version < 9) {
            let reason = "scans a batch, as `Scan` did in opset 8";
            return Err(site.error(reason, "convert it to opset 9"));
        }
        let count = site.attribute("num_scan_inputs").map_or(0, |a| a.i());
        let carried = usize::try_from(count)
            .ok()
            .and_then(|n| inputs.len().checked_sub(n))
            .ok_or(error("has fewer inputs than it scans"))?;
        let (initial, sequences) = inputs.split_at(carried);
        self.builder.scope.name = label.to_owned();
        let mut state = self.starts(initial).map_err(|e| error(&e))?;
        let mut axes = Vec::new();
        let mut rounds = None;
        for (i, v) in sequences.iter().enumerate() {
            let ty = self.builder.ty(v.ok_or(error("a scanned input is missing"))?);
            let axis =
                normalize_axis(list("scan_input_axes", i), ty.rank()).map_err(|e| error(&e))?;
            if rounds.is_some_and(|r| r != ty.shape[axis]) {
                return Err(error("the scanned inputs differ in length"));
            }
            rounds = Some(ty.shape[axis]);
            axes.push(axis);
        }
        let rounds = rounds.ok_or(error("scans nothing"))?;
        let mut scanned: Vec<Values> = Vec::new();
        for round in 0..rounds {
            let mut given = state.clone();
            self.builder.scope.name = label.to_owned();
            for (i, v) in sequences.iter().enumerate() {
                let backwards = list("scan_input_directions", i) == 1;
                let index = if backwards { rounds - 1 - round } else { round } as i64;
                let index = self.constant(&format!("{label}/index"), Tensor::scalar(index));
                let attrs = Attrs::from([("axis".to_owned(), Attr::Int(axes[i] as i64))]);
                let slice = self.before(Op::Gather, &[*v, Some(index)], attrs);
                given.push(Some(slice.map_err(|e| error(&e))?));
            }
            let prefix = format!("{label}/{round}/");
            let results = self.subgraph(site, graph, &prefix, &given)?;
            if results.len() < carried {
                return Err(error("the body gives too few values"));
            }
            state = results[..carried].to_vec();
            scanned.push(results[carried..].to_vec());
        }
        if scanned.is_empty() {
            self.left_out.push(label.to_owned());
        }
        if scanned.is_empty() && node.output.len() > carried {
            return Err(error("it scans an empty sequence"));
        }
        let outputs = node.output.len().saturating_sub(carried);
        self.builder.scope.name = label.to_owned();
        let backwards = |i: usize| list("scan_output_directions", i) == 1;
        let places: Vec<(i64, bool)> =
            (0..outputs).map(|i| (list("scan_output_axes", i), backwards(i))).collect();
        state.extend(self.stack(&scanned, &places).map_err(|e| error(&e))?);
        Ok(state)
    }

    /// What a recurrence begins with, each in the place of [`start`](Self::start).
    fn starts(&mut self, initial: &[Option<ValueId>]) -> Result<Values, String> {
        let each = initial.iter().map(|v| v.map(|v| self.start(v)).transpose());
        each.collect()
    }

    /// What a recurrence begins with. Zeros of a file are no weight of a layer like others, so they are made here.
    pub(super) fn start(&mut self, initial: ValueId) -> Result<ValueId, String> {
        let value = self.builder.graph().value(initial);
        let zeros = value.source == Source::Constant
            && value.ty.dtype.is_float()
            && value
                .data
                .as_ref()
                .and_then(Tensor::to_f64)
                .is_some_and(|d| d.iter().all(|x| *x == 0.0));
        if !zeros || value.ty.elements() < 2 {
            return Ok(initial);
        }
        let ty = value.ty.clone();
        self.zeros(&ty)
    }

    /// Zeros of a type.
    pub(super) fn zeros(&mut self, ty: &Type) -> Result<ValueId, String> {
        let zero = crate::eval::cast(&Tensor::scalar(0f32), ty.dtype);
        let zero = self.constant("zero", zero.ok_or_else(|| format!("no zeros of {}", ty.dtype))?);
        let attrs = Attrs::from([("shape".to_owned(), ty.shape.as_slice().into())]);
        self.before(Op::Expand, &[Some(zero)], attrs)
    }

    /// Appends the body of a subgraph; its outputs.
    pub(super) fn subgraph(
        &mut self,
        site: &Site<'_>,
        graph: &GraphProto,
        prefix: &str,
        inputs: &[Option<ValueId>],
    ) -> Result<Values, OnnxError> {
        let Site { context, names: outer, .. } = *site;
        let stated = HashMap::new();
        let inner = Context {
            path: context.path,
            opsets: context.opsets.clone(),
            functions: context.functions,
            stated: &stated,
            arguments: context.arguments,
            prefix: prefix.to_owned(),
            depth: context.depth,
        };
        let mut names = Names { own: HashMap::new(), outer: Some(outer) };
        for (info, value) in graph.input.iter().zip(inputs) {
            if let Some(value) = value {
                self.define(&inner, &mut names, info.name(), *value)?;
            }
        }
        for t in &graph.initializer {
            let tensor = tensors::read(t).map_err(|e| inner.error(e, "export it again"))?;
            let value = self.constant(&format!("{prefix}{}", t.name()), tensor);
            self.define(&inner, &mut names, t.name(), value)?;
        }
        self.body(&inner, &mut names, &graph.node)?;
        let value = |name: &str| {
            names.get(name).map(Some).ok_or_else(|| {
                let reason = format!("output `{prefix}{name}` is computed by no node");
                inner.error(reason, "export it again")
            })
        };
        graph.output.iter().map(|o| value(o.name())).collect()
    }

    fn flag(&self, value: ValueId) -> Option<bool> {
        match self.known.get(&value)?.to_i64()?.as_slice() {
            [flag] => Some(*flag != 0),
            _ => None,
        }
    }

    /// Stacks the values of each round along a new axis, the first one unless it is said, or in reverse.
    fn stack(&mut self, rounds: &[Values], places: &[(i64, bool)]) -> Result<Values, String> {
        let columns = rounds.first().map_or(0, Vec::len);
        let mut stacked = Vec::new();
        for column in 0..columns {
            let (axis, backwards) = places.get(column).copied().unwrap_or_default();
            let mut parts = Vec::new();
            for round in rounds {
                if round[column].is_some_and(|v| self.sequences.is_known(v)) {
                    return Err("a scan output is a sequence".to_owned());
                }
                let attrs = Attrs::from([("axes".to_owned(), Attr::Ints(vec![axis]))]);
                parts.push(Some(self.before(Op::Unsqueeze, &[round[column]], attrs)?));
            }
            if backwards {
                parts.reverse();
            }
            let attrs = Attrs::from([("axis".to_owned(), Attr::Int(axis))]);
            stacked.push(Some(self.before(Op::Concat, &parts, attrs)?));
        }
        Ok(stacked)
    }
}
