//! Parsing.

use crate::attr::{Attr, AttrKind, Attrs};
use crate::graph::{Binding, Graph, Node, NodeId, Origin, Output, Source, Value, ValueId};
use crate::op::Op;
use crate::role::{Component, Mode, Role};
use crate::tensor::{Data, Tensor};
use crate::types::{DType, Type, checked_elements};
use half::{bf16, f16};
use std::collections::{BTreeMap, HashMap};

/// Text that is not a graph.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// Line, counted from 1.
    pub line: usize,
    /// What was expected or is unknown.
    pub reason: String,
}

type Result<T> = std::result::Result<T, String>;

/// Reads the text form. Constants that the text names by their hash are taken from `weights`.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str, weights: &[Tensor]) -> std::result::Result<Graph, ParseError> {
    let mut p = Parser {
        graph: Graph::default(),
        names: HashMap::new(),
        weights: weights.iter().map(|t| ((t.short_hash(), t.ty()), t)).collect(),
    };
    let mut open = false;
    for (i, line) in text.lines().enumerate() {
        let mut c = Cursor { rest: line.trim() };
        if c.rest.is_empty() || c.rest.starts_with("//") {
            continue;
        }
        let done = if open { p.line(&mut c) } else { p.head(&mut c).map(|()| false) };
        match done {
            Ok(true) => return Ok(p.graph),
            Ok(false) => open = true,
            Err(reason) => return Err(ParseError { line: i + 1, reason }),
        }
    }
    Err(ParseError { line: text.lines().count(), reason: "expected `}`".to_owned() })
}

struct Parser<'w> {
    graph: Graph,
    names: HashMap<String, ValueId>,
    weights: HashMap<(String, Type), &'w Tensor>,
}

