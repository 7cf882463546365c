//! The report as data.

use super::counts::{Count, Silicon, by_component, exact_scalings, silicon};
use crate::source::Source;
use crate::step::Step;
use pam_ir::audit::{Census, audit, census, written_census};
use pam_ir::certify::{NativeMultiply, Violation};
use pam_ir::graph::Graph;
use pam_ir::role::Role;
use pam_kernels::audit::{AUDITED_BY, KernelAudit, audit_self};
use pam_passes::Policy;
use pam_runtime::cuda::audit::audit as audit_sources;
use pam_runtime::cuda::source::Source as KernelSource;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The version of the schema.
pub const SCHEMA: u32 = 1;

#[derive(Serialize)]
pub struct Report {
    pub schema: u32,
    pub model: Model,
    pub policy: String,
    pub rules: Vec<RuleReport>,
    pub mantissa: u32,
    pub offset: f32,
    pub multiplier: &'static str,
    pub roles: BTreeMap<&'static str, usize>,
    pub evidence: &'static str,
    pub census: BeforeAfter<Census>,
    pub multiplies: Multiplies,
    pub rewrites: Vec<RewriteReport>,
    /// The gradients that were computed anew; none if the imported backward pass was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradients: Option<GradientReport>,
    pub certificate: Certificate,
    pub kernels: Vec<Kernel>,
    pub cost: Cost,
    pub tool: Tool,
}

#[derive(Serialize)]
pub struct Model {
    pub path: String,
    pub sha256: String,
    pub nodes: usize,
    pub opset: i64,
    pub producer: String,
    /// All files, where several were linked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub linked: Vec<FileReport>,
}

#[derive(Serialize)]
pub struct FileReport {
    pub path: String,
    pub sha256: String,
}

