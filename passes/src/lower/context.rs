//! What the rules append through: operands and results, and the ops that are the same under every
//! arithmetic.

use super::Arithmetic;
use pam_ir::attr::Attr;
use pam_ir::build::{BuildError, Rebuild};
use pam_ir::graph::{Graph, Node, STEP_INPUT, ValueId};
use pam_ir::op::{Call, Op};
use pam_ir::tensor::{Element, Tensor};
use pam_ir::types::{DType, Type};

/// Why a rule cannot lower a node.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct LowerError(pub String);

impl From<BuildError> for LowerError {
    fn from(e: BuildError) -> LowerError {
        LowerError(e.to_string())
    }
}

impl From<String> for LowerError {
    fn from(e: String) -> LowerError {
        LowerError(e)
    }
}

type Result<T> = std::result::Result<T, LowerError>;

/// A node under lowering: its operands in the new graph, and the ops to make its replacement of.
///
/// All float operands are f32: those of other float types are cast, and results cast back.
pub struct Lowering<'r, 'g> {
    r: &'r mut Rebuild<'g>,
    /// The arithmetic at hand.
    pub arithmetic: Arithmetic,
}

impl<'r, 'g> Lowering<'r, 'g> {
    /// A lowering that appends to a rebuilding; its scope must be that of the node.
    pub fn new(r: &'r mut Rebuild<'g>, arithmetic: Arithmetic) -> Lowering<'r, 'g> {
        Lowering { r, arithmetic }
    }

    /// Whether multiplications become PA primitives.
    pub fn is_pam(&self) -> bool {
        matches!(self.arithmetic, Arithmetic::Pam { .. })
    }

    /// Input `i` of the node, floats as f32; `None` if it is omitted.
    pub fn get(&mut self, node: &Node, i: usize) -> Result<Option<ValueId>> {
        let Some(old) = node.input(i) else { return Ok(None) };
        let v = self.r.get(old);
        let dtype = self.ty(v).dtype;
        if dtype.is_float() && dtype != DType::F32 {
            return self.cast(v, DType::F32).map(Some);
        }
        Ok(Some(v))
    }

    /// A required input.
    pub fn input(&mut self, node: &Node, i: usize) -> Result<ValueId> {
        self.get(node, i)?.ok_or_else(|| LowerError(format!("input {i} is missing")))
    }

    /// Lets `v` be output `i` of the node, cast to the output's type; nothing if it is not asked for.
    pub fn set(&mut self, node: &Node, i: usize, v: ValueId) -> Result<()> {
        let Some(old) = node.output(i) else { return Ok(()) };
        let ty = self.r.old.ty(old).clone();
        if self.ty(v).shape != ty.shape {
            let is = self.ty(v).clone();
            return Err(LowerError(format!("the rule gives {is} for output {i} of type {ty}")));
        }
        let v = if self.ty(v).dtype == ty.dtype { v } else { self.cast(v, ty.dtype)? };
        self.r.set(old, v);
        Ok(())
    }

    /// The dimensions of output `i` of the node; none where it is not asked for.
    pub fn result_shape(&self, node: &Node, i: usize) -> Vec<usize> {
        node.output(i).map_or(Vec::new(), |v| self.r.old.ty(v).shape.clone())
    }

    /// Whether the first output of the node is an operand of some node of this op.
    pub fn is_read_by(&self, node: &Node, op: Op) -> bool {
        node.output(0).is_some_and(|v| self.r.consumers(v).any(|n| n.op == op))
    }

    /// The type of a value of the new graph.
    pub fn ty(&self, v: ValueId) -> &Type {
        self.r.to.ty(v)
    }

    /// The dimensions of a value of the new graph.
    pub fn shape(&self, v: ValueId) -> Vec<usize> {
        self.ty(v).shape.clone()
    }

