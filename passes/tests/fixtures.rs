//! Every fixture compiles to a graph that certifies.

use pam_ir::certify::{Target, certify};
use pam_ir::graph::Graph;
use pam_ir::onnx::check::check_functions;
use pam_ir::onnx::export::export;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::{decode, load};
use pam_ir::onnx::proto::ModelProto;
use pam_ir::text::print;
use pam_ir::verify::verify;
use pam_passes::{Policy, compile, expand};
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn fixtures_certify() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let mut count = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let path = folder.join(format!("{name}.onnx"));
        if !path.exists() {
            continue;
        }
        count += 1;
        let file = ModelFile { model: load(&path).unwrap(), path };
        let graph = import(&[file], &ImportOptions::default()).unwrap().graph;
        for preset in ["approx", "native", "matmul", "exact"] {
            let policy = Policy::preset(preset).unwrap();
            let compiled = compile(&graph, &policy).unwrap_or_else(|e| panic!("{name}: {e}"));
            let target =
                if policy.keeps_native() { Target::Mixed } else { Target::MultiplicationFree };
            let certified = certify(compiled.graph, target)
                .unwrap_or_else(|v| panic!("{name} {preset}: {}\n{}", v[0], v[0].line));
            assert_eq!(certified.native().is_empty(), !policy.keeps_native(), "{name} {preset}");
            round_trip(&name, preset, certified.graph());
            let expanded = expand(certified.graph()).unwrap_or_else(|e| panic!("{name}: {e}"));
            if let Err(faults) = verify(&expanded) {
                panic!("{name} {preset}: {}", faults[0]);
            }
        }
    }
    assert!(count >= 10);
}

/// What is written reads back as the same graph, writes the same bytes again and passes the check of
/// its functions.
fn round_trip(name: &str, preset: &str, graph: &Graph) {
    let written = export(graph, &ModelProto::default(), &BTreeMap::new()).unwrap();
    let bytes = written.encode_to_vec();
    let path = Path::new("written.onnx");
    let model = decode(path, &bytes).unwrap();
    let file = ModelFile { model: model.clone(), path: path.to_owned() };
    let again =
        import(&[file], &ImportOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(check_functions(&model, &again.graph), Ok(()), "{name} {preset}");
    let rewritten = export(&again.graph, &ModelProto::default(), &BTreeMap::new()).unwrap();
    let (a, b) = (print(graph), print(&again.graph));
    let difference = a.lines().zip(b.lines()).find(|(x, y)| x != y);
    assert_eq!(difference, None, "{name} {preset}");
    assert!(
        rewritten.encode_to_vec() == bytes,
        "{name} {preset}: written, read and written differ"
    );
}
