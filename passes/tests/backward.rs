//! Backward passes: what each policy makes of a small step, and steps that cannot be differentiated.

use pam_ir::certify::{Target, certify};
use pam_ir::graph::Graph;
use pam_ir::text::{brief, parse};
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
        "in x: f32[2]\nin i: i64[3]\ny: f32[3,4] = OneHot(i, x) {depth=4} //@ hot forward other exact\n\
         l: f32[] = ReduceSum(y) {keepdims=0}\ng: f32[2] = Gradient(l, x)\nout g = g",
        "exact",
    );
    assert!(e.contains("node `hot` (OneHot): this op has no derivative;"), "{e}");
}
