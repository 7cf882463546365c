//! The ONNX messages: nothing known is lost, and nesting without end is refused.

use pam_ir::onnx::proto::ModelProto;
use prost::Message;
use std::path::Path;

#[test]
fn files_survive_byte_for_byte() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let mut count = 0;
    for folder in std::fs::read_dir(root).unwrap().flatten().filter(|e| e.path().is_dir()) {
        for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
            let path = file.path();
            if path.extension().is_some_and(|e| e == "onnx") {
                let bytes = std::fs::read(&path).unwrap();
                let model = ModelProto::decode(bytes.as_slice()).unwrap();
                assert!(model.encode_to_vec() == bytes, "{} changed", path.display());
                count += 1;
            }
        }
    }
    assert!(count >= 10);
}

/// A length-delimited field around a payload.
fn field(tag: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(tag << 3 | 2, &mut bytes);
    prost::encoding::encode_varint(payload.len() as u64, &mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn deep_nesting_is_an_error() {
    // A graph (model field 7) in a graph: node (graph field 1), attribute (5), graph (6), …
    let nested = |depth: usize| {
        let graph = (0..depth).fold(Vec::new(), |g, _| field(1, &field(5, &field(6, &g))));
        field(7, &graph)
    };
    assert!(ModelProto::decode(nested(20).as_slice()).is_ok());
    assert!(ModelProto::decode(nested(2_000).as_slice()).is_err());
}
