//! Imported backward passes that are replaced: which values are the gradients, and what is said where they differ.

mod common;

use common::{arrays, named};
use pam_ir::graph::Graph;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_ir::tensor::Tensor;
use pam_passes::{Policy, compile};
use std::path::{Path, PathBuf};

/// A graph as a file of a folder, which says of each node what its role is or does not.
fn written(graph: &Graph, folder: &Path, roles: bool) -> PathBuf {
    let model = pam_ir::onnx::export::export(graph, &Default::default(), &Default::default());
    let mut model = model.unwrap();
    for node in model.graph.iter_mut().flat_map(|g| &mut g.node).filter(|_| !roles) {
        node.metadata_props.retain(|p| !p.key().starts_with("pam."));
    }
    let path = folder.join("step.onnx");
    std::fs::write(&path, prost::Message::encode_to_vec(&model)).unwrap();
    path
}

/// Asserts that a step whose gradients are computed anew natively gives what it gives as it stands; what is said of it.
fn regenerated_is_the_same(graph: &Graph, data: &[(&str, Tensor)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = written(graph, folder.path(), false);
    let inputs = folder.path().join("inputs.npz");
    let data: Vec<(String, Tensor)> =
        data.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
    pam_runtime::io::npz::write(&inputs, &data).unwrap();
    let [(kept, _), (anew, said)] = ["keep", "regenerate"].map(|backward| {
        let out = folder.path().join(format!("{backward}.npz"));
        let args = [
            "run".as_ref(),
            path.as_os_str(),
            "-q".as_ref(),
            "--policy".as_ref(),
            "native".as_ref(),
            "--backward".as_ref(),
            backward.as_ref(),
            "--inputs".as_ref(),
            inputs.as_os_str(),
            "--outputs".as_ref(),
            out.as_os_str(),
        ];
        let (_, said) = common::expect(0, args);
        (arrays(&out), said)
    });
    for (name, value) in &kept {
        assert!(common::difference(named(&anew, name), value) < 1e-5, "{name}");
    }
    said
}

#[test]
fn a_gradient_is_recognised_by_its_values() {
    // Both the gradient and its clipped form enter the optimizer, under names that say nothing.
    let text = "graph g {
        in x: f32[4]
        in w: f32[4] = [1.0, -2.0, 3.0, 0.5]
        const half: f32[] = 0.5
        const low: f32[] = -0.01
        const high: f32[] = 0.01
        a: f32[4] = Mul(x, w) //@ a forward other approx
        b: f32[4] = Mul(a, a) //@ b loss loss approx
        c: f32[] = ReduceMean(b) {keepdims=0} //@ c loss loss approx
        d: f32[4] = Mul(a, half) //@ d backward other approx
        e: f32[4] = Mul(d, x) //@ e backward other approx
        f: f32[4] = Clip(e, low, high) //@ f backward other approx
        g: f32[4] = Add(e, f) //@ g optimizer optimizer approx
        h: f32[4] = Sub(w, g) //@ h optimizer optimizer approx
        out loss = c
        out new.w = h
        bind new.w -> w
    }";
    let graph = pam_ir::text::parse(text, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = written(&graph, folder.path(), true);
    let out = folder.path().join("out.onnx");
    let args =
        [path.as_os_str(), "--policy".as_ref(), "exact".as_ref(), "-o".as_ref(), out.as_os_str()];
    let (printed, _) = common::expect(0, args);
    assert!(printed.contains("1 computed anew, found by evaluation"), "{printed}");
    // A library that cannot execute says what it lacks.
    let file = ModelFile { model: load(&path).unwrap(), path };
    let graph = import(&[file], &ImportOptions::default()).unwrap().graph;
    let error = compile(&graph, &Policy::preset("exact").unwrap()).unwrap_err().to_string();
    assert!(error.contains("which value is the gradient of `w` is not clear"), "{error}");
}

/// A backward pass that is not the derivative, as a straight-through estimator has it, is kept with a warning.
#[test]
fn a_backward_pass_that_differs_is_kept_and_warned_of() {
    let step = |slope: f32| {
        let text = format!(
            "graph g {{\n in x: f32[4]\n in w: f32[4] = [1.0, -2.0, 3.0, 0.5]\n const c: f32[] = {slope}\n
             a: f32[4] = Mul(x, w) //@ a forward other approx\n
             b: f32[4] = Mul(a, a) //@ b loss loss approx\n
             l: f32[] = ReduceSum(b) {{keepdims=0}} //@ l loss loss approx\n
             d: f32[4] = Mul(a, c) //@ d backward other approx\n
             e: f32[4] = Mul(d, x) //@ e backward other approx\n
             h: f32[4] = Sub(w, e) //@ h optimizer optimizer approx\n
             out loss = l\n out new.w = h\n bind new.w -> w\n}}"
        );
        pam_ir::text::parse(&text, &[]).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    for (slope, warned) in [(2.0, false), (3.0, true)] {
        let path = written(&step(slope), folder.path(), true);
        let out = folder.path().join("out.onnx");
        for (policy, compared) in [("exact", true), ("approx", false)] {
            let args = [
                path.as_os_str(),
                "-q".as_ref(),
                "--policy".as_ref(),
                policy.as_ref(),
                "-o".as_ref(),
                out.as_os_str(),
            ];
            let (_, said) = common::expect(0, args);
            let warning =
                said.contains("gradient of `w` is not the derivative of its forward pass");
            assert_eq!(warning, warned && compared, "{slope} {policy}: {said}");
        }
    }
}

