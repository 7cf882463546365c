//! What the derivative rules append through: the node at hand, the cotangents of its outputs, and where
//! those of its inputs go.

use crate::lower::{LowerError, Lowering};
use pam_ir::attr::Attr;
use pam_ir::graph::{Node, ValueId};
use pam_ir::op::{Op, normalize_axis};
use pam_ir::role::Mode;
use pam_ir::tensor::Tensor;
use pam_ir::types::{DType, Type};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

pub(super) type Result<T = ()> = std::result::Result<T, LowerError>;

/// A node of the lowered graph under differentiation.
pub(super) struct Vjp<'a, 'r, 'g> {
    lo: Lowering<'r, 'g>,
    node: &'a Node,
    cotangents: &'a mut HashMap<ValueId, ValueId>,
    /// Values that depend on something to differentiate by, among those of the forward pass.
    reached: &'a [bool],
}

impl<'r, 'g> Deref for Vjp<'_, 'r, 'g> {
    type Target = Lowering<'r, 'g>;

    fn deref(&self) -> &Lowering<'r, 'g> {
        &self.lo
    }
}

impl DerefMut for Vjp<'_, '_, '_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.lo
    }
}

impl<'a, 'r, 'g> Vjp<'a, 'r, 'g> {
    pub(super) fn new(
        lo: Lowering<'r, 'g>,
        node: &'a Node,
        cotangents: &'a mut HashMap<ValueId, ValueId>,
        reached: &'a [bool],
    ) -> Vjp<'a, 'r, 'g> {
        Vjp { lo, node, cotangents, reached }
    }

    /// The node.
    pub(super) fn node(&self) -> &'a Node {
        self.node
    }

    /// Whether its derivative is that of the piecewise affine function.
    pub(super) fn exact(&self) -> bool {
        self.node.mode == Mode::Exact
    }

    /// The attribute `axis`, 0 if it is not given, among so many.
    pub(super) fn axis(&self, rank: usize) -> Result<usize> {
        Ok(normalize_axis(self.node.int("axis").unwrap_or(0), rank)?)
    }

    /// A required input.
    pub(super) fn x(&self, i: usize) -> Result<ValueId> {
        self.node.input(i).ok_or_else(|| LowerError(format!("input {i} is missing")))
    }

    /// The first output.
    pub(super) fn y(&self) -> Result<ValueId> {
        self.node.output(0).ok_or_else(|| LowerError("the output is missing".to_owned()))
    }

    /// The cotangent of an output, if the loss depends on it.
    pub(super) fn delta_of(&self, i: usize) -> Option<ValueId> {
        self.cotangents.get(&self.node.output(i)?).copied()
    }

    /// The cotangent of the first output.
    pub(super) fn delta(&self) -> Result<ValueId> {
        self.delta_of(0).ok_or_else(|| LowerError("only a later output is differentiated".into()))
    }

    /// Whether an input's cotangent is of use.
    pub(super) fn wants(&self, i: usize) -> bool {
        self.node.input(i).is_some_and(|v| self.reached[v.index()])
    }

    /// The type of an input.
    pub(super) fn type_of(&self, i: usize) -> Result<Type> {
        Ok(self.lo.ty(self.x(i)?).clone())
    }

    /// Adds to the cotangent of an input; broadcasting is undone by summing.
    pub(super) fn give(&mut self, i: usize, cotangent: ValueId) -> Result {
        let x = self.x(i)?;
        self.give_to(x, cotangent)
    }

    /// Adds to the cotangent of a value that comes before the node.
    pub(super) fn give_to(&mut self, x: ValueId, cotangent: ValueId) -> Result {
        if !self.reached[x.index()] {
            return Ok(());
        }
        let ty = self.lo.ty(x).clone();
        let mut v = self.narrow(cotangent, &ty.shape)?;
        if self.lo.ty(v).dtype != ty.dtype {
            v = self.lo.cast(v, ty.dtype)?;
        }
        let sum = match self.cotangents.get(&x) {
            Some(&before) => self.lo.add(before, v)?,
            None => v,
        };
        self.cotangents.insert(x, sum);
        Ok(())
    }

    /// Sums over what broadcasting repeated.
    fn narrow(&mut self, v: ValueId, shape: &[usize]) -> Result<ValueId> {
        let wide = self.lo.shape(v);
        if wide == shape {
            return Ok(v);
        }
        let lead = wide.len().saturating_sub(shape.len());
        let repeated = |&a: &usize| a < lead || shape[a - lead] == 1 && wide[a] != 1;
        let axes: Vec<usize> = (0..wide.len()).filter(repeated).collect();
        let sum = self.lo.sum(v, &axes)?;
        let sum = self.lo.reshape(sum, shape)?;
        self.lo.expand(sum, shape)
    }

    /// A number of the type of a value.
    pub(super) fn number(&mut self, x: f32, like: ValueId) -> Result<ValueId> {
        let dtype = self.lo.ty(like).dtype;
        let tensor = Tensor::scalar(x);
        let tensor = pam_ir::eval::cast(&tensor, dtype)
            .ok_or_else(|| LowerError(format!("{x} cannot be {dtype}")))?;
        Ok(if dtype == DType::F32 { self.lo.scalar(x) } else { self.lo.constant(tensor) })
    }

    /// Zeros of a type.
    pub(super) fn zeros(&mut self, ty: &Type) -> Result<ValueId> {
        let zero = pam_ir::eval::cast(&Tensor::scalar(0f32), ty.dtype)
            .ok_or_else(|| LowerError(format!("no zeros of {}", ty.dtype)))?;
        let zero = self.lo.constant(zero);
        let shape = Attr::from(ty.shape.as_slice());
        self.lo.op(Op::Expand, &[zero], &[("shape", shape)])
    }

    /// `delta` where a condition holds, else 0.
    pub(super) fn only(&mut self, condition: ValueId, delta: ValueId) -> Result<ValueId> {
        let zero = self.number(0.0, delta)?;
        self.lo.select(condition, delta, zero)
    }

    /// An attribute of the node that its derivative has as well, if it is given.
    pub(super) fn copied<'n>(&self, names: &[&'n str]) -> Vec<(&'n str, Attr)> {
        let given = names.iter().filter_map(|&n| Some((n, self.node.attrs.get(n)?.clone())));
        given.collect()
    }

    /// Calls `f` with the node as a typed call.
    pub(super) fn call<R>(&self, f: impl FnOnce(&pam_ir::op::Call<'_>) -> R) -> R {
        self.lo.graph().with_call(self.node, f)
    }
}
