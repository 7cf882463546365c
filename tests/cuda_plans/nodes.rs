//! One graph with every kind of step and many element types, on both backends.

use crate::emulator::{Emulator, Kernels};
use crate::same;
use pam_ir::certify::{Target, certify};
use pam_ir::tensor::Tensor;
use pam_ir::text::parse;
use pam_ir::types::DType;
use pam_passes::expand;
use pam_runtime::{Executor, PlanOptions, RunError, plan};
use std::fmt::Write as _;

const TYPES: [(&str, DType); 13] = [
    ("f32", DType::F32),
    ("f64", DType::F64),
    ("f16", DType::F16),
    ("bf16", DType::BF16),
    ("i64", DType::I64),
    ("i32", DType::I32),
    ("i16", DType::I16),
    ("i8", DType::I8),
    ("u64", DType::U64),
    ("u32", DType::U32),
    ("u16", DType::U16),
    ("u8", DType::U8),
    ("bool", DType::Bool),
];

/// Numbers of both signs, zeros, subnormals, infinities and NaN.
fn numbers(n: usize) -> Vec<f32> {
    let odd =
        [0.0, -0.0, 1e-40, -3e-39, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.5, 1.5, -2.5];
    let any = |i: usize| ((i * 2_654_435_761 % 4096) as f32 - 2048.0) * 0.013;
    (0..n).map(|i| if i % 7 == 3 { odd[i / 7 % odd.len()] } else { any(i) }).collect()
}

/// Runs lines of the text form on both backends and compares every output.
fn compare(kernels: &std::rc::Rc<Kernels>, lines: &str, inputs: &[(String, Tensor)]) {
    let graph = parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap_or_else(|e| panic!("{e}"));
    let expanded = expand(&graph).unwrap();
    let certified = certify(expanded, Target::Mixed).unwrap_or_else(|v| panic!("{}", v[0]));
    for options in [PlanOptions::default(), PlanOptions { fuse: false, in_place: false }] {
        let mut cpu = Executor::new(plan(&certified, options).unwrap(), 1).unwrap();
        let machine = Box::new(Emulator::new(kernels));
        let mut device = Executor::cuda(plan(&certified, options).unwrap(), machine).unwrap();
        for _ in 0..2 {
            let (expected, got) = (cpu.run(inputs).unwrap(), device.run(inputs).unwrap());
            for ((name, expected), (_, got)) in expected.iter().zip(&got) {
                assert!(same(expected, got), "`{name}`:\n{expected:?}\n{got:?}\nin\n{lines}");
            }
        }
    }
}

fn named(inputs: Vec<(&str, Tensor)>) -> Vec<(String, Tensor)> {
    inputs.into_iter().map(|(n, t)| (n.to_owned(), t)).collect()
}

/// Adds an output to every node of the lines.
fn with_outputs(lines: &str) -> String {
    let mut text = lines.to_owned();
    for line in lines.lines().filter(|l| l.contains(" = ") && !l.trim().starts_with("const")) {
        let (left, _) = line.split_once(" = ").unwrap();
        for result in left.split(", ") {
            let name = result.split(':').next().unwrap().trim();
            let _ = write!(text, "\nout {name} = {name}");
        }
    }
    text
}

