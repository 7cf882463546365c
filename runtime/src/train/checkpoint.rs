//! Checkpoints: the state of a step and where in the training it stands.

use super::TrainError;
use crate::error::IoError;
use crate::exec::Executor;
use crate::io::safetensors::{File, read, write};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Where a training stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Steps done.
    pub step: usize,
    /// Epochs done.
    pub epoch: usize,
    /// Batches done in the epoch under way.
    pub batch: usize,
    /// Sum of their losses, as bits, so that it survives JSON.
    #[serde(with = "bits")]
    pub losses: f64,
    /// Whether the loss was NaN once.
    pub nan: bool,
    /// Seed of the shuffling.
    pub seed: u64,
    /// Samples a step.
    pub batch_size: usize,
}

mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(x.to_bits())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<f64, D::Error> {
        u64::deserialize(d).map(f64::from_bits)
    }
}

/// The key of the metadata.
const KEY: &str = "pam.train";

impl Position {
    pub(super) fn start(seed: u64, batch_size: usize) -> Position {
        Position { step: 0, epoch: 0, batch: 0, losses: 0.0, nan: false, seed, batch_size }
    }
}

/// Writes the newest state, under the names of the inputs, and the position.
pub(super) fn save(path: &Path, executor: &Executor, at: &Position) -> Result<(), TrainError> {
    let state = executor.plan().inputs.iter().filter(|p| p.bound_to.is_some());
    let tensors = state.map(|p| Ok((p.name.clone(), executor.value(&p.name)?)));
    let tensors = tensors.collect::<Result<Vec<_>, TrainError>>()?;
    let json = serde_json::to_string(at).map_err(|e| {
        TrainError::Io(IoError::Format { path: path.to_owned(), reason: e.to_string() })
    })?;
    let metadata = BTreeMap::from([(KEY.to_owned(), json)]);
    Ok(write(path, &File { tensors, metadata })?)
}

/// Gives the executor the state of a file and returns where the training stood.
pub(super) fn load(
    path: &Path,
    executor: &mut Executor,
    options: Position,
) -> Result<Position, TrainError> {
    let bad = |reason: String| TrainError::Io(IoError::Format { path: path.to_owned(), reason });
    let file = read(path)?;
    let json = file.metadata.get(KEY).ok_or_else(|| {
        bad(format!("has no `{KEY}` metadata; it was not written by train (use --init instead)"))
    })?;
    let at: Position =
        serde_json::from_str(json).map_err(|e| bad(format!("`{KEY}` cannot be read: {e}")))?;
    if at.seed != options.seed {
        let (was, is) = (at.seed, options.seed);
        return Err(bad(format!("was written with --seed {was}, not {is}; use --seed {was}")));
    }
    if at.batch_size != options.batch_size {
        let (was, is) = (at.batch_size, options.batch_size);
        return Err(bad(format!("was written with batches of {was}, but the step takes {is}")));
    }
    let inputs = executor.plan().inputs.iter();
    let state: Vec<String> =
        inputs.filter(|p| p.bound_to.is_some()).map(|p| p.name.clone()).collect();
    for name in &state {
        let tensor = file.tensors.iter().find(|t| t.0 == *name);
        let (_, tensor) = tensor.ok_or_else(|| bad(format!("lacks the state `{name}`")))?;
        executor.set(name, tensor)?;
    }
    if let Some((name, _)) = file.tensors.iter().find(|t| !state.contains(&t.0)) {
        return Err(bad(format!("holds `{name}`, which is no state of this step")));
    }
    Ok(at)
}
