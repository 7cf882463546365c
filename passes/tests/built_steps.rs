//! Training steps that are built around forward graphs: what they train, what they carry on, and what they refuse.

use pam_ir::graph::{Binding, Graph};
use pam_ir::op::Op;
use pam_ir::text::{brief, parse};
use pam_passes::step::{LossSpec, OptimizerSpec, StepOptions, build, warnings};

fn graph(lines: &str) -> Graph {
    parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap()
}

fn options(optimizer: &str, frozen: &[&str]) -> StepOptions {
    StepOptions {
        loss: LossSpec::MeanSquaredError,
        optimizer: OptimizerSpec::parse(optimizer).unwrap(),
        freeze: frozen.iter().map(|f| regex::Regex::new(f).unwrap()).collect(),
    }
}

#[test]
fn steps_that_cannot_be_built_are_refused() {
    let refuse = |lines: &str, loss: &str| -> String {
        let options = StepOptions {
            loss: LossSpec::parse(loss).unwrap(),
            optimizer: OptimizerSpec::parse("sgd").unwrap(),
            freeze: Vec::new(),
        };
        build(&graph(lines), &options).unwrap_err().to_string()
    };
    let forward = "in x: f32[2,3]\nin w: f32[3,4] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]\n\
                   y: f32[2,4] = MatMul(x, w)\nout y = y";
    assert!(refuse(forward, "total").contains("no output is named `total`; there are `y`"));
    assert!(refuse(forward, "y").contains("output `y` is f32[2,4], but a loss is one float"));
    let step = format!("{forward}\nn: f32[3,4] = Neg(w)\nout new.w = n\nbind new.w -> w");
    assert!(refuse(&step, "cross-entropy").contains("is a training step already"));
    let bare = "in x: f32[2,3]\ny: f32[2,3] = Abs(x)\nout y = y";
    assert!(refuse(bare, "mse").contains("no weights to train"));
    // The classes of an image lie along its second axis, which only the user knows.
    let image = "in x: f32[2,4,4]\nin w: f32[4,4,1] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0]\n\
                 y: f32[2,4,4] = Conv(x, w)\nout y = y";
    for (loss, shape) in
        [("cross-entropy", "perm=[0, 1, 2]"), ("cross-entropy:axis=1", "perm=[0, 2, 1]")]
    {
        let options = StepOptions {
            loss: LossSpec::parse(loss).unwrap(),
            optimizer: OptimizerSpec::parse("sgd").unwrap(),
            freeze: Vec::new(),
        };
        let text = brief(&build(&graph(image), &options).unwrap());
        assert!(text.contains(shape), "{text}");
    }
    assert!(refuse(forward, "cross-entropy:axis=2").contains("no axis 2 of classes"));
    let half = "in x: f16[2,2]\nconst w: f16[2,2] = [1.0, 2.0, 3.0, 4.0]\n\
                y: f16[2,2] = MatMul(x, w)\nout y = y";
    assert!(refuse(half, "mse").contains("the weight `w` is f16[2,2]"), "{}", refuse(half, "mse"));
    let error = build(&graph(forward), &options("sgd", &["emb"])).unwrap_err().to_string();
    assert!(error.contains("matches /emb/; what is trained begins with `w`"), "{error}");
    for (settings, reason) in [
        ("sgd:lr=0.1,lr=0.2", "given already"),
        ("sgd:momentum=-1", "must not be negative"),
        ("sgd:nesterov=1", "needs a momentum"),
        ("adamw:beta2=1", "below 1"),
        ("adamw:beta=0.5", "no setting `beta`"),
    ] {
        let error = OptimizerSpec::parse(settings).unwrap_err();
        assert!(error.contains(reason), "{settings}: {error}");
    }
    let step = build(&graph(forward), &options("sgd:momentum=0.9", &[])).unwrap();
    let outputs: Vec<&str> = step.outputs.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["loss", "y", "new.w", "new.w.momentum_buffer"]);
    assert_eq!(step.bindings.len(), 2);
}

/// The names of what a step of mean squares trains.
fn trained(lines: &str) -> Vec<String> {
    names(&build(&graph(lines), &options("sgd:momentum=0", &[])).unwrap())
}

/// The names of the state that a step carries.
fn names(step: &Graph) -> Vec<String> {
    step.bindings.iter().map(|b| b.old.clone()).collect()
}

