//! ONNX files in and out.
//!
//! [`load`] turns a file into protobuf messages, [`import`] messages into a
//! [`crate::graph::Graph`] and [`export`] a graph into a model. [`external`] moves large tensors of a
//! model into a file beside it.

mod attribute;
pub mod check;
pub mod error;
pub mod export;
pub mod external;
pub mod functions;
pub mod import;
pub mod load;
#[rustfmt::skip]
pub mod proto;
pub mod tensor;

/// The opset of the standard domain that is written.
pub const OPSET: i64 = 26;
/// The IR version that goes with it.
pub const IR_VERSION: i64 = 13;