#[test]
fn movements_and_indices() {
    let lines = "
        in x: f32[2,3,4]
        in h: f16[2,3,4]
        in d: f64[6]
        in i: i64[2,2]
        in j: i32[2,3,2]
        in t: i64[3,2]
        in n: i64[3]
        in v: f32[3,4]
        in u: f32[2,3,2]
        in hot: f32[2]
        in b: bool[2,3,4]
        tr: f32[4,2,3] = Transpose(x) {perm=[2,0,1]}
        ex: f32[5,2,3,4] = Expand(x) {shape=[5,1,1,1]}
        ti: f32[4,3,8] = Tile(x) {repeats=[2,1,2]}
        sl: f32[2,3,2] = Slice(x) {starts=[-1],ends=[-5],axes=[2],steps=[-2]}
        s0: f32[2,1,4], s1: f32[2,2,4] = Split(x) {axis=1,split=[1,2]}
        co: f32[2,5,4] = Concat(x, s1) {axis=1}
        ch: f16[2,3,8] = Concat(h, h) {axis=2}
        p0: f32[4,3,7] = Pad(x) {pads=[1,0,2,1,0,1]}
        p1: f32[2,3,8] = Pad(x) {pads=[0,0,3,0,0,1],mode=\"reflect\"}
        p2: f16[2,5,6] = Pad(h) {pads=[0,1,1,0,1,1],mode=\"edge\"}
        p3: f32[2,3,6] = Pad(x) {pads=[0,0,1,0,0,1],mode=\"wrap\"}
        cc: f32[2,5,2] = CenterCropPad(x) {shape=[2,5,2]}
        tu: f32[2,3,4] = Trilu(x) {k=1}
        tl: f16[2,3,4] = Trilu(h) {upper=0,k=-1}
        rs: f32[2,3,4] = ReverseSequence(x, i0) {batch_axis=0,time_axis=1}
        i0: i64[2] = Slice(iflat) {starts=[0],ends=[2],axes=[0]}
        iflat: i64[4] = Reshape(iabs) {shape=[4]}
        iabs: i64[2,2] = Abs(i)
        g0: f32[2,2,3,4] = Gather(x, i)
        g1: f16[2,3,2,2] = Gather(h, i) {axis=2}
        ge: f32[2,3,2] = GatherElements(x, j) {axis=2}
        gn: f32[3,4] = GatherND(x, t)
        oh: f32[3,5] = OneHot(n, hot) {depth=5}
        o2: f32[5,3] = OneHot(n, hot) {depth=5,axis=0}
        sc: f32[2,3,4] = ScatterElements(x, j, u) {axis=2,reduction=\"add\"}
        s2: f32[2,3,4] = ScatterElements(x, j, u) {axis=2}
        s3: f32[2,3,4] = ScatterElements(x, j, u) {axis=2,reduction=\"max\"}
        sn: f32[2,3,4] = ScatterND(x, t, v) {reduction=\"add\"}
        sm: f32[2,3,4] = ScatterND(x, t, v) {reduction=\"min\"}
        am: i64[2,1,4] = ArgMax(x) {axis=1}
        an: i64[2,3,1] = ArgMin(x) {axis=2,select_last_index=1}
        hm: f32[2,3,4] = Hardmax(x) {axis=1}
        cs: f32[2,3,4] = CumSum(x) {axis=1}
        c2: f16[2,3,4] = CumSum(h) {axis=2,exclusive=1,reverse=1}
        tk: f32[2,3,2], ki: i64[2,3,2] = TopK(x) {K=2}
        t2: f16[2,2,4], k2: i64[2,2,4] = TopK(h) {K=2,axis=1,largest=0}
        r0: f32[3] = ReduceSum(x) {axes=[0,2],keepdims=0}
        r1: f32[2,1,4] = ReduceMax(x) {axes=[1]}
        r2: f16[2,3,1] = ReduceSum(h) {axes=[2]}
        r3: bool[2,3,1] = ReduceMax(b) {axes=[2]}
        r4: i64[1,1] = ReduceMin(i)
        r6: f64[1] = ReduceSum(d)
        we: f32[2,3,4] = Where(b, x, tx)
        tx: f32[2,3,4] = Neg(x)
        dx: f32[2,3,1] = Slice(sl) {starts=[0],ends=[1],axes=[2]}
        df: f32[2,3,4] = Sub(x, dx)";
    // Nodes come in the order in which they are computed.
    let mut sorted: Vec<&str> = lines.lines().collect();
    let later = ["rs:", "i0:", "iflat:", "iabs:", "we:", "tx:"];
    let is = |line: &&str, name: &str| line.trim_start().starts_with(name);
    let moved: Vec<&str> =
        later.iter().rev().filter_map(|n| sorted.iter().find(|l| is(l, n)).copied()).collect();
    sorted.retain(|l| !later.iter().any(|n| is(l, n)));
    sorted.extend(moved);
    let i = |shape: &[usize], v: &[i64]| Tensor::new(shape, v.to_vec());
    let f = |shape: &[usize]| Tensor::new(shape, numbers(shape.iter().product()));
    let halves: Vec<half::f16> = numbers(24).into_iter().map(half::f16::from_f32).collect();
    let doubles: Vec<f64> = numbers(6).into_iter().map(f64::from).collect();
    let inputs = named(vec![
        ("x", f(&[2, 3, 4])),
        ("h", Tensor::new([2, 3, 4], halves)),
        ("d", Tensor::new([6], doubles)),
        ("i", i(&[2, 2], &[1, -1, 0, 1])),
        ("j", Tensor::new([2, 3, 2], vec![3i32, 3, 0, -1, 1, 1, 2, 0, 0, 0, -4, 3])),
        ("t", i(&[3, 2], &[1, 2, 0, -1, 1, 2])),
        ("n", i(&[3], &[4, -1, 9])),
        ("v", f(&[3, 4])),
        ("u", f(&[2, 3, 2])),
        ("hot", Tensor::new([2], vec![0.25f32, 2.0])),
        ("b", Tensor::new([2, 3, 4], (0..24).map(|i| i % 3 == 0).collect::<Vec<bool>>())),
    ]);
    let kernels = Kernels::new();
    compare(&kernels, &with_outputs(&sorted.join("\n")), &inputs);
    kernels.keep_generated();
}

#[test]
fn windows_contractions_and_random_numbers() {
    let lines = "
        in x: f32[2,4,7,6]
        in w: f32[6,2,3,2]
        in a: f32[3,5,300]
        in b: f32[3,300,4]
        in s: i64[]
        in o: f32[1,8,12]
        mp: f32[2,4,3,3], mi: i64[2,4,3,3] = MaxPool(x) {kernel_shape=[3,2],strides=[2,2]}
        m2: f32[2,4,8,7] = MaxPool(x) {kernel_shape=[2,2],pads=[1,1,1,1],dilations=[1,1]}
        un: f32[2,4,7,6] = MaxUnpool(mp, mi) {kernel_shape=[3,2],strides=[2,2]}
        ci: f32[1,2,5,4] = Col2Im(o) {image_shape=[5,4],block_shape=[2,2],strides=[1,1]}
        pc: f32[2,6,5,5] = PamConv(x, w) {group=2}
        pd: f32[2,6,3,4] = PamConv(x, w) {group=2,strides=[2,1],dilations=[1,2],pads=[0,0,0,0]}
        pm: f32[3,5,4] = PamMatMul(a, b)
        pn: f32[3,5,4] = PamMatMul(a, b) {mantissa=4,offset=1000}
        pg: f32[2,6,5,5] = PamConv(x, w) {group=2,mantissa=3}
        ga: f32[3,5,300] = PamMatMulGradA(a, b, pm)
        gb: f32[3,300,4] = PamMatMulGradB(a, b, pm)
        gt: f32[3,4,5] = Transpose(pm) {perm=[0,2,1]}
        gv: f32[3,4,300] = PamMatMul(gt, a)
        uf: f32[2,5] = PamUniform(s) {key=[7,9],shape=[2,5]}";
    let f = |shape: &[usize]| {
        let n = shape.iter().product::<usize>();
        Tensor::new(shape, (0..n).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>())
    };
    let inputs = named(vec![
        ("x", f(&[2, 4, 7, 6])),
        ("w", f(&[6, 2, 3, 2])),
        ("a", f(&[3, 5, 300])),
        ("b", f(&[3, 300, 4])),
        ("s", Tensor::scalar(5i64)),
        ("o", f(&[1, 8, 12])),
    ]);
    let kernels = Kernels::new();
    compare(&kernels, &with_outputs(lines), &inputs);
    kernels.keep_generated();
    let native = "
        in a: f32[3,5,300]
        in b: f32[3,300,4]
        ad: i64[3,5,300] = Cast(a) {to=i64}
        bd: i64[3,300,4] = Cast(b) {to=i64}
        nm: i64[3,5,4] = MatMul(ad, bd)";
    let operands: Vec<_> = inputs.iter().filter(|i| i.0 == "a" || i.0 == "b").cloned().collect();
    compare(&kernels, &with_outputs(native), &operands);
}

/// A softmax and a norm, with operands along rows and columns and numbers of rows among the results: one
/// chunk of a sum, its end, and several.
#[test]
fn programs_over_rows() {
    let kernels = Kernels::new();
    for (n, row) in [(3, 5), (18, 37), (2, 4096), (1, 9000)] {
        let lines = format!(
            "in x: f32[{n},{row}]\nin w: f32[{row}]\nin d: f32[{row},{n}]\nin k: f32[{n},1]\n\
             const c: f32[] = {row}.0\nm: f32[{n},1] = ReduceMax(x) {{axes=[-1]}}\n\
             f: f32[{n},1] = Floor(m)\nz: f32[{n},{row}] = Sub(x, f)\n\
             p: f32[{n},{row}] = PamExp2(z)\ns: f32[{n},1] = ReduceSum(p) {{axes=[1]}}\n\
             y: f32[{n},{row}] = PamDiv(p, s)\nl: f32[{n},1] = ReduceMin(x) {{axes=[1]}}\n\
             v: f32[{n},{row}] = PamMul(y, w)\na: f32[{n},1] = ReduceSum(v) {{axes=[1]}}\n\
             b: f32[{n},1] = PamDiv(a, c)\ng: f32[{n},{row}] = Sub(v, b)\n\
             t: f32[{n},{row}] = Transpose(d) {{perm=[1,0]}}\nh: f32[{n},{row}] = Add(g, t)\n\
             i: f32[{n},1] = PamMul(l, k)\nj: f32[{n},{row}] = Sub(h, i)\n\
             o: f32[{n},{row}] = PamMul(j, k)\nr: f32[{row},{n}] = Transpose(o) {{perm=[1,0]}}\n\
             out s = s\nout i = i\nout o = o\nout r = r"
        );
        let table = |shape: [usize; 2], by: usize| {
            let mut v = numbers(n * row);
            v.rotate_left(by);
            Tensor::new(shape, v)
        };
        let inputs = named(vec![
            ("x", table([n, row], 0)),
            ("w", Tensor::new([row], numbers(row))),
            ("d", table([row, n], 5)),
            ("k", Tensor::new([n, 1], numbers(n))),
        ]);
        compare(&kernels, &lines, &inputs);
    }
    kernels.keep_generated();
}

#[test]
fn elementwise_on_every_type() {
    let mut lines = String::from("in x: f32[77]\nin y: f32[77]\nin z: f32[77]\n");
    let pam = "a0: f32[77] = PamMul(x, y)\na1: f32[77] = PamDiv(x, y)\na2: f32[77] = PamExp2(x)\n\
               a3: f32[77] = PamLog2(x)\na4: f32[77] = PamScale(x) {exponent=-120}\n\
               a5: f32[77] = PamRound(x) {mantissa=4}\na6: f32[77] = PamMulGrad(x, y, z)\n\
               a7: f32[77] = PamDivGradA(x, y, z)\na8: f32[77] = PamDivGradB(x, y, z)\n\
               a9: f32[77] = PamExp2Grad(x, z)\nb0: f32[77] = PamLog2Grad(x, z)\n\
               b1: f32[77] = PamMul(x, y) {offset=-3000}\nb2: f32[77] = PamScale(x) {exponent=150}\n\
               b3: f32[77] = Shrink(x) {bias=0.25,lambd=0.5}\n\
               b4: f32[77] = ThresholdedRelu(x) {alpha=1.5}\nb5: bool[77] = IsNaN(x)\n\
               b6: bool[77] = IsInf(x) {detect_negative=0}\nb7: f32[77] = Round(x)\n\
               b8: f32[77] = PamDivGradB(x, y, z) {offset=2000}\n\
               b9: f32[77] = PamMulGrad(x, y, z) {offset=-2000}\n";
    lines.push_str(pam);
    for (t, dtype) in TYPES {
        let _ = writeln!(lines, "x_{t}: {t}[77] = Cast(x) {{to={t}}}");
        let _ = writeln!(lines, "y_{t}: {t}[77] = Cast(y) {{to={t}}}");
        for (u, _) in TYPES {
            let _ = writeln!(lines, "c_{t}_{u}: {u}[77] = Cast(y_{t}) {{to={u}}}");
        }
        let mut two = |op: &str, to: &str, attrs: &str| {
            let _ = writeln!(lines, "{op}_{t}: {to}[77] = {op}(x_{t}, y_{t}){attrs}");
        };
        two("Equal", "bool", "");
        if dtype == DType::Bool {
            ["And", "Or", "Xor"].into_iter().for_each(|op| two(op, "bool", ""));
            continue;
        }
        ["Less", "GreaterOrEqual"].into_iter().for_each(|op| two(op, "bool", ""));
        ["Add", "Sub", "Max", "Min"].into_iter().for_each(|op| two(op, t, ""));
        if dtype.is_int() {
            ["BitwiseAnd", "BitwiseXor", "Mul", "Div"].into_iter().for_each(|op| two(op, t, ""));
            two("Mod", t, "");
            two("BitShift", t, " {direction=\"LEFT\"}");
        }
        if dtype.is_int() {
            let shift = format!("BitShift(x_{t}, y_{t}) {{direction=\"RIGHT\"}}");
            let _ = writeln!(lines, "right_{t}: {t}[77] = {shift}");
        }
        let mut one = |op: &str| {
            let _ = writeln!(lines, "{op}_{t}: {t}[77] = {op}(x_{t})");
        };
        one("Abs");
        one("Sign");
        one("Relu");
        if !matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64) {
            one("Neg");
        }
        if dtype.is_float() {
            ["Floor", "Ceil"].into_iter().for_each(one);
        }
    }
    let turned = |by: usize| {
        let mut v = numbers(77);
        v.rotate_left(by);
        Tensor::new([77], v)
    };
    let inputs = named(vec![("x", turned(0)), ("y", turned(5)), ("z", turned(11))]);
    let kernels = Kernels::new();
    compare(&kernels, &with_outputs(&lines), &inputs);
    kernels.keep_generated();
}

#[test]
fn an_index_out_of_range_is_named_and_changes_nothing() {
    let text = "graph g {\nin w: f32[3,2]\nin i: i64[2]\ng: f32[2,2] = Gather(w, i)\n\
                s: f32[1,2] = ReduceSum(g) {axes=[0]}\nn: f32[3,2] = Add(w, s)\n\
                out n = n\nbind n -> w\n}";
    let graph = parse(text, &[]).unwrap_or_else(|e| panic!("{e}"));
    let certified = certify(graph, Target::Mixed).unwrap();
    let kernels = Kernels::new();
    let machine = Box::new(Emulator::new(&kernels));
    let plan = plan(&certified, PlanOptions::default()).unwrap();
    let mut e = Executor::cuda(plan, machine).unwrap();
    let w = Tensor::new([3, 2], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    e.set("w", &w).unwrap();
    e.set("i", &Tensor::vector(vec![0i64, 7])).unwrap();
    e.step().unwrap();
    let error = e.output("n").unwrap_err();
    assert!(matches!(&error, RunError::Node { op: "Gather", .. }), "{error}");
    assert!(error.to_string().contains("index 7 is out of range for a dimension of 3"), "{error}");
    assert_eq!(e.value("w").unwrap(), w);
    e.set("i", &Tensor::vector(vec![0i64, -1])).unwrap();
    e.step().unwrap();
    let expected = Tensor::new([3, 2], vec![7.0f32, 10.0, 9.0, 12.0, 11.0, 14.0]);
    assert_eq!(e.output("n").unwrap(), expected);
    assert_eq!(e.value("w").unwrap(), expected);
}

#[test]
fn inputs_keep_their_values_whichever_half_of_the_state_is_read() {
    let text = "graph g {\nin w: f32[2]\nin a: f32[2]\nin b: f32[2]\ns: f32[2] = Sub(a, b)\n\
                n: f32[2] = Add(w, s)\nc: f32[2] = Neg(b)\nout n = n\nout a = a\nout c = c\n\
                bind n -> w\n}";
    let graph = parse(text, &[]).unwrap_or_else(|e| panic!("{e}"));
    let certified = certify(graph, Target::Mixed).unwrap();
    let kernels = Kernels::new();
    let plan = || plan(&certified, PlanOptions::default()).unwrap();
    let mut cpu = Executor::new(plan(), 1).unwrap();
    let mut device = Executor::cuda(plan(), Box::new(Emulator::new(&kernels))).unwrap();
    let vector = |x: f32| Tensor::new([2], vec![x, 2.0 * x]);
    for step in 0..9u8 {
        for e in [&mut cpu, &mut device] {
            let mut set = |name, every: u8| {
                if step % every == 0 {
                    e.set(name, &vector(f32::from(step) + f32::from(every))).unwrap();
                }
            };
            // The state is overwritten once, in the middle.
            set("w", 5);
            set("a", 1);
            set("b", 3);
            match step % 4 {
                3 => e.evaluate().unwrap(),
                _ => e.step().unwrap(),
            }
        }
        if step % 2 == 1 {
            // The next batch comes in before the results are read.
            cpu.set("b", &vector(99.0)).unwrap();
            device.set("b", &vector(99.0)).unwrap();
        }
        assert_eq!(cpu.outputs().unwrap(), device.outputs().unwrap(), "step {step}");
        assert_eq!(cpu.value("w").unwrap(), device.value("w").unwrap(), "step {step}");
    }
}