#[test]
fn weights_are_told_from_constants() {
    let lines = "in x: f32[2,3]\nconst w: f32[3,1] = [1.0, 2.0, 3.0]\nconst b: f32[1] = [0.5]\n\
                 const eps: f32[] = 0.1\nconst block.0.scale: f32[1] = [2.0]\n\
                 const v: f32[2,1] = [0.5, 2.0]\nconst low: f32[] = 0.0\nconst high: f32[] = 1.0\n\
                 const two: f32[2,1] = [2.0, 3.0]\n\
                 m: f32[2,1] = MatMul(x, w)\na: f32[2,1] = Add(m, b)\ne: f32[2,1] = Add(a, eps)\n\
                 s: f32[2,1] = Mul(e, block.0.scale)\nc: f32[2,1] = Clip(v, low, high)\n\
                 p: f32[2,1] = Pow(s, two)\ny: f32[2,1] = Mul(p, c)\nout y = y";
    assert_eq!(trained(lines), ["w", "b", "block.0.scale", "v"]);
}

#[test]
fn layers_that_are_applied_twice_stay_tied() {
    let weights = "in x: f32[2,2]\nin z: f32[2,2]\nconst w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]\n\
                   const v: f32[2,2] = [1.0, 2.0, 3.0, 5.0]\nconst b: f32[2] = [0.0, 0.0]\n\
                   const one: f32[2] = [1.0, 1.0]\n";
    // One layer with its norm on both inputs, as in a siamese network.
    let siamese = "m: f32[2,2] = MatMul(x, w)\na: f32[2,2] = Add(m, b)\n\
                   n: f32[2,2], _, _ = LayerNormalization(a, one, b)\n\
                   k: f32[2,2] = MatMul(z, w)\nc: f32[2,2] = Add(k, b)\n\
                   o: f32[2,2], _, _ = LayerNormalization(c, one, b)\ny: f32[2,2] = Sub(n, o)\nout y = y";
    let both = format!("{weights}{siamese}").replace(", _, _", "");
    assert_eq!(trained(&both), ["w", "b", "one", "b.2"]);
    // Two layers whose biases and norms the exporter has merged.
    let other = both.replace("MatMul(z, w)", "MatMul(n, v)");
    assert_eq!(trained(&other), ["w", "v", "b", "one", "b.2", "b.3", "one.2", "b.4"]);
    // Two norms of one result.
    let parallel = "m: f32[2,2] = MatMul(x, w)\nn: f32[2,2] = LayerNormalization(m, one)\n\
                    o: f32[2,2] = LayerNormalization(m, one)\ny: f32[2,2] = Sub(n, o)\nout y = y";
    assert_eq!(trained(&format!("{weights}{parallel}")), ["w", "one", "one.2"]);
    // A norm behind two layers, by the names of its calls, and another one that begins equal.
    let named = "in x: f32[2,2]\nconst w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]\n\
                 const v: f32[2,2] = [1.0, 2.0, 3.0, 5.0]\nconst f.n.weight: f32[2] = [1.0, 1.0]\n\
                 m: f32[2,2] = MatMul(x, w)\n/f/n/LayerNorm: f32[2,2] = LayerNormalization(m, f.n.weight)\n\
                 k: f32[2,2] = MatMul(/f/n/LayerNorm, v)\n\
                 /f/n_1/LayerNorm: f32[2,2] = LayerNormalization(k, f.n.weight)\n\
                 /f/p/LayerNorm: f32[2,2] = LayerNormalization(/f/n_1/LayerNorm, f.n.weight)\n\
                 out y = /f/p/LayerNorm";
    assert_eq!(trained(named), ["w", "v", "f.n.weight", "f.n.weight.2"]);
}

#[test]
fn what_a_layer_takes_apart_is_tied_with_it() {
    // A layer that is applied twice splits its biases each time; a product by 0 · c has no bias.
    let gates = "in x: f32[2,2]\nconst w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]\nconst b: f32[2,2] = [0.0, 0.0, 0.0, 0.0]\n\
                 const v: f32[2,2] = [1.0, 2.0, 3.0, 5.0]\nconst c: f32[2] = [0.0, 0.0]\n\
                 p: f32[1,2], q: f32[1,2] = Split(b) {axis=0, split=[1, 1]}\n\
                 m: f32[2,2] = MatMul(x, w)\na: f32[2,2] = Add(m, p)\ng: f32[2,2] = Mul(a, q)\n\
                 r: f32[1,2], s: f32[1,2] = Split(b) {axis=0, split=[1, 1]}\n\
                 n: f32[2,2] = MatMul(g, w)\nd: f32[2,2] = Add(n, r)\nh: f32[2,2] = Mul(d, s)\n\
                 y: f32[2,2] = Gemm(h, v, c) {beta=0.0}\nout y = y";
    assert_eq!(trained(gates), ["w", "b", "v"]);
}

