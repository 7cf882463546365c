//! Files to protobuf messages: decoding and external data.

use super::error::OnnxError;
use super::proto::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataLocation};
use super::tensor::tensor_type;
use prost::Message;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

/// Reads a model with all its external data.
///
/// # Errors
/// Where the file cannot be read, is not an ONNX model, or names external data that is missing, too
/// short or outside the folder of the model.
pub fn load(path: &Path) -> Result<ModelProto, OnnxError> {
    let bytes = std::fs::read(path)
        .map_err(|e| OnnxError::file(path, format!("cannot be read: {e}"), "check the path"))?;
    let mut model = decode(path, &bytes)?;
    load_external(path, &mut model)?;
    Ok(model)
}

/// Decodes a model without looking at external data.
///
/// # Errors
/// Where the bytes are not an ONNX model.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<ModelProto, OnnxError> {
    let not_onnx = |why: String| {
        let remedy = "export it again, or check that the file is complete";
        OnnxError::file(path, format!("not an ONNX model ({why})"), remedy)
    };
    let model = ModelProto::decode(bytes).map_err(|e| not_onnx(e.to_string()))?;
    // Protobuf accepts many byte strings, so a model must also say what it is.
    if model.graph.is_none() {
        return Err(not_onnx("it holds no graph".to_owned()));
    }
    if model.ir_version() <= 0 {
        return Err(not_onnx("it states no IR version".to_owned()));
    }
    Ok(model)
}

/// Whether an initializer lies in another file.
pub fn has_external(model: &ModelProto) -> bool {
    let mut initializers = model.graph.iter().flat_map(|g| &g.initializer);
    initializers.any(|t| t.data_location() == DataLocation::External)
}

/// Reads the external data of a model that was decoded.
///
/// # Errors
/// Where external data is missing, too short or outside the folder of the model.
pub fn load_external(path: &Path, model: &mut ModelProto) -> Result<(), OnnxError> {
    let load = |t: &mut TensorProto| load_tensor(path, t);
    for function in &mut model.functions {
        each_tensor_of_nodes(&mut function.node, &load)?;
    }
    for info in &mut model.training_info {
        for graph in info.initialization.iter_mut().chain(&mut info.algorithm) {
            each_tensor(graph, &load)?;
        }
    }
    model.graph.iter_mut().try_for_each(|g| each_tensor(g, &load))
}

fn each_tensor<E>(
    graph: &mut GraphProto,
    f: &impl Fn(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    graph.initializer.iter_mut().try_for_each(f)?;
    each_tensor_of_nodes(&mut graph.node, f)
}

fn each_tensor_of_nodes<E>(
    nodes: &mut [NodeProto],
    f: &impl Fn(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    for attribute in nodes.iter_mut().flat_map(|n| &mut n.attribute) {
        attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(f)?;
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            each_tensor(graph, f)?;
        }
    }
    Ok(())
}

fn load_tensor(model_path: &Path, t: &mut TensorProto) -> Result<(), OnnxError> {
    if t.data_location() != DataLocation::External {
        return Ok(());
    }
    let name = t.name().to_owned();
    let error = |reason: String, remedy: &str| {
        OnnxError::file(model_path, format!("tensor `{name}`: {reason}"), remedy)
    };
    let entry = |key: &str| t.external_data.iter().find(|e| e.key() == key).map(|e| e.value());
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(v) => match v.parse::<u64>() {
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(error(format!("external data has {key} `{v}`"), "export it again")),
        },
    };
    let location = entry("location").unwrap_or_default().to_owned();
    let relative = Path::new(&location);
    let confined = !location.is_empty()
        && relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !confined {
        let reason = format!("external data path `{location}` leaves the model's folder");
        return Err(error(reason, "move the data beside the model"));
    }
    let ty = tensor_type(t).map_err(|e| error(e, "export it again"))?;
    let offset = number("offset")?.unwrap_or(0);
    let length = number("length")?.unwrap_or(ty.bytes() as u64);
    if length != ty.bytes() as u64 {
        let reason = format!("external data has {length} bytes for type {ty}");
        return Err(error(reason, "export it again"));
    }
    let folder = model_path.parent().unwrap_or(Path::new(""));
    let file_path = folder.join(relative);
    // A link may lead out of the folder although its path does not.
    let real = |p: &Path| if p.as_os_str().is_empty() { Path::new(".") } else { p }.canonicalize();
    let missing = |e: std::io::Error| {
        let reason = format!("external data `{location}` cannot be read: {e}");
        error(reason, "keep the data file beside the model")
    };
    if !real(&file_path).map_err(missing)?.starts_with(real(folder).map_err(missing)?) {
        let reason = format!("external data path `{location}` leaves the model's folder");
        return Err(error(reason, "move the data beside the model"));
    }
    let mut file = File::open(&file_path).map_err(missing)?;
    let available = file.metadata().map_err(missing)?.len();
    if offset.checked_add(length).is_none_or(|end| end > available) {
        let reason = format!(
            "external data `{location}` has {available} bytes, {length} from {offset} are needed"
        );
        return Err(error(reason, "copy the data file again"));
    }
    let mut bytes = vec![0; length as usize];
    file.seek(SeekFrom::Start(offset)).map_err(missing)?;
    file.read_exact(&mut bytes).map_err(missing)?;
    t.raw_data = Some(bytes);
    t.external_data.clear();
    t.data_location = None;
    Ok(())
}