/// Nothing is exact in a step whose parameters are not known.
#[test]
fn exact_derivatives_without_a_step_are_warned_of() {
    let text = "graph g {\n in x: f32[4]\n in w: f32[4]\n a: f32[4] = Mul(x, w)\n\
                l: f32[] = ReduceSum(a) {keepdims=0}\n out l = l\n}";
    let graph = pam_ir::text::parse(text, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = written(&graph, folder.path(), true);
    for (policy, warned) in [("approx", false), ("exact", true)] {
        let args = [path.as_os_str(), "--policy".as_ref(), policy.as_ref(), "-q".as_ref()];
        let (_, said) = common::expect(0, args);
        assert_eq!(said.contains("no training step is recognised"), warned, "{policy}: {said}");
    }
}

/// Optimizers that begin with what backward passes consist of: the gradient without its mean, and a sign.
#[test]
fn optimizers_may_begin_like_backward_passes() {
    let step = |update: &str| {
        let text = format!(
            "graph g {{
            in x: f32[3,4]
            in w: f32[4,2] = [1.0, -2.0, 3.0, 0.5, -0.25, 0.75, 2.0, -1.0]
            in b: f32[2] = [0.5, -0.5]
            in m: f32[4,2] = [0.1, 0.2, -0.3, 0.4, 0.5, -0.6, 0.7, 0.8]
            const two: f32[] = 2.0
            const lr: f32[] = 0.125
            p: f32[3,2] = MatMul(x, w)
            a: f32[3,2] = Add(p, b)
            q: f32[3,2] = Mul(a, a)
            l: f32[] = ReduceSum(q) {{keepdims=0}}
            d: f32[3,2] = Mul(a, two)
            xt: f32[4,3] = Transpose(x) {{perm=[1,0]}}
            gw: f32[4,2] = MatMul(xt, d)
            gb: f32[2] = ReduceSum(d) {{axes=[0],keepdims=0}}
            {update}
            sb: f32[2] = Mul(gb, lr)
            nb: f32[2] = Sub(b, sb)
            sw: f32[4,2] = Mul(u, lr)
            nw: f32[4,2] = Sub(w, sw)
            out loss = l
            out new.w = nw
            out new.b = nb
            out new.m = nm
            bind new.w -> w
            bind new.b -> b
            bind new.m -> m
        }}"
        );
        pam_ir::text::parse(&text, &[]).unwrap()
    };
    let x = (0..12).map(|i| i as f32 / 4.0 - 1.0).collect::<Vec<f32>>();
    let data = [("x", Tensor::new([3, 4], x))];
    let centred = "me: f32[4,1] = ReduceMean(gw) {axes=[1]}
            u: f32[4,2] = Sub(gw, me)
            nm: f32[4,2] = Add(m, u)";
    let signed = "g: f32[4,2] = Add(gw, m)
            u: f32[4,2] = Sign(g)
            me: f32[4,1] = ReduceMean(gw) {axes=[1]}
            nm: f32[4,2] = Add(m, me)";
    for update in [centred, signed] {
        assert_eq!(regenerated_is_the_same(&step(update), &data), "");
    }
}

