//! Exact gradients of whole losses against finite differences of the piecewise affine loss, which is
//! evaluated in float64: primitives as real functions, everything else by the constant evaluator.

use pam_ir::certify::{Target, certify};
use pam_ir::eval::evaluate;
use pam_ir::geometry::windows;
use pam_ir::graph::{Graph, Node, Source, ValueId};
use pam_ir::op::{Call, Op};
use pam_ir::tensor::Tensor;
use pam_ir::text::parse;
use pam_ir::types::{DType, Type};
use pam_kernels::random::threefry;
use pam_passes::{Policy, compile};
use pam_runtime::{Executor, PlanOptions, plan};
use std::collections::{BTreeMap, HashMap};

// --- the piecewise affine functions of real numbers ----------------------------------------------

/// Exponent and mantissa in [0, 1) of a positive number.
fn split(x: f64) -> (f64, f64) {
    let e = x.log2().floor();
    let m = x / e.exp2() - 1.0;
    // The logarithm of a number just below a power of two may round up to it.
    if m < 0.0 {
        (e - 1.0, 2.0 * (m + 1.0) - 1.0)
    } else if m >= 1.0 {
        (e + 1.0, (m + 1.0) / 2.0 - 1.0)
    } else {
        (e, m)
    }
}

fn log2(x: f64) -> f64 {
    let (e, m) = split(x);
    e + m
}

fn exp2(x: f64) -> f64 {
    x.floor().exp2() * (1.0 + x - x.floor())
}

fn mul(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 {
        return 0.0;
    }
    a.signum() * b.signum() * exp2(log2(a.abs()) + log2(b.abs()))
}

fn div(a: f64, b: f64) -> f64 {
    if a == 0.0 {
        return 0.0;
    }
    a.signum() * b.signum() * exp2(log2(a.abs()) - log2(b.abs()))
}

fn elements(t: &Tensor) -> Vec<f64> {
    t.to_f64().unwrap()
}

/// A primitive on float64; `None` for another op.
fn primitive(graph: &Graph, node: &Node, x: &[Option<&Tensor>]) -> Option<Tensor> {
    let operand = |i: usize| x[i].unwrap();
    let unary = |f: &dyn Fn(f64) -> f64| {
        let y: Vec<f64> = elements(operand(0)).into_iter().map(f).collect();
        Tensor::new(operand(0).shape(), y)
    };
    Some(match node.op {
        Op::PamExp2 => unary(&exp2),
        Op::PamLog2 => unary(&log2),
        Op::PamScale => unary(&|x| x * (node.int("exponent").unwrap() as f64).exp2()),
        Op::PamMul | Op::PamDiv => {
            let f = if node.op == Op::PamMul { mul } else { div };
            let (a, b) = (operand(0), operand(1));
            let shape = pam_ir::types::broadcast(a.shape(), b.shape()).unwrap();
            let (xa, xb) = (spread(a, &shape), spread(b, &shape));
            Tensor::new(shape, xa.iter().zip(&xb).map(|(&a, &b)| f(a, b)).collect::<Vec<f64>>())
        }
        Op::PamMatMul => matmul(operand(0), operand(1)),
        Op::PamConv => conv(graph, node, operand(0), operand(1)),
        Op::MaxPool => max_pool(operand(0)),
        _ => return None,
    })
}

/// The elements of a tensor broadcast to a shape.
fn spread(t: &Tensor, shape: &[usize]) -> Vec<f64> {
    let (data, own) = (elements(t), t.shape());
    let lead = shape.len() - own.len();
    let n: usize = shape.iter().product();
    (0..n)
        .map(|mut i| {
            let (mut at, mut stride) = (0, 1);
            for d in (0..shape.len()).rev() {
                let index = i % shape[d];
                i /= shape[d];
                if d >= lead {
                    at += if own[d - lead] == 1 { 0 } else { index * stride };
                    stride *= own[d - lead];
                }
            }
            data[at]
        })
        .collect()
}

fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    let (sa, sb) = (a.shape(), b.shape());
    let (m, k, n) = (sa[sa.len() - 2], sa[sa.len() - 1], sb[sb.len() - 1]);
    let batch = pam_ir::types::broadcast(&sa[..sa.len() - 2], &sb[..sb.len() - 2]).unwrap();
    let count: usize = batch.iter().product();
    let xa = spread(a, &[&batch[..], &[m, k]].concat());
    let xb = spread(b, &[&batch[..], &[k, n]].concat());
    let mut y = Vec::new();
    for i in 0..count * m {
        for j in 0..n {
            let row = &xa[i * k..][..k];
            let column = (0..k).map(|l| xb[(i / m * k + l) * n + j]);
            y.push(row.iter().zip(column).map(|(&a, b)| mul(a, b)).sum::<f64>());
        }
    }
    Tensor::new([&batch[..], &[m, n]].concat(), y)
}

