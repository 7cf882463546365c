//! Products of bytes, whose sums are exact however long they are.

use crate::common::nodes::{int, ints, node};
use crate::evaluated;
use pam_ir::tensor::Tensor;
use pam_kernels::random::threefry;

fn bytes(seed: u32, n: usize) -> Vec<u8> {
    // Large ones, so that sums leave the integers that a float holds.
    (0..n as u32).map(|i| 255 - (threefry([seed, 9], [i, 0])[0] % 32) as u8).collect()
}

#[test]
fn sums_of_products_of_bytes_are_exact() {
    let (rows, terms, columns) = (3, 1500, 2);
    let (a, b) = (bytes(1, rows * terms), bytes(2, terms * columns));
    let inputs = [
        ("a", Tensor::new([rows, terms], a.clone())),
        ("b", Tensor::new([terms, columns], b.clone())),
        ("z", Tensor::vector(vec![1u8, 0, 3])),
    ];
    let y = evaluated(vec![node("MatMulInteger", "a,b,z", "y", &[])], &inputs, &["y"]);
    let mut expected = Vec::new();
    for (i, zero) in [1i32, 0, 3].into_iter().enumerate() {
        for j in 0..columns {
            let terms = (0..terms)
                .map(|k| (i32::from(a[i * terms + k]) - zero) * i32::from(b[k * columns + j]));
            expected.push(terms.sum::<i32>());
        }
    }
    assert!(expected.iter().any(|sum| *sum > 1 << 24 && sum % 2 != 0));
    assert_eq!(y[0], Tensor::new([rows, columns], expected));
}

#[test]
fn convolutions_of_bytes_are_exact() {
    let (channels, groups, out, side, kernel) = (240, 2, 4, 5, 3);
    let own = channels / groups;
    let (x, w) = (bytes(3, channels * side * side), bytes(4, out * own * kernel * kernel));
    let inputs = [
        ("x", Tensor::new([1, channels, side, side], x.clone())),
        ("w", Tensor::new([out, own, kernel, kernel], w.clone())),
        ("z", Tensor::scalar(7u8)),
        ("v", Tensor::vector(vec![0u8, 1, 2, 3])),
    ];
    let attrs = [int("group", 2), ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])];
    let y = evaluated(vec![node("ConvInteger", "x,w,z,v", "y", &attrs)], &inputs, &["y"]);
    let mut expected = Vec::new();
    for o in 0..out {
        for place in 0..9 {
            let mut sum = 0;
            for i in 0..own {
                let image = &x[(o / (out / groups) * own + i) * side * side..];
                for tap in 0..kernel * kernel {
                    let row = (2 * (place / 3) + tap / kernel).wrapping_sub(1);
                    let column = (2 * (place % 3) + tap % kernel).wrapping_sub(1);
                    if row < side && column < side {
                        let weight = w[(o * own + i) * kernel * kernel + tap];
                        sum += (i32::from(image[row * side + column]) - 7)
                            * (i32::from(weight) - o as i32);
                    }
                }
            }
            expected.push(sum);
        }
    }
    assert_eq!(y[0], Tensor::new([1, out, 3, 3], expected));
}

#[test]
fn products_are_rounded_to_bytes_again() {
    let inputs = [
        ("a", Tensor::new([2, 2], vec![3u8, 10, 200, 7])),
        ("as", Tensor::vector(vec![0.5f32, 0.25])),
        ("az", Tensor::vector(vec![2u8, 4])),
        ("b", Tensor::new([2, 1], vec![-3i8, 8])),
        ("bs", Tensor::scalar(0.125f32)),
        ("bz", Tensor::scalar(1i8)),
        ("ys", Tensor::scalar(0.5f32)),
        ("yz", Tensor::scalar(100u8)),
    ];
    let nodes = vec![node("QLinearMatMul", "a,as,az,b,bs,bz,ys,yz", "y", &[])];
    let y = evaluated(nodes, &inputs, &["y"]);
    // 1·(−4) + 8·7 = 52 eighths, half way between two bytes, and 196·(−4) + 3·7 = −763 sixteenths.
    assert_eq!(y[0], Tensor::new([2, 1], vec![106u8, 52]));
}
