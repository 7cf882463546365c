//! Places that other layers have found: regions of images, and the windows of deformed convolutions.

use crate::common::nodes::{float, int, ints, node, random, text};
use crate::{evaluated, imported};
use pam_ir::tensor::Tensor;

/// The value between the four neighbours of a place in an image, zeros around it.
fn between(image: &[f64], [h, w]: [usize; 2], [y, x]: [f64; 2]) -> f64 {
    let at = |row: f64, column: f64| {
        let inside = row >= 0.0 && column >= 0.0 && row < h as f64 && column < w as f64;
        if inside { image[row as usize * w + column as usize] } else { 0.0 }
    };
    let (top, left) = (y.floor(), x.floor());
    let (dy, dx) = (y - top, x - left);
    let upper = at(top, left) * (1.0 - dx) + at(top, left + 1.0) * dx;
    let lower = at(top + 1.0, left) * (1.0 - dx) + at(top + 1.0, left + 1.0) * dx;
    upper * (1.0 - dy) + lower * dy
}

fn near(found: &Tensor, shape: &[usize], expected: &[f64]) {
    assert_eq!(found.shape(), shape);
    for (found, expected) in found.to_f64().unwrap().iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{found} {expected}");
    }
}

#[test]
fn regions_are_means_of_samples() {
    let [h, w, channels, side, samples] = [6, 7, 3, 2, 3];
    let x = random(1, &[2, channels, h, w]);
    // In the middle, beyond the ends by more and by less than one, and turned inside out.
    let regions = [[2.0, 2.0, 9.0, 7.0], [-6.0, 1.0, 3.0, 16.0], [8.0, 8.0, 4.0, 3.0]];
    let images = [1usize, 0, 1];
    let flat: Vec<f32> = regions.iter().flatten().map(|&c: &f64| c as f32).collect();
    let inputs = [
        ("x", x.clone()),
        ("r", Tensor::new([3, 4], flat)),
        ("i", Tensor::vector(images.map(|i| i as i64).to_vec())),
    ];
    let data = x.to_f64().unwrap();
    for (mode, shift) in [("half_pixel", 0.5), ("output_half_pixel", 0.0)] {
        let attrs = [
            int("output_height", side as i64),
            int("output_width", side as i64),
            int("sampling_ratio", samples as i64),
            float("spatial_scale", 0.5),
            text("coordinate_transformation_mode", mode),
        ];
        let y = evaluated(vec![node("RoiAlign", "x,r,i", "y", &attrs)], &inputs, &["y"]);
        let mut expected = Vec::new();
        for (region, image) in regions.iter().zip(images) {
            let [left, top, right, bottom] = region.map(|c| c * 0.5 - shift);
            let longer = |length: f64| if shift == 0.0 { length.max(1.0) } else { length };
            let bins = [longer(bottom - top), longer(right - left)].map(|n| n / side as f64);
            for c in 0..channels {
                let own = &data[(image * channels + c) * h * w..][..h * w];
                for cell in 0..side * side {
                    let mut sum = 0.0;
                    for sample in 0..samples * samples {
                        let part = |cell: usize, sample: usize| {
                            cell as f64 + (sample as f64 + 0.5) / samples as f64
                        };
                        let row = top + bins[0] * part(cell / side, sample / samples);
                        let column = left + bins[1] * part(cell % side, sample % samples);
                        if row < -1.0 || row > h as f64 || column < -1.0 || column > w as f64 {
                            continue;
                        }
                        let kept =
                            [row.clamp(0.0, h as f64 - 1.0), column.clamp(0.0, w as f64 - 1.0)];
                        sum += between(own, [h, w], kept);
                    }
                    expected.push(sum / (samples * samples) as f64);
                }
            }
        }
        near(&y[0], &[3, channels, side, side], &expected);
    }
}

#[test]
fn the_number_of_samples_must_be_given() {
    let inputs = [
        ("x", random(1, &[1, 1, 4, 4])),
        ("r", random(2, &[1, 4])),
        ("i", Tensor::vector(vec![0i64])),
    ];
    let error = imported(vec![node("RoiAlign", "x,r,i", "y", &[])], &inputs, &["y"]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("RoiAlign") && error.contains("sampling_ratio"), "{error}");
}

#[test]
fn windows_are_deformed() {
    let ([h, w], [kh, kw], [oh, ow]) = ([5, 6], [3, 2], [3, 3]);
    let [batch, channels, out, sets, groups] = [2, 4, 6, 2, 2];
    let own = channels / groups;
    let x = random(1, &[batch, channels, h, w]);
    let weights = random(2, &[out, own, kh, kw]);
    let offsets = random(3, &[batch, sets * kh * kw * 2, oh, ow]);
    let bias = random(4, &[out]);
    let mask = random(5, &[batch, sets * kh * kw, oh, ow]);
    let attrs = [
        int("group", groups as i64),
        int("offset_group", sets as i64),
        ints("strides", &[2, 2]),
        ints("pads", &[1, 0, 1, 1]),
        ints("dilations", &[1, 2]),
    ];
    let inputs = [("x", x), ("w", weights), ("o", offsets), ("b", bias), ("m", mask)];
    let y = evaluated(vec![node("DeformConv", "x,w,o,b,m", "y", &attrs)], &inputs, &["y"]);
    let [x, weights, offsets, bias, mask] = inputs.map(|(_, t)| t.to_f64().unwrap());
    let mut expected = Vec::new();
    for n in 0..batch {
        for o in 0..out {
            for place in 0..oh * ow {
                let mut sum = bias[o];
                for i in 0..own {
                    let channel = o / (out / groups) * own + i;
                    let image = &x[(n * channels + channel) * h * w..][..h * w];
                    let set = channel / (channels / sets);
                    for tap in 0..kh * kw {
                        let moved = |part: usize| {
                            let row = ((n * sets + set) * kh * kw + tap) * 2 + part;
                            offsets[row * oh * ow + place]
                        };
                        let row = (2 * (place / ow) + tap / kw) as f64 - 1.0 + moved(0);
                        let column = (2 * (place % ow) + 2 * (tap % kw)) as f64 + moved(1);
                        let weight = weights[(o * own + i) * kh * kw + tap];
                        let shown = mask[((n * sets + set) * kh * kw + tap) * oh * ow + place];
                        sum += between(image, [h, w], [row, column]) * weight * shown;
                    }
                }
                expected.push(sum);
            }
        }
    }
    near(&y[0], &[batch, out, oh, ow], &expected);
}