    /// Calls `f` with the node of the old graph as a typed call.
    pub fn with_call<R>(&self, node: &Node, f: impl FnOnce(&Call<'_>) -> R) -> R {
        self.r.old.with_call(node, f)
    }

    /// The elements of a constant of the new graph.
    pub fn constant_of(&self, v: ValueId) -> Option<&Tensor> {
        self.r.to.graph().constant(v)
    }

    /// The one number that all elements of a constant are.
    pub fn uniform(&self, v: ValueId) -> Option<f32> {
        let (first, rest) = self.constant_of(v)?.slice::<f32>()?.split_first()?;
        rest.iter().all(|x| x.to_bits() == first.to_bits()).then_some(*first)
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        self.r.to.graph()
    }

    /// Appends a node of several outputs.
    pub fn op_n(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        attrs: &[(&str, Attr)],
        outputs: usize,
    ) -> Result<Vec<ValueId>> {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        Ok(self.r.to.node_n(op, &inputs, attrs, outputs)?)
    }

    /// Appends a node of one output.
    pub fn op(&mut self, op: Op, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> Result<ValueId> {
        Ok(self.r.to.node(op, inputs, attrs)?)
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.r.to.constant("c", tensor)
    }

    /// A rank-0 constant.
    pub fn scalar<T: Element>(&mut self, x: T) -> ValueId {
        self.r.to.scalar(x)
    }

    /// The graph input that counts steps, made when first asked for.
    pub fn step(&mut self) -> ValueId {
        let graph = self.r.to.graph();
        let existing = graph.inputs.iter().copied().find(|&v| graph.value(v).name == STEP_INPUT);
        let ty = Type::new(DType::I64, []);
        existing.unwrap_or_else(|| self.r.to.input(STEP_INPUT, ty, Some(Tensor::scalar(0i64))))
    }

    /// Element type conversion.
    pub fn cast(&mut self, v: ValueId, to: DType) -> Result<ValueId> {
        self.op(Op::Cast, &[v], &[("to", to.into())])
    }

    /// a + b.
    pub fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.op(Op::Add, &[a, b], &[])
    }

    /// a + b for a number b.
    pub fn add_scalar(&mut self, a: ValueId, b: f32) -> Result<ValueId> {
        let b = self.scalar(b);
        self.add(a, b)
    }

    /// a − b.
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.op(Op::Sub, &[a, b], &[])
    }

    /// −x.
    pub fn neg(&mut self, x: ValueId) -> Result<ValueId> {
        self.op(Op::Neg, &[x], &[])
    }

    /// |x|.
    pub fn abs(&mut self, x: ValueId) -> Result<ValueId> {
        self.op(Op::Abs, &[x], &[])
    }

    /// `condition ? x : y`.
    pub fn select(&mut self, condition: ValueId, x: ValueId, y: ValueId) -> Result<ValueId> {
        self.op(Op::Where, &[condition, x, y], &[])
    }

    /// x < 0.
    pub fn negative(&mut self, x: ValueId) -> Result<ValueId> {
        let zero = self.scalar(0f32);
        self.op(Op::Less, &[x, zero], &[])
    }

    /// |x| as the larger one of x and −x: its derivative at 0 is 1, as where x is above, while that of `Abs` is 0.
    /// For functions of |x| that have a derivative at 0.
    pub fn size(&mut self, x: ValueId) -> Result<ValueId> {
        let minus = self.neg(x)?;
        self.op(Op::Max, &[x, minus], &[])
    }

    /// Whether the sign bit is set, which it also is in −0.
    pub fn sign_bit(&mut self, x: ValueId) -> Result<ValueId> {
        let bits = self.op(Op::BitCast, &[x], &[("to", Attr::Type(DType::I32))])?;
        let zero = self.scalar(0i32);
        self.op(Op::Less, &[bits, zero], &[])
    }

    /// x as another shape of as many elements.
    pub fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId> {
        if self.ty(x).shape == shape {
            return Ok(x);
        }
        self.op(Op::Reshape, &[x], &[("shape", shape.into()), ("allowzero", 1i64.into())])
    }

    /// x with its axes in another order.
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId> {
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            return Ok(x);
        }
        self.op(Op::Transpose, &[x], &[("perm", perm.into())])
    }

    /// x broadcast to a shape.
    pub fn expand(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId> {
        if self.ty(x).shape == shape {
            return Ok(x);
        }
        self.op(Op::Expand, &[x], &[("shape", shape.into())])
    }

    /// The elements of some axes in reverse order.
    pub fn reversed(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        let shape = self.shape(x);
        let axes: Vec<i64> = axes.iter().filter(|&&a| shape[a] > 1).map(|&a| a as i64).collect();
        if axes.is_empty() {
            return Ok(x);
        }
        let n = axes.len();
        let attrs: [(&str, Attr); 4] = [
            ("starts", vec![-1i64; n].into()),
            ("ends", vec![i64::MIN; n].into()),
            ("axes", axes.into()),
            ("steps", vec![-1i64; n].into()),
        ];
        self.op(Op::Slice, &[x], &attrs)
    }

    /// A vector along `axis` of a tensor of the given rank.
    pub fn along(&mut self, x: ValueId, axis: usize, rank: usize) -> Result<ValueId> {
        let mut shape = vec![1; rank];
        shape[axis] = self.ty(x).elements();
        self.reshape(x, &shape)
    }

    /// A reduction over axes that keeps them.
    pub fn reduce(&mut self, op: Op, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        // No axes would mean all of them.
        if axes.is_empty() {
            return Ok(x);
        }
        self.op(op, &[x], &[("axes", axes.into()), ("keepdims", 1i64.into())])
    }

    /// The sum over axes, which are kept.
    pub fn sum(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        self.reduce(Op::ReduceSum, x, axes)
    }

    /// The sum over axes divided by the number of elements.
    pub fn mean(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        let n: usize = axes.iter().map(|&a| self.ty(x).shape[a]).product();
        let sum = self.sum(x, axes)?;
        self.div_scalar(sum, n as f32)
    }
}
