//! The intermediate representation of pam-compile.
//!
//! A [`graph::Graph`] is a flat list of [`graph::Node`]s in topological order over named values.
//! Every value has a [`types::Type`]: an element type and a static shape. There is no control flow
//! and no symbolic dimension in it; the importer unrolls, inlines and binds, or says why it cannot.
//!
//! A node applies one [`op::Op`] of the op table to its inputs. ONNX operands that must be known when
//! compiling (axes, shapes, pads) are attributes here, and every op has the form of opset 26. The
//! `Pam…` ops are the piecewise affine primitives; they are the only ops that stand for a
//! multiplication in a graph that is certified multiplication-free.
//!
//! Rooms: [`op`] declares the ops with their shape rules; [`build`] makes graphs and rebuilds them;
//! [`order`] holds the graph algorithms; `eval` computes constants; `onnx` reads and writes files;
//! `text` prints and parses; `verify` checks that a graph is well formed, `certify` that it is legal
//! for a target, and `audit` lists what it multiplies as it stands. No rewriting rule lives here, so that the certifier cannot see any.

pub mod attr;
pub mod audit;
pub mod build;
pub mod certify;
pub mod cost;
pub mod einsum;
pub mod eval;
pub mod geometry;
pub mod graph;
pub mod onnx;
pub mod op;
pub mod order;
pub mod resize;
pub mod role;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;
