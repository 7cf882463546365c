//! Backward passes: what each policy makes of a small step, and steps that cannot be differentiated.

use pam_ir::certify::{Target, certify};
use pam_ir::graph::Graph;
use pam_ir::text::{brief, parse};
use pam_passes::step::{LossSpec, OptimizerSpec, StepOptions, build};
use pam_passes::{Backward, Policy, compile};

fn graph(lines: &str) -> Graph {
    parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap()
}

/// A linear layer with a softmax, trained by gradient descent.
const STEP: &str = "in x: f32[2,3]
in labels: i64[2]
in w: f32[3,4]
in lr: f32[] = 0.5
z: f32[2,4] = MatMul(x, w) //@ layer forward matmul approx
l: f32[] = SoftmaxCrossEntropyLoss(z, labels) //@ loss loss loss approx
g: f32[3,4] = Gradient(l, w) //@ gradient backward other approx
s: f32[3,4] = Mul(g, lr) //@ scale optimizer optimizer approx
n: f32[3,4] = Sub(w, s) //@ update optimizer optimizer approx
out loss = l
out new.w = n
bind new.w -> w";

#[test]
fn policies_differ_in_the_backward_pass() {
    let before = graph(STEP);
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        for name in ["approx", "exact", "paper", "matmul", "native"] {
            let policy = Policy::preset(name).unwrap();
            let after = compile(&before, &policy).unwrap().graph;
            let target =
                if policy.keeps_native() { Target::Mixed } else { Target::MultiplicationFree };
            let certified = certify(after, target).unwrap_or_else(|v| panic!("{name}: {}", v[0]));
            insta::assert_snapshot!(format!("step_{name}"), brief(certified.graph()));
        }
    });
}

#[test]
fn an_imported_backward_is_kept_or_replaced() {
    // The gradient of a mean of squares, written out.
    let lines = "in x: f32[4]
in w: f32[4]
const half: f32[] = 0.5
y: f32[4] = Mul(x, w) //@ y forward other approx
q: f32[4] = Mul(y, y) //@ q loss loss approx
l: f32[] = ReduceMean(q) {keepdims=0} //@ l loss loss approx
d: f32[4] = Mul(y, half) //@ d backward other approx
w_grad: f32[4] = Mul(d, x) //@ g backward other approx
n: f32[4] = Sub(w, w_grad) //@ n optimizer optimizer approx
out loss = l
out new.w = n
bind new.w -> w";
    let mut before = graph(lines);
    for node in &mut before.nodes {
        node.metadata.insert("pam.role".to_owned(), node.role.name().to_owned());
    }
    let kept = compile(&before, &Policy::preset("approx").unwrap()).unwrap();
    assert!(kept.gradients.is_none());
    assert!(kept.graph.nodes.iter().any(|n| n.origin.as_ref().is_some_and(|o| &*o.node == "d")));
    let mut policy = Policy::preset("approx").unwrap();
    policy.backward = Backward::Regenerate;
    let new = compile(&before, &policy).unwrap();
    let gradients = new.gradients.unwrap();
    assert_eq!(gradients.pairs, [("w".to_owned(), "w_grad".to_owned())]);
    assert_eq!(gradients.evidence.name(), "names");
    assert!(!new.graph.nodes.iter().any(|n| n.origin.as_ref().is_some_and(|o| &*o.node == "d")));
    policy = Policy::preset("exact").unwrap();
    policy.backward = Backward::Keep;
    let error = compile(&before, &policy).unwrap_err().to_string();
    assert!(error.contains("node `y` (Mul)") && error.contains("--backward keep"), "{error}");
}

fn error(lines: &str, preset: &str) -> String {
    let error = compile(&graph(lines), &Policy::preset(preset).unwrap()).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn what_cannot_be_differentiated_is_named() {
    let e = error(
        "in x: f32[2]\nin u: f32[2]\nl: f32[] = ReduceSum(x) {keepdims=0}\n\
         g: f32[2], h: f32[2] = Gradient(l, x, u)\nout g = g\nout h = h",
        "approx",
    );
    assert!(e.contains("no path leads from the parameter `u` to the loss"), "{e}");
    let e = error(
        "in x: f32[1,4,4]\ny: f32[1,1,3,3] = Col2Im(x) {image_shape=[3, 3], block_shape=[2, 2]} //@ fold forward other exact\n\
         l: f32[] = ReduceSum(y) {keepdims=0}\ng: f32[1,4,4] = Gradient(l, x)\nout g = g",
        "exact",
    );
    assert!(e.contains("node `fold` (Col2Im): this op has no derivative;"), "{e}");
    let e = error(
        "in x: f32[2]\nl: f32[] = ReduceSum(x) {keepdims=0}\nm: f32[] = ReduceMax(x) {keepdims=0}\n\
         g: f32[2] = Gradient(l, x)\nh: f32[2] = Gradient(m, x)\nout g = g\nout h = h",
        "approx",
    );
    assert!(e.contains("gradients of both `l` and `m`"), "{e}");
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
    assert!(refuse(STEP, "cross-entropy").contains("is a training step already"));
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
    let frozen = StepOptions {
        loss: LossSpec::MeanSquaredError,
        optimizer: OptimizerSpec::parse("sgd").unwrap(),
        freeze: vec![regex::Regex::new("emb").unwrap()],
    };
    let error = build(&graph(forward), &frozen).unwrap_err().to_string();
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
    let options = StepOptions {
        loss: LossSpec::MeanSquaredError,
        optimizer: OptimizerSpec::parse("sgd:momentum=0.9").unwrap(),
        freeze: Vec::new(),
    };
    let step = build(&graph(forward), &options).unwrap();
    let outputs: Vec<&str> = step.outputs.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["loss", "y", "new.w", "new.w.momentum_buffer"]);
    assert_eq!(step.bindings.len(), 2);
}

/// The names of what a step of mean squares trains.
fn trained(lines: &str) -> Vec<String> {
    let options = StepOptions {
        loss: LossSpec::MeanSquaredError,
        optimizer: OptimizerSpec::parse("sgd:momentum=0").unwrap(),
        freeze: Vec::new(),
    };
    let step = build(&graph(lines), &options).unwrap();
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
