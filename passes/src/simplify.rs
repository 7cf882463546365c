//! Simplify: rewritings that never change a bit.
//!
//! | rule | before | after |
//! |---|---|---|
//! | identity | `y = Identity(x)` | x in place of y |
//! | same | `y = f(x) {…}`, `z = f(x) {…}` | y in place of z |
//! | dead | `y = f(x)`, y unused | nothing |

use pam_ir::graph::{Graph, Node, ValueId};
use pam_ir::op::Op;
use std::collections::HashMap;
use std::fmt::Write;

/// Applies all rules.
pub(crate) fn simplify(graph: &Graph) -> Graph {
    let needed = graph.ancestors(graph.outputs.iter().map(|o| o.value));
    let mut known: HashMap<String, Vec<Option<ValueId>>> = HashMap::new();
    let result = graph.rebuild(|r, id, node| {
        if !needed[id.index()] {
            return Ok::<(), std::convert::Infallible>(());
        }
        if node.op == Op::Identity
            && let (Some(x), Some(y)) = (node.input(0), node.output(0))
        {
            let x = r.get(x);
            r.set(y, x);
            return Ok(());
        }
        let key = key(node, |v| r.get(v));
        if let Some(outputs) = known.get(&key) {
            let pairs = node.outputs.iter().zip(outputs);
            if pairs.clone().all(|(a, b)| a.is_none() || b.is_some()) {
                for (old, new) in pairs {
                    if let (Some(old), Some(new)) = (old, new) {
                        r.set(*old, *new);
                    }
                }
                return Ok(());
            }
        }
        r.copy(node);
        known.insert(key, node.outputs.iter().map(|v| v.map(|v| r.get(v))).collect());
        Ok(())
    });
    match result {
        Ok(graph) => graph,
        Err(never) => match never {},
    }
}

/// Two nodes with equal keys compute the same bits.
fn key(node: &Node, get: impl Fn(ValueId) -> ValueId) -> String {
    let mut key = node.op.name().to_owned();
    for v in &node.inputs {
        let _ = match v {
            Some(v) => write!(key, " {}", get(*v).0),
            None => write!(key, " _"),
        };
    }
    let _ = write!(key, " {:?} {}", node.attrs, node.outputs.len());
    key
}
