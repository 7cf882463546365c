//! Comparing the gradients that a step was imported with and those that the compiler makes.

use pam_ir::certify::{Target, certify};
use pam_ir::graph::Graph;
use pam_ir::tensor::Tensor;
use pam_ir::types::Type;
use pam_passes::{GradientEvidence, Gradients, Recognised, expand, gradient_check};
use pam_runtime::{Executor, PlanOptions, plan};

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

/// Finds the gradients that nothing but their values tells: of the values that may be it, the one that
/// differentiating the forward pass gives.
pub fn recognise(source: &Graph, gradients: &Gradients) -> Recognised {
    let mut recognised = Recognised::new();
    // Zeros may be padding, to which nothing is given that the derivative would be.
    let Some(executor) = evaluated(source, gradients, false) else { return recognised };
    let value = |name: String| executor.output(&name).ok()?.to_f64();
    for (parameter, possible) in &gradients.open {
        let Some(own) = value(format!("regenerated.{parameter}")) else { continue };
        let size = own.iter().fold(0f64, |m, x| m.max(x.abs()));
        let gap = |i: usize| {
            let other = value(format!("candidate.{parameter}.{i}"))?;
            Some(largest_gap(&own, &other))
        };
        let gaps = (0..possible.len()).filter_map(|i| Some((i, gap(i).filter(|g| g.is_finite())?)));
        let nearest = gaps.min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((i, gap)) = nearest
            && gap <= 1e-4 * size
        {
            recognised.insert(parameter.clone(), possible[i].clone());
        }
    }
    recognised
}

/// The largest difference of imported and regenerated gradients over the largest magnitude of a gradient,
/// and the parameter where it is.
pub fn disagreement(source: &Graph, gradients: &Gradients) -> Option<(f64, String)> {
    if gradients.evidence == GradientEvidence::Op {
        return None;
    }
    let executor = evaluated(source, gradients, true)?;
    let values = |kind: &str, p: &str| executor.output(&format!("{kind}.{p}")).ok()?.to_f64();
    let size = |x: &[f64]| x.iter().fold(0f64, |m, x| m.max(x.abs()));
    let mut pairs = Vec::with_capacity(gradients.pairs.len());
    for (parameter, _) in &gradients.pairs {
        pairs.push((parameter, values("imported", parameter)?, values("regenerated", parameter)?));
    }
    // A gradient that is a thousandth of the others, as that of a bias in front of a BatchNorm, is
    // rounding noise, and so is the difference.
    let floor = pairs.iter().map(|p| size(&p.1)).fold(0f64, f64::max) * 1e-3;
    let mut worst: Option<(f64, String)> = None;
    for (parameter, imported, own) in pairs {
        let gap = largest_gap(&imported, &own);
        let error = if gap == 0.0 { 0.0 } else { gap / size(&imported).max(floor) };
        if worst.as_ref().is_none_or(|w| error > w.0) {
            worst = Some((error, parameter.clone()));
        }
    }
    worst
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
