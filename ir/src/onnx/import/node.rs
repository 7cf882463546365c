//! One node: attributes, operands that must be known, types.

use super::super::functions::SUM;
use super::super::proto::{AttributeProto, NodeProto, attribute_proto::AttributeType};
use super::super::tensor;
use super::draft::Draft;
use super::place::place;
use super::{Context, Importer, inline, is_standard, translate, upgrade};
use crate::attr::{Attr, AttrKind, Attrs};
use crate::eval::evaluate;
use crate::graph::{Node, Origin, ValueId};
use crate::op::{AttrSpec, Call, Level, Op};
use crate::role::{Component, Mode, Role};
use crate::tensor::Tensor;
use crate::types::Type;
use std::collections::BTreeMap;

/// Known values of more elements than this are kept only where they are integers.
const KNOWN_FLOATS: usize = 4096;
/// Known values of more elements than this are not kept.
const KNOWN_ELEMENTS: usize = 1 << 22;

impl Importer<'_> {
    /// Appends a node that is neither control flow nor a call.
    pub(super) fn standard(
        &mut self,
        context: &Context<'_>,
        node: &NodeProto,
        label: &str,
        inputs: &[Option<ValueId>],
    ) -> Result<Vec<Option<ValueId>>, String> {
        self.builder.scope.name = label.to_owned();
        let domain = if is_standard(node.domain()) { "" } else { node.domain() };
        let version = context.opsets.get(domain).copied().unwrap_or(1);
        // `Scatter` and `Upsample` are former names, and sums of floats are written as calls.
        let (domain, op_type) = match (domain, node.op_type()) {
            ("", "Scatter") => ("", "ScatterElements"),
            ("", "Upsample") => ("", "Resize"),
            ("pam", SUM) => ("", "ReduceSum"),
            other => other,
        };
        let is_pam = node.domain() == "pam";
        let sequence = inputs.iter().position(|v| v.is_some_and(|v| self.sequences.is_known(v)));
        if let Some(i) = sequence.filter(|_| is_known(domain, op_type)) {
            let name = node.input.get(i).map_or("", String::as_str);
            return Err(format!("input `{name}` is a sequence; only ops on sequences take one"));
        }
        let Some(op) = Op::from_onnx(domain, op_type) else {
            if let Some(made) = self.translate(context, node, inputs) {
                return made;
            }
            return self.opaque(context, node, label, inputs);
        };
        let mut attrs = Attrs::new();
        for attribute in &node.attribute {
            let Some(given) = inline::resolve(context, attribute) else { continue };
            let name = attribute.name();
            let spec = op.signature().attribute(name);
            match spec {
                // The axes of a sum are an operand of the standard op.
                _ if is_pam && op == Op::ReduceSum && name == "axes" => {
                    attrs.insert(name.to_owned(), attr(given, None)?);
                }
                Some(spec) => {
                    attrs.insert(name.to_owned(), attr(given, Some(spec))?);
                }
                // Helper attributes of the written functions follow from the others.
                None if is_pam => {}
                None if upgrade::is_former_attribute(op, name) => {
                    attrs.insert(name.to_owned(), attr(given, None)?);
                }
                None => return Err(format!("attribute `{name}` is not known")),
            }
        }
        if op.level() == Level::Pam {
            attrs.retain(|name, value| op.signature().default(name) != Some(value));
        }
        let draft = Draft { op, inputs: inputs.to_vec(), attrs, outputs: node.output.len() };
        let draft = upgrade::upgrade(self, draft, version)?;
        let metadata: BTreeMap<String, String> = node
            .metadata_props
            .iter()
            .map(|p| (p.key().to_owned(), p.value().to_owned()))
            .collect();
        let names: Vec<&str> = node.output.iter().map(String::as_str).collect();
        self.append(draft, label, &names, &context.prefix, metadata)
    }

    /// Appends a node in the form of the op table; `names` are the wished-for names of its outputs,
    /// empty for those left out.
    pub(super) fn append(
        &mut self,
        draft: Draft,
        label: &str,
        names: &[&str],
        prefix: &str,
        metadata: BTreeMap<String, String>,
    ) -> Result<Vec<Option<ValueId>>, String> {
        let Draft { op, inputs, mut attrs, outputs } = draft;
        let inputs = self.static_operands(op, &inputs, &mut attrs)?;
        check_required(op, &attrs, &inputs)?;
        let types = self.builder.infer(op, &inputs, &attrs, outputs).map_err(|e| e.reason)?;
        let known = self.evaluate(op, &attrs, &inputs, &types);
        let mut values = Vec::with_capacity(outputs);
        for (i, ty) in types.into_iter().enumerate() {
            let name = names.get(i).copied().unwrap_or("");
            values.push(match name {
                "" => None,
                name => Some(self.builder.node_value(&format!("{prefix}{name}"), ty)),
            });
        }
        for (value, tensor) in values.iter().zip(known.into_iter().flatten()) {
            if let Some(value) = value {
                self.known.insert(*value, tensor);
            }
        }
        let word = |key: &str| metadata.get(key).map(String::as_str);
        let role = word("pam.role").and_then(Role::from_name).unwrap_or(Role::Forward);
        let component =
            word("pam.component").and_then(Component::from_name).unwrap_or(Component::Other);
        let mode = word("pam.mode").and_then(Mode::from_name).unwrap_or(Mode::Native);
        let origin = match (word("pam.source"), word("pam.source_op"), word("pam.rule")) {
            (Some(node), Some(op), Some(rule)) => {
                Some(Origin { node: node.into(), op: op.into(), rule: rule.into() })
            }
            _ => None,
        };
        self.builder.push(Node {
            op,
            name: label.to_owned(),
            inputs,
            outputs: values.clone(),
            attrs,
            role,
            component,
            mode,
            origin,
            metadata,
        });
        Ok(values)
    }

    /// Moves operands that must be known into attributes; the other inputs in order.
    fn static_operands(
        &self,
        op: Op,
        inputs: &[Option<ValueId>],
        attrs: &mut Attrs,
    ) -> Result<Vec<Option<ValueId>>, String> {
        let signature = op.signature();
        if inputs.len() > signature.inputs.len()
            && !signature.inputs.last().is_some_and(|o| o.variadic)
        {
            return Err(format!("takes {} inputs, has {}", signature.inputs.len(), inputs.len()));
        }
        let mut dynamic = Vec::with_capacity(inputs.len());
        for (i, input) in inputs.iter().enumerate() {
            let operand = signature.input(i).expect("the number of inputs was checked");
            let Some(kind) = operand.constant else {
                dynamic.push(*input);
                continue;
            };
            let Some(value) = input else { continue };
            let Some(tensor) = self.known.get(value) else {
                return Err(format!(
                    "operand `{}` depends on data, but must be known when compiling; make it an initializer, \
                     or give the dimensions that it follows from (--dim)",
                    operand.name
                ));
            };
            let attr = static_value(kind, tensor).ok_or(format!(
                "operand `{}` is not of kind {}",
                operand.name,
                kind.name()
            ))?;
            attrs.insert(operand.name.to_owned(), attr);
        }
        while dynamic.last() == Some(&None) {
            dynamic.pop();
        }
        Ok(dynamic)
    }

    /// The elements of the outputs where they follow from what is known.
    fn evaluate(
        &self,
        op: Op,
        attrs: &Attrs,
        inputs: &[Option<ValueId>],
        types: &[Type],
    ) -> Option<Vec<Tensor>> {
        let small = |t: &Type| {
            t.elements() <= if t.dtype.is_float() { KNOWN_FLOATS } else { KNOWN_ELEMENTS }
        };
        // Most nodes have an unknown input, so that is asked first; shapes follow from types alone.
        let from_types = matches!(op, Op::Shape | Op::Size);
        let all_known = inputs.iter().flatten().all(|v| self.known.contains_key(v));
        if !(all_known || from_types) || !types.iter().all(small) {
            return None;
        }
        let tensors: Vec<Option<&Tensor>> =
            inputs.iter().map(|v| v.and_then(|v| self.known.get(&v))).collect();
        let input_types: Vec<Option<&Type>> =
            inputs.iter().map(|v| v.map(|v| self.builder.ty(v))).collect();
        let call = Call { op, attrs, inputs: &input_types, outputs: types.len() };
        evaluate(&call, &tensors)
    }

    /// The value of a `Constant` node.
    pub(super) fn constant_node(
        &mut self,
        context: &Context<'_>,
        node: &NodeProto,
    ) -> Result<Vec<Option<ValueId>>, String> {
        let attribute = node.attribute.first().ok_or("has no value")?;
        let given = inline::resolve(context, attribute).ok_or("has no value")?;
        let tensor = match (attribute.name(), attr(given, None)?) {
            ("value", Attr::Tensor(t)) => t,
            ("value_float", Attr::Float(v)) => Tensor::scalar(v),
            ("value_int", Attr::Int(v)) => Tensor::scalar(v),
            ("value_floats", Attr::Floats(v)) => Tensor::vector(v),
            ("value_ints", Attr::Ints(v)) => Tensor::vector(v),
            (name, _) => return Err(format!("a constant given by `{name}` is not supported")),
        };
        let name = node.output.first().map_or("", String::as_str);
        Ok(vec![Some(self.constant(&format!("{}{name}", context.prefix), tensor))])
    }

    /// An op the table does not know: noted, and kept as an opaque node where the file states the
    /// types of its outputs.
    fn opaque(
        &mut self,
        context: &Context<'_>,
        node: &NodeProto,
        label: &str,
        inputs: &[Option<ValueId>],
    ) -> Result<Vec<Option<ValueId>>, String> {
        let here = place(context, node, 0);
        let op = here.op.clone();
        if !self.options.keep_unknown {
            self.unknown.push((context.path.to_owned(), here));
        }
        let mut types = Vec::new();
        for name in node.output.iter().filter(|o| !o.is_empty()) {
            let info = context.stated.get(name.as_str()).copied();
            let ty = info.map(|info| self.stated_type(context, info, None));
            match ty {
                Some(Ok(ty)) => types.push(ty),
                // Nothing after this node can be typed, so the list of unknown ops ends here.
                _ => {
                    return Err(match self.unknown_ops() {
                        Some(e) => format!("{}; {}", e.reason, e.remedy),
                        None => format!("the compiler does not know {op} and cannot type it"),
                    });
                }
            }
        }
        let mut types = types.into_iter();
        let values: Vec<Option<ValueId>> = node
            .output
            .iter()
            .map(|name| match name.as_str() {
                "" => None,
                name => {
                    let name = format!("{}{name}", context.prefix);
                    types.next().map(|ty| self.builder.node_value(&name, ty))
                }
            })
            .collect();
        self.builder.push(Node {
            op: Op::Opaque,
            name: label.to_owned(),
            inputs: inputs.to_vec(),
            outputs: values.clone(),
            attrs: Attrs::from([("onnx".to_owned(), Attr::Str(op))]),
            role: Role::Forward,
            component: Component::Other,
            mode: Mode::Native,
            origin: None,
            metadata: BTreeMap::new(),
        });
        Ok(values)
    }
}

