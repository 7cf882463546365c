//! A small builder of function bodies.

use crate::attr::Attr;
use crate::onnx::OPSET;
use crate::onnx::attribute::attr;
use crate::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, type_proto,
};
use crate::onnx::tensor;
use crate::tensor::{Element, Tensor};
use crate::types::DType;
use std::collections::BTreeMap;

/// The name of a value in a body.
pub(super) type Name = String;

/// Nodes under construction.
#[derive(Default)]
pub(super) struct Body {
    nodes: Vec<NodeProto>,
    constants: BTreeMap<String, Name>,
    prefix: String,
}

impl Body {
    /// A body whose values' names begin with a prefix, for subgraphs.
    pub(super) fn new(prefix: &str) -> Body {
        Body { prefix: prefix.to_owned(), ..Body::default() }
    }

    fn fresh(&self) -> Name {
        format!("{}{}", self.prefix, self.nodes.len())
    }

    /// Appends a node of one output.
    pub(super) fn op(&mut self, op: &str, inputs: &[&str]) -> Name {
        self.op_with(op, inputs, Vec::new())
    }

    /// Appends a node of one output with attributes.
    pub(super) fn op_with(
        &mut self,
        op: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> Name {
        let name = self.fresh();
        self.nodes.push(NodeProto {
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![name.clone()],
            attribute,
            ..NodeProto::default()
        });
        name
    }

    /// Appends a node of several outputs.
    pub(super) fn op_n(
        &mut self,
        op: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
        outputs: usize,
    ) -> Vec<Name> {
        let name = self.op_with(op, inputs, attribute);
        let names: Vec<Name> = (0..outputs).map(|i| format!("{name}_{i}")).collect();
        if let Some(node) = self.nodes.last_mut() {
            node.output.clone_from(&names);
        }
        names
    }

    /// A constant; equal ones are shared.
    pub(super) fn constant(&mut self, t: Tensor) -> Name {
        let key = format!("{} {:?}", t.ty(), t.to_le_bytes());
        if let Some(name) = self.constants.get(&key) {
            return name.clone();
        }
        let name = self.op_with("Constant", &[], vec![attr("value", &Attr::Tensor(t))]);
        self.constants.insert(key, name.clone());
        name
    }

    /// A rank-0 constant.
    pub(super) fn scalar<T: Element>(&mut self, x: T) -> Name {
        self.constant(Tensor::scalar(x))
    }

    /// A rank-0 i32 constant given as a bit pattern.
    pub(super) fn bits(&mut self, pattern: u32) -> Name {
        self.scalar(pattern as i32)
    }

    /// A rank-1 i64 constant.
    pub(super) fn vector(&mut self, v: &[i64]) -> Name {
        self.constant(Tensor::vector(v.to_vec()))
    }

    /// The integers of an attribute of the function, as an i64 vector.
    pub(super) fn ints(&mut self, attribute: &str) -> Name {
        self.op_with("Constant", &[], vec![reference("value_ints", attribute, AttributeType::Ints)])
    }

    /// The integer of an attribute of the function, as an i64 scalar.
    pub(super) fn wide_int(&mut self, attribute: &str) -> Name {
        self.op_with("Constant", &[], vec![reference("value_int", attribute, AttributeType::Int)])
    }

    /// The integer of an attribute of the function, as an i32 scalar.
    pub(super) fn int(&mut self, attribute: &str) -> Name {
        let wide = self.wide_int(attribute);
        self.cast(&wide, DType::I32)
    }

    /// The float's bits as i32, or the reverse.
    pub(super) fn bitcast(&mut self, x: &str, to: DType) -> Name {
        self.op_with("BitCast", &[x], vec![attr("to", &Attr::Type(to))])
    }

    /// Element type conversion.
    pub(super) fn cast(&mut self, x: &str, to: DType) -> Name {
        self.op_with("Cast", &[x], vec![attr("to", &Attr::Type(to))])
    }

    /// 0, `step`, twice that and so on, as many as a vector of one element says. By sums, as `Range` divides and
    /// multiplies by its definition.
    pub(super) fn numbers(&mut self, count: &str, step: &str) -> Name {
        let steps = self.op("Expand", &[step, count]);
        let axis = self.scalar(0i64);
        let exclusive = attr("exclusive", &Attr::Int(1));
        self.op_with("CumSum", &[&steps, &axis], vec![exclusive])
    }

    /// Permuted dimensions.
    pub(super) fn transposed(&mut self, x: &str, perm: &[i64]) -> Name {
        self.op_with("Transpose", &[x], vec![attr("perm", &Attr::Ints(perm.to_vec()))])
    }

    /// `condition ? x : y`.
    pub(super) fn select(&mut self, condition: &str, x: &str, y: &str) -> Name {
        self.op("Where", &[condition, x, y])
    }

    /// `a < b`, or `a ≥ b`, against a bit pattern.
    pub(super) fn below(&mut self, a: &str, pattern: u32) -> Name {
        let b = self.bits(pattern);
        self.op("Less", &[a, &b])
    }

    /// `a ≥ pattern`.
    pub(super) fn from(&mut self, a: &str, pattern: u32) -> Name {
        let b = self.bits(pattern);
        self.op("GreaterOrEqual", &[a, &b])
    }

    /// `a & pattern`.
    pub(super) fn mask(&mut self, a: &str, pattern: u32) -> Name {
        let b = self.bits(pattern);
        self.op("BitwiseAnd", &[a, &b])
    }

    /// Appends a Scan over the first axis of sequences. `body` gets the names of states and elements
    /// and returns the new states; values of this body are visible in it.
    pub(super) fn scan(
        &mut self,
        states: &[(&str, DType)],
        sequences: &[(&str, DType)],
        body: impl FnOnce(&mut Body, &[Name], &[Name]) -> Vec<Name>,
    ) -> Vec<Name> {
        // No name may hide one of an outer scope.
        let prefix = format!("{}s", self.prefix);
        let mut inner = Body::new(&prefix);
        let names = |kind: &str, n: usize| -> Vec<Name> {
            (0..n).map(|i| format!("{prefix}_{kind}_{i}")).collect()
        };
        let (state, element) = (names("state", states.len()), names("element", sequences.len()));
        let results = body(&mut inner, &state, &element);
        let info = |name: &Name, dtype: DType| ValueInfoProto {
            name: Some(name.clone()),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                    elem_type: Some(tensor::number(dtype)),
                    shape: None,
                })),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        };
        let inputs = state.iter().zip(states).chain(element.iter().zip(sequences));
        let graph = GraphProto {
            name: Some("body".to_owned()),
            input: inputs.map(|(n, (_, d))| info(n, *d)).collect(),
            output: results.iter().zip(states).map(|(n, (_, d))| info(n, *d)).collect(),
            node: inner.nodes,
            ..GraphProto::default()
        };
        let attributes = vec![
            AttributeProto {
                name: Some("body".to_owned()),
                g: Some(graph),
                r#type: Some(AttributeType::Graph as i32),
                ..AttributeProto::default()
            },
            attr("num_scan_inputs", &Attr::Int(sequences.len() as i64)),
        ];
        let inputs: Vec<&str> = states.iter().chain(sequences).map(|(n, _)| *n).collect();
        self.op_n("Scan", &inputs, attributes, states.len())
    }

    /// The function of this body.
    pub(super) fn function(
        mut self,
        name: &str,
        inputs: &[&str],
        result: &str,
        output: &str,
        attributes: &[&str],
        doc: &str,
    ) -> FunctionProto {
        self.nodes.push(NodeProto {
            op_type: Some("Identity".to_owned()),
            input: vec![result.to_owned()],
            output: vec![output.to_owned()],
            ..NodeProto::default()
        });
        FunctionProto {
            name: Some(name.to_owned()),
            domain: Some("pam".to_owned()),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes.iter().map(|&a| a.to_owned()).collect(),
            node: self.nodes,
            doc_string: Some(doc.to_owned()),
            opset_import: vec![OperatorSetIdProto {
                domain: Some(String::new()),
                version: Some(OPSET),
            }],
            ..FunctionProto::default()
        }
    }
}

/// An attribute that takes its value from an attribute of the function.
pub(super) fn reference(name: &str, from: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ref_attr_name: Some(from.to_owned()),
        r#type: Some(kind as i32),
        ..AttributeProto::default()
    }
}