/// Two spatial axes suffice.
fn conv(graph: &Graph, node: &Node, x: &Tensor, w: &Tensor) -> Tensor {
    let axes = graph.with_call(node, |c| windows(c, &x.shape()[2..], &w.shape()[2..])).unwrap();
    let [n, channels, h, width] = x.shape().try_into().unwrap();
    let [o, c, kh, kw] = w.shape().try_into().unwrap();
    let group = node.int("group").unwrap_or(1) as usize;
    assert_eq!((channels, axes[0].input_dilation), (c * group, 1));
    let (xs, ws) = (elements(x), elements(w));
    let mut y = Vec::new();
    for (s, f) in (0..n).flat_map(|s| (0..o).map(move |f| (s, f))) {
        for (i, j) in (0..axes[0].output).flat_map(|i| (0..axes[1].output).map(move |j| (i, j))) {
            let mut sum = 0.0;
            for (l, p, q) in
                (0..c).flat_map(|l| (0..kh).flat_map(move |p| (0..kw).map(move |q| (l, p, q))))
            {
                let row = (i * axes[0].stride + p * axes[0].dilation) as i64 - axes[0].before;
                let column = (j * axes[1].stride + q * axes[1].dilation) as i64 - axes[1].before;
                if (0..h as i64).contains(&row) && (0..width as i64).contains(&column) {
                    let channel = f / (o / group) * c + l;
                    let at =
                        ((s * channels + channel) * h + row as usize) * width + column as usize;
                    sum += mul(xs[at], ws[((f * c + l) * kh + p) * kw + q]);
                }
            }
            y.push(sum);
        }
    }
    Tensor::new([n, o, axes[0].output, axes[1].output], y)
}

/// Windows of two by two, side by side.
fn max_pool(x: &Tensor) -> Tensor {
    let [n, c, h, w] = x.shape().try_into().unwrap();
    let data = elements(x);
    let mut y = Vec::new();
    for (image, i, j) in
        (0..n * c).flat_map(|s| (0..h / 2).flat_map(move |i| (0..w / 2).map(move |j| (s, i, j))))
    {
        let at = |p: usize, q: usize| data[(image * h + 2 * i + p) * w + 2 * j + q];
        y.push(at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1)));
    }
    Tensor::new([n, c, h / 2, w / 2], y)
}

/// The loss of a compiled graph in float64.
fn loss(graph: &Graph, needed: &[bool], inputs: &HashMap<ValueId, Tensor>) -> f64 {
    let wide = |t: &Tensor| match t.dtype() {
        DType::F32 => pam_ir::eval::cast(t, DType::F64).unwrap(),
        _ => t.clone(),
    };
    let mut known: Vec<Option<Tensor>> = (0..graph.values.len())
        .map(|i| match graph.values[i].source {
            Source::Input => inputs.get(&ValueId(i as u32)).map(wide),
            Source::Constant => graph.values[i].data.as_ref().map(wide),
            Source::Node { .. } => None,
        })
        .collect();
    for (node, _) in graph.nodes.iter().zip(needed).filter(|(_, n)| **n) {
        let operands: Vec<Option<&Tensor>> =
            node.inputs.iter().map(|v| v.and_then(|v| known[v.index()].as_ref())).collect();
        let outputs = match primitive(graph, node, &operands) {
            Some(y) => vec![y],
            // A cast to float32 keeps what float64 knows.
            None if node.op == Op::Cast
                && graph.ty(node.output(0).unwrap()).dtype == DType::F32 =>
            {
                vec![pam_ir::eval::cast(operands[0].unwrap(), DType::F64).unwrap()]
            }
            None => {
                let types: Vec<Option<Type>> = operands.iter().map(|t| t.map(Tensor::ty)).collect();
                let types: Vec<Option<&Type>> = types.iter().map(Option::as_ref).collect();
                let call = Call {
                    op: node.op,
                    attrs: &node.attrs,
                    inputs: &types,
                    outputs: node.outputs.len(),
                };
                evaluate(&call, &operands).unwrap_or_else(|| panic!("{}", node.op.name()))
            }
        };
        for (v, t) in node.outputs.iter().zip(outputs) {
            if let Some(v) = v {
                known[v.index()] = Some(t);
            }
        }
    }
    let output = graph.outputs.iter().find(|o| o.name == "loss").unwrap();
    known[output.value.index()].as_ref().unwrap().as_scalar_f64().unwrap()
}

