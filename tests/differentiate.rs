//! Backward passes that the compiler makes.

mod common;

use common::{STEPS, arrays, difference, fixture, model, named};
use pam_ir::certify::{Certified, Target, certify};
use pam_ir::graph::Graph;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_ir::tensor::Tensor;
use pam_passes::{
    Backward, Policy, Recognised, compile, differentiate, expand, gradient_check, uncertain,
};
use pam_runtime::{Executor, PlanOptions, plan};

fn read(name: &str) -> Graph {
    let path = model(name);
    let file = ModelFile { model: load(&path).unwrap(), path };
    import(&[file], &ImportOptions::default()).unwrap().graph
}

/// The outputs of a graph that is legal for a mixed target.
fn run(graph: &Graph, inputs: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    let certified = certify(expand(graph).unwrap(), Target::Mixed).unwrap();
    let mut executor = Executor::new(plan(&certified, PlanOptions::default()).unwrap(), 0).unwrap();
    let known: Vec<String> = executor.plan().inputs.iter().map(|i| i.name.clone()).collect();
    let fed: Vec<(String, Tensor)> =
        inputs.iter().filter(|(n, _)| known.contains(n)).cloned().collect();
    executor.run(&fed).unwrap()
}

fn certified(graph: &Graph, policy: &Policy) -> Certified {
    let compiled = compile(graph, policy).unwrap_or_else(|e| panic!("{e}"));
    let target = if policy.keeps_native() { Target::Mixed } else { Target::MultiplicationFree };
    certify(compiled.graph, target).unwrap_or_else(|v| panic!("{}\n{}", v[0], v[0].line))
}

/// Biases of vgg in front of a BatchNorm.
const NOISE: [&str; 5] = [
    "features.0.bias",
    "features.4.bias",
    "features.7.bias",
    "features.11.bias",
    "features.14.bias",
];

#[test]
fn a_native_backward_is_the_imported_one() {
    for name in STEPS {
        let graph = read(name);
        let mut policy = Policy::preset("native").unwrap();
        policy.backward = Backward::Regenerate;
        let compiled = compile(&graph, &policy).unwrap_or_else(|e| panic!("{name}: {e}"));
        let gradients = compiled.gradients.unwrap();
        let check = gradient_check(&compiled.source, &gradients).unwrap();
        let outputs = run(&check, &arrays(&fixture(&format!("{name}/inputs.npz"))));
        let mut worst = (0f64, "");
        for (parameter, _) in &gradients.pairs {
            // The gradient of a bias in front of a BatchNorm is rounding noise around zero.
            if name == "vgg" && NOISE.contains(&parameter.as_str()) {
                continue;
            }
            let imported = named(&outputs, &format!("imported.{parameter}"));
            let own = named(&outputs, &format!("regenerated.{parameter}"));
            let error = difference(own, imported);
            if error > worst.0 {
                worst = (error, parameter);
            }
        }
        println!("{name}: {} gradients, worst {:.1e} {}", gradients.pairs.len(), worst.0, worst.1);
        assert!(worst.0 < 1e-4, "{name}: the gradient of {} is off by {:e}", worst.1, worst.0);
    }
}

#[test]
fn gradients_are_found_without_metadata() {
    for name in STEPS {
        let mut graph = read(name);
        let mut policy = Policy::preset("native").unwrap();
        policy.backward = Backward::Regenerate;
        let stated = compile(&graph, &policy).unwrap().gradients.unwrap();
        graph.meta.properties.remove("pam.gradients");
        let labelled = compile(&graph, &Policy::preset("native").unwrap()).unwrap().source;
        let (_, by_shape) = uncertain(&graph, &policy).unwrap().unwrap();
        assert!(by_shape.open.is_empty(), "{name}: {:?}", by_shape.open);
        let found = differentiate::find(&labelled, &Recognised::default()).unwrap().unwrap();
        assert_eq!(found.pairs.len(), stated.pairs.len(), "{name}");
    }
}

/// The loss of the first and of the last of some steps on one batch.
fn trained(certified: &Certified, inputs: &[(String, Tensor)]) -> (f64, f64) {
    let native = certify(expand(certified.graph()).unwrap(), certified.target()).unwrap();
    let mut executor = Executor::new(plan(&native, PlanOptions::default()).unwrap(), 0).unwrap();
    for (name, value) in inputs {
        executor.set(name, value).unwrap();
    }
    let losses: Vec<f64> = (0..8)
        .map(|_| {
            executor.step().unwrap();
            executor.output("loss").unwrap().as_scalar_f64().unwrap()
        })
        .collect();
    (losses[0], losses[7])
}

