//! Certificates that are not true.

mod common;

use common::{expect, model};
use pam_ir::onnx::proto::{ModelProto, NodeProto};
use prost::Message;
use std::collections::BTreeMap;
use std::path::PathBuf;

struct Written {
    folder: tempfile::TempDir,
    model: PathBuf,
    report: PathBuf,
}

/// A compiled MLP with its report.
fn written() -> Written {
    let folder = tempfile::tempdir().unwrap();
    let (out, report) = (folder.path().join("out.onnx"), folder.path().join("report.json"));
    let source = model("mlp");
    let args = [&source, &PathBuf::from("-o"), &out, &PathBuf::from("--report"), &report];
    expect(0, args);
    Written { folder, model: out, report }
}

impl Written {
    /// Whether the certificate is true, and what is said of it.
    fn verify(&self, code: i32) -> String {
        let args = ["verify".as_ref(), self.model.as_os_str(), "--certificate".as_ref()];
        let (out, _) = expect(code, args.into_iter().chain([self.report.as_os_str()]));
        out
    }

    /// Changes the model and, as a careful forger would, the hash in the report.
    fn forge(&self, change: impl FnOnce(&mut ModelProto)) {
        let mut model = ModelProto::decode(&*std::fs::read(&self.model).unwrap()).unwrap();
        change(&mut model);
        let bytes = model.encode_to_vec();
        std::fs::write(&self.model, &bytes).unwrap();
        self.claim(|r| {
            r["certificate"]["output_sha256"] = pam_ir::onnx::external::sha256_hex(&bytes).into();
        });
    }

    /// Changes the report.
    fn claim(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let mut report = serde_json::from_slice(&std::fs::read(&self.report).unwrap()).unwrap();
        change(&mut report);
        std::fs::write(&self.report, report.to_string()).unwrap();
    }
}

fn nodes(model: &mut ModelProto) -> &mut Vec<NodeProto> {
    &mut model.graph.as_mut().unwrap().node
}

#[test]
fn the_truth_is_true() {
    let w = written();
    w.verify(0);
    // An honest rewriting of the same bytes changes nothing.
    w.forge(|_| {});
    w.verify(0);
    assert!(w.folder.path().exists());
}

#[test]
fn another_file_is_noticed() {
    let w = written();
    let mut bytes = std::fs::read(&w.model).unwrap();
    // The last byte lies in a function or an initializer; flipping it keeps the file readable.
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&w.model, bytes).unwrap();
    let args = ["verify".as_ref(), w.model.as_os_str(), "--certificate".as_ref()];
    let output = common::pam(args.into_iter().chain([w.report.as_os_str()]));
    assert!(matches!(output.status.code(), Some(1 | 2)));
}

#[test]
fn a_planted_multiplication_is_noticed() {
    let w = written();
    w.forge(|m| {
        let node = nodes(m).iter_mut().find(|n| n.op_type() == "mul").unwrap();
        node.op_type = Some("Mul".to_owned());
        node.domain = None;
        node.attribute.clear();
        for p in &mut node.metadata_props {
            if p.key() == "pam.mode" {
                p.value = Some("native".to_owned());
            }
        }
    });
    let out = w.verify(1);
    assert!(out.contains("native-multiply"), "{out}");
    let audit = expect(1, ["audit".as_ref(), w.model.as_os_str()]).0;
    assert!(audit.contains("Mul: "), "{audit}");
}

/// Outputs that are constants or further names of a value are identities in the file.
#[test]
fn further_names_of_values_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("names.onnx"), folder.path().join("out.onnx"));
    let lines = "in x: f32[2]\nconst c: f32[2] = [1.0, 2.0]\ny: f32[2] = Mul(x, x)\n\
                 z: f32[2] = Mul(x, x)\nout y = y\nout z = z\nout c = c";
    let graph = pam_ir::text::parse(&format!("graph g {{\n{lines}\n}}"), &[]).unwrap();
    let model = pam_ir::onnx::export::export(&graph, &ModelProto::default(), &BTreeMap::new());
    std::fs::write(&source, model.unwrap().encode_to_vec()).unwrap();
    let report = folder.path().join("report.json");
    let written = Written { folder, model: out, report };
    let args = [&source, &"-o".into(), &written.model, &"--report".into(), &written.report];
    expect(0, args);
    written.verify(0);
}

#[test]
fn a_function_that_multiplies_is_noticed() {
    let w = written();
    w.forge(|m| {
        let f = m.functions.iter_mut().find(|f| f.name() == "mul").unwrap();
        f.node = vec![NodeProto {
            op_type: Some("Mul".to_owned()),
            input: f.input.clone(),
            output: f.output.clone(),
            ..NodeProto::default()
        }];
    });
    let out = w.verify(1);
    assert!(out.contains("function pam.mul is not the canonical one"), "{out}");
    expect(1, ["audit".as_ref(), w.model.as_os_str()]);
    let npz = w.folder.path().join("out.npz");
    let args = ["run".as_ref(), w.model.as_os_str(), "--outputs".as_ref(), npz.as_os_str()];
    expect(1, args);
}

#[test]
fn false_claims_are_noticed() {
    type Claim<'a> = (&'a str, &'a dyn Fn(&mut serde_json::Value));
    let claims: [Claim<'_>; 11] = [
        ("SHA-256", &|r| r["certificate"]["output_sha256"] = "00".into()),
        ("stated to not hold", &|r| r["certificate"]["holds"] = false.into()),
        ("census", &|r| r["census"]["after"]["Add"] = 0.into()),
        ("scalar counts", &|r| r["multiplies"]["after"]["nodes"] = 1.into()),
        ("scalar counts", &|r| {
            r["multiplies"]["by_component"]["matmul"]["after"]["nodes"] = 1.into()
        }),
        ("scalar counts", &|r| r["multiplies"]["exact_scalings"]["nodes"] = 99.into()),
        ("the cost", &|r| r["cost"]["after"]["pa_operations"] = 1.into()),
        ("target is not `mixed`", &|r| r["certificate"]["target"] = "mixed".into()),
        ("policy is not `exact`", &|r| r["policy"] = "exact".into()),
        ("constant_folded", &|r| r["certificate"]["constant_folded"] = "nothing".into()),
        ("native multiplications", &|r| {
            r["certificate"]["native"] = serde_json::json!([
                {"node": "n", "op": "Mul", "component": "other", "scalars": 1}
            ]);
        }),
    ];
    for (what, claim) in claims {
        let w = written();
        w.claim(claim);
        let out = w.verify(1);
        assert!(out.contains(what), "{what}: {out}");
    }
    let w = written();
    w.claim(|r| r["certificate"]["target"] = "none".into());
    w.verify(2);
    let w = written();
    w.claim(|r| r["schema"] = 99.into());
    w.verify(2);
    w.claim(|r| *r = serde_json::json!({}));
    w.verify(2);
}
