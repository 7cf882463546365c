//! What became of each node.

use pam_ir::graph::{Graph, Node};
use pam_ir::text::node_line;
use std::collections::HashMap;

/// What became of the nodes of one name.
pub struct Change {
    /// The name.
    pub name: String,
    /// The rules that made the change; empty where nothing says.
    pub rules: Vec<String>,
    /// The lines before.
    pub before: Vec<String>,
    /// The lines after.
    pub after: Vec<String>,
}

impl Change {
    /// What happened, in one word.
    pub fn kind(&self) -> &'static str {
        match (self.before.is_empty(), self.after.is_empty()) {
            _ if self.before == self.after => "unchanged",
            (true, _) => "added",
            (_, true) => "removed",
            _ => "changed",
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules = self.rules.join(", ");
        let by = if rules.is_empty() { String::new() } else { format!(" by {rules}") };
        write!(f, "{} ({}{by})", self.name, self.kind())?;
        for (sign, lines) in [('-', &self.before), ('+', &self.after)] {
            lines.iter().try_for_each(|line| write!(f, "\n  {sign} {line}"))?;
        }
        Ok(())
    }
}

/// Changes in the order of the graph before, then what was added. A node belongs to the name of the
/// node it stems from.
pub fn changes(before: &Graph, after: &Graph) -> Vec<Change> {
    let mut order: HashMap<&str, usize> = HashMap::new();
    let mut changes: Vec<Change> = Vec::new();
    let source = |node: &Node| match &node.origin {
        Some(origin) => origin.node.to_string(),
        None => node.name.clone(),
    };
    let names: Vec<(String, bool, usize)> = before
        .nodes
        .iter()
        .enumerate()
        .map(|(i, n)| (n.name.clone(), true, i))
        .chain(after.nodes.iter().enumerate().map(|(i, n)| (source(n), false, i)))
        .collect();
    for (name, is_before, i) in &names {
        let at = *order.entry(name).or_insert_with(|| {
            changes.push(Change {
                name: name.clone(),
                rules: Vec::new(),
                before: Vec::new(),
                after: Vec::new(),
            });
            changes.len() - 1
        });
        let change = &mut changes[at];
        if *is_before {
            change.before.push(node_line(before, &before.nodes[*i]));
        } else {
            let node = &after.nodes[*i];
            change.after.push(node_line(after, node));
            if let Some(origin) = &node.origin
                && !change.rules.iter().any(|r| **r == *origin.rule)
            {
                change.rules.push(origin.rule.to_string());
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use pam_ir::text::parse;

    #[test]
    fn changes_are_keyed_by_the_source_node() {
        let before = parse(
            "graph g {\n in x: f32[2]\n y: f32[2] = Exp(x) //@ e forward other approx\n z: f32[2] = Add(y, x) //@ a forward other approx\n w: f32[2] = Abs(x) //@ gone forward other approx\n out z = z\n}",
            &[],
        )
        .unwrap();
        let after = parse(
            "graph g {\n in x: f32[2]\n const c: f32[] = 1.5\n t: f32[2] = PamMul(x, c) //@ e forward other approx <- e Exp exp\n y: f32[2] = PamExp2(t) //@ e forward other approx <- e Exp exp\n z: f32[2] = Add(y, x) //@ a forward other approx\n out z = z\n}",
            &[],
        )
        .unwrap();
        let changes = changes(&before, &after);
        let kinds: Vec<(&str, &str)> =
            changes.iter().map(|c| (c.name.as_str(), c.kind())).collect();
        assert_eq!(kinds, [("e", "changed"), ("a", "unchanged"), ("gone", "removed")]);
        assert_eq!((changes[0].rules.len(), changes[0].after.len()), (1, 2));
    }
}