// --- the comparison ------------------------------------------------------------------------------

/// Random numbers in (−1, 1), with a seed for each name.
fn random(seed: u32, n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| threefry([seed, 3], [i, 0])[0] as i32 as f32 / 2f32.powi(31)).collect()
}

/// Compares the gradients `d_<p>` that a graph computes with finite differences by the inputs p. Scales of
/// the random inputs stand in `scales`; they are 1 where they are not given.
fn check(name: &str, text: &str, scales: &[(&str, f32)]) {
    let graph = parse(&format!("graph {name} {{\n{text}\n}}"), &[]).unwrap();
    let policy = Policy::preset("exact").unwrap();
    let compiled = compile(&graph, &policy).unwrap_or_else(|e| panic!("{e}")).graph;
    let mut inputs: HashMap<ValueId, Tensor> = HashMap::new();
    for (i, &v) in compiled.inputs.iter().enumerate() {
        let value = compiled.value(v);
        let scale = scales.iter().find(|(n, _)| *n == value.name).map_or(1.0, |(_, s)| *s);
        let data = random(i as u32 + 17, value.ty.elements()).iter().map(|x| x * scale).collect();
        inputs.insert(v, Tensor::new(value.ty.shape.clone(), data));
    }
    let needed = {
        let output = compiled.outputs.iter().find(|o| o.name == "loss").unwrap().value;
        compiled.ancestors([output])
    };
    let named: Vec<(String, Tensor)> =
        inputs.iter().map(|(v, t)| (compiled.value(*v).name.clone(), t.clone())).collect();
    let certified = certify(compiled.clone(), Target::MultiplicationFree).unwrap();
    let plan = plan(&certified, PlanOptions::default()).unwrap();
    let outputs = Executor::new(plan, 2).unwrap().run(&named).unwrap();
    let outputs: BTreeMap<String, Tensor> = outputs.into_iter().collect();
    let base = loss(&compiled, &needed, &inputs);
    let found = outputs["loss"].as_scalar_f64().unwrap();
    assert!((base - found).abs() < 1e-4 * base.abs(), "{name}: the loss is {found}, not {base}");
    let (mut sampled, mut close) = (0, 0);
    for (&v, tensor) in &inputs {
        let parameter = &compiled.value(v).name;
        let Some(gradient) = outputs.get(&format!("d_{parameter}")) else { continue };
        let gradient = elements(gradient);
        let largest = gradient.iter().fold(0f64, |m, g| m.max(g.abs()));
        assert!(largest > 0.0, "{name}: the gradient of {parameter} is zero");
        let step = (gradient.len() / 60).max(1);
        for i in (0..gradient.len()).step_by(step) {
            let data = elements(tensor);
            let h = 1e-6 * data[i].abs().max(1e-3);
            let at = |x: f64| {
                let mut moved = data.clone();
                moved[i] = x;
                let mut inputs = inputs.clone();
                inputs.insert(v, Tensor::new(tensor.shape(), moved));
                loss(&compiled, &needed, &inputs)
            };
            let difference = (at(data[i] + h) - at(data[i] - h)) / (2.0 * h);
            let error = (difference - gradient[i]).abs();
            sampled += 1;
            // What is a millionth of the largest is rounding noise in both.
            close += usize::from(error <= 0.01 * difference.abs() + 1e-6 * largest);
        }
    }
    println!("{name}: {close} of {sampled} coordinates within 1 %");
    assert!(sampled >= 100 && close * 100 >= sampled * 99, "{name}: {close} of {sampled}");
}

#[test]
fn mlp() {
    check(
        "mlp",
        " in x: f32[8,12]
          in w1: f32[12,16]
          in b1: f32[16]
          in w2: f32[16,5]
          const y: i64[8] = [0, 3, 1, 4, 2, 2, 0, 1]
          h: f32[8,16] = Gemm(x, w1, b1)
          r: f32[8,16] = Relu(h)
          z: f32[8,5] = MatMul(r, w2)
          l: f32[] = SoftmaxCrossEntropyLoss(z, y)
          d1: f32[12,16], d2: f32[16], d3: f32[16,5], d4: f32[8,12] = Gradient(l, w1, b1, w2, x)
          out loss = l
          out d_w1 = d1
          out d_b1 = d2
          out d_w2 = d3
          out d_x = d4",
        &[],
    );
}

