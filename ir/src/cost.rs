//! What multiplications cost in silicon.
//!
//! Energy and area of one operation in 45 nm at 0.9 V, from M. Horowitz, "Computing's Energy Problem
//! (and what we can do about it)", ISSCC 2014, the figures that appendix B of the PAM paper uses. A PA
//! product is one 32-bit integer addition (its range checks are a comparison of exponents). Additions
//! of a sum cost the same before and after and are left out.

use crate::audit::Tally;
use crate::graph::{Graph, Node};
use crate::op::{Level, Op};

/// Energy of a 32-bit integer addition in picojoules.
pub const INT32_ADD_PJ: f64 = 0.1;
/// Energy of a float32 multiplication in picojoules.
pub const F32_MUL_PJ: f64 = 3.7;
/// Area of a 32-bit integer adder in square micrometres.
pub const INT32_ADD_UM2: f64 = 137.0;
/// Area of a float32 multiplier in square micrometres.
pub const F32_MUL_UM2: f64 = 7700.0;

/// Scalar PA operations that one execution of a node performs, each an integer addition; 0 for a
/// node that is no PA primitive.
pub fn pa_operations(graph: &Graph, node: &Node) -> u128 {
    if node.op.level() != Level::Pam {
        return 0;
    }
    let size = |i: usize| node.input(i).map_or(0, |v| graph.ty(v).elements() as u128);
    let out = node.output(0).map_or(0, |v| graph.ty(v).elements() as u128);
    match node.op {
        // Products over k: elements of the result times the length of a row of the left operand.
        Op::PamMatMul => out * node.input(0).map_or(0, |a| last(&graph.ty(a).shape)),
        // Each product of the forward pass has one slope: elements of delta times k.
        Op::PamMatMulGradA | Op::PamMatMulGradB => {
            size(2) * node.input(0).map_or(0, |a| last(&graph.ty(a).shape))
        }
        Op::PamConv => {
            let kernel = node.input(1).map_or(0, |w| per_first(&graph.ty(w).shape));
            out * kernel
        }
        Op::PamUniform | Op::PamRound => 0,
        _ => out,
    }
}

/// Nodes and scalars of the PA operations of a graph.
pub fn pa_total(graph: &Graph) -> Tally {
    let scalars = graph.nodes.iter().map(|n| pa_operations(graph, n)).filter(|&s| s > 0);
    scalars.map(|scalars| Tally { nodes: 1, scalars }).sum()
}

fn last(shape: &[usize]) -> u128 {
    shape.last().copied().unwrap_or(0) as u128
}

fn per_first(shape: &[usize]) -> u128 {
    shape.iter().skip(1).map(|&d| d as u128).product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;

    #[test]
    fn primitives_are_counted() {
        let graph = parse(
            "graph g {
               in a: f32[2,3]
               in b: f32[3,5]
               c: f32[2,5] = PamMatMul(a, b)
               d: f32[2,5] = PamExp2(c)
               e: f32[2,5] = Add(d, c)
               g: f32[2,3] = PamMatMulGradA(a, b, e)
               out e = e
               out g = g
             }",
            &[],
        )
        .unwrap();
        let counts: Vec<u128> = graph.nodes.iter().map(|n| pa_operations(&graph, n)).collect();
        assert_eq!(counts, [30, 10, 0, 30]);
        assert_eq!(pa_total(&graph), Tally { nodes: 3, scalars: 70 });
    }
}
