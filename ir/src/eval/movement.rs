//! Data movement: each op is a list of indices to pick.

use super::strided::{broadcast_indices, indices, steps};
use super::{Eval, tensor, zero};
use crate::geometry::{padded_positions, slice_ranges};
use crate::op::{Op, normalize_axis};
use crate::tensor::{Data, Tensor};
use crate::types::{DType, Type};

impl Eval<'_> {
    pub(super) fn movement(&self) -> Option<Tensor> {
        let ty = &self.types[0];
        let x = self.input(0)?;
        let own = steps(x.shape());
        let picked = match self.call.op {
            Op::Transpose => {
                let rank = x.shape().len();
                let perm: Vec<usize> = match self.call.ints("perm") {
                    Some(p) => p
                        .iter()
                        .map(|&a| normalize_axis(a, rank).ok())
                        .collect::<Option<Vec<usize>>>()?,
                    None => (0..rank).rev().collect(),
                };
                let steps: Vec<i64> = perm.iter().map(|&p| own[p]).collect();
                indices(&ty.shape, &steps, 0)
            }
            Op::Expand => broadcast_indices(x.shape(), &ty.shape),
            Op::Slice => {
                let ranges = slice_ranges(self.call, x.shape()).ok()?;
                let steps: Vec<i64> = ranges.iter().zip(&own).map(|(r, s)| r.step * s).collect();
                let offset = ranges.iter().zip(&own).map(|(r, s)| r.start as i64 * s).sum();
                indices(&ty.shape, &steps, offset)
            }
            Op::Tile => {
                let at = |flat: usize| {
                    unravel(flat, &ty.shape)
                        .zip(x.shape())
                        .zip(&own)
                        .fold(0, |n, ((i, &d), &s)| n + (i % d) * s as usize)
                };
                (0..ty.elements()).map(at).collect()
            }
            Op::Concat => return self.concat(),
            Op::Pad | Op::CenterCropPad => return self.pad(),
            Op::Trilu => return self.trilu(),
            _ => return None,
        };
        tensor(ty, x.data().pick(picked.into_iter()))
    }

    fn concat(&self) -> Option<Tensor> {
        let ty = &self.types[0];
        let axis = self.call.axis("axis", ty.rank()).ok()?;
        let outer: usize = ty.shape[..axis].iter().product();
        let inner: usize = ty.shape[axis + 1..].iter().product();
        let parts: Vec<&Tensor> =
            (0..self.call.inputs.len()).map(|i| self.input(i)).collect::<Option<_>>()?;
        let all = join(ty.dtype, &parts)?;
        let mut picked = Vec::with_capacity(ty.elements());
        for o in 0..outer {
            let mut base = 0;
            for part in &parts {
                let run = part.shape()[axis] * inner;
                picked.extend(base + o * run..base + (o + 1) * run);
                base += part.elements();
            }
        }
        tensor(ty, all.pick(picked.into_iter()))
    }

    pub(super) fn split(&self) -> Option<Vec<Tensor>> {
        let x = self.input(0)?;
        let axis = self.call.axis("axis", x.shape().len()).ok()?;
        let own = steps(x.shape());
        let mut start = 0;
        self.types
            .iter()
            .map(|ty| {
                let picked = indices(&ty.shape, &own, start * own[axis]);
                start += ty.shape[axis] as i64;
                tensor(ty, x.data().pick(picked.into_iter()))
            })
            .collect()
    }

    fn pad(&self) -> Option<Tensor> {
        let ty = &self.types[0];
        let x = self.input(0)?;
        let positions = padded_positions(self.call, x.shape(), &ty.shape).ok()?;
        let fill = match self.call.get(1) {
            Some(_) => self.input(1)?.clone(),
            None => Tensor::from_data([1], zero(ty.dtype))?,
        };
        let joined = join(ty.dtype, &[x, &fill])?;
        let own = crate::tensor::strides(x.shape());
        let at = |flat: usize| {
            let along = |(axis, i): (usize, usize)| Some(positions[axis][i]? * own[axis]);
            let offsets = unravel(flat, &ty.shape).enumerate().map(along);
            offsets.sum::<Option<usize>>().unwrap_or(x.elements())
        };
        tensor(ty, joined.pick((0..ty.elements()).map(at)))
    }

    fn trilu(&self) -> Option<Tensor> {
        let ty = &self.types[0];
        let x = self.input(0)?;
        let [.., rows, cols] = ty.shape[..] else { return None };
        let k = self.call.int("k").unwrap_or(0);
        let upper = self.call.int("upper") != Some(0);
        let joined = join(ty.dtype, &[x, &Tensor::from_data([1], zero(ty.dtype))?])?;
        let at = |flat: usize| {
            let (row, col) = ((flat / cols % rows) as i64, (flat % cols) as i64);
            let kept = if upper { col >= row + k } else { col <= row + k };
            if kept { flat } else { x.elements() }
        };
        tensor(ty, joined.pick((0..ty.elements()).map(at)))
    }
}

/// The index of an element along each axis.
pub(super) fn unravel(flat: usize, shape: &[usize]) -> impl Iterator<Item = usize> {
    let strides = crate::tensor::strides(shape);
    let shape = shape.to_vec();
    (0..shape.len()).map(move |i| flat / strides[i] % shape[i])
}

/// The elements of tensors of one type behind each other.
pub(super) fn join(dtype: DType, parts: &[&Tensor]) -> Option<Data> {
    let bytes: Vec<u8> = parts.iter().flat_map(|t| t.to_le_bytes()).collect();
    let n = parts.iter().map(|t| t.elements()).sum::<usize>();
    Tensor::from_le_bytes(&Type::new(dtype, [n]), &bytes).map(|t| t.data().clone())
}
