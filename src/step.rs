//! From a source to a certified step, and on to a plan.

use crate::args::{PolicyArgs, Processor};
use crate::failure::Failure;
use crate::gradients::{DISAGREEMENT, disagreement, recognise};
use crate::source::{Source, read_bytes};
use pam_ir::certify::{Certified, Target, Violation, certify};
use pam_ir::graph::Graph;
use pam_ir::role::Mode;
use pam_passes::{CompileError, Compiled, Policy, Recognised, compile_with, expand, uncertain};
use pam_runtime::{Executor, Plan, PlanOptions, cuda, plan};
use std::cell::OnceCell;
use std::path::Path;

/// The policy that the arguments ask for.
pub fn policy(args: &PolicyArgs) -> Result<Policy, Failure> {
    let name = args.policy.as_deref().unwrap_or("approx");
    let mut policy = match Policy::preset(name) {
        Some(policy) => policy,
        None if name.ends_with(".toml") => {
            let path = Path::new(name);
            let bytes = read_bytes(path)?;
            let text = String::from_utf8(bytes).map_err(|_| Failure::file(path, "is no text"))?;
            Policy::from_toml(name, &text).map_err(|e| Failure::file(path, e))?
        }
        None => {
            let known = "native, approx, exact, paper, matmul or a FILE.toml";
            return Err(Failure::new(format!(
                "--policy {name}: there is no such policy; use {known}"
            )));
        }
    };
    let fail = |option: &str, e: String| Failure::new(format!("{option}: {e}"));
    for set in &args.sets {
        policy.set(set).map_err(|e| fail("--set", e))?;
    }
    if let Some(bits) = args.mantissa {
        policy.set_mantissa(bits).map_err(|e| fail("--mantissa", e))?;
    }
    if let Some(alpha) = args.offset {
        policy.set_offset(alpha).map_err(|e| fail("--offset", e))?;
    }
    if let Some(name) = &args.multiplier {
        policy.set_multiplier(name).map_err(|e| fail("--multiplier", e))?;
    }
    if let Some(name) = &args.backward {
        policy.set_backward(name).map_err(|e| fail("--backward", e))?;
    }
    policy.total_offset().map_err(|e| fail("--offset", e))?;
    Ok(policy)
}

/// A compilation and what the certifier says of it.
pub struct Step {
    /// The policy.
    pub policy: Policy,
    /// What the passes made.
    pub compiled: Compiled,
    /// What it was to be certified for.
    pub target: Target,
    /// The certified graph, or every violation.
    pub verdict: Result<Certified, Vec<Violation>>,
    disagreement: OnceCell<Option<(f64, String)>>,
}

impl Step {
    /// Compiles a source and asks the certifier.
    pub fn compile(source: &Source, policy: Policy) -> Result<Step, Failure> {
        if let Some(target) = source.stated_target() {
            let reason = format!("is compiled already (certified {target}); compile its source");
            return Err(Failure::file(source.path(), reason));
        }
        source.check_foreign()?;
        let fail = |e: CompileError| Failure::compile(source.path(), &source.graph, &e);
        let recognised = match uncertain(&source.graph, &policy).map_err(fail)? {
            Some((labelled, gradients)) => recognise(&labelled, &gradients),
            None => Recognised::default(),
        };
        let mut compiled = compile_with(&source.graph, &policy, &recognised).map_err(fail)?;
        let target = if policy.keeps_native() { Target::Mixed } else { Target::MultiplicationFree };
        let verdict = certify(std::mem::take(&mut compiled.graph), target);
        Ok(Step { policy, compiled, target, verdict, disagreement: OnceCell::new() })
    }

    /// Overrides that decided no node, which is mostly a slip.
    pub fn idle_rules(&self) -> impl Iterator<Item = &str> {
        let rules = self.policy.overrides.iter().zip(&self.compiled.caught);
        rules.filter(|(_, caught)| **caught == 0).map(|(o, _)| o.text.as_str())
    }

    /// By how much the gradients that were computed anew differ natively from the imported ones, and that of
    /// which parameter; `None` where there are none of one kind.
    pub fn disagreement(&self) -> Option<&(f64, String)> {
        let compute = || disagreement(&self.compiled.source, self.compiled.gradients.as_ref()?);
        self.disagreement.get_or_init(compute).as_ref()
    }

