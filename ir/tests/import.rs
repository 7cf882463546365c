//! Every fixture imports, verifies, and survives printing and parsing.

use pam_ir::onnx::export::export;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import};
use pam_ir::onnx::load::load;
use pam_ir::onnx::proto::ModelProto;
use pam_ir::op::Level;
use pam_ir::text::{parse, print};
use pam_ir::verify::verify;
use std::collections::BTreeMap;
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

/// The bodies of primitives give scalars for scalars, as the primitives do.
#[test]
fn bodies_of_functions_keep_ranks() {
    let lines = "in x: f32[]\n a: f32[] = PamScale(x) {exponent=3}\n b: f32[] = PamExp2(a)\n \
                 c: f32[] = PamLog2(b)\n d: f32[] = PamMul(c, x)\n e: f32[] = PamDiv(d, x)\n \
                 f: f32[] = PamRound(e) {mantissa=7}\n g: f32[] = PamMulGrad(f, x, x)\n \
                 h: f32[] = PamExp2Grad(g, x)\n out h = h";
    let graph = parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap();
    let mut model = export(&graph, &ModelProto::default(), &BTreeMap::new()).unwrap();
    // Under another domain the functions are those of a stranger, whose bodies are read.
    let other = || Some("other".to_owned());
    let nodes = &mut model.graph.as_mut().unwrap().node;
    nodes.iter_mut().filter(|n| n.domain() == "pam").for_each(|n| n.domain = other());
    model.functions.iter_mut().for_each(|f| f.domain = other());
    let opsets = model.opset_import.iter_mut().filter(|o| o.domain() == "pam");
    opsets.for_each(|o| o.domain = other());
    let file = ModelFile { model, path: PathBuf::from("scalars.onnx") };
    let graph = import(&[file], &ImportOptions::default()).unwrap().graph;
    assert!(graph.nodes.iter().all(|n| n.op.level() != Level::Pam));
    assert_eq!(graph.ty(graph.outputs[0].value).shape, [0usize; 0]);
}

#[test]
fn former_resizing_is_read() {
    let lines = "in x: f32[1,1,2,3]\n y: f32[1,1,4,6] = Resize(x) \
                 {coordinate_transformation_mode=\"asymmetric\", nearest_mode=\"floor\", scales=[1.0, 1.0, 2.0, 2.0]}\n \
                 out y = y";
    let graph = parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap();
    for (op_type, opset) in [("Upsample", 9), ("Resize", 10)] {
        let mut model = export(&graph, &ModelProto::default(), &BTreeMap::new()).unwrap();
        model.opset_import[0].version = Some(opset);
        let node = &mut model.graph.as_mut().unwrap().node[0];
        assert_eq!(node.op_type(), "Resize");
        node.op_type = Some(op_type.to_owned());
        node.attribute.clear();
        // There was no region before the scales.
        node.input.remove(1);
        let file = ModelFile { model, path: PathBuf::from("former.onnx") };
        let read = import(&[file], &ImportOptions::default()).unwrap().graph;
        assert_eq!(read.nodes.len(), 1);
        assert_eq!(read.nodes[0].attrs, graph.nodes[0].attrs, "{op_type}");
    }
}
