//! `pam-compile verify`: does a certificate state the truth about a file?

use crate::args::{Input, Verify};
use crate::failure::Failure;
use crate::output::say;
use crate::report::counts::{Count, Silicon, by_component, exact_scalings, silicon};
use crate::report::json::{Certificate, NativeReport, SCHEMA, ViolationReport};
use crate::source::{FOLDED, POLICY, Source, TARGET, Tolerance, read_bytes};
use pam_ir::audit::{Census, audit, written_census};
use pam_ir::certify::{Target, native_multiplies, violations};
use pam_ir::graph::Graph;
use pam_ir::onnx::external::{check_data, sha256_hex};
use pam_ir::onnx::load;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// The parts of a report that a file alone decides.
#[derive(Deserialize)]
struct Claims {
    schema: u32,
    policy: String,
    certificate: Certificate,
    census: After<Census>,
    multiplies: Multiplies,
    cost: After<Silicon>,
}

#[derive(Deserialize)]
struct Multiplies {
    after: Count,
    by_component: BTreeMap<String, After<Count>>,
    exact_scalings: Count,
}

#[derive(Deserialize)]
struct After<T> {
    after: T,
}

/// Re-derives every claim and prints those that are false.
pub fn verify(args: &Verify) -> Result<ExitCode, Failure> {
    let bytes = read_bytes(&args.certificate)?;
    let claims: Claims = serde_json::from_slice(&bytes).map_err(|e| {
        Failure::file(&args.certificate, format!("is no report of this program: {e}"))
    })?;
    if claims.schema != SCHEMA {
        let reason = format!("is of schema {}, not {SCHEMA}", claims.schema);
        return Err(Failure::file(&args.certificate, reason));
    }
    let Some(target) = Target::from_name(&claims.certificate.target) else {
        let reason = format!("states an unknown target `{}`", claims.certificate.target);
        return Err(Failure::file(&args.certificate, reason));
    };
    let mut faults = Vec::new();
    let model_bytes = read_bytes(&args.model)?;
    let sha256 = sha256_hex(&model_bytes);
    if claims.certificate.output_sha256.as_deref() != Some(&sha256) {
        let stated = claims.certificate.output_sha256.as_deref().unwrap_or("none");
        faults.push(format!("its SHA-256 is {sha256}, not {stated}"));
    }
    let decoded = load::decode(&args.model, &model_bytes)?;
    if let Err(e) = check_data(&args.model, &decoded) {
        faults.push(e);
    }
    let input = Input::plain(vec![args.model.clone()], Vec::new());
    let source = Source::read(&input, Tolerance { default_dim: None, unknown_ops: true })?;
    if let Err(differences) = source.check_functions() {
        faults.extend(differences);
    }
    faults.extend(false_claims(&claims, target, &source.graph));
    if faults.is_empty() {
        if !args.volume.quiet {
            source.record().into_iter().for_each(|note| eprintln!("{note}"));
            say!("{}: the certificate is true: {}", args.model.display(), target.name());
        }
        return Ok(ExitCode::SUCCESS);
    }
    for fault in &faults {
        say!("false: {fault}");
    }
    let n = faults.len();
    let noun = if n == 1 { "claim does" } else { "claims do" };
    Err(Failure::refuted(format!("{}: {n} {noun} not hold", args.model.display())))
}

fn false_claims(claims: &Claims, target: Target, graph: &Graph) -> Vec<String> {
    let mut faults = Vec::new();
    let stated = &claims.certificate;
    let found = violations(graph, target);
    for v in &found {
        faults.push(format!("violation {v}"));
    }
    if stated.holds != found.is_empty() {
        let word = if stated.holds { "" } else { "not " };
        faults.push(format!("the certificate is stated to {word}hold"));
    }
    let found: Vec<ViolationReport> = found.iter().map(Into::into).collect();
    let key = |v: &ViolationReport| (v.code.clone(), v.node.clone(), v.op.clone());
    if !stated.violations.iter().map(key).eq(found.iter().map(key)) {
        faults.push("the violations are not those stated".to_owned());
    }
    let native: Vec<NativeReport> = native_multiplies(graph).iter().map(Into::into).collect();
    if stated.native != native {
        let (is, was) = (native.len(), stated.native.len());
        faults.push(format!("{is} native multiplications are left, not the {was} stated"));
    }
    // What the file says of itself.
    for (key, name, claim) in [
        (TARGET, "target", stated.target.as_str()),
        (POLICY, "policy", &claims.policy),
        (FOLDED, "constant_folded", &stated.constant_folded),
    ] {
        if graph.meta.properties.get(key).is_some_and(|said| said != claim) {
            faults.push(format!("{name} is not `{claim}`"));
        }
    }
    if claims.census.after != written_census(graph) {
        faults.push("the census is not the one stated".to_owned());
    }
    let stated = &claims.multiplies;
    let counts = by_component(graph);
    let fits =
        |(name, count): (&String, &After<Count>)| counts.get(name.as_str()) == Some(&count.after);
    if stated.after != Count::from(audit(graph).total())
        || stated.exact_scalings != exact_scalings(graph)
        || stated.by_component.len() != counts.len()
        || !stated.by_component.iter().all(fits)
    {
        faults.push("the scalar counts are not those stated".to_owned());
    }
    if !claims.cost.after.agrees(&silicon(graph)) {
        faults.push("the cost is not the one stated".to_owned());
    }
    faults
}
