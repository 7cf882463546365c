//! The training loop on a small regression and classification step.

mod common;
use common::{certified, graph};
use pam_ir::tensor::Tensor;
use pam_runtime::train::{
    Dataset, EpochMetrics, Progress, Silent, StepMetrics, Summary, TrainOptions, train,
};
use pam_runtime::{Executor, PlanOptions, plan};

/// Softmax regression on two features by plain gradient descent, with native arithmetic.
const STEP: &str = "
    in x: f32[4,2]
    in y: i64[4]
    in lr: f32[]
    in w: f32[2,3]
    const quarter: f32[] = 0.25
    const values: f32[2] = [0.0, 1.0]
    logits: f32[4,3] = MatMul(x, w)
    m: f32[4,1] = ReduceMax(logits) {axes=[1]}
    z: f32[4,3] = Sub(logits, m)
    e: f32[4,3] = Exp(z)
    s: f32[4,1] = ReduceSum(e) {axes=[1]}
    p: f32[4,3] = Div(e, s)
    t: f32[4,3] = OneHot(y, values) {depth=3}
    l: f32[4,1] = Log(s)
    lp: f32[4,3] = Sub(z, l)
    picked: f32[4,3] = Mul(lp, t)
    sum: f32[] = ReduceSum(picked) {keepdims=0}
    minus: f32[] = Neg(sum)
    loss: f32[] = Mul(minus, quarter)
    d: f32[4,3] = Sub(p, t)
    dm: f32[4,3] = Mul(d, quarter)
    xt: f32[2,4] = Transpose(x) {perm=[1,0]}
    g: f32[2,3] = MatMul(xt, dm)
    step: f32[2,3] = Mul(g, lr)
    w2: f32[2,3] = Sub(w, step)
    out loss = loss
    out logits = logits
    out new.w = w2
    bind new.w -> w";

fn executor(threads: usize) -> Executor {
    let certified = certified(graph(STEP));
    let mut e = Executor::new(plan(&certified, PlanOptions::default()).unwrap(), threads).unwrap();
    e.set("w", &Tensor::new([2, 3], vec![0.1f32, -0.2, 0.3, 0.0, 0.2, -0.1])).unwrap();
    e
}

/// Three clusters, 22 training and 6 test samples.
fn dataset() -> Dataset {
    let sample = |i: usize| {
        let angle = (i % 3) as f32 * 2.1 + (i * 7 % 5) as f32 * 0.1;
        [angle.cos(), angle.sin()]
    };
    let x = |from: usize, n: usize| {
        Tensor::new([n, 2], (from..from + n).flat_map(sample).collect::<Vec<f32>>())
    };
    let y = |from: usize, n: usize| {
        Tensor::new([n], (from..from + n).map(|i| (i % 3) as i32).collect::<Vec<i32>>())
    };
    let named = |name: &str, t: Tensor| (name.to_owned(), t);
    Dataset::new(vec![
        named("features_train", x(0, 22)),
        named("y_train", y(0, 22)),
        named("features_test", x(100, 6)),
        named("y_test", y(100, 6)),
    ])
    .unwrap()
}

fn options() -> TrainOptions {
    TrainOptions { epochs: 20, lr: Some(0.5), ..TrainOptions::default() }
}

#[derive(Default)]
struct Watch {
    steps: Vec<StepMetrics>,
    epochs: Vec<EpochMetrics>,
    notes: Vec<String>,
}

impl Progress for Watch {
    fn start(&mut self, total: usize, _: usize) {
        assert_eq!(total, 100);
    }
    fn step(&mut self, m: &StepMetrics) {
        self.steps.push(m.clone());
    }
    fn epoch(&mut self, m: &EpochMetrics) {
        self.epochs.push(m.clone());
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

#[test]
fn it_learns_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = folder.path().join("metrics.jsonl");
    let mut watch = Watch::default();
    let mut e = executor(1);
    let options = TrainOptions { metrics: Some(metrics.clone()), ..options() };
    let summary = train(&mut e, &dataset(), &options, &mut watch).unwrap();
    assert_eq!((summary.steps, watch.steps.len(), watch.epochs.len()), (100, 100, 20));
    assert!(watch.epochs[19].train_loss.unwrap() < 0.5 * watch.epochs[0].train_loss.unwrap());
    assert_eq!(watch.epochs[19].test_accuracy, Some(1.0));
    assert_eq!(watch.notes.len(), 1);
    assert!(watch.notes[0].contains("22 samples make 5 batches; the 2 left over"));
    let lines = std::fs::read_to_string(metrics).unwrap();
    assert_eq!(lines.lines().count(), 120);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["step"], 1);
    assert_eq!(first["lr"], 0.5);
}

#[test]
fn a_resumed_run_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, part) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    let run = |threads, options: &TrainOptions| -> Summary {
        train(&mut executor(threads), &dataset(), options, &mut Silent).unwrap()
    };
    run(1, &TrainOptions { state: Some(whole.clone()), ..options() });
    // Interrupted inside an epoch and at the end of one, on other numbers of threads.
    let mut from = None;
    for (stop, threads) in [(Some(33), 2), (Some(50), 3), (None, 1)] {
        let state = Some(part.clone());
        run(threads, &TrainOptions { state, resume: from, stop_after: stop, ..options() });
        from = Some(part.clone());
    }
    assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&part).unwrap());
}

#[test]
fn what_does_not_fit_is_one_clear_line() {
    let fail = |data: &Dataset, options: &TrainOptions| {
        train(&mut executor(1), data, options, &mut Silent).unwrap_err().to_string()
    };
    let error = fail(&dataset(), &TrainOptions { batch_size: Some(8), ..options() });
    assert!(error.starts_with("--batch-size 8, but the step was exported for batches of 4"));
    let error = fail(&dataset(), &TrainOptions { lr_input: "rate".into(), ..options() });
    assert!(error.contains("no input `rate`"), "{error}");
    let one = |name: &str, t: Tensor| Dataset::new(vec![(name.to_owned(), t)]).unwrap();
    let error = fail(&one("x_train", Tensor::new([8, 3], vec![0f32; 24])), &options());
    assert_eq!(error, "data: array `x` is f32[8,3], but the step takes f32[4,2] a batch");
    let error = fail(&one("x_train", Tensor::new([8, 2], vec![0f32; 16])), &options());
    assert!(error.starts_with("data: no array for input `y` i64[4]"), "{error}");
    let missing = TrainOptions { resume: Some("/nowhere/x".into()), ..options() };
    assert!(fail(&dataset(), &missing).starts_with("/nowhere/x: "));
}
