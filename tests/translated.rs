//! Ops that the op table lacks, against the compiler's own derivatives and against plain loops.

mod common;

use common::nodes::{float, info, int, ints, node, opset, random, strings, text};
use common::{difference, executor, named};
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};
use pam_ir::tensor::Tensor;

/// A model of inputs (name, shape), integer constants, forward nodes that end in y, and a node of
/// onnxruntime that gives the gradients `v.<x>` of the inputs `by` from d, the cotangent of y. Both
/// gradients are computed natively and compared.
fn agree(
    inputs: &[(&str, &[usize])],
    constants: &[(&str, &[usize], &[i64])],
    forward: Vec<NodeProto>,
    gradient: NodeProto,
    by: &[&str],
) {
    let name = gradient.op_type().to_owned();
    let mut nodes = forward;
    nodes.push(node("Mul", "y,d", "p", &[]));
    nodes.push(node("ReduceSum", "p", "l", &[int("keepdims", 0)]));
    let outputs: Vec<String> = by.iter().map(|x| format!("g.{x}")).collect();
    nodes.push(node(
        "ai.onnx.preview.training::Gradient",
        &by.join(","),
        &outputs.join(","),
        &[strings("xs", by), text("y", "l")],
    ));
    nodes.push(gradient);
    let model = ModelProto {
        ir_version: Some(10),
        opset_import: vec![
            opset("", 20),
            opset("com.microsoft", 1),
            opset("ai.onnx.preview.training", 1),
        ],
        graph: Some(GraphProto {
            name: Some(name.clone()),
            node: nodes,
            input: inputs.iter().map(|(n, s)| info(n, 1, s)).collect(),
            initializer: constants
                .iter()
                .map(|(n, s, v)| TensorProto {
                    name: Some((*n).to_owned()),
                    data_type: Some(7),
                    dims: s.iter().map(|&d| d as i64).collect(),
                    int64_data: v.to_vec(),
                    ..TensorProto::default()
                })
                .collect(),
            output: by
                .iter()
                .flat_map(|x| [format!("g.{x}"), format!("v.{x}")])
                .map(|n| ValueInfoProto { name: Some(n), ..ValueInfoProto::default() })
                .collect(),
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    let file = ModelFile { model, path: "gradient.onnx".into() };
    let graph =
        import(&[file], &ImportOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}")).graph;
    let fed: Vec<(String, Tensor)> = inputs
        .iter()
        .enumerate()
        .map(|(i, (n, s))| ((*n).to_owned(), random(i as u32 + 1, s)))
        .collect();
    for policy in ["native", "approx"] {
        let outputs = executor(&graph, policy).run(&fed).unwrap();
        for x in by {
            let (own, given) =
                (named(&outputs, &format!("g.{x}")), named(&outputs, &format!("v.{x}")));
            let error = difference(given, own);
            // Under PA arithmetic the two differ in form, but not by much.
            let bound = if policy == "native" { 2e-5 } else { 0.5 };
            assert!(error < bound, "{name} by {x} under {policy}: {error:e}");
        }
    }
}

fn elementwise(
    op: &str,
    forward: &[AttributeProto],
    grad: &str,
    attrs: &[AttributeProto],
    of: &str,
) {
    let shape: &[usize] = &[4, 5];
    agree(
        &[("x", shape), ("d", shape)],
        &[],
        vec![node(op, "x", "y", forward)],
        node(&format!("com.microsoft::{grad}"), &format!("d,{of}"), "v.x", attrs),
        &["x"],
    );
}

#[test]
fn gradients_of_activations() {
    elementwise("Relu", &[], "ReluGrad", &[], "x");
    elementwise("Tanh", &[], "TanhGrad", &[], "y");
    elementwise("Sigmoid", &[], "SigmoidGrad", &[], "y");
    elementwise("Gelu", &[], "GeluGrad", &[], "x");
    elementwise("Gelu", &[text("approximate", "tanh")], "FastGeluGrad", &[], "x");
    elementwise("com.microsoft::QuickGelu", &[], "QuickGeluGrad", &[], "x");
    let alpha = [float("alpha", 0.2)];
    elementwise("LeakyRelu", &alpha, "LeakyReluGrad", &alpha, "y");
    elementwise("Softmax", &[], "SoftmaxGrad_13", &[int("axis", -1)], "y");
    elementwise("LogSoftmax", &[], "LogSoftmaxGrad_13", &[int("axis", -1)], "y");
}

#[test]
fn gradients_of_quotients() {
    for (a, b) in [([4, 5], vec![4, 5]), ([4, 5], vec![5]), ([1, 5], vec![4, 1]), ([4, 5], vec![])]
    {
        agree(
            &[("a", &a), ("b", &b), ("d", &[4, 5])],
            &[],
            vec![node("Div", "a,b", "y", &[])],
            node("com.microsoft::DivGrad", "d,a,b", "v.a,v.b", &[]),
            &["a", "b"],
        );
    }
}

#[test]
fn gradients_of_norms() {
    agree(
        &[("x", &[3, 4, 6]), ("s", &[6]), ("b", &[6]), ("d", &[3, 4, 6])],
        &[],
        vec![node("LayerNormalization", "x,s,b", "y,m,i", &[])],
        node(
            "com.microsoft::LayerNormalizationGrad",
            "d,x,s,m,i",
            "v.x,v.s,v.b",
            &[int("axis", -1)],
        ),
        &["x", "s", "b"],
    );
    agree(
        &[("x", &[3, 4, 6]), ("s", &[6]), ("d", &[3, 4, 6])],
        &[],
        vec![node("SimplifiedLayerNormalization", "x,s", "y,i", &[int("axis", -1)])],
        node(
            "com.microsoft::SimplifiedLayerNormalizationGrad",
            "d,x,s,i",
            "v.x,v.s",
            &[int("axis", -1)],
        ),
        &["x", "s"],
    );
    agree(
        &[("x", &[3, 4, 5]), ("s", &[4]), ("b", &[4]), ("m", &[4]), ("v", &[4]), ("d", &[3, 4, 5])],
        &[],
        vec![node(
            "com.microsoft::BatchNormInternal",
            "x,s,b,m,v",
            "y,rm,rv,sm,si",
            &[int("training_mode", 1)],
        )],
        node("com.microsoft::BatchNormalizationGrad", "d,x,s,sm,si", "v.x,v.s,v.b", &[]),
        &["x", "s", "b"],
    );
}

#[test]
fn gradients_of_convolutions_and_pooling() {
    let attrs = [
        ints("kernel_shape", &[3, 2]),
        ints("strides", &[2, 3]),
        ints("pads", &[1, 0, 1, 1]),
        int("group", 2),
    ];
    agree(
        &[("x", &[2, 4, 8, 9]), ("w", &[6, 2, 3, 2]), ("b", &[6]), ("d", &[2, 6, 4, 3])],
        &[],
        vec![node("Conv", "x,w,b", "y", &attrs)],
        node("com.microsoft::ConvGrad", "d,x,w", "v.x,v.w,v.b", &attrs),
        &["x", "w", "b"],
    );
    let attrs = [ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    agree(
        &[("x", &[2, 3, 4, 6]), ("d", &[2, 3, 2, 3])],
        &[],
        vec![node("MaxPool", "x", "y,i", &attrs)],
        node("MaxPoolGrad", "d,i", "v.x", &attrs),
        &["x"],
    );
}

#[test]
fn gradients_of_losses_and_indexing() {
    let labels: &[i64] = &[2, 0, 3, 1];
    for reduction in ["mean", "sum"] {
        let attrs = [text("reduction", reduction)];
        agree(
            &[("x", &[4, 5]), ("d", &[])],
            &[("t", &[4], labels)],
            vec![node("SoftmaxCrossEntropyLoss", "x,t", "y,log", &attrs)],
            node("com.microsoft::SoftmaxCrossEntropyLossGrad", "d,log,t", "v.x", &attrs),
            &["x"],
        );
    }
    let attrs = [int("ignore_index", 3)];
    agree(
        &[("x", &[4, 5]), ("d", &[])],
        &[("t", &[4], labels)],
        vec![node("SoftmaxCrossEntropyLoss", "x,t", "y,log", &attrs)],
        node("com.microsoft::SoftmaxCrossEntropyLossGrad", "d,log,t", "v.x", &attrs),
        &["x"],
    );
    agree(
        &[("x", &[6, 5, 2]), ("d", &[6, 2, 2, 2])],
        &[("i", &[2, 2], &[4, 0, 0, 1]), ("s", &[3], &[6, 5, 2])],
        vec![node("Gather", "x,i", "y", &[int("axis", 1)])],
        node("com.microsoft::GatherGrad", "s,i,d", "v.x", &[int("axis", 1)]),
        &["x"],
    );
}

/// The outputs of nodes with these operands, computed natively.
fn evaluated(nodes: Vec<NodeProto>, inputs: &[(&str, Tensor)], outputs: &[&str]) -> Vec<Tensor> {
    let number = |t: &Tensor| pam_ir::onnx::tensor::number(t.dtype());
    let model = ModelProto {
        ir_version: Some(10),
        opset_import: vec![
            opset("", 21),
            opset("com.microsoft", 1),
            opset("ai.onnx.preview.training", 1),
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
    let graph = import(&[file], &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}")).graph;
    let fed: Vec<(String, Tensor)> =
        inputs.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
    let found = executor(&graph, "native").run(&fed).unwrap();
    outputs.iter().map(|n| named(&found, n).clone()).collect()
}

const STEPS: usize = 5;
const BATCH: usize = 2;
const INPUT: usize = 3;
const HIDDEN: usize = 4;

/// One direction of a recurrent layer in plain loops: what each step shows. `cell` makes the new states of the
/// gates' inputs, without and with what the states contribute, and of the states.
fn unrolled(
    [x, w, r, b]: [&[f64]; 4],
    lengths: [usize; BATCH],
    backwards: bool,
    states: usize,
    cell: impl Fn(&[f64], &[f64], &mut [f64]),
) -> Vec<f64> {
    let wide = w.len() / INPUT;
    let gates = wide / HIDDEN;
    let mut shown = vec![0.0; STEPS * BATCH * HIDDEN];
    for batch in 0..BATCH {
        let mut state = vec![0.0; states * HIDDEN];
        let mut order: Vec<usize> = (0..lengths[batch]).collect();
        if backwards {
            order.reverse();
        }
        for t in order {
            let row = |g: usize| -> (f64, f64) {
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let x = &x[(t * BATCH + batch) * INPUT..][..INPUT];
                (
                    dot(&w[g * INPUT..][..INPUT], x) + b[g],
                    dot(&r[g * HIDDEN..][..HIDDEN], &state[..HIDDEN]) + b[wide + g],
                )
            };
            let sums: Vec<(f64, f64)> = (0..wide).map(row).collect();
            for h in 0..HIDDEN {
                let of = |part: fn(&(f64, f64)) -> f64| -> Vec<f64> {
                    (0..gates).map(|g| part(&sums[g * HIDDEN + h])).collect()
                };
                let mut own: Vec<f64> = (0..states).map(|s| state[s * HIDDEN + h]).collect();
                cell(&of(|s| s.0), &of(|s| s.1), &mut own);
                shown[(t * BATCH + batch) * HIDDEN + h] = own[0];
                for (s, new) in own.into_iter().enumerate() {
                    state[s * HIDDEN + h] = new;
                }
            }
        }
    }
    shown
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A layer of both directions with sequences of different lengths, and its gradients by small differences.
fn recurrent(
    op: &str,
    gates: usize,
    states: usize,
    attrs: &[AttributeProto],
    cell: fn(&[f64], &[f64], &mut [f64]),
) {
    let wide = gates * HIDDEN;
    let shapes: [(&str, Vec<usize>); 4] = [
        ("x", vec![STEPS, BATCH, INPUT]),
        ("w", vec![2, wide, INPUT]),
        ("r", vec![2, wide, HIDDEN]),
        ("b", vec![2, 2 * wide]),
    ];
    let inputs: Vec<(&str, Tensor)> =
        shapes.iter().zip(1..).map(|((n, s), i)| (*n, random(i, s))).collect();
    let lengths = [STEPS, 3];
    let expected = |inputs: &[(&str, Tensor)]| -> Vec<f64> {
        let data: Vec<Vec<f64>> = inputs.iter().map(|(_, t)| t.to_f64().unwrap()).collect();
        let half = |v: &[f64], d: usize| v[d * v.len() / 2..][..v.len() / 2].to_vec();
        let mut y = vec![0.0; STEPS * 2 * BATCH * HIDDEN];
        for d in 0..2 {
            let [w, r, b] = [1, 2, 3].map(|i| half(&data[i], d));
            let shown = unrolled([&data[0], &w, &r, &b], lengths, d == 1, states, cell);
            for (t, step) in shown.chunks(BATCH * HIDDEN).enumerate() {
                y[(2 * t + d) * BATCH * HIDDEN..][..BATCH * HIDDEN].copy_from_slice(step);
            }
        }
        y
    };
    let layer = node(
        op,
        "x,w,r,b,n",
        "y",
        &[&[int("hidden_size", HIDDEN as i64), text("direction", "bidirectional")], attrs].concat(),
    );
    let nodes = vec![
        layer,
        node("ReduceSum", "y", "l", &[int("keepdims", 0)]),
        node(
            "ai.onnx.preview.training::Gradient",
            "x,w,r,b",
            "gx,gw,gr,gb",
            &[strings("xs", &["x", "w", "r", "b"]), text("y", "l")],
        ),
    ];
    let ends = Tensor::vector(lengths.map(|n| n as i32).to_vec());
    let fed = [&inputs[..], &[("n", ends)]].concat();
    let found = evaluated(nodes, &fed, &["y", "gx", "gw", "gr", "gb"]);
    assert_eq!(found[0].shape(), [STEPS, 2, BATCH, HIDDEN]);
    let y = found[0].to_f64().unwrap();
    for (found, expected) in y.iter().zip(expected(&inputs)) {
        assert!((found - expected).abs() < 1e-5, "{op}: {found}, not {expected}");
    }
    // The derivative along a direction of all operands.
    let mut slope = 0.0;
    let mut moved = [inputs.clone(), inputs.clone()];
    for (i, gradient) in found[1..].iter().enumerate() {
        let direction = random(9 + i as u32, gradient.shape()).to_f64().unwrap();
        let g = gradient.to_f64().unwrap();
        slope += g.iter().zip(&direction).map(|(g, d)| g * d).sum::<f64>();
        for (moved, step) in moved.iter_mut().zip([1e-3, -1e-3]) {
            let at = inputs[i].1.to_f64().unwrap();
            let at = at.iter().zip(&direction).map(|(x, d)| (x + step * d) as f32);
            moved[i].1 = Tensor::new(inputs[i].1.shape(), at.collect::<Vec<f32>>());
        }
    }
    let [above, below] = moved.map(|m| expected(&m).iter().sum::<f64>());
    let expected = (above - below) / 2e-3;
    assert!(
        (slope - expected).abs() < 2e-3 * expected.abs().max(1.0),
        "{op}: {slope}, not {expected}"
    );
}

#[test]
fn recurrent_layers_are_their_equations() {
    recurrent("LSTM", 4, 2, &[], |x, h, state| {
        let [i, o, f, c] = [0, 1, 2, 3].map(|g| x[g] + h[g]);
        state[1] = sigmoid(f) * state[1] + sigmoid(i) * c.tanh();
        state[0] = sigmoid(o) * state[1].tanh();
    });
    recurrent("GRU", 3, 1, &[int("linear_before_reset", 1)], |x, h, state| {
        let (z, r) = (sigmoid(x[0] + h[0]), sigmoid(x[1] + h[1]));
        state[0] = (1.0 - z) * (x[2] + r * h[2]).tanh() + z * state[0];
    });
    recurrent("RNN", 1, 1, &[], |x, h, state| state[0] = (x[0] + h[0]).tanh());
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
