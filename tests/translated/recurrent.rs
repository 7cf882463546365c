//! Recurrent layers, against plain loops and small differences.

use crate::common::nodes::{int, node, random, strings, text};
use crate::evaluated;
use pam_ir::onnx::proto::AttributeProto;
use pam_ir::tensor::Tensor;

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
