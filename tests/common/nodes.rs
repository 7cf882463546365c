//! Models put together from nodes.

use pam_ir::onnx::proto::{
    AttributeProto, GraphProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto,
    ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use pam_ir::tensor::Tensor;
use pam_kernels::random::threefry;

/// A tensor of an element type, by its ONNX number, and a shape.
pub fn info(name: &str, dtype: i32, shape: &[usize]) -> ValueInfoProto {
    let dim = |&d: &usize| Dimension {
        value: Some(dimension::Value::DimValue(d as i64)),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(dtype),
        shape: Some(TensorShapeProto { dim: shape.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// An attribute of integers.
pub fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: v.to_vec(),
        r#type: Some(AttributeType::Ints as i32),
        ..AttributeProto::default()
    }
}

/// An integer attribute.
pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(i),
        r#type: Some(AttributeType::Int as i32),
        ..AttributeProto::default()
    }
}

/// A float attribute.
pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        f: Some(f),
        r#type: Some(AttributeType::Float as i32),
        ..AttributeProto::default()
    }
}

/// A string attribute.
pub fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        s: Some(s.as_bytes().to_vec()),
        r#type: Some(AttributeType::String as i32),
        ..AttributeProto::default()
    }
}

/// A node; its op as `domain::Op`, its operands divided by commas.
pub fn node(op: &str, inputs: &str, outputs: &str, attribute: &[AttributeProto]) -> NodeProto {
    let (domain, op) = op.split_once("::").unwrap_or(("", op));
    let list = |s: &str| s.split(',').map(|n| n.trim().to_owned()).collect();
    NodeProto {
        op_type: Some(op.to_owned()),
        domain: Some(domain.to_owned()),
        input: list(inputs),
        output: list(outputs),
        attribute: attribute.to_vec(),
        ..NodeProto::default()
    }
}

/// Numbers from −2 to 2.
pub fn random(seed: u32, shape: &[usize]) -> Tensor {
    let word = |i: u32| threefry([seed, 5], [i, 0])[0] as i32;
    let n = shape.iter().product::<usize>() as u32;
    Tensor::new(shape, (0..n).map(|i| word(i) as f32 / 2f32.powi(30)).collect::<Vec<f32>>())
}

/// An attribute of strings.
pub fn strings(name: &str, v: &[&str]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        strings: v.iter().map(|s| s.as_bytes().to_vec()).collect(),
        r#type: Some(AttributeType::Strings as i32),
        ..AttributeProto::default()
    }
}

/// A graph as an attribute: its nodes, inputs and the names of its outputs.
pub fn graph(
    name: &str,
    nodes: Vec<NodeProto>,
    inputs: &[ValueInfoProto],
    outputs: &[&str],
) -> AttributeProto {
    let output = |n: &&str| ValueInfoProto { name: Some((*n).to_owned()), ..Default::default() };
    AttributeProto {
        name: Some(name.to_owned()),
        g: Some(GraphProto {
            node: nodes,
            input: inputs.to_vec(),
            output: outputs.iter().map(output).collect(),
            ..GraphProto::default()
        }),
        r#type: Some(AttributeType::Graph as i32),
        ..AttributeProto::default()
    }
}

/// A domain and its version.
pub fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}
