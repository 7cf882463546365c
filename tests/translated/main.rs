//! Ops that the op table lacks, against the compiler's own derivatives and against plain loops.

mod causal;
#[path = "../common/mod.rs"]
mod common;
mod fused;
mod gradients;
mod quantized;
mod recurrent;
mod regions;
mod sequences;
mod spectral;

use common::nodes::{info, int, node, opset, text};
use common::{executor, named};
use pam_ir::graph::Graph;
use pam_ir::onnx::error::OnnxError;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use pam_ir::tensor::Tensor;

/// The graph of nodes with these operands.
pub fn imported(
    nodes: Vec<NodeProto>,
    inputs: &[(&str, Tensor)],
    outputs: &[&str],
) -> Result<Graph, OnnxError> {
    let number = |t: &Tensor| pam_ir::onnx::tensor::number(t.dtype());
    let model = ModelProto {
        ir_version: Some(10),
        opset_import: vec![
            opset("", 21),
            opset("com.microsoft", 1),
            opset("ai.onnx.preview.training", 1),
            opset("ai.onnx.preview", 1),
        ],
        graph: Some(GraphProto {
            name: Some("g".to_owned()),
            node: nodes,
            input: inputs.iter().map(|(n, t)| info(n, number(t), t.shape())).collect(),
            output: outputs
                .iter()
                .map(|n| ValueInfoProto {
                    name: Some((*n).to_owned()),
                    ..ValueInfoProto::default()
                })
                .collect(),
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    let file = ModelFile { model, path: "ops.onnx".into() };
    import(&[file], &ImportOptions::default()).map(|imported| imported.graph)
}

/// The outputs of nodes with these operands, computed natively.
pub fn evaluated(
    nodes: Vec<NodeProto>,
    inputs: &[(&str, Tensor)],
    outputs: &[&str],
) -> Vec<Tensor> {
    let graph = imported(nodes, inputs, outputs).unwrap_or_else(|e| panic!("{e}"));
    let fed: Vec<(String, Tensor)> =
        inputs.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
    let found = executor(&graph, "native").run(&fed).unwrap();
    outputs.iter().map(|n| named(&found, n).clone()).collect()
}

#[test]
fn integers_stand_for_floats() {
    let x = Tensor::new([2, 3], vec![-1.0f32, 0.26, 300.0, 0.25, 0.75, -0.2]);
    let scale = Tensor::vector(vec![0.5f32, 0.1]);
    let zero = Tensor::vector(vec![3i8, -5]);
    let nodes = vec![
        node("QuantizeLinear", "x,s,z", "q", &[int("axis", 0)]),
        node("DequantizeLinear", "q,s,z", "y", &[int("axis", 0)]),
    ];
    let found = evaluated(nodes, &[("x", x), ("s", scale), ("z", zero)], &["q", "y"]);
    assert_eq!(found[0], Tensor::new([2, 3], vec![1i8, 4, 127, -3, 3, -7]));
    let y = found[1].to_f64().unwrap();
    for (found, expected) in y.iter().zip([-1.0, 0.5, 62.0, 0.2, 0.8, -0.2]) {
        assert!((found - expected).abs() < 1e-6, "{y:?}");
    }
}

#[test]
fn samples_lie_between_their_neighbours() {
    // A plane is sampled exactly inside; outside are zeros, the border, or what lies mirrored.
    let x = Tensor::new([1, 1, 3, 4], (0..12).map(|i| i as f32).collect::<Vec<f32>>());
    let grid = vec![-1.0f32, -1.0, 1.0, 1.0, 0.0, 0.0, 0.5, -0.25, 5.0 / 3.0, 0.0, -9.0, 0.0];
    let grid = Tensor::new([1, 1, 6, 2], grid);
    let inside = [0.0, 11.0, 5.5, 5.25];
    for (padding, outside) in
        [("zeros", [0.0, 0.0]), ("border", [7.0, 4.0]), ("reflection", [6.0, 4.0])]
    {
        let attrs = [int("align_corners", 1), text("padding_mode", padding)];
        let nodes = vec![node("GridSample", "x,g", "y", &attrs)];
        let y =
            evaluated(nodes, &[("x", x.clone()), ("g", grid.clone())], &["y"])[0].to_f64().unwrap();
        for (found, expected) in y.iter().zip(inside.iter().chain(&outside)) {
            assert!((found - expected).abs() < 1e-5, "{padding}: {y:?}");
        }
    }
}

#[test]
fn cubic_samples_keep_planes_and_elements() {
    let x = Tensor::new([1, 1, 6, 6], (0..36).map(|i| (i * i % 11) as f32).collect::<Vec<f32>>());
    let plane = Tensor::new([1, 1, 6, 6], (0..36).map(|i| i as f32).collect::<Vec<f32>>());
    // An element of row 1 and column 4, and the middle of four.
    let grid = Tensor::new([1, 1, 2, 2], vec![0.6f32, -0.6, 0.0, 0.0]);
    let sampled = |image: &Tensor| {
        let attrs = [int("align_corners", 1), text("mode", "cubic")];
        let nodes = vec![node("GridSample", "x,g", "y", &attrs)];
        evaluated(nodes, &[("x", image.clone()), ("g", grid.clone())], &["y"])[0].to_f64().unwrap()
    };
    assert!((sampled(&x)[0] - f64::from(10 * 10 % 11)).abs() < 1e-4);
    let found = sampled(&plane);
    for (found, expected) in found.iter().zip([10.0, 17.5]) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn products_run_along_an_axis() {
    let x = Tensor::new([2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let axis = node("Constant", "", "a", &[int("value_int", 1)]);
    for (attrs, expected) in [
        (vec![], [1.0, 2.0, 6.0, 4.0, 20.0, 120.0]),
        (vec![int("exclusive", 1)], [1.0, 1.0, 2.0, 1.0, 4.0, 20.0]),
        (vec![int("reverse", 1)], [6.0, 6.0, 3.0, 120.0, 30.0, 6.0]),
    ] {
        let nodes = vec![axis.clone(), node("CumProd", "x,a", "y", &attrs)];
        let y = evaluated(nodes, &[("x", x.clone())], &["y"]);
        assert_eq!(y[0].to_f64().unwrap(), expected);
    }
}

#[test]
fn determinants_need_pivots() {
    // One that begins with a zero, a permutation, one of rank 2, and one of a single row.
    let x = vec![
        0.0f32, 2.0, 1.0, 3.0, -1.0, 2.0, 1.0, 4.0, -2.0, //
        0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, //
        1.0, 2.0, 3.0, 2.0, 4.0, 6.0, 1.0, 0.0, 1.0,
    ];
    let inputs = [("x", Tensor::new([3, 3, 3], x)), ("z", Tensor::new([1, 1], vec![-5.0f32]))];
    let nodes = vec![node("Det", "x", "y", &[]), node("Det", "z", "w", &[])];
    let found = evaluated(nodes, &inputs, &["y", "w"]);
    assert_eq!(found[0].shape(), [3]);
    for (found, expected) in found[0].to_f64().unwrap().iter().zip([29.0, 1.0, 0.0]) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
    assert_eq!(found[1], Tensor::scalar(-5f32));
}

/// onnxruntime writes running statistics over its inputs.
#[test]
fn running_statistics_are_state() {
    let inputs = [
        ("x", Tensor::new([2, 1, 2], vec![1.0f32, 2.0, 3.0, 6.0])),
        ("s", Tensor::vector(vec![1.0f32])),
        ("b", Tensor::vector(vec![0.0f32])),
        ("m", Tensor::vector(vec![1.0f32])),
        ("v", Tensor::vector(vec![1.0f32])),
    ];
    let attrs = [int("training_mode", 1)];
    let norm = node("com.microsoft::BatchNormInternal", "x,s,b,m,v", "y,mean,var,sm,si", &attrs);
    let graph = imported(vec![norm], &inputs, &["y"]).unwrap();
    let bound: Vec<(&str, &str)> =
        graph.bindings.iter().map(|b| (b.new.as_str(), b.old.as_str())).collect();
    assert_eq!(bound, [("new.m", "m"), ("new.v", "v")]);
    let fed = inputs.map(|(n, t)| (n.to_owned(), t));
    let found = executor(&graph, "native").run(&fed).unwrap();
    // 0.9 of the old and a tenth of the batch's, whose mean is 3.
    assert!((named(&found, "new.m").to_f64().unwrap()[0] - 1.2).abs() < 1e-6);
}

/// PyTorch finds the first of some truth values so.
#[test]
fn the_first_truth_is_found() {
    let x = Tensor::new([2, 3], vec![false, true, true, true, false, false]);
    let y = evaluated(vec![node("ArgMax", "x", "y", &[int("axis", 1)])], &[("x", x)], &["y"]);
    assert_eq!(y[0], Tensor::new([2, 1], vec![1i64, 0]));
}

#[test]
fn operands_have_the_shapes_that_ops_ask_for() {
    let inputs = [
        ("x", Tensor::new([2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("n", Tensor::vector(vec![3i64, 2])),
        ("m", Tensor::vector(vec![3i64])),
    ];
    let axes = [int("batch_axis", 0), int("time_axis", 1)];
    let reversed = |lengths: &str| vec![node("ReverseSequence", lengths, "y", &axes)];
    let y = evaluated(reversed("x,n"), &inputs, &["y"]);
    assert_eq!(y[0].to_f64().unwrap(), [3.0, 2.0, 1.0, 5.0, 4.0, 6.0]);
    let error = imported(reversed("x,m"), &inputs, &["y"]).unwrap_err().to_string();
    assert!(error.contains("lengths i64[1] for f32[2,3]"), "{error}");
    let clipped = vec![node("Clip", "x,x", "y", &[])];
    let error = imported(clipped, &inputs, &["y"]).unwrap_err().to_string();
    assert!(error.contains("a bound is f32[2,3], but takes one number"), "{error}");
}

#[test]
fn what_is_known_decides_what_is_kept() {
    let x = Tensor::new([2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let nodes = vec![
        node("Shape", "x", "s", &[]),
        node("Constant", "", "two", &[int("value_int", 2)]),
        node("Equal", "s,two", "c", &[]),
        node("Compress", "x,c", "y", &[int("axis", 0)]),
        node("Compress", "x,c", "z", &[]),
        node("NonZero", "c", "n", &[]),
        node("NonZero", "x", "d", &[]),
    ];
    let found = evaluated(nodes[..6].to_vec(), &[("x", x.clone())], &["y", "z", "n"]);
    assert_eq!(found[0], Tensor::new([1, 3], vec![1.0f32, 2.0, 3.0]));
    assert_eq!(found[1], Tensor::vector(vec![1.0f32]));
    assert_eq!(found[2], Tensor::new([1, 1], vec![0i64]));
    let error = imported(nodes, &[("x", x)], &["d"]).unwrap_err().to_string();
    assert!(error.contains("depends on data"), "{error}");
}

/// In onnxruntime's gradient of a mean, the divisor is a number of elements.
#[test]
fn scales_may_be_integers() {
    let nodes = vec![
        node("Size", "x", "n", &[]),
        node("com.microsoft::Scale", "x,n", "y", &[int("scale_down", 1)]),
    ];
    let y = evaluated(nodes, &[("x", Tensor::vector(vec![2.0f32, 6.0, 1.0, 8.0]))], &["y"]);
    assert_eq!(y[0].to_f64().unwrap(), [0.5, 1.5, 0.25, 2.0]);
}
