//! Printing.

use super::INLINE_ELEMENTS;
use crate::attr::{Attr, FloatText};
use crate::graph::{Graph, Node, Source, ValueId};
use crate::tensor::{Data, Tensor};
use std::fmt::Write;

/// The whole graph with annotations.
pub fn print(graph: &Graph) -> String {
    text(graph, true)
}

/// The graph without annotations: names of nodes, roles, components, modes and origins.
pub fn brief(graph: &Graph) -> String {
    text(graph, false)
}

/// One node as its line, without annotations.
pub fn node_line(graph: &Graph, node: &Node) -> String {
    let mut out = String::new();
    write_node(&mut out, graph, node);
    out
}

fn text(graph: &Graph, annotated: bool) -> String {
    let mut out = format!("graph {} {{\n", name(&graph.name));
    for &v in &graph.inputs {
        let value = graph.value(v);
        let _ = write!(out, "  in {}: {}", name(&value.name), value.ty);
        if let Some(data) = &value.data {
            let _ = write!(out, " = {}", elements(data));
        }
        out.push('\n');
    }
    for value in &graph.values {
        if let (Source::Constant, Some(data)) = (value.source, &value.data) {
            let line = format!("  const {}: {} = ", name(&value.name), value.ty);
            let _ = writeln!(out, "{line}{}", elements(data));
        }
    }
    for node in &graph.nodes {
        out.push_str("  ");
        write_node(&mut out, graph, node);
        if annotated {
            let Node { name: n, role, component, mode, origin, .. } = node;
            let _ = write!(out, "  //@ {} {role} {component} {mode}", name(n));
            if let Some(o) = origin {
                let (node, op, rule) = (name(&o.node), name(&o.op), name(&o.rule));
                let _ = write!(out, " <- {node} {op} {rule}");
            }
        }
        out.push('\n');
    }
    for o in &graph.outputs {
        let _ = writeln!(out, "  out {} = {}", name(&o.name), operand(graph, Some(o.value)));
    }
    for b in &graph.bindings {
        let _ = writeln!(out, "  bind {} -> {}", name(&b.new), name(&b.old));
    }
    out.push_str("}\n");
    out
}

fn write_node(out: &mut String, graph: &Graph, node: &Node) {
    for (i, v) in node.outputs.iter().enumerate() {
        let separator = if i > 0 { ", " } else { "" };
        let _ = match v {
            Some(v) => {
                write!(out, "{separator}{}: {}", operand(graph, Some(*v)), graph.ty(*v))
            }
            None => write!(out, "{separator}_"),
        };
    }
    let inputs: Vec<String> = node.inputs.iter().map(|&v| operand(graph, v)).collect();
    let _ = write!(out, " = {}({})", node.op.name(), inputs.join(", "));
    if !node.attrs.is_empty() {
        let attrs: Vec<String> =
            node.attrs.iter().map(|(k, v)| format!("{}={}", name(k), attr(v))).collect();
        let _ = write!(out, " {{{}}}", attrs.join(", "));
    }
}

fn operand(graph: &Graph, v: Option<ValueId>) -> String {
    v.map_or_else(|| "_".to_owned(), |v| name(&graph.value(v).name))
}

/// Whether a name can stand without quotes.
pub(super) fn is_bare(s: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    s != "_" && s.chars().all(ok) && s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn name(s: &str) -> String {
    if is_bare(s) { s.to_owned() } else { format!("{s:?}") }
}

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
}

fn attr(a: &Attr) -> String {
    match a {
        Attr::Int(v) => v.to_string(),
        Attr::Float(v) => FloatText(*v).to_string(),
        Attr::Str(v) => format!("{v:?}"),
        Attr::Ints(v) => list(v, i64::to_string),
        Attr::Floats(v) => list(v, |x| FloatText(*x).to_string()),
        Attr::Strs(v) => list(v, |x| format!("{x:?}")),
        Attr::Tensor(t) => format!("{} {}", t.ty(), elements(t)),
        Attr::Type(d) => d.name().to_owned(),
    }
}

fn elements(t: &Tensor) -> String {
    if t.elements() > INLINE_ELEMENTS {
        return format!("#{}", t.short_hash());
    }
    let items: Vec<String> = match t.data() {
        Data::F32(v) => v.iter().map(|&x| FloatText(x).to_string()).collect(),
        Data::F64(v) => v.iter().map(|&x| double(x)).collect(),
        Data::F16(v) => v.iter().map(|x| half(x.to_f32(), x.to_bits())).collect(),
        Data::BF16(v) => v.iter().map(|x| half(x.to_f32(), x.to_bits())).collect(),
        Data::I64(v) => v.iter().map(ToString::to_string).collect(),
        Data::I32(v) => v.iter().map(ToString::to_string).collect(),
        Data::I16(v) => v.iter().map(ToString::to_string).collect(),
        Data::I8(v) => v.iter().map(ToString::to_string).collect(),
        Data::U64(v) => v.iter().map(ToString::to_string).collect(),
        Data::U32(v) => v.iter().map(ToString::to_string).collect(),
        Data::U16(v) => v.iter().map(ToString::to_string).collect(),
        Data::U8(v) => v.iter().map(ToString::to_string).collect(),
        Data::Bool(v) => v.iter().map(ToString::to_string).collect(),
    };
    match (t.shape().is_empty(), items.as_slice()) {
        (true, [one]) => one.clone(),
        _ => format!("[{}]", items.join(", ")),
    }
}

/// Doubles and halves print like floats; a NaN always with its bits, which are the type's own.
fn double(x: f64) -> String {
    if x.is_nan() { format!("nan:{:016x}", x.to_bits()) } else { format!("{x:?}") }
}

fn half(x: f32, bits: u16) -> String {
    if x.is_nan() { format!("nan:{bits:04x}") } else { format!("{x:?}") }
}
