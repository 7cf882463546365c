//! Inputs and outputs that the loop feeds and reads itself.

use super::data::Feeds;
use super::{Schedule, TrainError, TrainOptions, metrics};
use crate::exec::Executor;
use pam_ir::graph::STEP_INPUT;
use pam_ir::types::{DType, Type};

/// The input that counts the steps, from which random numbers come, unless it is state or data.
pub(super) fn step_count(executor: &Executor, feeds: &Feeds) -> Option<usize> {
    let inputs = executor.plan().inputs.iter().enumerate();
    let count = Type::new(DType::I64, []);
    let mut fitting = inputs.filter(|(i, p)| {
        p.name == STEP_INPUT && p.ty == count && p.bound_to.is_none() && !feeds.feeds(*i)
    });
    fitting.next().map(|(i, _)| i)
}

/// The input that takes the learning rate, and the peak.
pub(super) fn learning_rate(
    executor: &Executor,
    options: &TrainOptions,
) -> Result<Option<(usize, f64)>, TrainError> {
    let name = &options.lr_input;
    let inputs = &executor.plan().inputs;
    let Some(i) = inputs.iter().position(|p| p.name == *name && p.bound_to.is_none()) else {
        return match options.lr {
            None if options.schedule == Schedule::default() => Ok(None),
            _ => Err(TrainError::Option(format!(
                "the step has no input `{name}` for the learning rate; name it with --lr-input, or \
                 leave --lr and its schedule out"
            ))),
        };
    };
    if inputs[i].ty.dtype != DType::F32 || inputs[i].ty.elements() != 1 {
        return Err(TrainError::Option(format!(
            "input `{name}` is {}, but a learning rate is one f32",
            inputs[i].ty
        )));
    }
    let default = match executor.value(name) {
        Ok(value) if executor.is_given(i) => value.as_scalar_f64(),
        _ => None,
    };
    match options.lr.or(default) {
        Some(peak) if peak.is_finite() => Ok(Some((i, peak))),
        Some(peak) => Err(TrainError::Option(format!("a learning rate of {peak} is no number"))),
        None => Err(TrainError::Option(format!("input `{name}` has no default; give --lr"))),
    }
}

/// The output that is the loss, by name or as the only scalar.
pub(super) fn loss_output(
    executor: &Executor,
    options: &TrainOptions,
) -> Result<Option<String>, TrainError> {
    let outputs = &executor.plan().outputs;
    let scalar = |o: &&crate::plan::PlanOutput| o.ty.elements() == 1 && o.ty.dtype.is_float();
    if let Some(name) = &options.loss {
        let found = outputs.iter().filter(scalar).find(|o| o.name == *name);
        let error = || TrainError::Option(format!("the step has no scalar float output `{name}`"));
        return found.map(|o| Some(o.name.clone())).ok_or_else(error);
    }
    let bound =
        |name: &str| executor.plan().inputs.iter().any(|p| p.bound_to.as_deref() == Some(name));
    let mut free = outputs.iter().filter(scalar).filter(|o| !bound(&o.name));
    let named = free.clone().find(|o| o.name == "loss");
    let only = free.next().filter(|_| free.next().is_none());
    Ok(named.or(only).map(|o| o.name.clone()))
}

/// The output whose largest element is the prediction.
pub(super) fn logits_output(
    executor: &Executor,
    options: &TrainOptions,
    feeds: &Feeds,
) -> Result<Option<String>, TrainError> {
    let outputs = &executor.plan().outputs;
    let fits = |o: &&crate::plan::PlanOutput| {
        o.ty.dtype == DType::F32
            && feeds.labels_shape().is_some_and(|l| metrics::class_axis(&o.ty.shape, l).is_some())
    };
    if let Some(name) = &options.logits {
        let found = outputs.iter().filter(fits).find(|o| o.name == *name);
        let error = || {
            TrainError::Option(format!("no f32 output `{name}` has one more axis than the labels"))
        };
        return found.map(|o| Some(o.name.clone())).ok_or_else(error);
    }
    let mut fitting = outputs.iter().filter(fits);
    let named = fitting.clone().find(|o| o.name == "logits");
    let only = fitting.next().filter(|_| fitting.next().is_none());
    Ok(named.or(only).map(|o| o.name.clone()))
}
