//! From the graph to an ONNX model.
//!
//! Every op is written in its form of opset 26, operands that the IR keeps as attributes as constant
//! inputs, and PA primitives as calls of the model-local functions of `functions`, whose bodies are
//! part of the file.

use super::attribute::attr;
use super::functions::{SUM, functions_for, helper_attributes, sum_attributes};
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use super::{IR_VERSION, OPSET, tensor};
use crate::attr::Attr;
use crate::graph::{Graph, Node, Source, ValueId};
use crate::op::{Level, Op};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Writes a graph as a model.
///
/// `source` is the model that the graph was imported from: documentation, domain, model version and
/// training information are taken from it. `properties` are added to the model's metadata.
///
/// # Errors
/// Names the node that ONNX has no form for.
pub fn export(
    graph: &Graph,
    source: &ModelProto,
    properties: &BTreeMap<String, String>,
) -> Result<ModelProto, String> {
    let mut writer = Writer::new(graph);
    let named = graph.nodes.iter().zip(graph.unique_node_names());
    let nodes = named.map(|(n, name)| writer.node(n, name)).collect::<Result<Vec<_>, _>>()?;
    let mut metadata = graph.meta.properties.clone();
    if !graph.bindings.is_empty() {
        let bindings: BTreeMap<&str, &str> =
            graph.bindings.iter().map(|b| (b.new.as_str(), b.old.as_str())).collect();
        let stated = metadata.get("pam.bindings").and_then(|s| serde_json::from_str(s).ok());
        if stated.is_none_or(|s: BTreeMap<String, String>| !same(&s, &bindings)) {
            let json = serde_json::to_string(&bindings).map_err(|e| e.to_string())?;
            metadata.insert("pam.bindings".to_owned(), json);
        }
    }
    metadata.extend(properties.iter().map(|(k, v)| (k.clone(), v.clone())));
    let functions = functions_for(&writer.primitives);
    let mut opset_import = vec![opset("", OPSET)];
    opset_import.extend((!functions.is_empty()).then(|| opset("pam", 1)));
    let mut all_nodes = nodes;
    all_nodes.extend(writer.identities());
    Ok(ModelProto {
        ir_version: Some(IR_VERSION),
        opset_import,
        producer_name: Some("pam-compile".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        domain: source.domain.clone(),
        model_version: source.model_version,
        doc_string: source.doc_string.clone(),
        graph: Some(GraphProto {
            name: Some(graph.name.clone()),
            node: all_nodes,
            input: graph.inputs.iter().map(|&v| writer.value_info(v)).collect(),
            output: graph.outputs.iter().map(|o| value_info(&o.name, graph.ty(o.value))).collect(),
            initializer: writer.initializers(),
            doc_string: source.graph.as_ref().and_then(|g| g.doc_string.clone()),
            metadata_props: source
                .graph
                .as_ref()
                .map_or_else(Vec::new, |g| g.metadata_props.clone()),
            ..GraphProto::default()
        }),
        metadata_props: entries(&metadata),
        training_info: source.training_info.clone(),
        functions,
        ..ModelProto::default()
    })
}

/// Whether a file states these bindings already; it then keeps its own words.
fn same(stated: &BTreeMap<String, String>, bindings: &BTreeMap<&str, &str>) -> bool {
    stated.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(bindings.iter().map(|(k, v)| (*k, *v)))
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

fn entries(map: &BTreeMap<String, String>) -> Vec<StringStringEntryProto> {
    let entry = |(k, v): (&String, &String)| StringStringEntryProto {
        key: Some(k.clone()),
        value: Some(v.clone()),
    };
    map.iter().map(entry).collect()
}

fn value_info(name: &str, ty: &Type) -> ValueInfoProto {
    let dim = |&d: &usize| Dimension {
        value: Some(dimension::Value::DimValue(d as i64)),
        ..Dimension::default()
    };
    let tensor_type = type_proto::Tensor {
        elem_type: Some(tensor::number(ty.dtype)),
        shape: Some(TensorShapeProto { dim: ty.shape.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor_type)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

struct Writer<'g> {
    graph: &'g Graph,
    /// The name of each value in the file.
    names: Vec<String>,
    taken: HashSet<String>,
    /// Constants that stand for static operands, shared where equal, in the order of their use.
    operands: Vec<(String, Tensor)>,
    operand_index: HashMap<(Type, Vec<u8>), usize>,
    primitives: BTreeSet<&'static str>,
}

impl<'g> Writer<'g> {
    fn new(graph: &'g Graph) -> Writer<'g> {
        let mut names: Vec<String> = graph.values.iter().map(|v| v.name.clone()).collect();
        let mut taken: HashSet<String> = graph.outputs.iter().map(|o| o.name.clone()).collect();
        // A computed value that is an output bears the output's name; further outputs of the same
        // value become identities.
        let aliases: HashSet<&str> = graph.aliases().map(|o| o.name.as_str()).collect();
        let mut renamed: HashSet<ValueId> = HashSet::new();
        for o in graph.outputs.iter().filter(|o| !aliases.contains(o.name.as_str())) {
            names[o.value.index()].clone_from(&o.name);
            renamed.insert(o.value);
        }
        for (i, value) in graph.values.iter().enumerate() {
            let id = ValueId(i as u32);
            if renamed.contains(&id) {
                continue;
            }
            // Inputs keep their names: they are the outward face. ONNX forbids an output of the
            // same name, so no output can have claimed it.
            let mut name = value.name.clone();
            let mut n = 0;
            while !taken.insert(name.clone()) && value.source != Source::Input {
                n += 1;
                name = format!("{}_{n}", value.name);
            }
            names[i] = name;
        }
        Writer {
            graph,
            names,
            taken,
            operands: Vec::new(),
            operand_index: HashMap::new(),
            primitives: BTreeSet::new(),
        }
    }

    fn name(&self, v: Option<ValueId>) -> String {
        v.map_or_else(String::new, |v| self.names[v.index()].clone())
    }

    fn value_info(&self, v: ValueId) -> ValueInfoProto {
        value_info(&self.names[v.index()], self.graph.ty(v))
    }

    fn node(&mut self, node: &Node, name: String) -> Result<NodeProto, String> {
        let signature = node.op.signature();
        let is_static =
            |name: &str| signature.inputs.iter().any(|i| i.name == name && i.constant.is_some());
        let error = |what: &str| format!("node `{}` ({}): {what}", node.name, node.op.onnx_name());
        if let Some(attributes) = sum_attributes(self.graph, node) {
            self.primitives.insert(SUM);
            return Ok(NodeProto {
                input: vec![self.name(node.input(0))],
                output: node.outputs.iter().map(|&v| self.name(v)).collect(),
                name: Some(name),
                op_type: Some(SUM.to_owned()),
                domain: Some("pam".to_owned()),
                attribute: attributes.iter().map(|(k, v)| attr(k, v)).collect(),
                metadata_props: entries(&metadata(node)),
                ..NodeProto::default()
            });
        }
        if node.op == Op::Opaque {
            return Err(error("an op that the compiler does not know cannot be written"));
        }
        if node.op == Op::Conv && node.attrs.contains_key("input_dilations") {
            return Err(error("ONNX has no convolution with dilated input"));
        }
        let mut input = Vec::new();
        let mut dynamic = node.inputs.iter();
        for operand in &signature.inputs {
            if operand.constant.is_some() {
                input.push(match node.attrs.get(operand.name) {
                    // onnxruntime wants the depth of 32-bit labels in their type.
                    Some(Attr::Int(depth)) if node.op == Op::OneHot => {
                        let labels = node.input(0).map(|v| self.graph.ty(v).dtype);
                        self.operand(match (labels, i32::try_from(*depth)) {
                            (Some(DType::I32), Ok(depth)) => Tensor::scalar(depth),
                            _ => Tensor::scalar(*depth),
                        })
                    }
                    // The one static scalar that ONNX wants as a vector.
                    Some(Attr::Int(k)) if node.op == Op::TopK => {
                        self.operand(Tensor::vector(vec![*k]))
                    }
                    Some(attr) => self.operand(static_tensor(attr).map_err(|e| error(&e))?),
                    None => String::new(),
                });
            } else if operand.variadic {
                input.extend(dynamic.by_ref().map(|&v| self.name(v)));
            } else {
                input.push(self.name(dynamic.next().copied().flatten()));
            }
        }
        while input.last().is_some_and(String::is_empty) {
            input.pop();
        }
        let mut attribute: Vec<AttributeProto> =
            node.attrs.iter().filter(|(k, _)| !is_static(k)).map(|(k, v)| attr(k, v)).collect();
        if node.op.level() == Level::Pam {
            self.primitives.insert(node.op.onnx_name());
            let helpers = helper_attributes(self.graph, node).map_err(|e| error(&e))?;
            attribute.extend(helpers.iter().map(|(k, v)| attr(k, v)));
            // Function bodies refer to attributes, so that defaults must be written out.
            for spec in &signature.attributes {
                if let (Some(default), false) = (&spec.default, node.attrs.contains_key(spec.name))
                {
                    attribute.push(attr(spec.name, default));
                }
            }
            attribute.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let domain = node.op.domain();
        Ok(NodeProto {
            input,
            output: node.outputs.iter().map(|&v| self.name(v)).collect(),
            name: Some(name),
            op_type: Some(node.op.onnx_name().to_owned()),
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
            attribute,
            metadata_props: entries(&metadata(node)),
            ..NodeProto::default()
        })
    }

    /// The name of a constant operand.
    fn operand(&mut self, tensor: Tensor) -> String {
        let key = (tensor.ty(), tensor.to_le_bytes());
        if let Some(&i) = self.operand_index.get(&key) {
            return self.operands[i].0.clone();
        }
        let mut n = self.operands.len();
        let mut name = format!("operand_{n}");
        while !self.taken.insert(name.clone()) {
            n += 1;
            name = format!("operand_{n}");
        }
        self.operand_index.insert(key, self.operands.len());
        self.operands.push((name.clone(), tensor));
        name
    }

    fn initializers(&self) -> Vec<TensorProto> {
        let values = self.graph.values.iter().enumerate();
        let data = values.filter_map(|(i, v)| Some((&self.names[i], v.data.as_ref()?)));
        let operands = self.operands.iter().map(|(n, t)| (n, t));
        data.chain(operands).map(|(name, t)| tensor::write(name, t)).collect()
    }

    /// Outputs that are inputs, constants or second names of a value.
    fn identities(&self) -> Vec<NodeProto> {
        let aliases = self.graph.aliases();
        aliases
            .map(|o| NodeProto {
                input: vec![self.names[o.value.index()].clone()],
                output: vec![o.name.clone()],
                name: Some(format!("output:{}", o.name)),
                op_type: Some("Identity".to_owned()),
                ..NodeProto::default()
            })
            .collect()
    }
}

/// What the file says about a node: what the source said, and where the node comes from.
fn metadata(node: &Node) -> BTreeMap<String, String> {
    let mut map = node.metadata.clone();
    let mut set = |key: &str, value: &str| map.insert(key.to_owned(), value.to_owned());
    set("pam.role", node.role.name());
    set("pam.component", node.component.name());
    set("pam.mode", node.mode.name());
    if let Some(origin) = &node.origin {
        set("pam.source", &origin.node);
        set("pam.source_op", &origin.op);
        set("pam.rule", &origin.rule);
    }
    map
}

fn static_tensor(attr: &Attr) -> Result<Tensor, String> {
    Ok(match attr {
        Attr::Ints(v) => Tensor::vector(v.clone()),
        Attr::Int(v) => Tensor::scalar(*v),
        Attr::Float(v) => Tensor::scalar(*v),
        Attr::Floats(v) => Tensor::vector(v.clone()),
        Attr::Tensor(t) => t.clone(),
        Attr::Str(_) | Attr::Strs(_) | Attr::Type(_) => {
            return Err(format!("an operand of kind {}", attr.kind().name()));
        }
    })
}
