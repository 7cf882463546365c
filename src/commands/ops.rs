//! `pam-compile ops`: the op support table.

use crate::args::Ops;
use crate::failure::Failure;
use crate::output::say;
use pam_ir::op::{Level, Op};
use pam_passes::lower::rule;
use std::process::ExitCode;

/// Prints every op the compiler knows and what it does with it.
pub fn ops(args: &Ops) -> Result<ExitCode, Failure> {
    let known = Op::all().filter(|op| op.level() != Level::Opaque);
    if args.json {
        let rows: Vec<serde_json::Value> = known
            .map(|op| {
                let row = op.row();
                serde_json::json!({
                    "op": op.onnx_name(),
                    "domain": op.domain(),
                    "since": row.since,
                    "operands": row.signature,
                    "attributes": row.attributes,
                    "level": op.level().name(),
                    "rule": rule(op).map(|(name, _)| name),
                    "doc": row.doc,
                })
            })
            .collect();
        say!("{}", serde_json::Value::Array(rows));
        return Ok(ExitCode::SUCCESS);
    }
    for op in known {
        let name = match op.domain() {
            "" => op.onnx_name().to_owned(),
            domain => format!("{domain}.{}", op.onnx_name()),
        };
        let does = match (op.level(), rule(op)) {
            (_, Some((rule, _))) => format!("rewritten by {rule}"),
            (Level::Pam, None) => "primitive".to_owned(),
            (_, None) => "kept".to_owned(),
        };
        say!("{name:<28} {:>4}  {does:<36} {}", op.row().since, op.row().doc);
    }
    Ok(ExitCode::SUCCESS)
}