#[test]
fn every_policy_trains_the_encoder_decoder() {
    let graph = read("encdec");
    let inputs = arrays(&fixture("encdec/inputs.npz"));
    let learns = |name: &str, policy: &Policy| {
        let certified = certified(&graph, policy);
        assert_eq!(certified.native().is_empty(), !policy.keeps_native(), "{name}");
        let (first, last) = trained(&certified, &inputs);
        println!("{name}: {first:.4} to {last:.4}");
        assert!(last < first - 0.1, "{name}: the loss goes from {first} to {last}");
    };
    let components = ["matmul", "softmax", "norm", "loss", "optimizer"];
    for mode in ["exact", "approx"] {
        // One component at a time among native ones, then cumulatively.
        let mut together = Policy::preset("native").unwrap();
        for component in components {
            let mut alone = Policy::preset("native").unwrap();
            let set = format!("{component}={mode}");
            alone.set(&set).unwrap();
            together.set(&set).unwrap();
            learns(&set, &alone);
            learns(&format!("… and {set}"), &together);
        }
    }
    for preset in ["paper", "exact", "approx", "native", "matmul"] {
        learns(preset, &Policy::preset(preset).unwrap());
    }
}

#[test]
fn every_fixture_runs_with_exact_derivatives() {
    for name in STEPS {
        let certified = certified(&read(name), &Policy::preset("exact").unwrap());
        let outputs = run(certified.graph(), &arrays(&fixture(&format!("{name}/inputs.npz"))));
        for (output, value) in outputs.iter().filter(|(_, t)| t.dtype().is_float()) {
            let finite = value.to_f64().unwrap().iter().all(|x| x.is_finite());
            assert!(finite, "{name}: {output}");
        }
    }
}

/// Losses of twenty steps on the digits.
fn curve(graph: &Graph, lr: f32) -> Vec<f64> {
    let policy = Policy::preset("native").unwrap();
    let compiled = compile(graph, &policy).unwrap_or_else(|e| panic!("{e}"));
    let certified = certify(expand(&compiled.graph).unwrap(), Target::Mixed).unwrap();
    let mut executor = Executor::new(plan(&certified, PlanOptions::default()).unwrap(), 0).unwrap();
    let data = arrays(&fixture("digits/digits.npz"));
    let (x, y) = (named(&data, "x_train"), named(&data, "y_train"));
    let (x, y) = (x.slice::<f32>().unwrap(), y.slice::<i64>().unwrap());
    let inputs: Vec<String> = executor.plan().inputs.iter().map(|i| i.name.clone()).collect();
    let labels = if inputs.iter().any(|i| i == "labels") { "labels" } else { "y" };
    let shape = executor.plan().inputs.iter().find(|i| i.name == "x").unwrap().ty.shape.clone();
    executor.set("lr", &Tensor::scalar(lr)).unwrap();
    (0..20)
        .map(|i| {
            let images = x[i * 32 * 64..][..32 * 64].to_vec();
            executor.set("x", &Tensor::new(shape.clone(), images)).unwrap();
            executor.set(labels, &Tensor::vector(y[i * 32..][..32].to_vec())).unwrap();
            executor.step().unwrap();
            executor.output("loss").unwrap().as_scalar_f64().unwrap()
        })
        .collect()
}

#[test]
fn built_steps_follow_exported_ones() {
    use pam_passes::step::{LossSpec, OptimizerSpec, StepOptions, build};
    for (name, optimizer, lr) in
        [("mlp", "sgd:momentum=0.9", 0.1), ("encoder", "adamw:eps=1e-4,weight_decay=0.01", 0.003)]
    {
        let path = fixture(&format!("{name}/{name}_forward.onnx"));
        let file = ModelFile { model: load(&path).unwrap(), path };
        let forward = import(&[file], &ImportOptions::default()).unwrap().graph;
        let options = StepOptions {
            loss: LossSpec::parse("cross-entropy").unwrap(),
            optimizer: OptimizerSpec::parse(optimizer).unwrap(),
            freeze: Vec::new(),
        };
        let built = curve(&build(&forward, &options).unwrap(), lr);
        let exported = curve(&read(name), lr);
        let worst = built.iter().zip(&exported).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
        println!("{name}: from {:.4} to {:.4}, worst {worst:.1e}", exported[0], exported[19]);
        assert!(exported[19] < exported[0], "{name} does not learn");
        assert!(worst < 1e-4, "{name}: {built:?} is not {exported:?}");
    }
}