#[test]
fn names_and_ties_of_exporters_are_understood() {
    // Weights that began equal are written once, with identities that bear the names of the others; one layer is
    // applied twice, and its bias differs from that of the other one.
    let aliased = "in x: f32[2,2]\nconst w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]\n\
                   const last.bias: f32[2] = [0.0, 0.0]\nfirst.bias: f32[2] = Identity(last.bias)\n\
                   m: f32[2,2] = MatMul(x, w)\na: f32[2,2] = Add(m, first.bias)\n\
                   n: f32[2,2] = MatMul(a, w)\nb: f32[2,2] = Add(n, first.bias)\n\
                   y: f32[2,2] = Add(b, last.bias)\nout y = y";
    assert_eq!(trained(aliased), ["w", "last.bias", "first.bias"]);
    // A weight that is used both ways is written twice, once transposed.
    let tied = "in x: f32[2,2]\nconst val_2: f32[2,3] = [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]\n\
                const embed.weight: f32[3,2] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]\n\
                h: f32[2,3] = MatMul(x, val_2)\ny: f32[2,2] = MatMul(h, embed.weight)\nout y = y";
    assert_eq!(trained(tied), ["embed.weight"]);
    let masks = "in x: f32[2,2]\nconst w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]\n\
                 const mask: f32[2] = [0.0, -3.4e38]\nconst /f/Constant_3_output_0: f32[2] = [1.0, 2.0]\n\
                 m: f32[2,2] = MatMul(x, w)\na: f32[2,2] = Add(m, mask)\n\
                 y: f32[2,2] = Add(a, /f/Constant_3_output_0)\nout y = y";
    assert_eq!(trained(masks), ["w"]);
}

#[test]
fn parameters_that_begin_equal_are_not_tied() {
    // Layers that began as copies are written once as well; other exporters give what reads a variable a name.
    for (name, trains) in [("first.w", &["last.w", "first.w"][..]), ("first/read", &["last.w"])] {
        let lines = format!(
            "in x: f32[2,2]\nconst last.w: f32[2,2] = [1.0, 0.5, 0.25, 2.0]\n{name}: f32[2,2] = Identity(last.w)\n\
             m: f32[2,2] = MatMul(x, {name})\ny: f32[2,2] = MatMul(m, last.w)\nout y = y"
        );
        assert_eq!(trained(&lines), trains);
    }
}

#[test]
fn weights_of_classes_are_not_trained() {
    let lines = "in x: f32[2,2]\nin t: i64[2]\nconst w: f32[2,2] = [1.0, 0.5, 0.25, 2.0]\n\
                 const c.weight: f32[2] = [1.0, 3.0]\nm: f32[2,2] = MatMul(x, w)\n\
                 l: f32[] = SoftmaxCrossEntropyLoss(m, t, c.weight)\nout l = l";
    assert_eq!(trained(lines), ["w"]);
}

#[test]
fn what_the_loss_does_not_depend_on_is_not_trained() {
    let lines = "in x: f32[2,2]\nconst w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]\n\
                 const other: f32[2,2] = [1.0, 2.0, 3.0, 5.0]\nconst rank: f32[2,2] = [2.0, 2.0, 3.0, 5.0]\n\
                 y: f32[2,2] = MatMul(x, w)\nz: f32[2,2] = MatMul(y, other)\n\
                 r: f32[2,2] = MatMul(x, rank)\ni: i64[2] = ArgMax(r) {axis=1, keepdims=0}\n\
                 v: f32[2,2] = Gather(y, i)\nout v = v\nout z = z";
    assert_eq!(trained(lines), ["w"]);
}

/// Lines as PyTorch's exporter writes them.
fn signed(lines: &str, signature: &str) -> Graph {
    let mut graph = graph(lines);
    let key = "pkg.torch.export.ExportedProgram.graph_signature".to_owned();
    graph.meta.graph_properties.insert(key, format!("\n# inputs\n{signature}\n"));
    graph
}

