//! External data: moving large tensors of a model into a file beside it.

use super::proto::{
    GraphProto, ModelProto, StringStringEntryProto, TensorProto, tensor_proto::DataLocation,
};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Smaller tensors stay in the model.
const SMALLEST: usize = 1024;
/// Where tensors begin in the data file, so that it can be mapped into memory.
const ALIGNMENT: usize = 4096;

/// The metadata key of the data file's SHA-256.
pub const DATA_SHA256: &str = "pam.data_sha256";

/// Moves the elements of large initializers out of a model. The model then refers to them at
/// `location`, a file name beside its own, and its metadata holds their SHA-256, so that a hash of
/// the model covers them as well. Returns the content of that file.
pub fn externalize(model: &mut ModelProto, location: &str) -> Vec<u8> {
    let mut data = Vec::new();
    let initializers = model.graph.iter_mut().flat_map(|g: &mut GraphProto| &mut g.initializer);
    for t in initializers {
        if t.raw_data.as_ref().is_some_and(|raw| raw.len() >= SMALLEST) {
            move_out(t, location, &mut data);
        }
    }
    if !data.is_empty() {
        model.metadata_props.retain(|p| p.key() != DATA_SHA256);
        model.metadata_props.push(entry(DATA_SHA256, sha256_hex(&data)));
    }
    data
}

fn move_out(t: &mut TensorProto, location: &str, data: &mut Vec<u8>) {
    let Some(raw) = t.raw_data.take() else { return };
    data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    t.external_data = vec![
        entry("location", location.to_owned()),
        entry("offset", data.len().to_string()),
        entry("length", raw.len().to_string()),
    ];
    t.data_location = Some(DataLocation::External as i32);
    data.extend(raw);
}

fn entry(key: &str, value: String) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) }
}

/// The SHA-256 of bytes in hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Compares the data file of a model, as it was decoded, with the hash in its metadata. A model that
/// states no hash has nothing to compare.
///
/// # Errors
/// Where the file cannot be read or is not the one the model was written with.
pub fn check_data(path: &Path, model: &ModelProto) -> Result<(), String> {
    let stated = model.metadata_props.iter().find(|p| p.key() == DATA_SHA256);
    let Some(stated) = stated.map(|p| p.value()) else { return Ok(()) };
    let tensors = model.graph.iter().flat_map(|g| &g.initializer).flat_map(|t| &t.external_data);
    let Some(location) = tensors.clone().find(|e| e.key() == "location").map(|e| e.value()) else {
        return Err("the metadata states a data file, but no tensor lies in one".to_owned());
    };
    let file = path.parent().unwrap_or(Path::new("")).join(location);
    let bytes = std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    if sha256_hex(&bytes) == stated {
        Ok(())
    } else {
        Err(format!("{} is not the data this model was written with", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::load::{decode, load};
    use crate::onnx::tensor;
    use crate::tensor::Tensor;
    use prost::Message;

    #[test]
    fn what_is_moved_out_is_read_back() {
        let big = Tensor::vector((0..1000).map(|i| i as f32).collect::<Vec<_>>());
        let small = Tensor::vector(vec![1i64, 2]);
        let initializer =
            vec![tensor::write("a", &big), tensor::write("b", &small), tensor::write("c", &big)];
        let graph = GraphProto { initializer: initializer.clone(), ..GraphProto::default() };
        let mut model =
            ModelProto { ir_version: Some(13), graph: Some(graph), ..ModelProto::default() };
        let data = externalize(&mut model, "m.onnx.data");
        assert_eq!(data.len(), 4096 + 4000);
        let folder = std::env::temp_dir().join(format!("pam-external-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("m.onnx");
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        std::fs::write(folder.join("m.onnx.data"), &data).unwrap();
        let read = load(&path).unwrap();
        assert_eq!(read.graph.unwrap().initializer, initializer);
        let decoded = decode(&path, &std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(check_data(&path, &decoded), Ok(()));
        std::fs::write(folder.join("m.onnx.data"), vec![0; data.len()]).unwrap();
        assert!(check_data(&path, &decoded).unwrap_err().contains("is not the data"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