/// Gradients computed by differentiating the forward pass.
#[derive(Serialize)]
pub struct GradientReport {
    pub parameters: usize,
    /// Which.
    #[serde(skip)]
    pub names: Vec<String>,
    /// How the imported gradients were found.
    pub evidence: &'static str,
    /// The largest difference between the imported gradients and natively regenerated ones on random
    /// inputs, over the largest magnitude of the gradient (at least a thousandth of that of all); none where nothing was imported, or where it
    /// could not be executed.
    pub disagreement: Option<f64>,
    /// The parameter where it is.
    pub worst: Option<String>,
    /// Parameters whose imported gradients are kept, since they are not the derivatives of the forward pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

/// An override of the policy and how many nodes it decided.
#[derive(Serialize)]
pub struct RuleReport {
    pub rule: String,
    pub nodes: usize,
}

#[derive(Serialize)]
pub struct BeforeAfter<T> {
    pub before: T,
    pub after: T,
}

#[derive(Serialize)]
pub struct Multiplies {
    pub before: Count,
    pub after: Count,
    /// Without what was folded.
    pub by_component: BTreeMap<&'static str, BeforeAfter<Count>>,
    /// Scalings by constant powers of two, which are exact additions to exponents.
    pub exact_scalings: Count,
}

#[derive(Serialize)]
pub struct RewriteReport {
    pub node: String,
    pub op: &'static str,
    pub rule: &'static str,
    pub component: &'static str,
    pub mode: &'static str,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub target: String,
    pub holds: bool,
    pub violations: Vec<ViolationReport>,
    /// Native multiplications that a mixed target allows.
    pub native: Vec<NativeReport>,
    /// SHA-256 of the written model; none if nothing was written.
    pub output_sha256: Option<String>,
    /// What was computed when compiling and is a constant of the written model.
    pub constant_folded: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViolationReport {
    pub code: String,
    pub node: String,
    pub op: String,
    pub reason: String,
    #[serde(default)]
    pub line: String,
}

impl From<&Violation> for ViolationReport {
    fn from(v: &Violation) -> ViolationReport {
        ViolationReport {
            code: v.code.name().to_owned(),
            node: v.node.clone(),
            op: v.op.clone(),
            reason: v.reason.clone(),
            line: v.line.clone(),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeReport {
    pub node: String,
    pub op: String,
    pub component: String,
    pub scalars: u64,
}

impl From<&NativeMultiply> for NativeReport {
    fn from(m: &NativeMultiply) -> NativeReport {
        NativeReport {
            node: m.node.clone(),
            op: m.op.to_owned(),
            component: m.component.name().to_owned(),
            scalars: u64::try_from(m.scalars).unwrap_or(u64::MAX),
        }
    }
}

#[derive(Serialize)]
pub struct Kernel {
    pub backend: String,
    pub name: String,
    pub instructions: usize,
    pub float_multiplies: usize,
    pub integer_multiplies: usize,
    pub audited_by: String,
}

impl Kernel {
    /// A kernel of a backend, with what has decoded its instructions.
    pub fn of(k: &KernelAudit, backend: &str, auditor: &str) -> Kernel {
        Kernel {
            backend: backend.to_owned(),
            name: k.name.clone(),
            instructions: k.instructions,
            float_multiplies: k.float_multiplies(),
            integer_multiplies: k.integer_multiplies(),
            audited_by: auditor.to_owned(),
        }
    }
}

/// Energy and area of the multiplications alone.
#[derive(Serialize)]
pub struct Cost {
    pub source: &'static str,
    pub before: Silicon,
    pub after: Silicon,
}

#[derive(Serialize)]
pub struct Tool {
    pub name: &'static str,
    pub version: &'static str,
}

/// This program.
pub const TOOL: Tool = Tool { name: "pam-compile", version: env!("CARGO_PKG_VERSION") };

impl Report {
    /// The report of a compilation; `output_sha256` is of the model that is written, if one is.
    pub fn of(source: &Source, step: &Step, output_sha256: Option<String>) -> Report {
        let compiled = &step.compiled;
        let empty = Graph::default();
        let after = step.verdict.as_ref().map_or(&empty, |c| c.graph());
        let rules = step.policy.overrides.iter().zip(&compiled.caught);
        Report {
            schema: SCHEMA,
            model: model(source),
            policy: step.policy.name.clone(),
            rules: rules.map(|(o, &nodes)| RuleReport { rule: o.text.clone(), nodes }).collect(),
            mantissa: step.policy.mantissa,
            offset: alpha(&step.policy),
            multiplier: step.policy.multiplier.name(),
            roles: roles(&compiled.source),
            evidence: compiled.evidence.name(),
            census: BeforeAfter { before: census(&source.graph), after: written_census(after) },
            multiplies: multiplies(source, step, after),
            rewrites: compiled
                .rewrites
                .iter()
                .map(|r| RewriteReport {
                    node: r.node.clone(),
                    op: r.op,
                    rule: r.rule,
                    component: r.component.name(),
                    mode: r.mode.name(),
                })
                .collect(),
            gradients: gradients(step),
            certificate: certificate(step, output_sha256),
            kernels: Vec::new(),
            cost: cost(source, after),
            tool: TOOL,
        }
    }
}

impl Report {
    /// Adds the audit of the kernels. Where the format of the executable is not known, nothing is claimed
    /// of it.
    pub fn audit_kernels(&mut self) {
        let kernels = audit_self().unwrap_or_default();
        self.kernels = kernels.iter().map(|k| Kernel::of(k, "cpu", AUDITED_BY)).collect();
    }

    /// Adds the audit of the kernels that a plan runs on a device. Without a disassembler nothing is
    /// claimed of them, and a warning says so.
    pub fn audit_device(&mut self, arch: &str, sources: &[KernelSource], nvrtc: Option<&Path>) {
        match audit_sources(sources, arch, nvrtc) {
            Ok((kernels, auditor)) => {
                let backend = format!("cuda {arch}");
                self.kernels.extend(kernels.iter().map(|k| Kernel::of(k, &backend, &auditor)));
            }
            Err(e) => eprintln!("warning: the report says nothing of the CUDA kernels: {e}"),
        }
    }
}

/// What is said of regenerated gradients.
fn gradients(step: &Step) -> Option<GradientReport> {
    let gradients = step.compiled.gradients.as_ref()?;
    let worst = step.disagreement().cloned();
    Some(GradientReport {
        parameters: gradients.pairs.len(),
        names: gradients.pairs.iter().map(|(name, _)| name.clone()).collect(),
        evidence: gradients.evidence.name(),
        disagreement: worst.as_ref().map(|w| w.0),
        worst: worst.map(|w| w.1),
        kept: gradients.kept.clone(),
    })
}

/// The α whose bits are added in products.
fn alpha(policy: &Policy) -> f32 {
    let offset = policy.total_offset().unwrap_or(policy.offset);
    f32::from_bits(0x3F80_0000u32.wrapping_add_signed(offset))
}

/// What the report says of the source.
pub fn model(source: &Source) -> Model {
    let files = source.files.iter().zip(&source.sha256);
    let linked: Vec<FileReport> = files
        .map(|(f, sha256)| FileReport {
            path: f.path.display().to_string(),
            sha256: sha256.clone(),
        })
        .collect();
    Model {
        path: source.path().display().to_string(),
        sha256: source.sha256.first().cloned().unwrap_or_default(),
        nodes: source.graph.nodes.len(),
        opset: source.graph.meta.opset,
        producer: source.graph.meta.producer.clone(),
        linked: if linked.len() > 1 { linked } else { Vec::new() },
    }
}

fn roles(graph: &Graph) -> BTreeMap<&'static str, usize> {
    let count = |r: &Role| graph.nodes.iter().filter(|n| n.role == *r).count();
    Role::ALL.iter().map(|r| (r.name(), count(r))).collect()
}

fn multiplies(source: &Source, step: &Step, after: &Graph) -> Multiplies {
    let (mut labelled, left) = (by_component(&step.compiled.source), by_component(after));
    let mut before = |name| labelled.remove(name).unwrap_or_default();
    Multiplies {
        before: audit(&source.graph).total().into(),
        after: audit(after).total().into(),
        by_component: left
            .into_iter()
            .map(|(name, after)| (name, BeforeAfter { before: before(name), after }))
            .collect(),
        exact_scalings: exact_scalings(after),
    }
}

fn certificate(step: &Step, output_sha256: Option<String>) -> Certificate {
    let (violations, native) = match &step.verdict {
        Ok(certified) => (Vec::new(), certified.native().iter().map(Into::into).collect()),
        Err(violations) => (violations.iter().map(Into::into).collect(), Vec::new()),
    };
    Certificate {
        target: step.target.name().to_owned(),
        holds: violations.is_empty(),
        violations,
        native,
        output_sha256,
        constant_folded: crate::step::folded_text(&step.compiled),
    }
}

fn cost(source: &Source, after: &Graph) -> Cost {
    Cost {
        source: "Horowitz, ISSCC 2014, 45 nm: float32 multiplier 3.7 pJ, 7700 um2; int32 adder 0.1 pJ, 137 um2",
        before: silicon(&source.graph),
        after: silicon(after),
    }
}
