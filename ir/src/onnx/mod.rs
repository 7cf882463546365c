//! ONNX files in and out.
//!
//! [`load`] turns a file into protobuf messages, [`import`] messages into a
//! [`crate::graph::Graph`] and [`export`] a graph into a model. [`external`] moves large tensors of a
//! model into a file beside it.

pub mod error;
pub mod export;
pub mod external;
pub mod functions;
pub mod import;
pub mod load;
#[rustfmt::skip]
pub mod proto;
pub mod tensor;
