//! Uniform random numbers from Threefry-2x32 with 20 rounds, in 64-bit integers whose upper halves
//! are masked off.

use super::arithmetic::BIAS;
use super::body::{Body, Name};
use crate::attr::Attr;
use crate::onnx::attribute::attr;
use crate::onnx::proto::FunctionProto;
use crate::types::DType;

const WORD: i64 = 0xFFFF_FFFF;
const PARITY: i64 = 0x1BD1_1BDA;
const ROTATIONS: [u64; 8] = [13, 15, 26, 6, 17, 29, 16, 24];

fn masked(f: &mut Body, x: &str) -> Name {
    let word = f.scalar(WORD);
    f.op("BitwiseAnd", &[x, &word])
}

fn sum(f: &mut Body, a: &str, b: &str) -> Name {
    let sum = f.op("Add", &[a, b]);
    masked(f, &sum)
}

fn shifted(f: &mut Body, x: &str, by: u64, direction: &str) -> Name {
    let by = f.scalar(by);
    f.op_with("BitShift", &[x, &by], vec![attr("direction", &Attr::Str(direction.to_owned()))])
}

fn rotated(f: &mut Body, x: &str, by: u64) -> Name {
    let wide = f.cast(x, DType::U64);
    let (up, down) = (shifted(f, &wide, by, "LEFT"), shifted(f, &wide, 32 - by, "RIGHT"));
    let (up, down) = (f.cast(&up, DType::I64), f.cast(&down, DType::I64));
    let both = f.op("BitwiseOr", &[&up, &down]);
    masked(f, &both)
}

pub(super) fn uniform() -> FunctionProto {
    let mut f = Body::new("v");
    let key = f.ints("key");
    let mut word = |i: i64| {
        let (from, to) = (f.vector(&[i]), f.vector(&[i + 1]));
        let one = f.op("Slice", &[&key, &from, &to]);
        f.op("Squeeze", &[&one])
    };
    let (k0, k1) = (word(0), word(1));
    let parity = f.scalar(PARITY);
    let k2 = f.op("BitwiseXor", &[&parity, &k0]);
    let k2 = f.op("BitwiseXor", &[&k2, &k1]);
    let keys = [k0, k1, k2];
    let one = f.scalar(1i64);
    let count = f.ints("count");
    let index = f.numbers(&count, &one);
    let step = masked(&mut f, "step");
    let x0 = f.op("Add", &[&step, &keys[0]]);
    let mut x0 = masked(&mut f, &x0);
    let mut x1 = sum(&mut f, &index, &keys[1]);
    for block in 0..5 {
        let half = if block % 2 == 0 { 0 } else { 4 };
        for &rotation in &ROTATIONS[half..half + 4] {
            x0 = sum(&mut f, &x0, &x1);
            let turned = rotated(&mut f, &x1, rotation);
            x1 = f.op("BitwiseXor", &[&turned, &x0]);
        }
        let next = block + 1;
        x0 = sum(&mut f, &x0, &keys[next % 3]);
        let number = f.scalar(next as i64);
        let injected = f.op("Add", &[&keys[(next + 1) % 3], &number]);
        x1 = sum(&mut f, &x1, &injected);
    }
    let bits = f.cast(&x0, DType::U64);
    let fraction = shifted(&mut f, &bits, 9, "RIGHT");
    let fraction = f.cast(&fraction, DType::I32);
    let one = f.bits(BIAS);
    let number = f.op("BitwiseOr", &[&fraction, &one]);
    let number = f.bitcast(&number, DType::F32);
    let unit = f.scalar(1f32);
    let u = f.op("Sub", &[&number, &unit]);
    let shape = f.ints("shape");
    let u = f.op("Reshape", &[&u, &shape]);
    let doc = "Uniform numbers in [0, 1): float(bits(1) | word >> 9) - 1 of Threefry-2x32.";
    f.function("uniform", &["step"], &u, "u", &["key", "shape", "count"], doc)
}
