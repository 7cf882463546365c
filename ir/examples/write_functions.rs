//! Writes models of one PA primitive each, so that other ONNX runtimes can be compared with the
//! definitions: `cargo run -p pam-ir --example write_functions -- FOLDER`, then
//! `tests/interop/check_functions.py FOLDER`.

use pam_ir::attr::Attr;
use pam_ir::build::Builder;
use pam_ir::graph::Graph;
use pam_ir::onnx::export::export;
use pam_ir::onnx::proto::ModelProto;
use pam_ir::op::Op;
use pam_ir::role::Mode;
use pam_ir::types::{DType, Type};
use prost::Message;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

/// Shapes of the operands that the checker fills with edge values, all against all.
const COLUMN: &[usize] = &[208, 1];
const ROW: &[usize] = &[1, 208];
const ALONG: [&[usize]; 3] = [&[96, 1, 1], &[1, 96, 1], &[1, 1, 64]];
const MANY: &[usize] = &[1 << 18];
/// `bits(α) − bits(1)` of α = 1, 1.0625, 0.9, and of the ends of the range, ½ and 2.
const OFFSETS: [i64; 5] = [0, 0x0008_0000, -1_677_722, -0x0080_0000, 0x0080_0000];

type Attrs<'a> = Vec<(&'a str, Attr)>;

fn model(op: Op, shapes: &[&[usize]], attrs: &Attrs<'_>) -> Result<Graph, Box<dyn Error>> {
    let mut b = Builder::new(op.onnx_name());
    // Native sums are written as the standard op.
    b.scope.mode = Mode::Approx;
    let dtype = if op == Op::PamUniform { DType::I64 } else { DType::F32 };
    let inputs: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| b.input(&format!("x{i}"), Type { dtype, shape: s.to_vec() }, None))
        .collect();
    let y = b.node(op, &inputs, attrs)?;
    b.output("y", y);
    Ok(b.finish())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: write_functions FOLDER")?;
    let mut count = 0;
    let mut write = |op: Op, shapes: &[&[usize]], attrs: Attrs<'_>| -> Result<(), Box<dyn Error>> {
        let graph = model(op, shapes, &attrs)?;
        let written = export(&graph, &ModelProto::default(), &BTreeMap::new())?;
        let path = Path::new(&folder).join(format!("{count:03}_{}.onnx", op.onnx_name()));
        count += 1;
        Ok(std::fs::write(path, written.encode_to_vec())?)
    };
    for offset in OFFSETS {
        let attrs = || vec![("offset", Attr::Int(offset))];
        write(Op::PamMul, &[COLUMN, ROW], attrs())?;
        write(Op::PamDiv, &[COLUMN, ROW], attrs())?;
        for op in [Op::PamMulGrad, Op::PamDivGradA, Op::PamDivGradB] {
            write(op, &ALONG, attrs())?;
        }
    }
    write(Op::PamMul, &[&[3, 1, 5], &[4, 1]], vec![])?;
    write(Op::PamMul, &[&[], &[1]], vec![])?;
    write(Op::PamExp2, &[MANY], vec![])?;
    write(Op::PamLog2, &[MANY], vec![])?;
    write(Op::PamExp2Grad, &[COLUMN, ROW], vec![])?;
    write(Op::PamLog2Grad, &[COLUMN, ROW], vec![])?;
    for exponent in [-1000, -300, -150, -149, -126, -24, -1, 0, 1, 23, 127, 254, 300, 1000] {
        write(Op::PamScale, &[MANY], vec![("exponent", Attr::Int(exponent))])?;
    }
    for mantissa in [0, 1, 2, 3, 4, 7, 10, 22, 23] {
        write(Op::PamRound, &[MANY], vec![("mantissa", Attr::Int(mantissa))])?;
    }
    contractions(&mut write)?;
    convolutions(&mut write)?;
    let sums: [(&[usize], &[i64]); 9] = [
        (&[3, 37], &[1]),
        (&[40, 5], &[0]),
        (&[2, 4096], &[1]),
        (&[2, 4097], &[-1]),
        (&[9000, 3], &[0]),
        (&[4, 6, 50], &[1, 2]),
        (&[4, 6, 50, 2], &[1, 2]),
        (&[7], &[0]),
        (&[3, 1, 4], &[1]),
    ];
    for (shape, axes) in sums {
        for keepdims in [0, 1] {
            let attrs =
                vec![("axes", Attr::Ints(axes.to_vec())), ("keepdims", Attr::Int(keepdims))];
            write(Op::ReduceSum, &[shape], attrs)?;
        }
    }
    for (key, shape) in
        [([0, 0], vec![7]), ([0xFFFF_FFFF, 3], vec![2, 3, 50]), ([123, 456], vec![])]
    {
        let attrs = vec![("key", Attr::Ints(key.to_vec())), ("shape", Attr::Ints(shape))];
        write(Op::PamUniform, &[&[]], attrs)?;
    }
    println!("{count} models");
    Ok(())
}

type Write<'a> = dyn FnMut(Op, &[&[usize]], Attrs<'_>) -> Result<(), Box<dyn Error>> + 'a;

