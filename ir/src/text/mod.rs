//! The text form of a graph: what snapshots hold and what tests are written in.
//!
//! ```text
//! graph mlp {
//!   in x: f32[32,64]
//!   in w: f32[64,10] = #9f86d081
//!   const c: f32[] = 0.5
//!   h: f32[32,10] = MatMul(x, w)
//!   y: f32[32,10] = Mul(h, c)  //@ scale forward other approx
//!   v: f32[32,3], _ = TopK(y) {K=3}
//!   out y = y
//!   bind new.w -> w
//! }
//! ```
//!
//! A line is an input, a constant, a node, an output or a binding. Names that are not made of
//! letters, digits and `_ . / -` are quoted. `_` stands for an omitted operand. Constants of more
//! than [`INLINE_ELEMENTS`] elements are named by their hash. Behind `//@` of a node stand its
//! name, role, component and mode, and behind `<-` the source node, its op and the rule. File
//! metadata is not part of the text form.
//!
//! [`print`] and [`parse`] are inverses on printed text; [`brief`] leaves the annotations out.

mod parse;
mod print;

pub use parse::{ParseError, parse};
pub use print::{brief, node_line, print};

/// Constants of at most this many elements are printed whole.
pub const INLINE_ELEMENTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attr;
    use crate::build::Builder;
    use crate::graph::Binding;
    use crate::op::Op;
    use crate::tensor::Tensor;
    use crate::types::{DType, Type};

    fn sample() -> crate::graph::Graph {
        let mut b = Builder::new("a graph: 1");
        let x = b.input("x/0", Type::new(DType::F32, [2, 3]), None);
        let w = b.input("w: odd \"name\"\n", Type::new(DType::F32, [2, 3]), None);
        let big = b.constant("big", Tensor::new([4, 5], vec![0.25f32; 20]));
        let odd = b.constant(
            "odd",
            Tensor::vector(vec![f32::NAN, -0.0, f32::INFINITY, 1e-40, f32::from_bits(0x7F80_0001)]),
        );
        let none = b.constant("none", Tensor::new([0], Vec::<i64>::new()));
        let flags = b.constant("flags", Tensor::vector(vec![true, false]));
        b.scope.name = "n 1".to_owned();
        let y = b.node(Op::Add, &[x, w], &[]).unwrap();
        let t = b.node(Op::Transpose, &[y], &[("perm", vec![1i64, 0].into())]).unwrap();
        let e = b.node(Op::Identity, &[none], &[]).unwrap();
        let s = b
            .node(Op::Reshape, &[t], &[("shape", Attr::Ints(vec![6])), ("allowzero", 1i64.into())])
            .unwrap();
        for (name, v) in [("y", y), ("s", s), ("e", e), ("b", big), ("o", odd), ("f", flags)] {
            b.output(name, v);
        }
        let mut g = b.finish();
        g.bindings.push(Binding { new: "y".into(), old: "x/0".into() });
        g
    }

    #[test]
    fn printing_and_parsing_are_inverse() {
        let graph = sample();
        let text = print(&graph);
        let weights: Vec<Tensor> = graph.values.iter().filter_map(|v| v.data.clone()).collect();
        let again = parse(&text, &weights).unwrap();
        assert_eq!(print(&again), text);
        assert_eq!(again.bindings, graph.bindings);
        for (a, b) in graph.values.iter().zip(&again.values) {
            assert_eq!((&a.name, &a.ty, &a.data), (&b.name, &b.ty, &b.data));
        }
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text: &str| parse(text, &[]).unwrap_err().to_string();
        assert_eq!(error("graph g {\n  y: f32[2] = Ad(x)\n}"), "line 2: no op `Ad`");
        assert_eq!(error("graph g {\n  y: f32[2] = Neg(x)\n}"), "line 2: no value `x`");
        assert_eq!(
            error("graph g {\n  const w: f32[99] = #00000000\n}"),
            "line 2: no weight #00000000 of type f32[99]"
        );
        assert_eq!(error("graph g {\n  in x: f32[2\n}"), "line 2: expected `]`");
    }
}