/// Whether the table has an op, or there is a translation of it.
fn is_known(domain: &str, op: &str) -> bool {
    Op::from_onnx(domain, op).is_some()
        || translate::translated().any(|known| known == (domain, op))
}

fn check_required(op: Op, attrs: &Attrs, inputs: &[Option<ValueId>]) -> Result<(), String> {
    for spec in &op.signature().attributes {
        if !spec.optional && !attrs.contains_key(spec.name) {
            return Err(format!("`{}` is missing", spec.name));
        }
    }
    let operands = crate::verify::dynamic_inputs(op);
    for (i, operand) in operands.iter().enumerate() {
        if !operand.optional && inputs.get(i).copied().flatten().is_none() {
            return Err(format!("input `{}` is missing", operand.name));
        }
    }
    Ok(())
}

fn static_value(kind: AttrKind, tensor: &Tensor) -> Option<Attr> {
    Some(match kind {
        AttrKind::Ints => Attr::Ints(tensor.to_i64()?),
        // Some operands may be floats that are whole numbers.
        AttrKind::Int => match (tensor.to_i64().as_deref(), tensor.as_scalar_f64()) {
            (Some([one]), _) => Attr::Int(*one),
            (_, Some(x)) if x.fract() == 0.0 && x.abs() < 2f64.powi(53) => Attr::Int(x as i64),
            _ => return None,
        },
        AttrKind::Tensor => Attr::Tensor(tensor.clone()),
        AttrKind::Float => Attr::Float(tensor.as_scalar_f64()? as f32),
        AttrKind::Floats => Attr::Floats(tensor.to_f64()?.iter().map(|&x| x as f32).collect()),
        AttrKind::Str | AttrKind::Strs | AttrKind::Type => return None,
    })
}