impl Parser<'_> {
    fn head(&mut self, c: &mut Cursor<'_>) -> Result<()> {
        c.expect("graph")?;
        self.graph.name = c.name()?;
        c.expect("{")
    }

    /// Reads one line; true for the closing brace.
    fn line(&mut self, c: &mut Cursor<'_>) -> Result<bool> {
        if c.eat("}") {
            return Ok(true);
        }
        // A keyword is one only if a name follows, so that values may be called `in` or `out`.
        match c.keyword(&["in", "const", "out", "bind"]) {
            Some("in") => {
                let (name, ty) = c.typed()?;
                let data = if c.eat("=") { Some(self.elements(c, &ty)?) } else { None };
                let v = self.define(name, ty, Source::Input, data)?;
                self.graph.inputs.push(v);
            }
            Some("const") => {
                let (name, ty) = c.typed()?;
                c.expect("=")?;
                let data = self.elements(c, &ty)?;
                self.define(name, ty, Source::Constant, Some(data))?;
            }
            Some("out") => {
                let name = c.name()?;
                c.expect("=")?;
                let value = self.value(c)?.ok_or("an output cannot be omitted")?;
                self.graph.outputs.push(Output { name, value });
            }
            Some(_) => {
                let new = c.name()?;
                c.expect("->")?;
                self.graph.bindings.push(Binding { new, old: c.name()? });
            }
            None => self.node(c)?,
        }
        Ok(false)
    }

    fn node(&mut self, c: &mut Cursor<'_>) -> Result<()> {
        let mut outputs = Vec::new();
        while !c.eat("=") {
            if !outputs.is_empty() {
                c.expect(",")?;
            }
            outputs.push(if c.eat_omitted() { None } else { Some(c.typed()?) });
        }
        let op_name = c.name()?;
        let op = Op::from_name(&op_name).ok_or(format!("no op `{op_name}`"))?;
        c.expect("(")?;
        let mut inputs = Vec::new();
        while !c.eat(")") {
            if !inputs.is_empty() {
                c.expect(",")?;
            }
            inputs.push(self.value(c)?);
        }
        let mut attrs = Attrs::new();
        if c.eat("{") {
            while !c.eat("}") {
                if !attrs.is_empty() {
                    c.expect(",")?;
                }
                let name = c.name()?;
                c.expect("=")?;
                let kind = op.signature().attribute(&name).map(|a| a.kind);
                let value = self.attr(c, kind)?;
                attrs.insert(name, value);
            }
        }
        let node = NodeId(self.graph.nodes.len() as u32);
        let mut ids = Vec::new();
        for (index, output) in outputs.into_iter().enumerate() {
            let source = Source::Node { node, index: index as u32 };
            ids.push(match output {
                Some((name, ty)) => Some(self.define(name, ty, source, None)?),
                None => None,
            });
        }
        let first = ids.iter().flatten().next().map(|&v| self.graph.value(v).name.clone());
        let mut node = Node {
            op,
            name: first.unwrap_or_else(|| op.name().to_owned()),
            inputs,
            outputs: ids,
            attrs,
            role: Role::Forward,
            component: Component::Other,
            mode: Mode::Native,
            origin: None,
            metadata: BTreeMap::new(),
        };
        if c.eat("//@") {
            annotate(c, &mut node)?;
        }
        if !c.rest.is_empty() && !c.rest.starts_with("//") {
            return Err(format!("unexpected `{}`", c.rest));
        }
        self.graph.nodes.push(node);
        Ok(())
    }

    fn define(
        &mut self,
        name: String,
        ty: Type,
        source: Source,
        data: Option<Tensor>,
    ) -> Result<ValueId> {
        let id = self.graph.add_value(Value { name: name.clone(), ty, source, data });
        match self.names.insert(name.clone(), id) {
            Some(_) => Err(format!("value `{name}` is defined twice")),
            None => Ok(id),
        }
    }

    fn value(&self, c: &mut Cursor<'_>) -> Result<Option<ValueId>> {
        if c.eat_omitted() {
            return Ok(None);
        }
        let name = c.name()?;
        self.names.get(&name).copied().map(Some).ok_or(format!("no value `{name}`"))
    }

    fn attr(&self, c: &mut Cursor<'_>, kind: Option<AttrKind>) -> Result<Attr> {
        if c.rest.starts_with('"') {
            return Ok(Attr::Str(c.quoted()?));
        }
        if c.eat("[") {
            if kind == Some(AttrKind::Strs) || c.rest.trim_start().starts_with('"') {
                return Ok(Attr::Strs(c.list(Cursor::quoted)?));
            }
            let items = c.list(Cursor::word)?;
            let floats = kind == Some(AttrKind::Floats)
                || (kind.is_none() && items.iter().any(|i| i.parse::<i64>().is_err()));
            return if floats {
                items.iter().map(|s| float(s)).collect::<Result<_>>().map(Attr::Floats)
            } else {
                items.iter().map(|s| number(s)).collect::<Result<_>>().map(Attr::Ints)
            };
        }
        let word = c.word()?;
        if let Some(dtype) = DType::from_name(&word) {
            if !c.rest.starts_with('[') {
                return Ok(Attr::Type(dtype));
            }
            let ty = Type::new(dtype, c.shape()?);
            return self.elements(c, &ty).map(Attr::Tensor);
        }
        match (kind, word.parse::<i64>()) {
            (Some(AttrKind::Float), _) | (_, Err(_)) => float(&word).map(Attr::Float),
            (_, Ok(i)) => Ok(Attr::Int(i)),
        }
    }

    fn elements(&self, c: &mut Cursor<'_>, ty: &Type) -> Result<Tensor> {
        if c.eat("#") {
            let hash = c.word()?;
            let tensor = self.weights.get(&(hash.clone(), ty.clone()));
            return tensor.map(|&t| t.clone()).ok_or(format!("no weight #{hash} of type {ty}"));
        }
        let items = if c.eat("[") { c.list(Cursor::word)? } else { vec![c.word()?] };
        let shape = ty.shape.clone();
        if checked_elements(&shape) != Some(items.len()) {
            return Err(format!("{} elements for type {ty}", items.len()));
        }
        let data = data(ty.dtype, &items)?;
        Tensor::from_data(shape, data).ok_or(format!("elements do not fit type {ty}"))
    }
}

fn annotate(c: &mut Cursor<'_>, node: &mut Node) -> Result<()> {
    node.name = c.name()?;
    let (role, component, mode) = (c.word()?, c.word()?, c.word()?);
    node.role = Role::from_name(&role).ok_or(format!("no role `{role}`"))?;
    node.component =
        Component::from_name(&component).ok_or(format!("no component `{component}`"))?;
    node.mode = Mode::from_name(&mode).ok_or(format!("no mode `{mode}`"))?;
    if c.eat("<-") {
        let (node_name, op, rule) = (c.name()?, c.name()?, c.name()?);
        node.origin = Some(Origin { node: node_name.into(), op: op.into(), rule: rule.into() });
    }
    Ok(())
}

fn number<T: std::str::FromStr>(s: &str) -> Result<T> {
    s.parse().map_err(|_| format!("expected a number, not `{s}`"))
}

fn nan_bits(s: &str) -> Option<u64> {
    u64::from_str_radix(s.strip_prefix("nan:")?, 16).ok()
}

fn float(s: &str) -> Result<f32> {
    match nan_bits(s) {
        Some(bits) => Ok(f32::from_bits(bits as u32)),
        None if s == "NaN" => Ok(f32::from_bits(0x7FC0_0000)),
        None => number(s),
    }
}

