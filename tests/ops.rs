//! The op table and its page.

mod common;

use common::expect;
use std::path::Path;

#[test]
fn the_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ops.md");
    let (table, _) = expect(0, ["ops", "markdown"]);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(page == table, "docs/ops.md is out of date: run this test with UPDATE_DOCS=1");
}

#[test]
fn every_op_that_multiplies_has_a_rule() {
    let (json, _) = expect(0, ["ops", "json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert!(rows.len() > 150);
    for row in rows {
        let multiplies = matches!(row["level"].as_str(), Some("native" | "composite"));
        assert!(!multiplies || row["rule"].is_string(), "{row}");
    }
    let (text, _) = expect(0, ["ops"]);
    assert!(text.lines().any(|l| l.starts_with("Gelu ") && l.contains("rewritten by gelu")));
}