/// Of an op that moves and adds elements, the derivative is its transpose: ⟨A x, d⟩ = ⟨x, Aᵀ d⟩.
#[test]
fn movements_have_their_transposes_as_derivatives() {
    let ops = [
        ("4,5", "4,9", "Pad(x) {pads=[0, 3, 0, 1], mode=\"reflect\"}"),
        ("4,5", "7,5", "Pad(x) {pads=[1, -1, 2, 1], mode=\"edge\"}"),
        ("3,4,5", "3,7,8", "Pad(x) {pads=[5, 2, -2, 1], axes=[1, -1], mode=\"wrap\"}"),
        ("4,5", "5,3", "Pad(x) {pads=[2, -1, -1, -1]}"),
        ("4,5", "3,8", "CenterCropPad(x) {shape=[3, 8]}"),
        ("4,5,2", "4,2,2", "CenterCropPad(x) {shape=[2], axes=[-2]}"),
        ("2,3,4", "2,2,4", "GatherND(x, two) {batch_dims=1}"),
        ("2,3,4", "2,3", "GatherND(x, three) {batch_dims=2}"),
        (
            "2,12,10",
            "2,2,5,6",
            "Col2Im(x) {image_shape=[5, 6], block_shape=[2, 3], pads=[0, 0, 1, 1], strides=[1, 2], dilations=[1, 2]}",
        ),
        ("1,4,3", "1,2,6", "Col2Im(x) {image_shape=[6], block_shape=[2], strides=[2]}"),
    ];
    for (from, to, op) in ops {
        let text = format!(
            "graph g {{
                in x: f32[{from}]
                in d: f32[{to}]
                const two: i64[2,2,1] = [2, 0, -1, 2]
                const three: i64[2,3,1] = [2, 0, -1, 2, 3, 3]
                y: f32[{to}] = {op}
                p: f32[{to}] = Mul(y, d)
                l: f32[] = ReduceSum(p) {{keepdims=0}}
                g: f32[{from}] = Gradient(l, x)
                q: f32[{from}] = Mul(x, g)
                m: f32[] = ReduceSum(q) {{keepdims=0}}
                out l = l
                out m = m
            }}"
        );
        let graph = pam_ir::text::parse(&text, &[]).unwrap_or_else(|e| panic!("{op}: {e}"));
        let compiled = compile(&graph, &Policy::preset("native").unwrap()).unwrap();
        let whole = |name: &str, shape: &str, seed: i64| {
            let shape: Vec<usize> = shape.split(',').map(|d| d.parse().unwrap()).collect();
            let n = shape.iter().product::<usize>() as i64;
            let data = (0..n).map(|i| ((i * seed) % 23 - 11) as f32).collect::<Vec<f32>>();
            (name.to_owned(), Tensor::new(shape, data))
        };
        let outputs = run(&compiled.graph, &[whole("x", from, 7), whole("d", to, 5)]);
        let numbers: Vec<f64> = outputs.iter().map(|o| o.1.as_scalar_f64().unwrap()).collect();
        assert!(numbers[0] != 0.0 && numbers[0] == numbers[1], "{op}: {numbers:?}");
    }
}

