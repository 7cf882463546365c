//! Every fixture imports, verifies, and survives printing and parsing.

use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_ir::text::{parse, print};
use pam_ir::verify::verify;
use std::path::{Path, PathBuf};

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let mut files: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .flat_map(|p| std::fs::read_dir(p).unwrap().map(|e| e.unwrap().path()))
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    files.sort();
    assert!(files.len() >= 10);
    files
}

#[test]
fn fixtures_import() {
    for path in fixtures() {
        let file = ModelFile { model: load(&path).unwrap(), path: path.clone() };
        let graph =
            import(&[file], &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}")).graph;
        if let Err(faults) = verify(&graph) {
            panic!("{}: {}", path.display(), faults[0]);
        }
        let text = print(&graph);
        let weights: Vec<_> = graph.values.iter().filter_map(|v| v.data.clone()).collect();
        let again = parse(&text, &weights).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(print(&again), text, "{}", path.display());
    }
}