fn contractions(write: &mut Write<'_>) -> Result<(), Box<dyn Error>> {
    let sizes = [1, 2, 255, 256, 257, 511, 512, 513, 600];
    for (i, k) in sizes.into_iter().enumerate() {
        let attrs = || vec![("offset", Attr::Int(OFFSETS[i % 3]))];
        write(Op::PamMatMul, &[&[5, k], &[k, 7]], attrs())?;
        write(Op::PamMatMulGradA, &[&[5, 3], &[3, k], &[5, k]], attrs())?;
        write(Op::PamMatMulGradB, &[&[k, 3], &[3, 4], &[k, 4]], attrs())?;
    }
    // Sums of one product, so that no NaN hides another corner.
    let count = COLUMN[0];
    for offset in OFFSETS {
        let attrs = || vec![("offset", Attr::Int(offset))];
        write(Op::PamMatMul, &[COLUMN, ROW], attrs())?;
        write(Op::PamMatMulGradA, &[&[count, count], COLUMN, COLUMN], attrs())?;
        write(Op::PamMatMulGradB, &[ROW, &[count, count], ROW], attrs())?;
        write(Op::PamConv, &[&[1, 1, count], &[count, 1, 1]], attrs())?;
    }
    let narrow = || vec![("mantissa", Attr::Int(4)), ("offset", Attr::Int(OFFSETS[1]))];
    let batches: [(&[usize], &[usize]); 5] = [
        (&[2, 3, 4, 20], &[2, 3, 20, 5]),
        (&[3, 4, 20], &[20, 5]),
        (&[4, 20], &[3, 20, 5]),
        (&[2, 1, 4, 20], &[3, 20, 5]),
        (&[1, 1], &[1, 1]),
    ];
    for (a, b) in batches {
        write(Op::PamMatMul, &[a, b], vec![])?;
        write(Op::PamMatMul, &[a, b], narrow())?;
    }
    for op in [Op::PamMatMulGradA, Op::PamMatMulGradB] {
        write(op, &[&[2, 3, 4, 20], &[2, 3, 20, 5], &[2, 3, 4, 5]], narrow())?;
    }
    Ok(())
}

fn convolutions(write: &mut Write<'_>) -> Result<(), Box<dyn Error>> {
    let ints = |name: &'static str, v: &[i64]| (name, Attr::Ints(v.to_vec()));
    let group = |g: i64| ("group", Attr::Int(g));
    write(Op::PamConv, &[&[1, 1, 1], &[1, 1, 1]], vec![])?;
    write(Op::PamConv, &[&[2, 3, 9], &[4, 3, 3]], vec![])?;
    let attrs = vec![ints("strides", &[2]), ints("pads", &[1, 2]), ints("dilations", &[2])];
    write(Op::PamConv, &[&[2, 4, 11], &[6, 2, 3]], [attrs, vec![group(2)]].concat())?;
    write(Op::PamConv, &[&[2, 3, 8, 7], &[4, 3, 3, 2]], vec![ints("pads", &[1, 0, 1, 1])])?;
    // The number of products crosses the borders of chunks: 256, 261 and 576.
    write(Op::PamConv, &[&[1, 64, 3, 3], &[2, 64, 2, 2]], vec![])?;
    write(Op::PamConv, &[&[1, 29, 4, 4], &[3, 29, 3, 3]], vec![])?;
    write(Op::PamConv, &[&[2, 64, 4, 5], &[3, 64, 3, 3]], vec![ints("pads", &[1, 1, 1, 1])])?;
    let attrs = vec![ints("strides", &[2, 3]), ints("dilations", &[1, 2]), group(3)];
    write(Op::PamConv, &[&[2, 6, 9, 12], &[9, 2, 2, 3]], attrs)?;
    let attrs = vec![group(5), ints("pads", &[1, 1, 1, 1]), ("mantissa", Attr::Int(3))];
    write(Op::PamConv, &[&[2, 5, 6, 6], &[5, 1, 3, 3]], attrs)?;
    // Transposed convolutions, with pads that cut off and uneven ones.
    let attrs = vec![ints("input_dilations", &[2, 3]), ints("pads", &[2, 1, 2, 3])];
    write(Op::PamConv, &[&[2, 3, 4, 5], &[4, 3, 3, 3]], attrs)?;
    let attrs = vec![ints("input_dilations", &[3, 2]), ints("pads", &[-1, 2, -2, 0])];
    write(Op::PamConv, &[&[1, 4, 5, 4], &[2, 2, 2, 3]], [attrs, vec![group(2)]].concat())?;
    let attrs = vec![
        ints("input_dilations", &[2, 1]),
        ints("dilations", &[2, 3]),
        ints("strides", &[3, 2]),
        ints("pads", &[3, 3, 4, 4]),
        ("offset", Attr::Int(OFFSETS[1])),
    ];
    write(Op::PamConv, &[&[1, 3, 5, 6], &[2, 3, 3, 2]], attrs)?;
    // A weight gradient: the kernel is as large as the output, dilated by the forward stride.
    let attrs = vec![ints("dilations", &[2, 2]), ints("pads", &[1, 1, 0, 0])];
    write(Op::PamConv, &[&[3, 2, 16, 16], &[4, 2, 8, 8]], attrs)?;
    let attrs = vec![ints("strides", &[1, 2, 1]), ints("pads", &[1, 0, 1, 0, 1, 1])];
    write(Op::PamConv, &[&[1, 2, 4, 5, 6], &[3, 2, 2, 3, 2]], attrs)?;
    let attrs = vec![ints("input_dilations", &[2, 1, 3]), group(2)];
    write(Op::PamConv, &[&[2, 4, 3, 4, 3], &[2, 2, 2, 2, 3]], attrs)
}