    /// Writes warnings to stderr.
    pub fn warn(&self, path: &Path) {
        for rule in self.idle_rules() {
            eprintln!("warning: the rule {rule} caught no node");
        }
        let exact = self.compiled.source.nodes.iter().any(|n| n.mode == Mode::Exact);
        if exact && self.compiled.gradients.is_none() {
            eprintln!(
                "warning: {}: no training step is recognised, since no loss depends on state that is bound; \
                 derivatives that it may hold stay what they are, not exact; bind parameters with --bind",
                path.display()
            );
        }
        let gradients = self.compiled.gradients.as_ref();
        if let Some(kept) = gradients.map(|g| &g.kept).filter(|kept| !kept.is_empty()) {
            let (is, its) = match kept.len() {
                1 => ("gradient of", "is not the derivative of its forward pass"),
                _ => ("gradients of", "are not the derivatives of their forward pass"),
            };
            eprintln!(
                "warning: {}: the exported {is} `{}` {its} (as with straight-through estimators, detach(), several \
                 losses and target networks) and kept: policy {} makes no exact one",
                path.display(),
                kept.join("`, `"),
                self.policy.name
            );
        }
        if let Some((gap, parameter)) = self.disagreement().filter(|d| d.0 > DISAGREEMENT) {
            eprintln!(
                "warning: {}: the exported gradient of `{parameter}` is not the derivative of its forward pass \
                 where integers are 0 (off by {gap:.1e} of its size), as with padding_idx, but policy {} replaces it \
                 by that; --policy approx keeps what was exported",
                path.display(),
                self.policy.name
            );
        }
    }

    /// The certified graph; a failure that lists the violations otherwise.
    pub fn certified(&self, path: &Path) -> Result<&Certified, Failure> {
        self.verdict.as_ref().map_err(|violations| refutation(path, violations))
    }
}

/// How many violations a message lists.
const LISTED: usize = 20;

/// Prints violations to stderr and returns the failure that sums them up.
pub fn refutation(path: &Path, violations: &[Violation]) -> Failure {
    for v in violations.iter().take(LISTED) {
        eprintln!("{}: {v}", path.display());
    }
    if violations.len() > LISTED {
        eprintln!("… and {} more; --report lists all", violations.len() - LISTED);
    }
    let n = violations.len();
    let noun = if n == 1 { "violation remains" } else { "violations remain" };
    Failure::refuted(format!("{}: not certified: {n} {noun}; no model was written", path.display()))
}

/// A certified step ready to run: a compiled model as it stands, anything else compiled first.
pub fn certified(source: &Source, args: &PolicyArgs) -> Result<Certified, Failure> {
    let Some(stated) = source.stated_target() else {
        let step = Step::compile(source, policy(args)?)?;
        step.warn(source.path());
        return step.verdict.map_err(|violations| refutation(source.path(), &violations));
    };
    let path = source.path();
    if !args.is_default() {
        let reason = "is compiled already; policy options have no effect on it, leave them out";
        return Err(Failure::file(path, reason));
    }
    let target = Target::from_name(stated)
        .ok_or_else(|| Failure::file(path, format!("states an unknown target `{stated}`")))?;
    source.check_functions().map_err(|faults| {
        Failure::refuted(format!("{}: {}; compile its source again", path.display(), faults[0]))
    })?;
    certify(source.graph.clone(), target).map_err(|v| refutation(path, &v))
}

/// Plans a certified graph, its native composites expanded.
pub fn plan_of(path: &Path, certified: &Certified) -> Result<Plan, Failure> {
    let target = certified.target();
    let expanded =
        expand(certified.graph()).map_err(|e| Failure::compile(path, certified.graph(), &e))?;
    let certified = certify(expanded, target).map_err(|v| refutation(path, &v))?;
    plan(&certified, PlanOptions::default()).map_err(|e| Failure::file(path, e))
}

/// An executor on the device asked for.
pub fn executor(
    path: &Path,
    certified: &Certified,
    device: &crate::args::Device,
) -> Result<Executor, Failure> {
    // A missing driver is said before anything is planned.
    let machine = match device.device {
        Processor::Cpu => None,
        Processor::Cuda(n) => {
            let opened = cuda::Device::open(n, device.nvrtc.as_deref());
            Some(opened.map_err(|e| Failure::new(format!("--device cuda:{n}: {e}")))?)
        }
    };
    let plan = plan_of(path, certified)?;
    match machine {
        Some(machine) => Executor::cuda(plan, Box::new(machine)),
        None => Executor::new(plan, device.threads.unwrap_or(0)),
    }
    .map_err(|e| Failure::file(path, e))
}

/// The graph of a source under the native policy, certified as such.
pub fn native(source: &Source) -> Result<Certified, Failure> {
    let policy = Policy::preset("native").expect("native is a preset");
    let step = Step::compile(source, policy)?;
    step.verdict.map_err(|violations| refutation(source.path(), &violations))
}

/// The number of nodes and constants that folding computed, as metadata and reports state it.
pub fn folded_text(compiled: &Compiled) -> String {
    let f = compiled.folded;
    format!("{} nodes, {} of them float multiplications", f.nodes, f.multiplies)
}

/// A graph's float and integer element counts of inputs that are state, for summaries.
pub fn parameters(graph: &Graph) -> usize {
    let old = |name: &str| graph.bindings.iter().any(|b| b.old == name);
    let inputs = graph.inputs.iter().map(|&v| graph.value(v));
    inputs.filter(|v| v.ty.dtype.is_float() && old(&v.name)).map(|v| v.ty.elements()).sum()
}
