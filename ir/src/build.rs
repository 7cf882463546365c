//! Building and rebuilding graphs.
//!
//! A pass never edits a graph in place. It walks the nodes of the old graph in order and appends to
//! a [`Builder`]: a copy of the node, something else in its place, or nothing. The old values are
//! mapped to new ones on the way, so a rewriting is linear in the size of the graph and the
//! topological order holds by construction.

use crate::attr::{Attr, Attrs};
use crate::graph::{Graph, Node, NodeId, Origin, Output, Source, Value, ValueId};
use crate::op::{Call, Op};
use crate::role::{Component, Mode, Role};
use crate::tensor::{Element, Tensor};
use crate::types::Type;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a new node inherits from the node it stands for.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Prefix of the names of new nodes and values.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Component.
    pub component: Component,
    /// Mode.
    pub mode: Mode,
    /// Source node and rule.
    pub origin: Option<Origin>,
}

impl Default for Scope {
    fn default() -> Scope {
        Scope {
            name: "n".to_owned(),
            role: Role::Forward,
            component: Component::Other,
            mode: Mode::Native,
            origin: None,
        }
    }
}

impl Scope {
    /// The scope of nodes that replace `node` under a rule.
    pub fn of(node: &Node, rule: &str) -> Scope {
        let origin = node.origin.clone().unwrap_or_else(|| Origin {
            node: node.name.as_str().into(),
            op: node.op.onnx_name().into(),
            rule: rule.into(),
        });
        Scope {
            name: node.name.clone(),
            role: node.role,
            component: node.component,
            mode: node.mode,
            origin: Some(origin),
        }
    }
}

/// An operand that does not fit its op. The passes treat it as a defect of the rule at hand.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{op} ({name}): {reason}")]
pub struct BuildError {
    /// The op that was to be appended.
    pub op: &'static str,
    /// Name of the node.
    pub name: String,
    /// Why its operands do not fit.
    pub reason: String,
}

/// Appends nodes to a new graph, inferring types as it goes.
pub struct Builder {
    graph: Graph,
    taken: HashSet<String>,
    counter: u64,
    scalars: HashMap<(Type, Vec<u8>), ValueId>,
    /// What the next nodes inherit.
    pub scope: Scope,
}

impl Builder {
    /// An empty graph of this name.
    pub fn new(name: &str) -> Builder {
        Builder {
            graph: Graph { name: name.to_owned(), ..Graph::default() },
            taken: HashSet::new(),
            counter: 0,
            scalars: HashMap::new(),
            scope: Scope::default(),
        }
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The type of a value of the new graph.
    pub fn ty(&self, v: ValueId) -> &Type {
        self.graph.ty(v)
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, ty: Type, default: Option<Tensor>) -> ValueId {
        let name = self.fresh(name);
        let id = self.graph.add_value(Value { name, ty, source: Source::Input, data: default });
        self.graph.inputs.push(id);
        id
    }

    /// Adds a constant under a wished-for name.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let name = self.fresh(name);
        let ty = tensor.ty();
        self.graph.add_value(Value { name, ty, source: Source::Constant, data: Some(tensor) })
    }

    /// A rank-0 constant; equal ones are shared.
    pub fn scalar<T: Element>(&mut self, value: T) -> ValueId {
        let tensor = Tensor::scalar(value);
        let key = (tensor.ty(), tensor.to_le_bytes());
        if let Some(&id) = self.scalars.get(&key) {
            return id;
        }
        let id = self.constant("c", tensor);
        self.scalars.insert(key, id);
        id
    }

    /// Adds an output.
    pub fn output(&mut self, name: &str, value: ValueId) {
        self.graph.outputs.push(Output { name: name.to_owned(), value });
    }

    /// Appends a node of one output in the current scope.
    ///
    /// # Errors
    /// Where the operands do not fit the op.
    pub fn node(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        attrs: &[(&str, Attr)],
    ) -> Result<ValueId, BuildError> {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        Ok(self.node_n(op, &inputs, attrs, 1)?[0])
    }