fn data(dtype: DType, items: &[String]) -> Result<Data> {
    fn all<T>(items: &[String], read: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
        items.iter().map(|s| read(s)).collect()
    }
    Ok(match dtype {
        DType::F32 => Data::F32(all(items, float)?),
        DType::F64 => Data::F64(all(items, |s| {
            nan_bits(s).map_or_else(|| number(s), |b| Ok(f64::from_bits(b)))
        })?),
        DType::F16 => Data::F16(all(items, |s| {
            nan_bits(s)
                .map_or_else(|| float(s).map(f16::from_f32), |bits| Ok(f16::from_bits(bits as u16)))
        })?),
        DType::BF16 => Data::BF16(all(items, |s| {
            nan_bits(s).map_or_else(
                || float(s).map(bf16::from_f32),
                |bits| Ok(bf16::from_bits(bits as u16)),
            )
        })?),
        DType::I64 => Data::I64(all(items, number)?),
        DType::I32 => Data::I32(all(items, number)?),
        DType::I16 => Data::I16(all(items, number)?),
        DType::I8 => Data::I8(all(items, number)?),
        DType::U64 => Data::U64(all(items, number)?),
        DType::U32 => Data::U32(all(items, number)?),
        DType::U16 => Data::U16(all(items, number)?),
        DType::U8 => Data::U8(all(items, number)?),
        DType::Bool => Data::Bool(all(items, number)?),
    })
}

/// What is left of a line.
struct Cursor<'t> {
    rest: &'t str,
}

impl Cursor<'_> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(format!("expected `{token}`")) }
    }

    fn keyword(&mut self, words: &[&'static str]) -> Option<&'static str> {
        let &word = words.iter().find(|w| {
            let rest = self.rest.strip_prefix(**w);
            rest.is_some_and(|r| r.starts_with(' ') && !r.trim_start().starts_with('='))
        })?;
        self.rest = self.rest[word.len()..].trim_start();
        Some(word)
    }

    /// A lone `_`.
    fn eat_omitted(&mut self) -> bool {
        let ends =
            |r: &str| !r.starts_with(|c: char| c.is_ascii_alphanumeric() || "_./-:".contains(c));
        match self.rest.strip_prefix('_') {
            Some(rest) if ends(rest) => self.eat("_"),
            _ => false,
        }
    }

    fn name(&mut self) -> Result<String> {
        if self.rest.starts_with('"') {
            return self.quoted();
        }
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
        self.take(|c| !ok(c), "a name")
    }

    fn word(&mut self) -> Result<String> {
        self.take(|c| " ,]})[".contains(c), "a value")
    }

    fn take(&mut self, stop: impl Fn(char) -> bool, what: &str) -> Result<String> {
        let end = self.rest.find(stop).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(format!("expected {what} before `{}`", self.rest));
        }
        let word = self.rest[..end].to_owned();
        self.rest = self.rest[end..].trim_start();
        Ok(word)
    }

    /// A string in Rust's escapes.
    fn quoted(&mut self) -> Result<String> {
        let mut chars = self.rest.strip_prefix('"').ok_or("expected a string")?.chars();
        let mut out = String::new();
        loop {
            match chars.next().ok_or("a string is not closed")? {
                '"' => break,
                '\\' => out.push(match chars.next().ok_or("a string is not closed")? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '0' => '\0',
                    'u' => {
                        let rest = chars.as_str();
                        let (hex, after) = rest
                            .strip_prefix('{')
                            .and_then(|r| r.split_once('}'))
                            .ok_or("expected `\\u{…}`")?;
                        chars = after.chars();
                        let code = u32::from_str_radix(hex, 16).map_err(|e| e.to_string())?;
                        char::from_u32(code).ok_or(format!("no character {hex}"))?
                    }
                    other => other,
                }),
                other => out.push(other),
            }
        }
        self.rest = chars.as_str().trim_start();
        Ok(out)
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.eat("]") {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn shape(&mut self) -> Result<Vec<usize>> {
        self.expect("[")?;
        let mut shape = Vec::new();
        while !self.eat("]") {
            if !shape.is_empty() && !self.eat(",") {
                return Err("expected `]`".to_owned());
            }
            shape.push(number(&self.word().map_err(|_| "expected `]`")?)?);
        }
        Ok(shape)
    }

    /// `name: type`.
    fn typed(&mut self) -> Result<(String, Type)> {
        let name = self.name()?;
        self.expect(":")?;
        let dtype = self.word()?;
        let dtype = DType::from_name(&dtype).ok_or(format!("no element type `{dtype}`"))?;
        Ok((name, Type::new(dtype, self.shape()?)))
    }
}
