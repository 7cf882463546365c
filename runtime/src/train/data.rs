//! Data sets and how their arrays become the inputs of a step.

use super::TrainError;
use crate::error::RunError;
use crate::exec::Executor;
use crate::io::Named;
use crate::plan::PlanInput;
use pam_ir::tensor::Tensor;
use pam_ir::types::Type;
use std::path::Path;

/// Arrays by name. `<name>_train` holds training samples and `<name>_test` test samples, along the
/// first axis; an array without such an ending is for training.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    arrays: Vec<Array>,
}

#[derive(Clone, Debug)]
struct Array {
    name: String,
    train: Option<Tensor>,
    test: Option<Tensor>,
}

impl Dataset {
    /// Reads an `.npz` or `.safetensors` file.
    ///
    /// # Errors
    /// Where it cannot be read or two arrays have one meaning.
    pub fn read(path: &Path) -> Result<Dataset, TrainError> {
        Dataset::new(crate::io::read(path)?)
    }

    /// A data set of these arrays.
    ///
    /// # Errors
    /// Where two arrays have one meaning.
    pub fn new(tensors: Named) -> Result<Dataset, TrainError> {
        let mut arrays: Vec<Array> = Vec::new();
        for (full, tensor) in tensors {
            let (name, test) = match (full.strip_suffix("_train"), full.strip_suffix("_test")) {
                (Some(name), _) => (name, false),
                (None, Some(name)) => (name, true),
                (None, None) => (full.as_str(), false),
            };
            let at = arrays.iter().position(|a| a.name == name).unwrap_or_else(|| {
                arrays.push(Array { name: name.to_owned(), train: None, test: None });
                arrays.len() - 1
            });
            let slot = if test { &mut arrays[at].test } else { &mut arrays[at].train };
            if slot.replace(tensor).is_some() {
                let reason = format!("both `{name}` and `{name}_train` are there; remove one");
                return Err(TrainError::Data(reason));
            }
        }
        Ok(Dataset { arrays })
    }
}

/// An input of the step and the samples it is fed from.
struct Feed {
    input: usize,
    train: Tensor,
    test: Option<Tensor>,
    labels: bool,
    shape: Vec<usize>,
}

/// All inputs that are fed, and their sizes.
pub(super) struct Feeds {
    feeds: Vec<Feed>,
    /// Samples a step.
    pub batch: usize,
    /// Training samples.
    pub samples: usize,
    /// Test samples.
    pub test_samples: usize,
}

/// Whether samples of an array can be samples of an input: as many elements each, and the same kind
/// of numbers.
fn fits(array: &Tensor, ty: &Type) -> bool {
    let sample = |shape: &[usize]| shape.iter().skip(1).product::<usize>();
    let kind = |float: bool, int: bool| (float, int);
    let (a, b) = (array.dtype(), ty.dtype);
    !array.shape().is_empty()
        && sample(array.shape()) == sample(&ty.shape)
        && kind(a.is_float(), a.is_int()) == kind(b.is_float(), b.is_int())
}

impl Feeds {
    /// Whether an input is fed from data.
    pub(super) fn feeds(&self, input: usize) -> bool {
        self.feeds.iter().any(|f| f.input == input)
    }

