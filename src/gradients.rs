//! Comparing the gradients that a step was imported with and those that the compiler makes.

use pam_ir::certify::{Target, certify};
use pam_ir::graph::Graph;
use pam_ir::tensor::Tensor;
use pam_ir::types::{DType, Type};
use pam_passes::{
    Detach, GradientEvidence, Gradients, Recognised, detaches, expand, gradient_check,
};
use pam_runtime::{Executor, PlanOptions, plan};
use std::collections::{BTreeMap, BTreeSet};

/// Computes imported and regenerated gradients natively on random inputs, with zeros among the integers or
/// without.
fn evaluated(source: &Graph, gradients: &Gradients, zeros: bool) -> Option<Executor> {
    let check = gradient_check(source, gradients).ok()?;
    let certified = certify(expand(&check).ok()?, Target::Mixed).ok()?;
    let plan = plan(&certified, PlanOptions::default()).ok()?;
    let open: Vec<(String, Type)> =
        plan.inputs.iter().map(|i| (i.name.clone(), i.ty.clone())).collect();
    let mut executor = Executor::new(plan, 0).ok()?;
    for (i, (name, ty)) in open.into_iter().enumerate() {
        if !executor.is_given(i) {
            executor.set(&name, &random_input(i as u32, &ty, zeros)?).ok()?;
        }
    }
    executor.evaluate().ok()?;
    Some(executor)
}

/// The disagreement of imported and regenerated gradients, relative to their size, that is more than rounding.
pub const DISAGREEMENT: f64 = 1e-2;

/// What the values of a step's gradients tell of it: which of the possible ones differentiating the forward pass gives,
/// and which of the exporter's marks end a derivative. Of the choices of the latter, the first with which all gradients
/// are found counts, or the one with which most are. What is not found is kept as it was exported.
pub fn recognise(source: &Graph, gradients: &Gradients) -> Recognised {
    let mut best: Option<(usize, Recognised)> = None;
    for detach in Detach::CHOICES {
        let (missing, recognised) = recognised(source, Gradients { detach, ..gradients.clone() });
        if best.as_ref().is_none_or(|(least, _)| missing < *least) {
            best = Some((missing, recognised));
        }
        if missing == 0 || !detaches(source) {
            break;
        }
    }
    best.map_or_else(Recognised::default, |(_, recognised)| recognised)
}

/// The recognised gradients, and how many are not found.
fn recognised(source: &Graph, mut asked: Gradients) -> (usize, Recognised) {
    let mut recognised = Recognised { detach: asked.detach, ..Recognised::default() };
    let all = asked.pairs.len() + asked.open.len();
    // Zeros may be padding, to which nothing is given that the derivative would be.
    let Some(executor) = evaluated(source, &asked, false) else { return (all, recognised) };
    let half = source.values.iter().any(|v| matches!(v.ty.dtype, DType::F16 | DType::BF16));
    let [rounding, tolerance] = if half { [DISAGREEMENT, 1e-1] } else { [1e-4, DISAGREEMENT] };
    // Where nothing can be compared, there is no derivative.
    let found = disagreements(&executor, &asked);
    let known = asked.pairs.iter().map(|(p, _)| p).chain(asked.open.iter().map(|(p, _)| p));
    let mut missing: BTreeSet<String> = known.cloned().collect();
    for (error, parameter) in found {
        if error <= tolerance {
            missing.remove(&parameter);
        }
        if error > rounding && asked.evidence == GradientEvidence::Shape {
            asked.doubt(source, &parameter);
        }
    }
    if !asked.open.is_empty() {
        recognised.values = fitting(source, &asked, rounding);
    }
    missing.retain(|p| !recognised.values.contains_key(p));
    recognised.kept = missing;
    (recognised.kept.len(), recognised)
}

