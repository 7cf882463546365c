//! One corrupted graph for each violation, and what the certifier says of it.

use pam_ir::build::Builder;
use pam_ir::certify::{Code, Target, certify, native_multiplies};
use pam_ir::graph::{Graph, Source};
use pam_ir::op::Op;
use pam_ir::role::Mode;
use pam_ir::text::parse;
use pam_ir::types::{DType, Type};

/// A graph of these lines with x: f32[2,3].
fn graph(lines: &str) -> Graph {
    parse(&format!("graph g {{\n in x: f32[2,3]\n{lines}\n}}"), &[]).unwrap()
}

/// What the certifier says of a graph: codes, nodes, ops and reasons.
fn rejected(graph: Graph, target: Target) -> Vec<(Code, String, String, String)> {
    let violations = certify(graph, target).expect_err("the graph must not be certified");
    for v in &violations {
        assert!(!v.line.is_empty() || v.code == Code::Malformed, "{v}");
        assert!(!v.to_string().contains('\n'), "{v}");
    }
    violations.into_iter().map(|v| (v.code, v.node, v.op, v.reason)).collect()
}

fn one(graph: Graph, target: Target, code: Code, node: &str, op: &str, reason: &str) {
    let found = rejected(graph, target);
    assert_eq!(found, [(code, node.to_owned(), op.to_owned(), reason.to_owned())]);
}

#[test]
fn native_multiplications() {
    let lines = " y: f32[2,3] = Mul(x, x) //@ square forward other approx\n out y = y";
    let reason = "6 native float multiplications";
    for target in [Target::MultiplicationFree, Target::Mixed] {
        one(graph(lines), target, Code::NativeMultiply, "square", "Mul", reason);
    }
    // Only a mixed target allows a node that is native by policy.
    let lines = lines.replace("approx", "native");
    let target = Target::MultiplicationFree;
    one(graph(&lines), target, Code::NativeMultiply, "square", "Mul", reason);
    let certified = certify(graph(&lines), Target::Mixed).unwrap();
    assert_eq!(certified.native().len(), 1);
    assert_eq!(certified.native()[0].scalars, 6);
}

#[test]
fn hidden_multiplications() {
    // A composite op, a mean, a scatter that multiplies: none is named Mul.
    let all = [
        ("y: f32[2,3] = Softmax(x)", "Softmax"),
        ("y: f32[2,1] = ReduceMean(x) {axes=[1]}", "ReduceMean"),
        ("y: f32[2,3] = Gelu(x)", "Gelu"),
        ("y: f32[2,3] = LeakyRelu(x)", "LeakyRelu"),
    ];
    for (line, op) in all {
        let lines = format!(" {line} //@ n forward other approx\n out y = y");
        let found = rejected(graph(&lines), Target::MultiplicationFree);
        assert_eq!((found[0].0, found[0].2.as_str()), (Code::NativeMultiply, op));
    }
    let lines = " const i: i64[1,3] = [0, 0, 1]\n const u: f32[1,3] = [1.0, 2.0, 3.0]\n \
                 y: f32[2,3] = ScatterElements(x, i, u) {reduction=\"mul\"} //@ n forward other approx\n out y = y";
    let found = rejected(graph(lines), Target::MultiplicationFree);
    assert_eq!((found[0].0, found[0].2.as_str()), (Code::NativeMultiply, "ScatterElements"));
    assert!(certify(graph(&lines.replace("mul", "add")), Target::MultiplicationFree).is_ok());
}

#[test]
fn integer_multiplications() {
    let lines =
        " in n: i64[4]\n m: i64[4] = Mul(n, n) //@ product forward other approx\n out m = m";
    let reason = "4 integer multiplications at run time";
    let target = Target::MultiplicationFree;
    one(graph(lines), target, Code::IntegerMultiply, "product", "Mul", reason);
}

#[test]
fn ops_that_no_rule_lowered() {
    // A composite op without a multiplication of its own must be lowered all the same.
    let lines = " y: f32[2,3] = Dropout(x) //@ drop forward other approx\n out y = y";
    let target = Target::MultiplicationFree;
    let reason = "no rule has lowered this op";
    one(graph(lines), target, Code::NotLowered, "drop", "Dropout", reason);
}

#[test]
fn primitives_on_other_types() {
    let mut b = Builder::new("g");
    let x = b.input("x", Type::new(DType::F64, [2]), None);
    b.scope.name = "double".to_owned();
    let y = b.node(Op::PamMul, &[x, x], &[]).unwrap();
    b.output("y", y);
    let target = Target::MultiplicationFree;
    one(b.finish(), target, Code::PrimitiveType, "double", "mul", "a PA primitive on f64");
    let lines = " in n: i64[2,2]\n m: i64[2,2] = PamMatMul(n, n) //@ whole forward other approx\n out m = m";
    one(graph(lines), target, Code::PrimitiveType, "whole", "matmul", "a PA primitive on i64");
}

#[test]
fn unknown_ops() {
    let mut g = graph(" y: f32[2,3] = Abs(x) //@ odd forward other native\n out y = y");
    g.nodes[0].op = Op::Opaque;
    g.nodes[0].attrs.insert("onnx".into(), pam_ir::attr::Attr::Str("vendor::Odd".into()));
    let reason = "the compiler does not know this op";
    // Not even a mixed target lets an unknown op pass.
    one(g, Target::Mixed, Code::UnknownOp, "odd", "vendor::Odd", reason);
}

#[test]
fn malformed_graphs() {
    type Corruption<'a> = (&'a str, &'a dyn Fn(&mut Graph));
    let broken: [Corruption<'_>; 6] = [
        ("a type that the op does not give", &|g| g.values[1].ty = Type::new(DType::F32, [9])),
        ("nodes out of order", &|g| g.nodes.swap(0, 1)),
        ("a name given twice", &|g| g.values[1].name = g.values[0].name.clone()),
        ("an output that does not exist", &|g| g.outputs[0].value.0 = 999),
        ("a node that makes nothing", &|g| g.nodes[0].outputs.clear()),
        ("a constant without elements", &|g| {
            g.values[0].source = Source::Constant;
            g.inputs.clear();
        }),
    ];
    let sound = || graph(" y: f32[2,3] = Abs(x)\n z: f32[2,3] = Neg(y)\n out z = z");
    assert!(certify(sound(), Target::MultiplicationFree).is_ok());
    for (what, corrupt) in broken {
        let mut g = sound();
        corrupt(&mut g);
        let found = rejected(g, Target::Mixed);
        assert!(found.iter().all(|f| f.0 == Code::Malformed), "{what}: {found:?}");
    }
}

#[test]
fn every_violation_is_returned() {
    let lines = " y: f32[2,3] = Mul(x, x) //@ a forward other approx\n z: f32[2,3] = Exp(y) //@ b forward other approx\n out z = z";
    let found = rejected(graph(lines), Target::MultiplicationFree);
    let nodes: Vec<&str> = found.iter().map(|f| f.1.as_str()).collect();
    assert_eq!(nodes, ["a", "b"]);
}

#[test]
fn every_code_has_its_test() {
    // A new code must be given a graph above and be counted here.
    assert_eq!(Code::ALL.len(), 6);
    assert!(Mode::ALL.len() == 3 && native_multiplies(&Graph::default()).is_empty());
}