/// Updates that reach the extreme of their place share its cotangent; what lies below it gets nothing.
#[test]
fn extremes_that_are_scattered() {
    for (op, sign) in [("max", ""), ("min", "-")] {
        let text = format!(
            "graph g {{
                in x: f32[3] = [{sign}1.0, {sign}5.0, {sign}2.0]
                in u: f32[5] = [{sign}3.0, {sign}3.0, {sign}5.0, {sign}1.0, {sign}2.0]
                in i: i64[5] = [0, 0, 1, 1, 2]
                in j: i64[5,1] = [0, 0, 1, 1, 2]
                const d: f32[3] = [8.0, 16.0, 32.0]
                y: f32[3] = ScatterElements(x, i, u) {{axis=0, reduction=\"{op}\"}}
                z: f32[3] = ScatterND(x, j, u) {{reduction=\"{op}\"}}
                s: f32[3] = Add(y, z)
                p: f32[3] = Mul(s, d)
                l: f32[] = ReduceSum(p) {{keepdims=0}}
                a: f32[3], b: f32[5] = Gradient(l, x, u)
                out a = a
                out b = b
            }}"
        );
        let graph = pam_ir::text::parse(&text, &[]).unwrap();
        for policy in ["native", "approx"] {
            let compiled = compile(&graph, &Policy::preset(policy).unwrap()).unwrap();
            let outputs = run(&compiled.graph, &[]);
            assert_eq!(named(&outputs, "a").to_f64().unwrap(), [0.0, 16.0, 32.0], "{op}, {policy}");
            let shares = [8.0, 8.0, 16.0, 0.0, 32.0];
            assert_eq!(named(&outputs, "b").to_f64().unwrap(), shares, "{op}, {policy}");
        }
    }
}

/// Two losses that share what they are made of, one of which holds the gradient of the other as a penalty.
#[test]
fn gradients_of_several_losses() {
    let text = "graph g {
        in x: f32[2] = [3.0, -2.0]
        in w: f32[2] = [1.5, 2.0]
        s: f32[2] = Mul(x, x)
        p: f32[2] = Mul(s, w)
        l: f32[] = ReduceSum(p) {keepdims=0}
        a: f32[2], b: f32[2] = Gradient(l, x, w)
        q: f32[2] = Mul(a, a)
        m: f32[] = ReduceSum(q) {keepdims=0}
        t: f32[] = Add(l, m)
        c: f32[2] = Gradient(t, w)
        out a = a
        out b = b
        out c = c
    }";
    let graph = pam_ir::text::parse(text, &[]).unwrap();
    let compiled = compile(&graph, &Policy::preset("native").unwrap()).unwrap();
    let outputs = run(&compiled.graph, &[]);
    let numbers = |name: &str| named(&outputs, name).to_f64().unwrap();
    // 2xw; x²; x² + 8x²w.
    assert_eq!(numbers("a"), [9.0, -8.0]);
    assert_eq!(numbers("b"), [9.0, 4.0]);
    assert_eq!(numbers("c"), [117.0, 68.0]);
    certified(&graph, &Policy::preset("approx").unwrap());
}

/// What PyTorch's exporter notes with nodes: `detach()`, and the row of an embedding that only pads.
#[test]
fn derivatives_end_where_the_exporter_says() {
    let text = "graph g {
        in w: f32[3,2] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        in rows: i64[3] = [0, 2, 2]
        e: f32[3,2] = Gather(w, rows)
        d: f32[3,2] = Identity(e)
        p: f32[3,2] = Mul(e, d)
        l: f32[] = ReduceSum(p) {keepdims=0}
        g: f32[3,2] = Gradient(l, w)
        out gradient = g
    }";
    let mut graph = pam_ir::text::parse(text, &[]).unwrap();
    let native = Policy::preset("native").unwrap();
    let gradient = |graph: &Graph| {
        let compiled = compile(graph, &native).unwrap();
        run(&compiled.graph, &[])[0].1.to_f64().unwrap()
    };
    assert_eq!(gradient(&graph), [2.0, 4.0, 0.0, 0.0, 20.0, 24.0]);
    for (node, call) in
        [(0, "embedding.default](args = (%p_w, %rows, 2)"), (1, "detach.default](args = (%e,)")]
    {
        let call = format!(
            "%v : [num_users=1] = call_function[target=torch.ops.aten.{call}, kwargs = {{}})"
        );
        graph.nodes[node].metadata.insert("pkg.torch.onnx.fx_node".to_owned(), call);
    }
    assert_eq!(gradient(&graph), [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
}

/// By what fills a border, by a divisor, and by values between whose steps nothing changes.
#[test]
fn operands_that_seldom_have_a_derivative() {
    let text = "graph g {
        in x: f32[2,3] = [-1.0, 2.5, 3.0, 4.0, -5.0, 7.0]
        in b: f32[2,1] = [2.0, 4.0]
        in c: f32[] = 0.5
        p: f32[3,4] = Pad(x, c) {pads=[1,0,0,1]}
        m: f32[2,3] = Mod(x, b) {fmod=1}
        f: f32[2,3] = Floor(x)
        s: f32[] = ReduceSum(p) {keepdims=0}
        t: f32[] = ReduceSum(m) {keepdims=0}
        u: f32[] = ReduceSum(f) {keepdims=0}
        gc: f32[] = Gradient(s, c)
        gb: f32[2,1] = Gradient(t, b)
        gf: f32[2,3] = Gradient(u, x)
        out gc = gc
        out gb = gb
        out gf = gf
    }";
    let graph = pam_ir::text::parse(text, &[]).unwrap();
    for policy in ["native", "approx", "exact"] {
        let certified = certified(&graph, &Policy::preset(policy).unwrap());
        let outputs = run(certified.graph(), &[]);
        let numbers = |name: &str| named(&outputs, name).to_f64().unwrap();
        assert_eq!(numbers("gc"), [6.0], "{policy}");
        assert_eq!(numbers("gf"), [0.0; 6], "{policy}");
        if policy == "native" {
            assert_eq!(numbers("gb"), [-2.0, -1.0]);
        }
    }
}

/// Derivatives where functions are put together from branches, and where a branch that is not taken, or a
/// factor of the derivative, is infinite: what PyTorch gives.
#[test]
fn derivatives_are_right_at_zero_and_far_out() {
    let ones = |n: usize| vec![1f32; n];
    let cases: [(&str, &str, Vec<f32>, Vec<f32>); 26] = [
        ("Tanh", "", vec![0.0, -0.0], ones(2)),
        ("Softplus", "", vec![0.0, -100.0, 100.0], vec![0.5, 0.0, 1.0]),
        ("Erf", "", vec![0.0], vec![std::f32::consts::FRAC_2_SQRT_PI]),
        ("Gelu", "", vec![0.0, -30.0, 30.0], vec![0.5, 0.0, 1.0]),
        ("Gelu", " {approximate=\"tanh\"}", vec![0.0], vec![0.5]),
        ("Mish", "", vec![0.0], vec![0.6]),
        ("Sin", "", vec![0.0], vec![1.0]),
        ("Cos", "", vec![0.0], vec![0.0]),
        ("Tan", "", vec![0.0], vec![1.0]),
        ("Asin", "", vec![0.0], vec![1.0]),
        ("Acos", "", vec![0.0], vec![-1.0]),
        ("Atan", "", vec![0.0, 1e4], vec![1.0, 0.0]),
        ("Asinh", "", vec![0.0], vec![1.0]),
        ("Softsign", "", vec![0.0], vec![1.0]),
        ("LeakyRelu", " {alpha=0.125}", vec![0.0, 1.0], vec![0.125, 1.0]),
        ("Elu", " {alpha=0.5}", vec![0.0], vec![0.5]),
        ("Selu", "", vec![0.0], vec![1.758_099]),
        ("Elu", "", vec![100.0, 300.0, -300.0], vec![1.0, 1.0, 0.0]),
        ("Selu", "", vec![300.0], vec![1.050_701]),
        ("Celu", " {alpha=0.5}", vec![300.0, -300.0], vec![1.0, 0.0]),
        ("Sigmoid", "", vec![-300.0, -99.0, 0.0, 300.0], vec![0.0, 0.0, 0.25, 0.0]),
        ("Swish", "", vec![-300.0, 0.0, 300.0], vec![0.0, 0.5, 1.0]),
        ("ReduceL2", " {keepdims=1}", vec![0.0, 0.0], vec![0.0, 0.0]),
        ("LpNormalization", " {axis=0}", vec![0.0, 0.0], vec![1.0, 1.0]),
        ("Pow1.5", "", vec![0.0, 4.0], vec![0.0, 3.0]),
        ("Pow5.0", "", vec![0.0, -1.0], vec![0.0, 5.0]),
    ];
    for (op, attrs, x, expected) in cases {
        let n = x.len();
        let (constant, call) = match op.strip_prefix("Pow") {
            Some(c) => (format!("const c: f32[] = {c}\n"), "Pow(x, c)".to_owned()),
            None => (String::new(), format!("{op}(x)")),
        };
        let m = if op == "ReduceL2" { 1 } else { n };
        let text = format!(
            "graph g {{\n in x: f32[{n}]\n {constant} y: f32[{m}] = {call}{attrs}\n
             l: f32[] = ReduceSum(y) {{keepdims=0}}\n g: f32[{n}] = Gradient(l, x)\n out g = g\n}}"
        );
        let graph = pam_ir::text::parse(&text, &[]).unwrap_or_else(|e| panic!("{e}\n{text}"));
        for policy in ["native", "approx", "exact"] {
            let certified = certified(&graph, &Policy::preset(policy).unwrap());
            let fed = [("x".to_owned(), Tensor::new([n], x.clone()))];
            let outputs = run(certified.graph(), &fed);
            let slopes = outputs[0].1.to_f64().unwrap();
            // Approximate ones hold PA products, each up to a ninth too small; exact ones are those of the
            // PA function, whose pieces are flatter or steeper than the curve.
            let bound = [("native", 1e-4), ("approx", 0.4), ("exact", 0.9)]
                .into_iter()
                .find_map(|(name, bound)| (name == policy).then_some(bound))
                .unwrap();
            for (x, (slope, expected)) in x.iter().zip(slopes.iter().zip(&expected)) {
                let error = (slope - f64::from(*expected)).abs();
                let small = error <= bound * f64::from(expected.abs()) + 1e-6;
                assert!(small, "{policy}: {op}'({x}) is {slope}, not {expected}");
            }
        }
    }
}