/// For each parameter whose gradient is open, the value that differentiating the forward pass gives, if there is one.
fn fitting(source: &Graph, asked: &Gradients, rounding: f64) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    // Without any zeros, rows are too much alike to tell values apart that are not the same.
    let [Some(ones), zeros] = [false, true].map(|zeros| evaluated(source, asked, zeros)) else {
        return values;
    };
    for (parameter, possible) in &asked.open {
        let gap = |executor: &Executor, i: usize| {
            let value = |name: String| executor.output(&name).ok()?.to_f64();
            let own = value(format!("regenerated.{parameter}"))?;
            let other = value(format!("candidate.{parameter}.{i}"))?;
            let size = own.iter().fold(0f64, |m, x| m.max(x.abs()));
            // Nothing is recognised by being undefined.
            let defined = own.iter().all(|x| x.is_finite());
            let gap = largest_gap(&own, &other);
            defined.then_some(if gap == 0.0 { 0.0 } else { gap / size })
        };
        let fitting = (0..possible.len()).filter(|&i| gap(&ones, i).is_some_and(|g| g <= rounding));
        let rest = |i: usize| zeros.as_ref().and_then(|e| gap(e, i)).unwrap_or(0.0);
        // The first of several, as others may be limits that do not bind.
        let nearest = fitting
            .map(|i| (i, rest(i)))
            .min_by(|a, b| a.1.max(rounding).total_cmp(&b.1.max(rounding)));
        if let Some((i, _)) = nearest {
            values.insert(parameter.clone(), possible[i].clone());
        }
    }
    values
}

/// The largest difference of imported and regenerated gradients over the largest magnitude of a gradient,
/// and the parameter where it is.
pub fn disagreement(source: &Graph, gradients: &Gradients) -> Option<(f64, String)> {
    if gradients.evidence == GradientEvidence::Op {
        return None;
    }
    let executor = evaluated(source, gradients, true)?;
    let mut worst: Option<(f64, String)> = None;
    for (error, parameter) in disagreements(&executor, gradients) {
        if worst.as_ref().is_none_or(|w| error > w.0) {
            worst = Some((error, parameter));
        }
    }
    worst
}

/// By how much the imported gradient of each parameter differs from the regenerated one, where there is one.
fn disagreements(executor: &Executor, gradients: &Gradients) -> Vec<(f64, String)> {
    let values = |kind: &str, p: &str| executor.output(&format!("{kind}.{p}")).ok()?.to_f64();
    let size = |x: &[f64]| x.iter().fold(0f64, |m, x| m.max(x.abs()));
    let both = |(p, _): &(String, String)| {
        Some((p.clone(), values("imported", p)?, values("regenerated", p)?))
    };
    let pairs: Vec<(String, Vec<f64>, Vec<f64>)> =
        gradients.pairs.iter().filter_map(both).collect();
    // A gradient that is a thousandth of the others, as that of a bias in front of a BatchNorm, is
    // rounding noise, and so is the difference.
    let floor = pairs.iter().map(|p| size(&p.1)).fold(0f64, f64::max) * 1e-3;
    let error = |imported: &[f64], own: &[f64]| match largest_gap(imported, own) {
        0.0 => 0.0,
        gap => gap / size(imported).max(floor),
    };
    pairs.into_iter().map(|(p, imported, own)| (error(&imported, &own), p)).collect()
}

/// The largest difference of two lists; infinite where one is NaN and the other is not.
fn largest_gap(a: &[f64], b: &[f64]) -> f64 {
    let gap = |a: f64, b: f64| match (a - b).abs() {
        _ if a == b || a.is_nan() && b.is_nan() => 0.0,
        gap if gap.is_nan() => f64::INFINITY,
        gap => gap,
    };
    a.iter().zip(b).map(|(&a, &b)| gap(a, b)).fold(0f64, f64::max)
}

/// Floats in (−1, 1); integers are 1, which is a label and an index nearly everywhere, or some of them 0.
fn random_input(seed: u32, ty: &Type, zeros: bool) -> Option<Tensor> {
    let n = ty.elements();
    let word = |i: u32| pam_kernels::random::threefry([seed, 0], [i, 0])[0] as i32;
    let floats = (0..n as u32).map(|i| word(i) as f32 / 2f32.powi(31));
    let whole = (0..n as u32).map(|i| if zeros && word(i) % 4 == 0 { 0.0 } else { 1.0 });
    let data: Vec<f32> = if ty.dtype.is_float() { floats.collect() } else { whole.collect() };
    pam_ir::eval::cast(&Tensor::new(ty.shape.clone(), data), ty.dtype)
}