#[test]
fn attention_block() {
    check(
        "attention",
        " in x: f32[2,5,8]
          in g: f32[8]
          in b: f32[8]
          in wq: f32[8,8]
          in wk: f32[8,8]
          in wv: f32[8,8]
          in wo: f32[8,8]
          in t: f32[2,5,8]
          const scale: f32[] = 0.35355338
          n: f32[2,5,8] = LayerNormalization(x, g, b)
          q: f32[2,5,8] = MatMul(n, wq)
          k: f32[2,5,8] = MatMul(n, wk)
          v: f32[2,5,8] = MatMul(n, wv)
          kt: f32[2,8,5] = Transpose(k) {perm=[0, 2, 1]}
          s: f32[2,5,5] = MatMul(q, kt)
          s2: f32[2,5,5] = Mul(s, scale)
          p: f32[2,5,5] = Softmax(s2)
          a: f32[2,5,8] = MatMul(p, v)
          o: f32[2,5,8] = MatMul(a, wo)
          r: f32[2,5,8] = Add(o, x)
          u: f32[2,5,8] = Gelu(r)
          e: f32[2,5,8] = Sub(u, t)
          e2: f32[2,5,8] = Mul(e, e)
          l: f32[] = ReduceMean(e2) {keepdims=0}
          dg: f32[8], db: f32[8], dq: f32[8,8], dk: f32[8,8], dv: f32[8,8], do: f32[8,8], dx: f32[2,5,8] = Gradient(l, g, b, wq, wk, wv, wo, x)
          out loss = l
          out d_g = dg
          out d_b = db
          out d_wq = dq
          out d_wk = dk
          out d_wv = dv
          out d_wo = do
          out d_x = dx",
        &[],
    );
}

#[test]
fn convolutional_net() {
    check(
        "conv",
        " in x: f32[3,2,8,8]
          in w1: f32[4,2,3,3]
          in g: f32[4]
          in b: f32[4]
          in w2: f32[6,2,3,3]
          in w3: f32[6,4]
          const m: f32[4] = [0.0, 0.0, 0.0, 0.0]
          const v: f32[4] = [1.0, 1.0, 1.0, 1.0]
          const y: i64[3] = [2, 0, 3]
          c1: f32[3,4,8,8] = Conv(x, w1) {pads=[1, 1, 1, 1]}
          n: f32[3,4,8,8], _, _ = BatchNormalization(c1, g, b, m, v) {training_mode=1}
          r: f32[3,4,8,8] = Relu(n)
          p: f32[3,4,4,4] = MaxPool(r) {kernel_shape=[2, 2], strides=[2, 2]}
          c2: f32[3,6,2,2] = Conv(p, w2) {group=2, strides=[2, 2], pads=[1, 1, 1, 1]}
          a: f32[3,6,1,1] = GlobalAveragePool(c2)
          f: f32[3,6] = Flatten(a)
          z: f32[3,4] = MatMul(f, w3)
          l: f32[] = SoftmaxCrossEntropyLoss(z, y)
          d1: f32[4,2,3,3], d2: f32[4], d3: f32[4], d4: f32[6,2,3,3], d5: f32[6,4], d6: f32[3,2,8,8] = Gradient(l, w1, g, b, w2, w3, x)
          out loss = l
          out d_w1 = d1
          out d_g = d2
          out d_b = d3
          out d_w2 = d4
          out d_w3 = d5
          out d_x = d6",
        &[("w3", 3.0)],
    );
}

#[test]
fn interpolated_images() {
    check(
        "resize",
        r#" in x: f32[2,3,4,5]
          in t: f32[2,3,7,8]
          u: f32[2,3,7,5] = Resize(x) {axes=[2], sizes=[7], mode="linear", coordinate_transformation_mode="align_corners"}
          v: f32[2,3,7,8] = Resize(u) {scales=[1.0, 1.0, 1.0, 1.6], mode="cubic"}
          w: f32[2,3,7,8] = Mul(v, t)
          s: f32[2,3,5,4] = Resize(w) {antialias=1, axes=[2, 3], sizes=[5, 4], mode="linear"}
          n: f32[2,3,3,3] = Resize(s) {sizes=[2, 3, 3, 3]}
          q: f32[2,3,3,3] = Mul(n, n)
          l: f32[] = ReduceSum(q) {keepdims=0}
          d1: f32[2,3,4,5], d2: f32[2,3,7,8] = Gradient(l, x, t)
          out loss = l
          out d_x = d1
          out d_t = d2"#,
        &[],
    );
}