#[test]
fn masked_rows_and_integer_operands_are_right() {
    let evaluated = |lines: &str, policy: &str, fed: &[(&str, Tensor)]| -> Vec<f64> {
        let graph = pam_ir::text::parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap();
        let certified = certified(&graph, &Policy::preset(policy).unwrap());
        let fed: Vec<(String, Tensor)> =
            fed.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
        run(certified.graph(), &fed)[0].1.to_f64().unwrap()
    };
    let (low, none) = (f32::MIN, f32::NEG_INFINITY);
    // Masked whole by the lowest number, in part, and by −∞, which is NaN natively as well.
    let x = Tensor::new([3, 4], [[low; 4], [low, 1.0, low, 1.0], [none; 4]].concat());
    let integers = Tensor::new([2], vec![1i32, 1]);
    let w = Tensor::new([3], vec![1f32, 2.0, 3.0]);
    for policy in ["native", "approx", "exact"] {
        let softmax = "in x: f32[3,4]\ny: f32[3,4] = Softmax(x) {axis=-1}\nout y = y";
        let y = evaluated(softmax, policy, &[("x", x.clone())]);
        assert_eq!(y[..8], [0.25, 0.25, 0.25, 0.25, 0.0, 0.5, 0.0, 0.5], "{policy}");
        assert!(y[8..].iter().all(|y| y.is_nan()), "{policy}: {y:?}");
        let gathered = "in w: f32[3]\nin i: i32[2]\nt: f32[2] = Gather(w, i)\n\
                        l: f32[] = ReduceSum(t) {keepdims=0}\ng: f32[3] = Gradient(l, w)\nout g = g";
        let g = evaluated(gathered, policy, &[("w", w.clone()), ("i", integers.clone())]);
        assert_eq!(g, [0.0, 2.0, 0.0], "{policy}");
        let power = "in w: f32[3]\nin i: i32[1]\nt: f32[3] = Pow(w, i)\n\
                     l: f32[] = ReduceSum(t) {keepdims=0}\ng: f32[3] = Gradient(l, w)\nout g = g";
        let one = Tensor::new([1], vec![1i32]);
        let g = evaluated(power, policy, &[("w", w.clone()), ("i", one)]);
        assert!(g.iter().all(|g| (0.5..=2.0).contains(g)), "{policy}: {g:?}");
        // Rows masked by −∞ that a model replaces, as PyTorch's attention does, have no derivative; others do.
        let replaced = "in x: f32[3,4]\nin t: f32[3,4]\nconst zero: f32[] = 0.0\n\
                        p: f32[3,4] = Softmax(x) {axis=-1}\nn: bool[3,4] = IsNaN(p)\n\
                        q: f32[3,4] = Where(n, zero, p)\ns: f32[3,4] = Mul(q, t)\n\
                        l: f32[] = ReduceSum(s) {keepdims=0}\ng: f32[3,4] = Gradient(l, x)\nout g = g";
        let t = Tensor::new([3, 4], [[0.0f32, 1.0, 2.0, 4.0]; 3].concat());
        let g = evaluated(replaced, policy, &[("x", x.clone()), ("t", t)]);
        assert!(g[..8].iter().all(|g| g.is_finite()) && g[7] > 0.2, "{policy}: {g:?}");
        assert_eq!(g[8..], [0.0; 4], "{policy}");
    }
}
