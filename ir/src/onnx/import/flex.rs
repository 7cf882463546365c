//! Attention whose scores and weights go through subgraphs (`ai.onnx.preview`).

use super::super::error::OnnxError;
use super::super::proto::NodeProto;
use super::super::tensor::dtype;
use super::Importer;
use super::place::Site;
use crate::graph::ValueId;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::DType;

/// Whether a node is ONNX's `FlexAttention`.
pub(super) fn is_flex_attention(node: &NodeProto) -> bool {
    node.domain() == "ai.onnx.preview" && node.op_type() == "FlexAttention"
}

impl Importer<'_> {
    /// Appends `prob_mod(softmax(score_mod(scale · q kᵀ))) v` for operands `[batch, heads, sequence, size]`. Neighbouring
    /// heads of the queries share one of the keys and values if they are more.
    pub(super) fn flex_attention(
        &mut self,
        site: &Site<'_>,
    ) -> Result<Vec<Option<ValueId>>, OnnxError> {
        let &Site { context, node, label, inputs, .. } = site;
        let error = |reason: String| site.error(&reason, "export it again");
        self.builder.scope.name = label.to_owned();
        let (scores, sizes) = self.flex_scores(site).map_err(error)?;
        let scores = self.modified(site, "score_mod", scores)?;
        let last = [("axis", (-1i64).into())];
        let weights = self.made(Op::Softmax, &[scores], &last).map_err(error)?;
        let weights = self.modified(site, "prob_mod", weights)?;
        let y = self.flex_sum(weights, inputs, sizes).map_err(error)?;
        if let Some(name) = node.output.first() {
            self.builder.rename(y, &format!("{}{name}", context.prefix));
        }
        Ok(vec![Some(y)])
    }

    /// The scores `[batch, heads, rows, columns]` in the type of the softmax, and the sizes of the queries, the number
    /// of heads of the keys in place of their elements.
    fn flex_scores(&mut self, site: &Site<'_>) -> Result<(ValueId, [usize; 4]), String> {
        let [Some(q), Some(k), Some(v)] = site.inputs[..] else {
            return Err("an operand is missing".to_owned());
        };
        let [q_type, k_type, v_type] = [q, k, v].map(|x| self.builder.ty(x).clone());
        let ([batch, heads, rows, size], [_, shared, columns, _], 4) =
            (&q_type.shape[..], &k_type.shape[..], v_type.rank())
        else {
            return Err(format!("operands {q_type}, {k_type}, {v_type} are not all of rank 4"));
        };
        if *shared == 0 || !heads.is_multiple_of(*shared) {
            return Err(format!("{shared} heads of keys do not divide {heads}"));
        }
        let scale = site.attribute("scale").map_or(1.0 / (*size as f32).sqrt(), |a| a.f());
        let root = crate::eval::cast(&Tensor::scalar(scale.sqrt()), q_type.dtype);
        let root = self.constant("root", root.ok_or("the queries are no floats")?);
        let q = self.made(Op::Mul, &[q, root], &[])?;
        let k = self.made(Op::Mul, &[k, root], &[])?;
        let together = [*batch, *shared, heads / shared * rows, *size];
        let q = self.made(Op::Reshape, &[q], &[("shape", together.as_slice().into())])?;
        let k = self.made(Op::Transpose, &[k], &[("perm", [0usize, 1, 3, 2].as_slice().into())])?;
        let scores = self.made(Op::MatMul, &[q, k], &[])?;
        let apart = [*batch, *heads, *rows, *columns];
        let scores = self.made(Op::Reshape, &[scores], &[("shape", apart.as_slice().into())])?;
        let precision = match site.attribute("softmax_precision") {
            Some(a) => dtype(i32::try_from(a.i()).unwrap_or(0))?,
            None if q_type.dtype == DType::F64 => DType::F64,
            None => DType::F32,
        };
        let scores = self.made(Op::Cast, &[scores], &[("to", precision.into())])?;
        Ok((scores, [*batch, *heads, *rows, *shared]))
    }

    /// The values, weighted.
    fn flex_sum(
        &mut self,
        weights: ValueId,
        inputs: &[Option<ValueId>],
        [batch, heads, rows, shared]: [usize; 4],
    ) -> Result<ValueId, String> {
        let v = inputs.get(2).copied().flatten().ok_or("the values are missing")?;
        let ty = self.builder.ty(v).clone();
        let precision = self.builder.ty(weights).dtype;
        let v = self.made(Op::Cast, &[v], &[("to", precision.into())])?;
        let together = [batch, shared, heads / shared * rows, ty.shape[2]];
        let weights =
            self.made(Op::Reshape, &[weights], &[("shape", together.as_slice().into())])?;
        let y = self.made(Op::MatMul, &[weights, v], &[])?;
        let apart = [batch, heads, rows, ty.shape[3]];
        let y = self.made(Op::Reshape, &[y], &[("shape", apart.as_slice().into())])?;
        self.made(Op::Cast, &[y], &[("to", ty.dtype.into())])
    }

    /// What a subgraph of one operand makes of a value; the value, where the node has no such subgraph.
    fn modified(&mut self, site: &Site<'_>, name: &str, x: ValueId) -> Result<ValueId, OnnxError> {
        let Some(graph) = site.graph(name) else { return Ok(x) };
        let made = self.subgraph(site, graph, &format!("{}/{name}/", site.label), &[Some(x)])?;
        self.builder.scope.name = site.label.to_owned();
        let same = |y: &ValueId| self.builder.ty(*y) == self.builder.ty(x);
        made.first().copied().flatten().filter(same).ok_or_else(|| {
            let reason = format!("`{name}` does not keep the type of its operand");
            site.error(&reason, "export it again")
        })
    }
}