    /// Appends a node of several outputs in the current scope.
    ///
    /// # Errors
    /// Where the operands do not fit the op.
    pub fn node_n(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        attrs: &[(&str, Attr)],
        outputs: usize,
    ) -> Result<Vec<ValueId>, BuildError> {
        let attrs: Attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let types = self.infer(op, inputs, &attrs, outputs)?;
        self.counter += 1;
        let stem = format!("{}.{}", self.scope.name, op.name());
        let values: Vec<ValueId> = types.into_iter().map(|ty| self.node_value(&stem, ty)).collect();
        let Scope { name, role, component, mode, origin } = self.scope.clone();
        self.push(Node {
            op,
            name,
            inputs: inputs.to_vec(),
            outputs: values.iter().copied().map(Some).collect(),
            attrs,
            role,
            component,
            mode,
            origin,
            metadata: BTreeMap::new(),
        });
        Ok(values)
    }

    /// The types that the op's shape rule gives, one for each of `outputs`.
    ///
    /// # Errors
    /// Where the operands do not fit the op.
    pub fn infer(
        &self,
        op: Op,
        inputs: &[Option<ValueId>],
        attrs: &Attrs,
        outputs: usize,
    ) -> Result<Vec<Type>, BuildError> {
        let error = |reason| BuildError { op: op.name(), name: self.scope.name.clone(), reason };
        let inputs: Vec<Option<&Type>> = inputs.iter().map(|v| v.map(|v| self.ty(v))).collect();
        let mut types =
            (op.row().infer)(&Call { op, attrs, inputs: &inputs, outputs }).map_err(error)?;
        if types.len() < outputs {
            return Err(error(format!("{outputs} outputs asked for, {} exist", types.len())));
        }
        types.truncate(outputs);
        if types.iter().any(|t| crate::types::checked_elements(&t.shape).is_none()) {
            return Err(error("the output has more elements than memory can address".to_owned()));
        }
        Ok(types)
    }

    /// Adds a value under a wished-for name, to be the output of a node that [`Builder::push`]
    /// appends next.
    pub fn node_value(&mut self, name: &str, ty: Type) -> ValueId {
        let name = self.fresh(name);
        let source = Source::Node { node: NodeId(u32::MAX), index: u32::MAX };
        self.graph.add_value(Value { name, ty, source, data: None })
    }

    /// Appends a complete node whose values exist.
    pub fn push(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.graph.nodes.len()).expect("fewer than 2^32 nodes"));
        for (index, v) in node.outputs.iter().enumerate() {
            if let Some(v) = v {
                self.graph.values[v.index()].source =
                    Source::Node { node: id, index: index as u32 };
            }
        }
        self.graph.nodes.push(node);
        id
    }

    /// Gives a value a name, if that is free.
    pub fn rename(&mut self, v: ValueId, name: &str) {
        let value = &mut self.graph.values[v.index()];
        let made_here = matches!(value.source, Source::Node { .. });
        if made_here && !self.taken.contains(name) {
            self.taken.remove(&value.name);
            self.taken.insert(name.to_owned());
            name.clone_into(&mut value.name);
        }
    }

    /// Gives an input a default, if it has none.
    pub fn set_default(&mut self, input: ValueId, default: Tensor) {
        let value = &mut self.graph.values[input.index()];
        if value.source == Source::Input && value.data.is_none() && value.ty == default.ty() {
            value.data = Some(default);
        }
    }

    /// Ends the building.
    pub fn finish(self) -> Graph {
        self.graph
    }

    /// `name`, or `name` with the first free number appended.
    fn fresh(&mut self, name: &str) -> String {
        if !name.is_empty() && self.taken.insert(name.to_owned()) {
            return name.to_owned();
        }
        loop {
            self.counter += 1;
            let candidate = format!("{name}_{}", self.counter);
            if self.taken.insert(candidate.clone()) {
                return candidate;
            }
        }
    }
}

/// A rebuilding under way: the old graph, the builder of the new one and the map between them.
pub struct Rebuild<'g> {
    /// The graph that is replaced.
    pub old: &'g Graph,
    /// The builder of the new graph.
    pub to: Builder,
    map: Vec<Option<ValueId>>,
    /// Who reads the old values, once somebody asks.
    consumers: OnceCell<Vec<Vec<NodeId>>>,
}

