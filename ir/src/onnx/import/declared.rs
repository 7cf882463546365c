//! What a file declares: inputs with their types and defaults, constants, and the types of outputs.

use super::{Context, Importer, Names};
use crate::graph::ValueId;
use crate::onnx::error::OnnxError;
use crate::onnx::proto::{GraphProto, ValueInfoProto};
use crate::onnx::proto::{
    tensor_shape_proto::dimension::Value as Dim, type_proto::Value as TypeValue,
};
use crate::onnx::tensor;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use std::collections::HashMap;

impl Importer<'_> {
    /// Makes the inputs and constants of a file; what an earlier file has made under a name is that.
    pub(super) fn inputs(
        &mut self,
        context: &Context<'_>,
        graph: &GraphProto,
        ir_version: i64,
        linked: &mut HashMap<String, ValueId>,
        names: &mut Names<'_>,
    ) -> Result<(), OnnxError> {
        let mut defaults: HashMap<&str, Tensor> = HashMap::new();
        for t in &graph.initializer {
            let tensor = tensor::read(t).map_err(|e| context.error(e, "export it again"))?;
            if t.name().is_empty() || defaults.insert(t.name(), tensor).is_some() {
                let reason = format!("two initializers have the name `{}`", t.name());
                return Err(context.error(reason, "rename one"));
            }
        }
        if let Some(t) = graph.sparse_initializer.first() {
            let name = t.values.as_ref().map_or("", |v| v.name());
            let reason = format!("initializer `{name}` is sparse");
            return Err(context.error(reason, "export dense weights"));
        }
        self.learn_dims(graph);
        for input in &graph.input {
            let name = input.name();
            let default = defaults.remove(name);
            if let Some(&value) = linked.get(name) {
                self.define(context, names, name, value)?;
                continue;
            }
            let sequence = input.r#type.as_ref().and_then(|t| t.value.as_ref());
            if matches!(sequence, Some(TypeValue::SequenceType(_)))
                && let Some(value) = self.sequence_input(input)
            {
                self.define(context, names, name, value)?;
                continue;
            }
            // Before IR version 4 every initializer had to be listed as an input.
            let fixed = ir_version < 4 && default.is_some();
            let ty = match (&default, fixed) {
                (Some(t), true) => t.ty(),
                _ => self.stated_type(context, input, default.as_ref())?,
            };
            if let Some(t) = default.as_ref().filter(|t| t.ty() != ty) {
                let reason = format!("input `{name}` is {ty}, its initializer {}", t.ty());
                return Err(context.error(reason, "export it again"));
            }
            let value = self.builder.input(name, ty, default.clone());
            if let (Some(t), true) = (default, fixed) {
                self.known.insert(value, t);
            }
            self.define(context, names, name, value)?;
            linked.insert(name.to_owned(), value);
        }
        for name in graph.initializer.iter().map(|t| t.name()) {
            if let Some(tensor) = defaults.remove(name) {
                let value = self.constant(name, tensor);
                self.define(context, names, name, value)?;
            }
        }
        Ok(())
    }

    /// The type that a file states for an input.
    pub(super) fn stated_type(
        &mut self,
        context: &Context<'_>,
        info: &ValueInfoProto,
        default: Option<&Tensor>,
    ) -> Result<Type, OnnxError> {
        let name = info.name();
        let error = |reason: String, remedy: &str| context.error(reason, remedy);
        let t = match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
            Some(TypeValue::TensorType(t)) => t,
            Some(_) => {
                let reason = format!("input `{name}` is not a tensor");
                return Err(error(reason, "only tensors can be compiled"));
            }
            None => return Err(error(format!("input `{name}` has no type"), "export it again")),
        };
        let dtype: DType =
            tensor::dtype(t.elem_type()).map_err(|e| error(format!("input `{name}`: {e}"), ""))?;
        let Some(shape) = &t.shape else {
            return match default {
                Some(t) => Ok(t.ty()),
                None => Err(error(format!("input `{name}` has no shape"), "export static shapes")),
            };
        };
        let mut dims = Vec::new();
        for (axis, d) in shape.dim.iter().enumerate() {
            dims.push(match &d.value {
                Some(Dim::DimValue(v)) => usize::try_from(*v).map_err(|_| {
                    error(format!("input `{name}` has dimension {v}"), "export it again")
                })?,
                Some(Dim::DimParam(p)) if !p.is_empty() => self.dim(context, name, p)?,
                _ => self.dim(context, name, &format!("{name}.{axis}"))?,
            });
        }
        if crate::types::checked_elements(&dims)
            .and_then(|n| n.checked_mul(dtype.size()))
            .is_none_or(|n| n > isize::MAX as usize)
        {
            let reason = format!("input `{name}` has more elements than memory can address");
            return Err(error(reason, "use a smaller shape"));
        }
        Ok(Type::new(dtype, dims))
    }

    /// Learns the sizes of symbolic dimensions from the inputs that will be fed.
    fn learn_dims(&mut self, graph: &GraphProto) {
        for input in &graph.input {
            let fed = self.options.shapes.get(input.name());
            let stated = match input.r#type.as_ref().and_then(|t| t.value.as_ref()) {
                Some(TypeValue::TensorType(t)) => t.shape.as_ref(),
                _ => None,
            };
            let (Some(fed), Some(stated)) = (fed, stated) else { continue };
            for (axis, (d, &size)) in stated.dim.iter().zip(fed).enumerate() {
                let name = match &d.value {
                    Some(Dim::DimValue(_)) => continue,
                    Some(Dim::DimParam(p)) if !p.is_empty() => p.clone(),
                    _ => format!("{}.{axis}", input.name()),
                };
                self.fed_dims.entry(name).or_insert(size);
            }
        }
    }

    fn dim(&mut self, context: &Context<'_>, input: &str, dim: &str) -> Result<usize, OnnxError> {
        if let Some(&size) = self.options.dims.get(dim) {
            self.given_dims.insert(dim.to_owned());
            return Ok(size);
        }
        if let Some(&size) = self.fed_dims.get(dim) {
            return Ok(size);
        }
        let Some(size) = self.options.default_dim else {
            let reason = format!("dimension `{dim}` of input `{input}` has no size");
            return Err(context.error(reason, &format!("give it with --dim '{dim}=SIZE'")));
        };
        self.defaulted_dims.insert(dim.to_owned());
        Ok(size)
    }

    /// Compares the type of an output with what the file states, where it states numbers.
    pub(super) fn check_stated(
        &self,
        context: &Context<'_>,
        info: &ValueInfoProto,
        value: ValueId,
    ) -> Result<(), OnnxError> {
        let ty = self.builder.ty(value);
        let Some(TypeValue::TensorType(t)) = info.r#type.as_ref().and_then(|t| t.value.as_ref())
        else {
            return Ok(());
        };
        let same_dtype = t.elem_type() == 0 || tensor::dtype(t.elem_type()) == Ok(ty.dtype);
        let same_shape = t.shape.as_ref().is_none_or(|s| {
            s.dim.len() == ty.rank()
                && s.dim.iter().zip(&ty.shape).all(|(d, &n)| match d.value {
                    Some(Dim::DimValue(v)) => v == n as i64,
                    _ => true,
                })
        });
        if same_dtype && same_shape {
            return Ok(());
        }
        let reason = format!("output `{}` is {ty}, which is not what the file states", info.name());
        Err(context.error(reason, "export it again"))
    }
}
