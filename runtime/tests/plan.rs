//! Plans: whatever is fused, overwritten or divided among threads, the values stay the same.

mod common;
use common::{certified, f, floats, graph, i, run};
use pam_ir::attr::Attr;
use pam_ir::build::Builder;
use pam_ir::graph::{Binding, Graph, ValueId};
use pam_ir::op::Op;
use pam_ir::tensor::{Data, Tensor};
use pam_ir::types::{DType, Type};
use pam_runtime::{Executor, PlanError, PlanOptions, RunError, plan};
use proptest::prelude::*;
use std::time::Instant;

/// Builds a random graph: each number picks an op and its operands among what is there. Elements
/// are small whole numbers, so that every order of additions gives the same result.
fn random_graph(choices: &[(u8, u16, u16)]) -> Graph {
    let mut b = Builder::new("random");
    let ty = |shape: &[usize]| Type::new(DType::F32, shape);
    let mut values: Vec<ValueId> = vec![
        b.input("x", ty(&[4, 6]), None),
        b.input("row", ty(&[6]), None),
        b.input("column", ty(&[4, 1]), None),
        b.input("square", ty(&[6, 6]), None),
    ];
    let state = b.input("state", ty(&[4, 6]), None);
    values.push(state);
    let (zero, seven) = (b.scalar(0f32), b.scalar(7f32));
    values.extend([zero, seven]);
    let index = b.constant("index", Tensor::new([3], vec![2i64, 0, -1]));
    for &(op, p, q) in choices {
        let (x, y) = (values[p as usize % values.len()], values[q as usize % values.len()]);
        let rank = b.ty(x).rank();
        let attr = |name: &'static str, v: Vec<i64>| (name, Attr::Ints(v));
        let made = match op % 20 {
            0 | 1 => b.node(Op::Add, &[x, y], &[]),
            2 => b.node(Op::Sub, &[x, y], &[]),
            3 => b.node(Op::Max, &[x, y], &[]),
            4 => b.node(Op::Min, &[x, y, seven], &[]),
            5 => b.node(Op::Neg, &[x], &[]),
            6 => b.node(Op::Clip, &[x, zero, seven], &[]),
            7 => b.node(Op::Transpose, &[x], &[]),
            8 => {
                let n = b.ty(x).elements() as i64;
                b.node(Op::Reshape, &[x], &[attr("shape", vec![n])])
            }
            9 if rank > 0 => b.node(
                Op::Slice,
                &[x],
                &[
                    attr("starts", vec![-1]),
                    attr("ends", vec![i64::MIN]),
                    attr("axes", vec![rank as i64 - 1]),
                    attr("steps", vec![-1]),
                ],
            ),
            10 if rank > 0 => b.node(
                Op::Slice,
                &[x],
                &[attr("starts", vec![0]), attr("ends", vec![2]), attr("axes", vec![0])],
            ),
            11 => b.node(Op::Expand, &[x], &[attr("shape", vec![4, 6])]),
            12 if rank > 0 => b.node(Op::ReduceSum, &[x], &[attr("axes", vec![-1])]),
            13 if rank > 0 => {
                b.node(Op::ReduceMax, &[x], &[attr("axes", vec![i64::from(q % 2) - 1])])
            }
            14 => b.node(Op::Concat, &[x, y], &[("axis", Attr::Int(0))]),
            15 if rank > 0 && b.ty(x).shape[0] > 2 => b.node(Op::Gather, &[x, index], &[]),
            16 => b.node(Op::MatMul, &[x, y], &[]),
            17 => {
                let greater = b.node(Op::Greater, &[x, y], &[]);
                greater.and_then(|g| b.node(Op::Where, &[g, x, y], &[]))
            }
            18 => b.node(Op::Sign, &[x], &[]),
            _ => {
                let small = b.node(Op::Sign, &[x], &[]);
                small.and_then(|s| b.node(Op::PamMul, &[s, y], &[]))
            }
        };
        // Operands that do not fit are left out, and so is what has grown too large.
        if let Ok(v) = made
            && b.ty(v).elements() <= 400
        {
            let small = b.node(Op::Clip, &[v, zero, seven], &[]).unwrap();
            values.push(if op % 3 == 0 { v } else { small });
        }
    }
    let last = values.len().saturating_sub(4);
    for (k, &v) in values.iter().enumerate().skip(last) {
        b.output(&format!("y{k}"), v);
    }
    let fitting = values.iter().rev().find(|v| b.ty(**v) == b.ty(state));
    b.output("new", *fitting.unwrap());
    let mut g = b.finish();
    g.bindings.push(Binding { new: "new".into(), old: "state".into() });
    g
}