/// Where a whole step is recorded, PyTorch marks parameters and losses as detached, and derivatives that are
/// themselves differentiated. The gradients of the file tell which marks count.
#[test]
fn marks_count_that_the_gradients_agree_with() {
    // Once with the gradient of a constant d, once with that of a square.
    for (marked, through) in [("u,l", true), ("u,d,l", true), ("u,d,l", false), ("d", false)] {
        let text = format!(
            "graph g {{
            in x: f32[4]
            in w: f32[4] = [1.0, -2.0, 3.0, 0.5]
            const factor: f32[] = {}
            u: f32[4] = Identity(w)
            a: f32[4] = Mul(x, u)
            d: f32[4] = Identity(a)
            q: f32[4] = Mul(a, d)
            s: f32[] = ReduceSum(q) {{keepdims=0}}
            l: f32[] = Identity(s)
            e: f32[4] = Mul(a, factor)
            f: f32[4] = Mul(e, x)
            h: f32[4] = Sub(w, f)
            out loss = l
            out new.w = h
            bind new.w -> w
        }}",
            if through { 2.0 } else { 1.0 }
        );
        let mut graph = pam_ir::text::parse(&text, &[]).unwrap();
        for node in &mut graph.nodes {
            let call = format!(
                "%v : [num_users=1] = call_function[target=torch.ops.aten.detach.default](args = (%{},), kwargs = {{}})",
                node.name
            );
            if marked.split(',').any(|name| name == node.name) {
                node.metadata.insert("pkg.torch.onnx.fx_node".to_owned(), call);
            }
        }
        let x = Tensor::vector(vec![0.5f32, 1.5, -1.0, 2.0]);
        assert_eq!(regenerated_is_the_same(&graph, &[("x", x)]), "");
    }
}

/// A straight-through estimator lets the gradient pass where a weight is rounded.
#[test]
fn gradients_behind_what_rounds_are_kept() {
    let text = "graph g {
        in x: f32[3,4]
        in w: f32[4,2] = [1.2, -2.1, 3.0, 0.6, -0.25, 0.75, 2.0, -1.0]
        in b: f32[2] = [0.5, -0.5]
        const two: f32[] = 2.0
        const lr: f32[] = 0.125
        r: f32[4,2] = Round(w)
        p: f32[3,2] = MatMul(x, r)
        a: f32[3,2] = Add(p, b)
        q: f32[3,2] = Mul(a, a)
        l: f32[] = ReduceSum(q) {keepdims=0}
        d: f32[3,2] = Mul(a, two)
        xt: f32[4,3] = Transpose(x) {perm=[1,0]}
        gw: f32[4,2] = MatMul(xt, d)
        gb: f32[2] = ReduceSum(d) {axes=[0],keepdims=0}
        sb: f32[2] = Mul(gb, lr)
        nb: f32[2] = Sub(b, sb)
        sw: f32[4,2] = Mul(gw, lr)
        nw: f32[4,2] = Sub(w, sw)
        out loss = l
        out new_w = nw
        out new_b = nb
    }";
    let graph = pam_ir::text::parse(text, &[]).unwrap();
    let x = (0..12).map(|i| i as f32 / 4.0 - 1.0).collect::<Vec<f32>>();
    let said = regenerated_is_the_same(&graph, &[("x", Tensor::new([3, 4], x))]);
    let warning = "gradient of `w` is not the derivative of its forward pass";
    assert!(said.contains(warning) && said.lines().count() == 1, "{said}");
}

/// A target network follows the one that is trained, and a generator has a loss of its own: neither is given the
/// derivative of what is reported as the loss.
#[test]
fn gradients_of_other_losses_are_kept() {
    let text = "graph g {
        in x: f32[4]
        in w: f32[4] = [1.0, -2.0, 3.0, 0.5]
        in t: f32[4] = [0.5, 0.25, -1.0, 2.0]
        in v: f32[4] = [0.75, 1.5, -0.5, 1.0]
        const two: f32[] = 2.0
        const lr: f32[] = 0.125
        const slow: f32[] = 0.0625
        p: f32[4] = Mul(x, w)
        q: f32[4] = Mul(x, t)
        r: f32[4] = Mul(p, v)
        d: f32[4] = Sub(p, q)
        e: f32[4] = Sub(d, r)
        s: f32[4] = Mul(e, e)
        l: f32[] = ReduceSum(s) {keepdims=0}
        de: f32[4] = Mul(e, two)
        dp: f32[4] = Mul(de, v)
        dd: f32[4] = Sub(de, dp)
        gw: f32[4] = Mul(dd, x)
        gv: f32[4] = Mul(de, p)
        sw: f32[4] = Mul(gw, lr)
        nw: f32[4] = Sub(w, sw)
        sv: f32[4] = Mul(gv, lr)
        nv: f32[4] = Sub(v, sv)
        gap: f32[4] = Sub(nw, t)
        step: f32[4] = Mul(gap, slow)
        nt: f32[4] = Add(t, step)
        out loss = l
        out new.w = nw
        out new.t = nt
        out new.v = nv
        bind new.w -> w
        bind new.t -> t
        bind new.v -> v
    }";
    let graph = pam_ir::text::parse(text, &[]).unwrap();
    let x = Tensor::vector(vec![0.5f32, 1.5, -1.0, 2.0]);
    let said = regenerated_is_the_same(&graph, &[("x", x)]);
    // The loss falls along gv; it is minus the derivative.
    let warning = "gradients of `t`, `v` are not the derivatives of their forward pass";
    assert!(said.contains(warning) && said.lines().count() == 1, "{said}");
}