/// The value of an attribute, in the kind that the op's row declares.
pub(super) fn attr(a: &AttributeProto, spec: Option<&AttrSpec>) -> Result<Attr, String> {
    let name = a.name();
    let text = |s: &[u8]| {
        String::from_utf8(s.to_vec()).map_err(|_| format!("attribute `{name}` is not UTF-8"))
    };
    let value = match a.r#type() {
        AttributeType::Int => Attr::Int(a.i()),
        AttributeType::Float => Attr::Float(a.f()),
        AttributeType::String => Attr::Str(text(a.s())?),
        AttributeType::Ints => Attr::Ints(a.ints.clone()),
        AttributeType::Floats => Attr::Floats(a.floats.clone()),
        AttributeType::Strings => {
            Attr::Strs(a.strings.iter().map(|s| text(s)).collect::<Result<_, String>>()?)
        }
        AttributeType::Tensor => {
            let t = a.t.as_ref().ok_or(format!("attribute `{name}` holds no tensor"))?;
            Attr::Tensor(tensor::read(t)?)
        }
        other => {
            return Err(format!(
                "attribute `{name}` of kind {} is not supported",
                other.as_str_name()
            ));
        }
    };
    let Some(spec) = spec else { return Ok(value) };
    match (spec.kind, value) {
        (AttrKind::Type, Attr::Int(i)) => {
            let number = i32::try_from(i).map_err(|_| format!("attribute `{name}` is {i}"))?;
            tensor::dtype(number).map(Attr::Type)
        }
        // Old forms give some operands as attributes of a simpler kind.
        (AttrKind::Tensor, Attr::Float(f)) => Ok(Attr::Tensor(Tensor::scalar(f))),
        (AttrKind::Ints, Attr::Int(i)) => Ok(Attr::Ints(vec![i])),
        (kind, value) if kind == value.kind() => Ok(value),
        (kind, value) => Err(format!(
            "attribute `{name}` is of kind {}, should be {}",
            value.kind().name(),
            kind.name()
        )),
    }
}
