//! Roles and components that the shape of a graph tells, against those the exporter wrote.

use pam_ir::graph::Graph;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_ir::op::Level;
use pam_passes::{Evidence, Policy, compile};
use std::path::Path;

fn labelled(graph: &Graph, evidence: Evidence) -> Graph {
    let compiled = compile(graph, &Policy::preset("native").unwrap()).unwrap();
    assert_eq!(compiled.evidence, evidence);
    compiled.source
}

#[test]
fn shape_tells_nearly_what_metadata_states() {
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
        let mut graph = import(&[file], &ImportOptions::default()).unwrap().graph;
        let stated = labelled(&graph, Evidence::Metadata);
        graph.nodes.iter_mut().for_each(|n| n.metadata.clear());
        let found = labelled(&graph, Evidence::Shape);
        let pairs = || stated.nodes.iter().zip(&found.nodes);
        let roles = pairs().filter(|(a, b)| a.role != b.role).count();
        assert!(roles * 30 <= stated.nodes.len(), "{name}: {roles} of {}", stated.nodes.len());
        let multiplies = |level| matches!(level, Level::Native | Level::Composite);
        let all = pairs().filter(|(a, _)| multiplies(a.op.level())).count();
        let components = pairs().filter(|(a, _)| multiplies(a.op.level()));
        let components = components.filter(|(a, b)| a.component != b.component).count();
        assert!(components * 20 <= all, "{name}: {components} of {all} components");
    }
    assert!(count >= 10);
}
