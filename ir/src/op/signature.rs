//! The notation of operands and attributes in the op table.
//!
//! Operands: `data, axes:ints?! -> reduced, indices?`. A `?` marks an optional operand, a `*` a
//! variadic one, and `!` an operand that must be known when compiling: the importer moves its value
//! into the attribute of the same name and of the kind after the colon, the exporter moves it back.
//!
//! Attributes: `axis:int=-1, perm:ints?, to:type`. A default follows `=`, `?` marks an attribute
//! without default that may be absent; any other is required.

use crate::attr::{Attr, AttrKind};

/// The operands and attributes of an op.
#[derive(Debug)]
pub struct Signature {
    /// Inputs in order.
    pub inputs: Vec<Operand>,
    /// Outputs in order.
    pub outputs: Vec<Operand>,
    /// Attributes, including those that stand for static operands.
    pub attributes: Vec<AttrSpec>,
}

/// An input or output.
#[derive(Debug)]
pub struct Operand {
    /// Its name in the operator's documentation.
    pub name: &'static str,
    /// Whether it may be left out.
    pub optional: bool,
    /// Whether it stands for any number of operands (always the last one).
    pub variadic: bool,
    /// For an operand that must be known when compiling: the kind of the attribute it becomes.
    pub constant: Option<AttrKind>,
}

/// An attribute.
#[derive(Debug)]
pub struct AttrSpec {
    /// Its name.
    pub name: &'static str,
    /// The kind of its value.
    pub kind: AttrKind,
    /// The value it has when absent.
    pub default: Option<Attr>,
    /// Whether it may be absent (with or without a default).
    pub optional: bool,
}

impl Signature {
    /// Reads the notation above.
    ///
    /// # Errors
    /// Says what could not be read.
    pub fn parse(operands: &'static str, attributes: &'static str) -> Result<Signature, String> {
        let (inputs, outputs) = operands.split_once("->").ok_or("no `->` in the operands")?;
        let list = |s: &'static str| -> Result<Vec<Operand>, String> {
            s.split(',').map(str::trim).filter(|s| !s.is_empty()).map(operand).collect()
        };
        let inputs = list(inputs)?;
        let mut specs = attributes
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(attribute)
            .collect::<Result<Vec<AttrSpec>, String>>()?;
        specs.extend(inputs.iter().filter_map(|i| {
            let kind = i.constant?;
            Some(AttrSpec { name: i.name, kind, default: None, optional: i.optional })
        }));
        Ok(Signature { inputs, outputs: list(outputs)?, attributes: specs })
    }

    /// The declaration of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&AttrSpec> {
        self.attributes.iter().find(|a| a.name == name)
    }

    /// The default of an attribute.
    pub fn default(&self, name: &str) -> Option<&Attr> {
        self.attribute(name)?.default.as_ref()
    }

    /// The declaration of input `i`, a variadic one standing for all that follow it.
    pub fn input(&self, i: usize) -> Option<&Operand> {
        at(&self.inputs, i)
    }

    /// The declaration of output `i`, a variadic one standing for all that follow it.
    pub fn output(&self, i: usize) -> Option<&Operand> {
        at(&self.outputs, i)
    }
}

fn at(list: &[Operand], i: usize) -> Option<&Operand> {
    list.get(i).or_else(|| list.last().filter(|o| o.variadic))
}

fn operand(text: &'static str) -> Result<Operand, String> {
    let name = text.trim_end_matches(['?', '!', '*']);
    let marks = &text[name.len()..];
    let (name, kind) = match name.split_once(':') {
        Some((n, k)) => (n, Some(AttrKind::from_name(k).ok_or(format!("no kind `{k}`"))?)),
        None => (name, None),
    };
    let constant = marks.contains('!');
    if constant != kind.is_some() {
        return Err(format!("`{text}`: `!` and a kind go together"));
    }
    Ok(Operand {
        name,
        optional: marks.contains('?'),
        variadic: marks.contains('*'),
        constant: kind,
    })
}

fn attribute(text: &'static str) -> Result<AttrSpec, String> {
    let (declaration, default) = match text.split_once('=') {
        Some((d, v)) => (d, Some(v)),
        None => (text, None),
    };
    let optional = declaration.ends_with('?') || default.is_some();
    let (name, kind) =
        declaration.trim_end_matches('?').split_once(':').ok_or(format!("`{text}` has no kind"))?;
    let kind = AttrKind::from_name(kind).ok_or(format!("no kind `{kind}`"))?;
    let default = default.map(|v| default_value(kind, v)).transpose()?;
    Ok(AttrSpec { name, kind, default, optional })
}

fn default_value(kind: AttrKind, text: &str) -> Result<Attr, String> {
    let error = |e: &dyn std::fmt::Display| format!("default `{text}`: {e}");
    match kind {
        AttrKind::Int => text.parse().map(Attr::Int).map_err(|e| error(&e)),
        AttrKind::Float => text.parse().map(Attr::Float).map_err(|e| error(&e)),
        AttrKind::Str => Ok(Attr::Str(text.to_owned())),
        _ => Err(error(&"only numbers and strings can be defaults")),
    }
}
