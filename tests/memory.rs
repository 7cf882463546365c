//! How close the planned memory is to what no layout can do without.

mod common;

use common::{STEPS, graph, planned};

#[test]
fn arenas_are_little_larger_than_what_is_alive() {
    for name in STEPS {
        let graph = graph(name);
        for policy in ["native", "approx", "exact"] {
            let report = planned(&graph, policy).report;
            let ratio = report.arena as f64 / report.live as f64;
            println!("{name} {policy}: {} of {} bytes, {ratio:.3}", report.arena, report.live);
            assert!(ratio <= 1.3, "{name} {policy}: {ratio}");
        }
    }
}
