//! Sequence models with a state, against plain loops.

use crate::common::nodes::{float, graph, info, int, node, random, text};
use crate::{evaluated, imported};
use pam_ir::tensor::Tensor;

fn near(found: &Tensor, expected: &[f64]) {
    let found = found.to_f64().unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found} {expected}");
    }
}

#[test]
fn linear_attention_keeps_a_state_of_each_head() {
    let [batch, steps, readers, heads, size, wide] = [2, 5, 4, 2, 3, 2];
    let shape = |last: usize| [batch, steps, last];
    for (rule, gated, corrected) in [
        ("linear", false, false),
        ("gated", true, false),
        ("delta", false, true),
        ("gated_delta", true, true),
    ] {
        // Decays per key with the one rule, per head with the other.
        let decays = if corrected { heads } else { heads * size };
        let inputs = [
            ("q", random(1, &shape(readers * size))),
            ("k", random(2, &shape(heads * size))),
            ("v", random(3, &shape(heads * wide))),
            ("s", random(4, &[batch, heads, size, wide])),
            ("g", random(5, &shape(decays))),
            ("b", random(6, &shape(heads))),
        ];
        let given = ["q,k,v,s,", if gated { "g," } else { "," }, if corrected { "b" } else { "" }];
        let attrs = [
            int("q_num_heads", readers as i64),
            int("kv_num_heads", heads as i64),
            text("update_rule", rule),
        ];
        let nodes = vec![node("LinearAttention", &given.concat(), "y,p", &attrs)];
        let found = evaluated(nodes, &inputs, &["y", "p"]);
        let [q, k, v, mut state, g, b] = inputs.map(|(_, t)| t.to_f64().unwrap());
        let mut read = vec![0.0; batch * steps * readers * wide];
        for n in 0..batch {
            for t in 0..steps {
                let step = n * steps + t;
                for head in 0..heads {
                    let own = &mut state[(n * heads + head) * size * wide..][..size * wide];
                    let key = &k[(step * heads + head) * size..][..size];
                    for (i, entry) in own.iter_mut().enumerate() {
                        let place = if corrected { head } else { head * size + i / wide };
                        *entry *= if gated { g[step * decays + place].exp() } else { 1.0 };
                    }
                    for column in 0..wide {
                        let mut new = v[(step * heads + head) * wide + column];
                        if corrected {
                            let known = (0..size).map(|i| key[i] * own[i * wide + column]);
                            new = b[step * heads + head] * (new - known.sum::<f64>());
                        }
                        (0..size).for_each(|i| own[i * wide + column] += key[i] * new);
                    }
                    for reader in head * readers / heads..(head + 1) * readers / heads {
                        let query = &q[(step * readers + reader) * size..][..size];
                        for column in 0..wide {
                            let sum = (0..size).map(|i| query[i] * own[i * wide + column]);
                            read[(step * readers + reader) * wide + column] =
                                sum.sum::<f64>() / (size as f64).sqrt();
                        }
                    }
                }
            }
        }
        near(&found[0], &read);
        near(&found[1], &state);
    }
}

#[test]
fn rules_say_what_they_need() {
    let inputs = [("q", random(1, &[1, 2, 4])), ("k", random(2, &[1, 3, 4]))];
    let attrs = [int("q_num_heads", 2), int("kv_num_heads", 2), text("update_rule", "linear")];
    let error = imported(vec![node("LinearAttention", "q,k,q", "y", &attrs)], &inputs, &["y"]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("an operand is f32[1,3,4], not [1,2,…]"), "{error}");
    let attrs = &attrs[..2];
    let error = imported(vec![node("LinearAttention", "q,q,q", "y", attrs)], &inputs, &["y"]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("`update_rule` needs `decay`"), "{error}");
}