impl Rebuild<'_> {
    /// The old nodes that read an old value, in order.
    pub fn consumers(&self, old: ValueId) -> impl Iterator<Item = &Node> {
        let consumers = self.consumers.get_or_init(|| self.old.consumers());
        consumers[old.index()].iter().map(|&n| self.old.node(n))
    }

    /// The new value that stands for an old one.
    ///
    /// # Panics
    /// Where the node that made the old value was dropped without a replacement: a defect of the
    /// pass.
    pub fn get(&self, old: ValueId) -> ValueId {
        self.map[old.index()].unwrap_or_else(|| {
            panic!("value `{}` was dropped but is still used", self.old.value(old).name)
        })
    }

    /// Lets a new value stand for an old one. The new value takes over the name of the old one if
    /// that is free, so that the names of a file survive rewriting.
    pub fn set(&mut self, old: ValueId, new: ValueId) {
        self.map[old.index()] = Some(new);
        self.to.rename(new, &self.old.value(old).name);
    }

    /// Copies an old node as it is.
    pub fn copy(&mut self, node: &Node) {
        let node_inputs = node.inputs.iter().map(|v| v.map(|v| self.get(v))).collect();
        let outputs = node
            .outputs
            .iter()
            .map(|v| {
                v.map(|v| {
                    let old = self.old.value(v);
                    let new = self.to.node_value(&old.name, old.ty.clone());
                    self.map[v.index()] = Some(new);
                    new
                })
            })
            .collect();
        self.to.push(Node { inputs: node_inputs, outputs, ..node.clone() });
    }
}

impl Graph {
    /// A new graph with the inputs, constants, outputs, bindings and metadata of this one, and for
    /// each node, in order, whatever `each` appends. Constants that nothing uses are left out.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn rebuild<E>(
        &self,
        mut each: impl FnMut(&mut Rebuild<'_>, NodeId, &Node) -> Result<(), E>,
    ) -> Result<Graph, E> {
        let mut r = Rebuild {
            old: self,
            to: Builder::new(&self.name),
            map: vec![None; self.values.len()],
            consumers: OnceCell::new(),
        };
        for &v in &self.inputs {
            let Value { name, ty, data, .. } = self.value(v);
            r.map[v.index()] = Some(r.to.input(name, ty.clone(), data.clone()));
        }
        for (i, value) in self.values.iter().enumerate() {
            if let (Source::Constant, Some(data)) = (value.source, &value.data) {
                r.map[i] = Some(r.to.constant(&value.name, data.clone()));
            }
        }
        for (i, node) in self.nodes.iter().enumerate() {
            each(&mut r, NodeId(i as u32), node)?;
        }
        for output in &self.outputs {
            let value = r.get(output.value);
            r.to.output(&output.name, value);
        }
        let mut graph = r.to.finish();
        graph.bindings = self.bindings.clone();
        graph.meta = self.meta.clone();
        graph.drop_unused_values();
        Ok(graph)
    }

    /// The same graph with these nodes only, in this order, which must be topological. Values that
    /// left-out nodes made may still be read; whoever rebuilds the graph has to give them.
    pub fn with_nodes(&self, order: &[NodeId]) -> Graph {
        let mut graph = self.clone();
        graph.nodes = order.iter().map(|&n| self.node(n).clone()).collect();
        for (i, node) in graph.nodes.iter().enumerate() {
            for (index, v) in node.outputs.iter().enumerate() {
                if let Some(v) = v {
                    let node = NodeId(i as u32);
                    graph.values[v.index()].source = Source::Node { node, index: index as u32 };
                }
            }
        }
        graph
    }

    /// Removes constants and node outputs' entries that nothing refers to; inputs stay.
    pub(crate) fn drop_unused_values(&mut self) {
        let mut used = vec![false; self.values.len()];
        let ids = self.nodes.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs)).flatten();
        for v in ids.chain(&self.inputs).chain(self.outputs.iter().map(|o| &o.value)) {
            used[v.index()] = true;
        }
        let mut next = 0;
        let map: Vec<ValueId> = used
            .iter()
            .map(|&u| {
                let id = ValueId(next);
                next += u32::from(u);
                id
            })
            .collect();
        let renumber = |v: &mut ValueId| *v = map[v.index()];
        for node in &mut self.nodes {
            node.inputs.iter_mut().chain(&mut node.outputs).flatten().for_each(renumber);
        }
        self.inputs.iter_mut().for_each(renumber);
        self.outputs.iter_mut().for_each(|o| renumber(&mut o.value));
        let mut keep = used.iter();
        self.values.retain(|_| *keep.next().expect("one flag a value"));
    }
}