fn inputs() -> Vec<(&'static str, Tensor)> {
    let numbers = |n: usize| (0..n).map(|i| (i * 7 % 11) as f32 - 4.0).collect::<Vec<f32>>();
    vec![
        ("x", Tensor::new([4, 6], numbers(24))),
        ("row", Tensor::new([6], numbers(6))),
        ("column", Tensor::new([4, 1], numbers(4))),
        ("square", Tensor::new([6, 6], numbers(36))),
    ]
}

/// The outputs of three runs with carried state.
fn three_runs(g: &Graph, options: PlanOptions, threads: usize) -> Vec<Vec<(String, Tensor)>> {
    let certified = certified(g.clone());
    let mut e = Executor::new(plan(&certified, options).unwrap(), threads).unwrap();
    e.set("state", &Tensor::new([4, 6], vec![2f32; 24])).unwrap();
    for (name, value) in inputs() {
        e.set(name, &value).unwrap();
    }
    (0..3)
        .map(|_| {
            e.step().unwrap();
            e.outputs().unwrap()
        })
        .collect()
}

/// The outputs of one run, node by node, by the evaluator of constants.
fn evaluated(g: &Graph) -> Option<Vec<Tensor>> {
    let mut known: Vec<Option<Tensor>> = g.values.iter().map(|v| v.data.clone()).collect();
    for &v in &g.inputs {
        let name = g.value(v).name.as_str();
        let given = inputs().into_iter().find(|(n, _)| *n == name).map(|(_, t)| t);
        known[v.index()] = Some(given.unwrap_or_else(|| Tensor::new([4, 6], vec![2f32; 24])));
    }
    for node in &g.nodes {
        let args: Vec<Option<&Tensor>> =
            node.inputs.iter().map(|v| v.and_then(|v| known[v.index()].as_ref())).collect();
        let results = g.with_call(node, |call| pam_ir::eval::evaluate(call, &args))?;
        for (v, t) in node.outputs.iter().zip(results) {
            known[v.unwrap().index()] = Some(t);
        }
    }
    g.outputs.iter().map(|o| known[o.value.index()].clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn plans_do_not_change_values(
        choices in proptest::collection::vec((any::<u8>(), any::<u16>(), any::<u16>()), 1..60)
    ) {
        let g = random_graph(&choices);
        let plain = three_runs(&g, PlanOptions { fuse: false, in_place: false }, 1);
        if let Some(expected) = evaluated(&g) {
            for (a, b) in plain[0].iter().zip(&expected) {
                let zero = |t: &Tensor| floats(t).iter().map(|x| x + 0.0).collect::<Vec<f32>>();
                prop_assert_eq!(zero(&a.1), zero(b), "{} of\n{}", a.0, pam_ir::text::print(&g));
            }
        }
        for (fuse, in_place, threads) in [(true, false, 1), (true, true, 2), (false, true, 1)] {
            let other = three_runs(&g, PlanOptions { fuse, in_place }, threads);
            prop_assert_eq!(&plain, &other, "{}", pam_ir::text::print(&g));
        }
    }
}

#[test]
fn threads_do_not_change_large_results() {
    let mut b = Builder::new("large");
    let x = b.input("x", Type::new(DType::F32, [300, 400]), None);
    let w = b.input("w", Type::new(DType::F32, [400, 70]), None);
    let bias = b.input("b", Type::new(DType::F32, [70]), None);
    let y = b.node(Op::PamMatMul, &[x, w], &[]).unwrap();
    let y = b.node(Op::Add, &[y, bias], &[]).unwrap();
    let e = b.node(Op::PamExp2, &[y], &[]).unwrap();
    let s = b.node(Op::ReduceSum, &[e], &[("axes", Attr::Ints(vec![0]))]).unwrap();
    let q = b.node(Op::PamDiv, &[e, s], &[]).unwrap();
    let t = b.node(Op::ReduceSum, &[q], &[("axes", Attr::Ints(vec![0, 1]))]).unwrap();
    b.output("q", q);
    b.output("t", t);
    let certified = certified(b.finish());
    let numbers = |n: usize| (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.01).collect();
    let inputs: Vec<(String, Tensor)> = vec![
        ("x".into(), Tensor::new([300, 400], numbers(120_000))),
        ("w".into(), Tensor::new([400, 70], numbers(28_000))),
        ("b".into(), Tensor::new([70], numbers(70))),
    ];
    let results: Vec<_> = [1, 2, 3, 7]
        .into_iter()
        .map(|threads| {
            let plan = plan(&certified, PlanOptions::default()).unwrap();
            Executor::new(plan, threads).unwrap().run(&inputs).unwrap()
        })
        .collect();
    assert!(results.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn results_larger_than_caches_are_written_whole() {
    // 36 MB a tensor, the last tile shorter than the others; one result is read by the program itself.
    let n = 9_000_001;
    let text = format!(
        "in x: f32[{n}]\n in y: f32[{n}]\n p: f32[{n}] = PamMul(x, y)\n q: f32[{n}] = Sub(p, x)\n
         r: f32[{n}] = PamMul(q, p)\n out p = p\n out r = r"
    );
    let certified = certified(graph(&text));
    let numbers = |step: usize| -> Vec<f32> {
        (0..n).map(|i| ((i * step % 1013) as f32 - 500.0) * 0.01).collect()
    };
    let (x, y) = (numbers(37), numbers(101));
    let expected = |i: usize| {
        let p = pam_kernels::pa::mul(x[i], y[i], 0);
        [p, pam_kernels::pa::mul(p - x[i], p, 0)].map(f32::to_bits)
    };
    let inputs: Vec<(String, Tensor)> =
        vec![("x".into(), Tensor::new([n], x.clone())), ("y".into(), Tensor::new([n], y.clone()))];
    for threads in [1, 3] {
        let plan = plan(&certified, PlanOptions::default()).unwrap();
        let results = Executor::new(plan, threads).unwrap().run(&inputs).unwrap();
        let [Data::F32(p), Data::F32(r)] = [0, 1].map(|k| results[k].1.data().clone()) else {
            panic!("results of floats");
        };
        assert!((0..n).all(|i| [p[i], r[i]].map(f32::to_bits) == expected(i)), "{threads} threads");
    }
}

#[test]
fn elementwise_chains_are_one_step_in_two_buffers() {
    let g = graph(
        "in x: f32[1000]\n in b: f32[1]\n
         a: f32[1000] = Add(x, b)\n c: f32[1000] = Relu(a)\n d: f32[1000] = PamMul(c, x)\n
         e: f32[1000] = PamMul(b, b)\n r: f32[1000] = Sub(d, e)\n
         s: f32[] = ReduceSum(r) {keepdims=0}\n out s = s"
            .replace("e: f32[1000] = PamMul(b, b)", "e: f32[1] = PamMul(b, b)")
            .as_str(),
    );
    let plan = plan(&certified(g), PlanOptions::default()).unwrap();
    // One program for the chain and its sum, one for the operand of another shape.
    assert_eq!((plan.steps(), plan.programs()), (2, (2, 6)));
    assert_eq!(plan.report.arena, 64 + 64);
}

/// A softmax, a norm with a gradient through it, and numbers of rows that leave the program.
fn rows(n: usize, row: usize) -> String {
    format!(
        "in x: f32[{n},{row}]\n in w: f32[{row}]\n in d: f32[{n},{row}]\n in k: f32[{n},1]\n
         const c: f32[] = {row}.0\n const e: f32[] = 0.5\n
         m: f32[{n},1] = ReduceMax(x) {{axes=[-1]}}\n f: f32[{n},1] = Floor(m)\n
         z: f32[{n},{row}] = Sub(x, f)\n p: f32[{n},{row}] = PamExp2(z)\n
         s: f32[{n},1] = ReduceSum(p) {{axes=[1]}}\n y: f32[{n},{row}] = PamDiv(p, s)\n
         t: f32[{n}] = ReduceSum(y) {{axes=[1],keepdims=0}}\n r: f32[{n},1] = Reshape(t) {{shape=[{n},1]}}\n
         u: f32[{n},1] = PamDiv(r, c)\n o: f32[{n},{row}] = Expand(u) {{shape=[{n},{row}]}}\n
         q: f32[{n},{row}] = Sub(y, o)\n v: f32[{n},{row}] = PamMul(q, q)\n
         a: f32[{n},1] = ReduceSum(v) {{axes=[1]}}\n b: f32[{n},1] = Add(a, e)\n
         h: f32[{n},{row}] = PamDiv(q, b)\n g: f32[{n},{row}] = PamMul(h, w)\n
         i: f32[{n},{row}] = PamMul(g, d)\n j: f32[{n},1] = ReduceMin(i) {{axes=[1]}}\n
         l: f32[{n},{row}] = Add(i, j)\n aa: f32[{n},{row}] = PamMul(l, k)\n
         out aa = aa\n out t = t\n out a = a"
    )
}

#[test]
fn rows_are_reduced_within_one_program() {
    let numbers = |n: usize| (0..n).map(|i| (i % 97) as f32 * 0.37 - 9.0).collect::<Vec<f32>>();
    let zero_or = |i: usize| [0.0, -0.0, -0.0, f32::NAN, f32::INFINITY, -1e-40][i % 6];
    for (n, row) in [(1, 2), (7, 5), (300, 16), (3, 1037), (9, 4096), (2, 4097), (5, 20_000)] {
        let lines = rows(n, row);
        let planned = plan(&certified(graph(&lines)), PlanOptions::default()).unwrap();
        assert_eq!(planned.steps(), 1, "{n} rows of {row}");
        let mut x = numbers(n * row);
        // The second row is all ties and specials, and so are some of the first.
        x.iter_mut().enumerate().skip(row).take(row).for_each(|(i, x)| *x = zero_or(i) * 0.0);
        let inputs = [
            ("x", f(&[n, row], &x)),
            ("w", f(&[row], &numbers(row))),
            ("d", f(&[n, row], &numbers(n * row))),
            ("k", f(&[n, 1], &numbers(n))),
        ];
        let bits = |t: &Tensor| {
            let number = |x: &f32| if x.is_nan() { f32::NAN } else { *x };
            floats(t).iter().map(|x| number(x).to_bits()).collect::<Vec<u32>>()
        };
        let mut results = Vec::new();
        for (fuse, in_place, threads) in
            [(false, false, 1), (true, false, 1), (true, true, 1), (true, true, 3)]
        {
            let options = PlanOptions { fuse, in_place };
            let plan = plan(&certified(graph(&lines)), options).unwrap();
            let mut e = Executor::new(plan, threads).unwrap();
            inputs.iter().for_each(|(name, value)| e.set(name, value).unwrap());
            e.evaluate().unwrap();
            results.push(e.outputs().unwrap().iter().map(|(_, t)| bits(t)).collect::<Vec<_>>());
        }
        assert!(results.iter().all(|r| *r == results[0]), "{n} rows of {row}");
    }
    // What does not fit the cache has a step for each reduction.
    let long = plan(&certified(graph(&rows(2, 40_000))), PlanOptions::default()).unwrap();
    assert!(long.steps() > 5);
}

#[test]
fn operands_that_repeat_themselves_are_read_right() {
    let numbers = |n: usize| (0..n).map(|i| (i % 89) as f32 - 40.0).collect::<Vec<f32>>();
    // Periods of parts of a cache line and of several, of a whole tile and longer ones; 30,000 elements
    // and more are divided among threads.
    for (n, row) in [(9, 3), (3001, 10), (700, 70), (40, 1000), (30, 1024), (33, 1025), (8, 5000)] {
        let text = format!(
            "in x: f32[{n},{row}]\n in b: f32[{row}]\n in w: f32[2]\n
             y: f32[{n},{row}] = Add(x, b)\n r: f32[1,{row}] = Reshape(b) {{shape=[1,{row}]}}\n
             e: f32[{n},{row}] = Expand(r) {{shape=[{n},{row}]}}\n s: f32[1] = Slice(w) {{starts=[1],ends=[2],axes=[0]}}\n
             z: f32[{n},{row}] = Sub(e, y)\n u: f32[{n},{row}] = Max(z, s)\n out u = u\n out e = e"
        );
        let (x, b) = (numbers(n * row), numbers(row));
        let at = |i: usize| (b[i % row] - (x[i] + b[i % row])).max(3.0);
        let expected: Vec<f32> = (0..n * row).map(at).collect();
        let repeated: Vec<f32> = (0..n * row).map(|i| b[i % row]).collect();
        for threads in [1, 3] {
            let plan = plan(&certified(graph(&text)), PlanOptions::default()).unwrap();
            let mut e = Executor::new(plan, threads).unwrap();
            let inputs =
                [("x", f(&[n, row], &x)), ("b", f(&[row], &b)), ("w", f(&[2], &[7.0, 3.0]))];
            inputs.iter().for_each(|(name, value)| e.set(name, value).unwrap());
            e.evaluate().unwrap();
            let outputs = e.outputs().unwrap();
            assert_eq!(floats(&outputs[0].1), &expected[..], "{n} rows of {row}");
            assert_eq!(floats(&outputs[1].1), &repeated[..], "{n} rows of {row}");
        }
    }
}

#[test]
fn reshapes_and_outer_slices_take_no_steps() {
    let g = graph(
        "in x: f32[4,6]\n r: f32[24] = Reshape(x) {shape=[24]}\n u: f32[1,24] = Unsqueeze(r) {axes=[0]}\n
         s: f32[2,6] = Slice(x) {starts=[1],ends=[3],axes=[0]}\n out u = u\n out s = s",
    );
    assert_eq!(plan(&certified(g), PlanOptions::default()).unwrap().steps(), 0);
}

#[test]
fn transposed_operands_of_products_are_read_where_they_lie() {
    let text = "in q: f32[2,3,4,5]\n in k: f32[2,3,4,5]\n
        a: f32[2,4,3,5] = Transpose(q) {perm=[0,2,1,3]}\n b: f32[2,4,5,3] = Transpose(k) {perm=[0,2,3,1]}\n
        s: f32[2,4,3,3] = MatMul(a, b)\n out s = s";
    assert_eq!(plan(&certified(graph(text)), PlanOptions::default()).unwrap().steps(), 1);
    let numbers: Vec<f32> = (0..120).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
    let t = f(&[2, 3, 4, 5], &numbers);
    let s = run(text, &[("q", t.clone()), ("k", t)]);
    let at = |n: usize, i: usize, h: usize, d: usize| numbers[((n * 3 + i) * 4 + h) * 5 + d];
    for (flat, &x) in floats(&s[0]).iter().enumerate() {
        let (n, h, i, j) = (flat / 36, flat / 9 % 4, flat / 3 % 3, flat % 3);
        let expected: f32 = (0..5).map(|d| at(n, i, h, d) * at(n, j, h, d)).sum();
        assert_eq!(x, expected);
    }
}

#[test]
fn state_is_carried_however_it_is_made() {
    // One new state is computed, one is another input, one an alias, and one is twice an output.
    let g = graph(
        "in a: f32[2]\n in b: f32[2]\n in c: f32[1,2]\n in d: f32[2]\n const one: f32[] = 1.0\n
         n: f32[2] = Add(a, one)\n r: f32[1,2] = Reshape(n) {shape=[1,2]}\n
         out na = n\n out nb = a\n out nc = r\n out nd = n\n
         bind na -> a\n bind nb -> b\n bind nc -> c\n bind nd -> d",
    );
    let mut e = Executor::new(plan(&certified(g), PlanOptions::default()).unwrap(), 1).unwrap();
    for (name, shape) in [("a", vec![2]), ("b", vec![2]), ("c", vec![1, 2]), ("d", vec![2])] {
        e.set(name, &Tensor::new(shape, vec![0f32; 2])).unwrap();
    }
    for k in 1..5 {
        e.step().unwrap();
        let x = k as f32;
        for (name, expected) in [("a", x), ("b", x - 1.0), ("c", x), ("d", x)] {
            assert_eq!(floats(&e.value(name).unwrap()), [expected; 2], "{name} after {k}");
        }
        assert_eq!(floats(&e.output("nb").unwrap()), [x - 1.0; 2]);
        e.evaluate().unwrap();
        assert_eq!(floats(&e.output("na").unwrap()), [x + 1.0; 2]);
        assert_eq!(floats(&e.value("a").unwrap()), [x; 2]);
    }
}

#[test]
fn a_long_chain_plans_quickly() {
    let chain = |n: usize| {
        let mut b = Builder::new("chain");
        let x = b.input("x", Type::new(DType::F32, [8, 8]), None);
        let mut v = x;
        for k in 0..n {
            v = match k % 5 {
                0 => b.node(Op::PamMul, &[v, x], &[]),
                1 => b.node(Op::Transpose, &[v], &[]),
                2 => b.node(Op::Add, &[v, x], &[]),
                3 => b.node(Op::MatMul, &[v, x], &[]),
                _ => b.node(Op::Relu, &[v], &[]),
            }
            .unwrap();
        }
        b.output("y", v);
        certified(b.finish())
    };
    let certified = chain(100_000);
    let began = Instant::now();
    let plan = plan(&certified, PlanOptions::default()).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    // Far above what it takes, far below what anything quadratic would.
    assert!(seconds < 10.0, "{seconds} s");
    assert!(plan.report.arena <= 4 * 256, "{}", plan.report.arena);
}

#[test]
fn errors_name_the_culprit_and_the_remedy() {
    let g = graph("in x: f32[2]\n y: f32[2] = Softmax(x)\n out y = y");
    let Err(error) = plan(&certified(g), PlanOptions::default()) else { panic!("planned") };
    assert!(matches!(&error, PlanError::Unsupported { op: "Softmax", .. }), "{error}");
    let g = graph("in x: f32[2]\n in k: i64[1]\n y: f32[1] = Gather(x, k)\n out y = y");
    let mut e = Executor::new(plan(&certified(g), PlanOptions::default()).unwrap(), 1).unwrap();
    let x = f(&[2], &[1.0, 2.0]);
    let message = |r: Result<(), RunError>| r.unwrap_err().to_string();
    assert_eq!(
        message(e.set("z", &x)),
        "`z` is not an input of the graph; its inputs are `x`, `k`"
    );
    let wrong = message(e.set("x", &i(&[2], &[1, 2])));
    assert_eq!(wrong, "input `x` is i64[2], but the graph needs f32[2]; convert or reshape it");
    e.set("x", &x).unwrap();
    assert!(message(e.step()).starts_with("input `k` is missing; it needs i64[1]"));
    e.set("k", &i(&[1], &[2])).unwrap();
    let error = message(e.step());
    assert!(error.ends_with("(Gather): index 2 is out of range for a dimension of 2"), "{error}");
    e.set("k", &i(&[1], &[-2])).unwrap();
    e.step().unwrap();
    assert_eq!(floats(&e.output("y").unwrap()), [1.0]);
    assert!(e.output("w").unwrap_err().to_string().contains("its outputs are `y`"));
}

#[test]
fn too_much_memory_is_an_error() {
    let g = graph(
        "in x: f32[1]\n y: f32[1099511627776,1024] = Expand(x) {shape=[1099511627776,1024]}\n
         z: f32[1099511627776,1024] = Neg(y)\n out z = z",
    );
    match plan(&certified(g), PlanOptions::default()) {
        Err(PlanError::TooLarge) => {}
        Err(other) => panic!("{other}"),
        Ok(plan) => {
            let error = Executor::new(plan, 1).err().expect("no machine has that much");
            assert!(matches!(error, RunError::OutOfMemory { .. }), "{error}");
        }
    }
}