#[test]
fn a_causal_convolution_sees_its_past() {
    let x = random(1, &[2, 3, 6]);
    let inputs = [("x", x), ("w", random(2, &[3, 1, 4])), ("b", random(3, &[3]))];
    let silu = [text("activation", "silu")];
    // Two halves, one after the other, are the whole.
    let halves = vec![
        node("Split", "x", "l,r", &[int("axis", 2), int("num_outputs", 2)]),
        node("CausalConvWithState", "l,w,b", "ly,p", &silu),
        node("CausalConvWithState", "r,w,b,p", "ry,q", &silu),
        node("Concat", "ly,ry", "y", &[int("axis", 2)]),
    ];
    let found = evaluated(halves, &inputs, &["y", "q"]);
    let [x, w, b] = inputs.map(|(_, t)| t.to_f64().unwrap());
    let (mut expected, mut kept) = (Vec::new(), Vec::new());
    for row in 0..6 {
        for t in 0..6 {
            let seen = (0..4).filter(|i| t + i >= 3);
            let sum: f64 = seen.map(|i| x[row * 6 + t + i - 3] * w[row % 3 * 4 + i]).sum();
            let y = sum + b[row % 3];
            expected.push(y / (1.0 + (-y).exp()));
        }
        kept.extend(&x[row * 6 + 3..row * 6 + 6]);
    }
    near(&found[0], &expected);
    near(&found[1], &kept);
}

#[test]
fn attention_goes_through_subgraphs() {
    let inputs = [
        ("q", random(1, &[2, 4, 3, 5])),
        ("k", random(2, &[2, 2, 6, 5])),
        ("v", random(3, &[2, 2, 6, 4])),
        ("bias", random(4, &[3, 6])),
    ];
    let operand = |name: &str| [info(name, 1, &[2, 4, 3, 6])];
    // The one subgraph reads a value of the graph around it.
    let shifted = vec![node("Add", "s,bias", "t", &[])];
    let squared = vec![node("Mul", "p,p", "r", &[])];
    let attrs = [
        graph("score_mod", shifted, &operand("s"), &["t"]),
        graph("prob_mod", squared, &operand("p"), &["r"]),
        float("scale", 0.25),
    ];
    let flex = vec![node("ai.onnx.preview::FlexAttention", "q,k,v", "y", &attrs)];
    let heads = |x: &str, to: &str| {
        let split = format!("{to}0,{to}1");
        let twice = format!("{to}0,{to}0,{to}1,{to}1");
        vec![
            node("Split", x, &split, &[int("axis", 1), int("num_outputs", 2)]),
            node("Concat", &twice, to, &[int("axis", 1)]),
        ]
    };
    let perm = [crate::common::nodes::ints("perm", &[0, 1, 3, 2])];
    let mut apart = [heads("k", "kk"), heads("v", "vv")].concat();
    apart.extend([
        node("Transpose", "kk", "kt", &perm),
        node("MatMul", "q,kt", "m", &[]),
        node("Constant", "", "quarter", &[float("value_float", 0.25)]),
        node("Mul", "m,quarter", "s", &[]),
        node("Add", "s,bias", "t", &[]),
        node("Softmax", "t", "p", &[int("axis", 3)]),
        node("Mul", "p,p", "r", &[]),
        node("MatMul", "r,vv", "y", &[]),
    ]);
    let [found, expected] = [flex, apart].map(|nodes| evaluated(nodes, &inputs, &["y"]).remove(0));
    assert_eq!(found.shape(), expected.shape());
    near(&found, &expected.to_f64().unwrap());
}

#[test]
fn caches_are_written_from_a_place_on() {
    let cache = Tensor::new([2, 2, 3, 1], (0..12).map(|i| i as f32).collect::<Vec<f32>>());
    let new = Tensor::new([2, 2, 2, 1], (20..28).map(|i| i as f32).collect::<Vec<f32>>());
    let inputs = [("c", cache), ("u", new), ("i", Tensor::vector(vec![1i64, 2]))];
    let attrs = [text("mode", "circular"), int("axis", 2)];
    let nodes =
        vec![node("TensorScatter", "c,u,i", "y", &attrs), node("TensorScatter", "c,u", "z", &[])];
    let found = evaluated(nodes, &inputs, &["y", "z"]);
    let first = [0, 20, 21, 3, 22, 23, 25, 7, 24, 27, 10, 26].map(f64::from);
    let second = [20, 21, 2, 22, 23, 5, 24, 25, 8, 26, 27, 11].map(f64::from);
    assert_eq!(found[0].to_f64().unwrap(), first);
    assert_eq!(found[1].to_f64().unwrap(), second);
}
