//! Attributes as protobuf messages.

use super::proto::{AttributeProto, attribute_proto::AttributeType};
use super::tensor;
use crate::attr::Attr;

/// An attribute as a message.
pub(super) fn attr(name: &str, value: &Attr) -> AttributeProto {
    let mut a = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let kind = match value {
        Attr::Int(v) => {
            a.i = Some(*v);
            AttributeType::Int
        }
        Attr::Float(v) => {
            a.f = Some(*v);
            AttributeType::Float
        }
        Attr::Str(v) => {
            a.s = Some(v.as_bytes().to_vec());
            AttributeType::String
        }
        Attr::Ints(v) => {
            a.ints.clone_from(v);
            AttributeType::Ints
        }
        Attr::Floats(v) => {
            a.floats.clone_from(v);
            AttributeType::Floats
        }
        Attr::Strs(v) => {
            a.strings = v.iter().map(|s| s.as_bytes().to_vec()).collect();
            AttributeType::Strings
        }
        Attr::Tensor(t) => {
            a.t = Some(tensor::write("", t));
            AttributeType::Tensor
        }
        Attr::Type(d) => {
            a.i = Some(tensor::number(*d).into());
            AttributeType::Int
        }
    };
    a.r#type = Some(kind as i32);
    a
}
