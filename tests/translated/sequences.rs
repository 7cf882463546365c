//! Sequences of tensors, and how control flow passes them on.

use super::common::nodes::{graph, info, int, ints, node};
use super::{evaluated, imported};
use pam_ir::graph::Source;
use pam_ir::onnx::proto::{AttributeProto, NodeProto, attribute_proto::AttributeType};
use pam_ir::tensor::Tensor;

const FLOAT: i32 = 1;
const BOOL: i32 = 9;
const INT64: i32 = 7;

#[test]
fn sequences_are_taken_apart() {
    let x = Tensor::new([5, 2], (0..10).map(|i| i as f32).collect::<Vec<f32>>());
    let nodes = vec![
        node("Constant", "", "two", &[int("value_int", 2)]),
        node("Constant", "", "last", &[int("value_int", -1)]),
        node("SplitToSequence", "x,two", "s", &[]),
        node("SequenceAt", "s,last", "a", &[]),
        node("SequenceInsert", "s,a", "t", &[]),
        node("SequenceErase", "t,two", "u", &[]),
        node("ConcatFromSequence", "u", "y", &[int("axis", 0)]),
        node("SequenceLength", "u", "n", &[]),
    ];
    let found = evaluated(nodes, &[("x", x.clone())], &["a", "y", "n"]);
    assert_eq!(found[0].to_f64().unwrap(), [8.0, 9.0]);
    assert_eq!(found[1], x);
    assert_eq!(found[2].to_i64().unwrap(), [3]);
}

fn rows() -> Tensor {
    Tensor::new([5, 2], (0..10).map(|i| i as f32).collect::<Vec<f32>>())
}

/// A loop that appends the first rows of `x` to the sequence `empty`.
fn appending(rounds: i64) -> Vec<NodeProto> {
    let body = vec![
        node("Gather", "x,i", "row", &[]),
        node("Identity", "given", "same", &[]),
        node("SequenceInsert", "same,row", "longer", &[]),
        node("Identity", "going", "goes", &[]),
    ];
    let declared = [info("i", INT64, &[]), info("going", BOOL, &[]), info("given", BOOL, &[])];
    vec![
        node("Constant", "", "rounds", &[int("value_int", rounds)]),
        node("SequenceEmpty", "", "empty", &[]),
        node(
            "Loop",
            "rounds,,empty",
            "full",
            &[graph("body", body, &declared, &["goes", "longer"])],
        ),
    ]
}

#[test]
fn loops_carry_sequences() {
    let mut nodes = appending(3);
    nodes.push(node("ConcatFromSequence", "full", "y", &[int("axis", 0), int("new_axis", 1)]));
    nodes.push(node("SequenceLength", "empty", "n", &[]));
    let found = evaluated(nodes, &[("x", rows())], &["y", "n"]);
    assert_eq!(found[0].to_f64().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(found[0].shape(), [3, 2]);
    assert_eq!(found[1].to_i64().unwrap(), [0]);
}

fn branches(condition: &str) -> Vec<NodeProto> {
    let branch = |name: &str, from: &str| -> AttributeProto {
        graph(name, vec![node("SequenceConstruct", from, "s", &[])], &[], &["s"])
    };
    let sides = [branch("then_branch", "x,x"), branch("else_branch", "x")];
    vec![
        node("Constant", "", "one", &[int("value_int", 1)]),
        node("Cast", "one", "known", &[int("to", BOOL.into())]),
        node("ReduceMax", "x", "most", &[int("keepdims", 0)]),
        node("Cast", "most", "unknown", &[int("to", BOOL.into())]),
        node("If", condition, "chosen", &sides),
        node("SequenceLength", "chosen", "n", &[]),
    ]
}

#[test]
fn branches_give_sequences() {
    let found = evaluated(branches("known"), &[("x", rows())], &["n"]);
    assert_eq!(found[0].to_i64().unwrap(), [2]);
}

#[test]
fn scans_may_run_and_write_in_reverse() {
    let body = vec![node("Add", "sum,row", "next", &[]), node("Identity", "next", "shown", &[])];
    let declared = [info("sum", FLOAT, &[2]), info("row", FLOAT, &[2])];
    let scan = |attrs: &[AttributeProto]| {
        let body = graph("body", body.clone(), &declared, &["next", "shown"]);
        let attrs = [&[body, int("num_scan_inputs", 1)], attrs].concat();
        let nodes = vec![
            node("Constant", "", "axis", &[ints("value_ints", &[0])]),
            node("ReduceSum", "x,axis", "r", &[int("keepdims", 0)]),
            node("Sub", "r,r", "start", &[]),
            node("Scan", "start,x", "last,y", &attrs),
        ];
        evaluated(nodes, &[("x", rows())], &["y"])[0].to_f64().unwrap()
    };
    let sums = [0.0, 1.0, 2.0, 4.0, 6.0, 9.0, 12.0, 16.0, 20.0, 25.0];
    assert_eq!(scan(&[]), sums);
    let written = [20.0, 25.0, 12.0, 16.0, 6.0, 9.0, 2.0, 4.0, 0.0, 1.0];
    assert_eq!(scan(&[ints("scan_output_directions", &[1])]), written);
    let read = [20.0, 25.0, 20.0, 24.0, 18.0, 21.0, 14.0, 16.0, 8.0, 9.0];
    let both = [ints("scan_input_directions", &[1]), ints("scan_output_directions", &[1])];
    assert_eq!(scan(&both), read);
}

/// Zeros to begin with are no weight, unlike those of a bias.
#[test]
fn loops_begin_with_zeros_of_their_own() {
    let floats = AttributeProto { floats: vec![0.0; 2], ..ints("value_floats", &[]) };
    let floats = AttributeProto { r#type: Some(AttributeType::Floats as i32), ..floats };
    let body = vec![node("Add", "sum,x", "next", &[]), node("Identity", "going", "goes", &[])];
    let declared = [info("i", INT64, &[]), info("going", BOOL, &[]), info("sum", FLOAT, &[2])];
    let nodes = vec![
        node("Constant", "", "rounds", &[int("value_int", 2)]),
        node("Constant", "", "zeros", &[floats]),
        node("Loop", "rounds,,zeros", "y", &[graph("body", body, &declared, &["goes", "next"])]),
    ];
    let graph = imported(nodes, &[("x", Tensor::vector(vec![1.0f32, 2.0]))], &["y"]).unwrap();
    let read = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
    let mut read = read.map(|v| graph.value(*v));
    assert!(read.all(|v| v.source != Source::Constant || v.ty.elements() == 1), "{graph:?}");
}

#[test]
fn loops_end() {
    let body = vec![node("Identity", "going", "goes", &[]), node("Neg", "x", "y", &[])];
    let declared = [info("i", INT64, &[]), info("going", BOOL, &[])];
    let nodes = vec![node("Loop", ",", "all", &[graph("body", body, &declared, &["goes", "y"])])];
    let error = imported(nodes, &[("x", rows())], &["all"]).unwrap_err().to_string();
    assert!(error.contains("its condition does not end it"), "{error}");
}

#[test]
fn a_sequence_is_no_tensor() {
    let mut taken = appending(2);
    taken.push(node("Neg", "full", "y", &[]));
    let given = appending(2);
    for (nodes, output, reason) in [
        (taken, "y", "input `full` is a sequence; only ops on sequences take one"),
        (given, "full", "output `full` is a sequence"),
        (branches("unknown"), "n", "depends on data and its branches give sequences"),
    ] {
        let error = imported(nodes, &[("x", rows())], &[output]).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
