//! How close the planned memory is to what no layout can do without.

mod common;

use common::model;
use pam_ir::certify::{Target, certify};
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_passes::{Policy, compile, expand};
use pam_runtime::{PlanOptions, plan};

#[test]
fn arenas_are_little_larger_than_what_is_alive() {
    let fixtures = [
        "mlp",
        "lenet",
        "encoder",
        "encdec",
        "vit",
        "gpt",
        "resnet20",
        "convmixer",
        "resnext",
        "vgg",
    ];
    for name in fixtures {
        let path = model(name);
        let file = ModelFile { model: load(&path).unwrap(), path };
        let graph = import(&[file], &ImportOptions::default()).unwrap().graph;
        for policy in ["native", "approx", "exact"] {
            let compiled = compile(&graph, &Policy::preset(policy).unwrap()).unwrap();
            let certified = certify(expand(&compiled.graph).unwrap(), Target::Mixed).unwrap();
            let report = plan(&certified, PlanOptions::default()).unwrap().report;
            let ratio = report.arena as f64 / report.live as f64;
            println!("{name} {policy}: {} of {} bytes, {ratio:.3}", report.arena, report.live);
            assert!(ratio <= 1.3, "{name} {policy}: {ratio}");
        }
    }
}