#[test]
fn a_signature_says_what_is_a_parameter() {
    let lines = "in x: f32[2,2]\nconst f.w: f32[2,2] = [1.0, 2.0, 3.0, 4.0]\nconst f.table: f32[2] = [1.0, 2.0]\n\
                 const p: f32[] = 3.0\nconst f.lifted_tensor_0: f32[] = 2.0\nconst val_1: f32[2] = [0.5, 4.0]\n\
                 m: f32[2,2] = MatMul(x, f.w)\nt: f32[2,2] = Mul(m, f.table)\nq: f32[2,2] = Pow(t, p)\n\
                 s: f32[2,2] = Div(q, f.lifted_tensor_0)\ny: f32[2,2] = Add(s, val_1)\nout y = y";
    assert_eq!(trained(lines), ["f.w", "f.table", "f.lifted_tensor_0", "val_1"]);
    let signature = "p_f_w: PARAMETER target='f.w'\np_p: PARAMETER target='p'\n\
                     b_f_table: BUFFER target='f.table' persistent=False\n\
                     c_f_lifted_tensor_0: CONSTANT_TENSOR target='f.lifted_tensor_0'\nx: USER_INPUT";
    let sgd = options("sgd:momentum=0", &[]);
    let step = build(&signed(lines, signature), &sgd).unwrap();
    assert_eq!(names(&step), ["f.w", "p"]);
    assert!(warnings(&step).is_empty());
    // A parameter is missing, so that what has another name may have been made of it.
    let folded = format!("{signature}\np_f_b: PARAMETER target='f.b'");
    let step = build(&signed(lines, &folded), &sgd).unwrap();
    assert_eq!(names(&step), ["f.w", "p", "val_1"]);
    let said = warnings(&step);
    assert!(said[0].contains("`val_1` trained in place") && said[0].contains("`f.b`"), "{said:?}");
    let mut optimised = signed(lines, signature);
    let call = "%mul : [num_users=1] = call_function[target=torch.ops.aten.mul.Tensor](args = (%linear, %detach_1), kwargs = {})";
    optimised.nodes[1].metadata.insert("pkg.torch.onnx.fx_node".to_owned(), call.to_owned());
    let said = warnings(&build(&optimised, &sgd).unwrap());
    assert!(said[0].contains("`detach()` that was optimised away"), "{said:?}");
    // A program that updates a buffer where the graph does not.
    let updating = format!("{signature}\n\n# outputs\nmul: BUFFER_MUTATION target='f.table'");
    let said = warnings(&build(&signed(lines, &updating), &sgd).unwrap());
    assert!(said[0].contains("updates `f.table`"), "{said:?}");
}

#[test]
fn running_statistics_are_state() {
    let lines = "in x: f32[2,2]\nconst w: f32[2] = [1.0, 2.0]\nconst b: f32[2] = [0.0, 3.0]\n\
                 const n.mean: f32[2] = [0.5, 1.0]\nconst n.var: f32[2] = [1.0, 2.0]\n\
                 h: f32[2,2] = BatchNormalization(x, w, b, n.mean, n.var) {training_mode=1}\n\
                 y: f32[2,2], mean: f32[2], var: f32[2] = \
                 BatchNormalization(h, w, b, n.mean, n.var) {training_mode=1}\nout y = y";
    let step = build(&graph(lines), &options("sgd:momentum=0", &[])).unwrap();
    assert_eq!(names(&step), ["w", "b", "n.mean", "n.var"]);
    let binding = Binding { new: "new.n.mean".to_owned(), old: "n.mean".to_owned() };
    assert!(step.bindings.contains(&binding));
    // The second application goes on from what the first one has made.
    let norms: Vec<_> = step.nodes.iter().filter(|n| n.op == Op::BatchNormalization).collect();
    assert_eq!(norms[1].input(3), norms[0].output(1));
    let new = step.outputs.iter().find(|o| o.name == "new.n.var").unwrap();
    assert_eq!(Some(new.value), norms[1].output(2));
    let step = build(&graph(lines), &options("sgd:momentum=0", &["^n"])).unwrap();
    assert_eq!(names(&step), ["w", "b"]);
    let inference =
        lines.replace("{training_mode=1}", "").replace(", mean: f32[2], var: f32[2]", "");
    assert_eq!(trained(&inference), ["w", "b"]);
}
