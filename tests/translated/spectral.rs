//! Fourier transforms, against the sums that define them and against each other.

use crate::common::nodes::{int, node, random};
use crate::evaluated;
use pam_ir::onnx::proto::NodeProto;
use pam_ir::tensor::Tensor;
use std::f64::consts::TAU;

fn close(found: &Tensor, expected: &[f64]) {
    let found = found.to_f64().unwrap();
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 1e-5, "{i}: {a} {b}");
    }
}

fn number(output: &str, value: i64) -> NodeProto {
    node("Constant", "", output, &[int("value_int", value)])
}

/// The transform of `n` samples to the first `made` numbers of its spectrum.
fn spectrum(x: &[f64], n: usize, made: usize) -> Vec<f64> {
    let term = |k: usize, part: fn(f64) -> f64| -> f64 {
        (0..n.min(x.len())).map(|i| x[i] * part(-TAU * (i * k) as f64 / n as f64)).sum()
    };
    (0..made).flat_map(|k| [term(k, f64::cos), term(k, f64::sin)]).collect()
}

#[test]
fn spectra_are_sums_of_turns() {
    let x = random(1, &[2, 7, 1]);
    let signals = x.to_f64().unwrap();
    // As long as the signal, cut, and followed by zeros.
    for length in [7, 5, 10] {
        for (onesided, made) in [(0, length), (1, length / 2 + 1)] {
            let transform = node("DFT", "x,n", "y", &[int("onesided", onesided)]);
            let nodes = vec![number("n", length as i64), transform];
            let y = evaluated(nodes, &[("x", x.clone())], &["y"]);
            assert_eq!(y[0].shape(), [2, made, 2]);
            let expected = signals.chunks(7).flat_map(|x| spectrum(x, length, made));
            close(&y[0], &expected.collect::<Vec<f64>>());
        }
    }
}

#[test]
fn inverses_give_the_signal_back() {
    // Complex numbers along the first axis.
    let x = random(2, &[6, 3, 2]);
    let nodes = vec![
        number("axis", 0),
        node("DFT", "x,,axis", "y", &[]),
        node("DFT", "y,,axis", "z", &[int("inverse", 1)]),
    ];
    close(&evaluated(nodes, &[("x", x.clone())], &["z"])[0], &x.to_f64().unwrap());
    // Real ones from half of their spectrum, of an odd and an even number of samples.
    for length in [8, 9] {
        let x = random(3, &[2, length, 1]);
        let nodes = vec![
            number("n", length as i64),
            node("DFT", "x", "y", &[int("onesided", 1)]),
            node("DFT", "y,n", "z", &[int("onesided", 1), int("inverse", 1)]),
        ];
        close(&evaluated(nodes, &[("x", x.clone())], &["z"])[0], &x.to_f64().unwrap());
    }
}

#[test]
fn frames_are_windowed_and_transformed() {
    let x = random(4, &[1, 11, 1]);
    let nodes = vec![
        number("size", 4),
        number("step", 3),
        node("HannWindow", "size", "w", &[]),
        node("STFT", "x,step,w", "y", &[]),
    ];
    let y = evaluated(nodes, &[("x", x.clone())], &["w", "y"]);
    close(&y[0], &[0.0, 0.5, 1.0, 0.5]);
    assert_eq!(y[1].shape(), [1, 3, 3, 2]);
    let (x, window) = (x.to_f64().unwrap(), y[0].to_f64().unwrap());
    let frame = |f: usize| -> Vec<f64> { (0..4).map(|i| x[3 * f + i] * window[i]).collect() };
    let expected = (0..3).flat_map(|f| spectrum(&frame(f), 4, 3));
    close(&y[1], &expected.collect::<Vec<f64>>());
}