    pub(super) fn new(executor: &Executor, data: &Dataset, lr: &str) -> Result<Feeds, TrainError> {
        let plan = executor.plan();
        let error = |reason: String| Err(TrainError::Data(reason));
        let mut arrays: Vec<&Array> = data.arrays.iter().collect();
        let mut feeds = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        for (i, input) in plan.inputs.iter().enumerate() {
            if input.bound_to.is_some() || input.name == lr {
                continue;
            }
            match arrays.iter().position(|a| a.name == input.name) {
                Some(a) => feeds.push(feed(i, input, arrays.remove(a))?),
                None if !executor.is_given(i) => open.push(i),
                None => {}
            }
        }
        for i in open {
            let input = &plan.inputs[i];
            let fitting = |a: &&Array| a.train.as_ref().is_some_and(|t| fits(t, &input.ty));
            let found: Vec<usize> = (0..arrays.len()).filter(|&a| fitting(&arrays[a])).collect();
            match found[..] {
                [a] => feeds.push(feed(i, input, arrays.remove(a))?),
                [] => {
                    let names: Vec<String> = data.arrays.iter().map(Array::describe).collect();
                    return error(format!(
                        "no array for input `{}` {}; the file has {}",
                        input.name,
                        input.ty,
                        names.join(", ")
                    ));
                }
                _ => {
                    return error(format!(
                        "several arrays fit input `{0}` {1}; name one `{0}_train`",
                        input.name, input.ty
                    ));
                }
            }
        }
        if let Some(extra) = arrays.first() {
            let name = &extra.name;
            return error(format!("array `{name}` fits no input of the step; remove it"));
        }
        let Some(first) = feeds.first() else {
            return error("the step has no inputs to feed".to_owned());
        };
        let (batch, samples) = (first.shape[0], first.train.shape()[0]);
        let tests = |f: &Feed| f.test.as_ref().map_or(0, |t| t.shape()[0]);
        let test_samples = tests(first);
        for f in &feeds {
            let name = &plan.inputs[f.input].name;
            if f.shape[0] != batch {
                let reason = format!("input `{name}` takes {} samples, others {batch}", f.shape[0]);
                return error(reason);
            }
            if f.train.shape()[0] != samples || tests(f) != test_samples {
                return error(format!(
                    "array for `{name}` has {} training and {} test samples, others {samples} and \
                     {test_samples}",
                    f.train.shape()[0],
                    tests(f)
                ));
            }
        }
        if samples >= u32::MAX as usize || batch == 0 {
            return error(format!("{samples} samples in batches of {batch} cannot be fed"));
        }
        Ok(Feeds { feeds, batch, samples, test_samples })
    }

    /// Feeds the chosen samples.
    pub(super) fn feed(
        &self,
        executor: &mut Executor,
        chosen: &[u32],
        test: bool,
    ) -> Result<(), RunError> {
        for f in &self.feeds {
            let tensor = if test { f.test.as_ref() } else { Some(&f.train) };
            if let Some(tensor) = tensor {
                executor.feed(f.input, |bytes| super::rows(tensor, chosen, bytes))?;
            }
        }
        Ok(())
    }

    fn label(&self) -> Option<&Feed> {
        // With several integer inputs (token ids and targets), the targets come last.
        self.feeds.iter().rev().find(|f| f.labels)
    }

    /// The shape of the labels of a batch.
    pub(super) fn labels_shape(&self) -> Option<&[usize]> {
        self.label().map(|f| f.shape.as_slice())
    }

    /// Labels of one sample.
    pub(super) fn labels_per_sample(&self) -> usize {
        self.labels_shape().map_or(1, |s| s[1..].iter().product())
    }

    /// The labels of test samples.
    pub(super) fn labels(&self, chosen: &[u32]) -> Option<Vec<i64>> {
        let labels = self.label()?.test.as_ref()?.to_i64()?;
        let n = self.labels_per_sample();
        Some(chosen.iter().flat_map(|&i| &labels[i as usize * n..][..n]).copied().collect())
    }
}

impl Array {
    fn describe(&self) -> String {
        let ty = self.train.as_ref().or(self.test.as_ref()).map(Tensor::ty);
        format!("`{}` {}", self.name, ty.map(|t| t.to_string()).unwrap_or_default())
    }
}

/// Checks an array against its input and converts its element type.
fn feed(i: usize, input: &PlanInput, array: &Array) -> Result<Feed, TrainError> {
    let PlanInput { name, ty, .. } = input;
    let error = |reason: String| TrainError::Data(reason);
    if ty.rank() == 0 {
        return Err(error(format!("input `{name}` is {ty}: it has no batch dimension")));
    }
    let convert = |tensor: &Tensor| {
        if !fits(tensor, ty) {
            let got = tensor.ty();
            return Err(error(format!("array `{name}` is {got}, but the step takes {ty} a batch")));
        }
        pam_ir::eval::cast(tensor, ty.dtype)
            .ok_or_else(|| error(format!("array `{name}` cannot be converted to {}", ty.dtype)))
    };
    let train = array.train.as_ref().ok_or_else(|| {
        error(format!("`{name}_test` is there, but neither `{name}_train` nor `{name}`"))
    })?;
    Ok(Feed {
        input: i,
        train: convert(train)?,
        test: array.test.as_ref().map(convert).transpose()?,
        labels: ty.dtype.is_int(),
        shape: ty.shape.clone(),
    })
}
