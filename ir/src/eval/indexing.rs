//! Gathers and scatters.

use super::movement::{join, unravel};
use super::numbers::Numbers;
use super::strided::steps;
use super::{Eval, tensor};
use crate::op::Op;
use crate::tensor::Tensor;

impl Eval<'_> {
    pub(super) fn indexing(&self) -> Option<Tensor> {
        match self.call.op {
            Op::Gather => self.gather(),
            Op::GatherElements => self.gather_elements(),
            Op::GatherND => self.gather_nd(),
            Op::ScatterElements => self.scatter_elements(),
            Op::ScatterND => self.scatter_nd(),
            Op::OneHot => self.one_hot(),
            _ => None,
        }
    }

    fn gather(&self) -> Option<Tensor> {
        let ty = &self.types[0];
        let x = self.input(0)?;
        let axis = self.call.axis("axis", x.shape().len()).ok()?;
        let picked = positions(&self.input(1)?.to_i64()?, x.shape()[axis])?;
        let outer: usize = x.shape()[..axis].iter().product();
        let inner: usize = x.shape()[axis + 1..].iter().product();
        let block = x.shape()[axis] * inner;
        let mut all = Vec::with_capacity(ty.elements());
        for o in 0..outer {
            for &i in &picked {
                let start = o * block + i * inner;
                all.extend(start..start + inner);
            }
        }
        tensor(ty, x.data().pick(all.into_iter()))
    }

    /// For each index of `GatherElements` or `ScatterElements`, the element of the data it names.
    fn element_targets(&self, data: &Tensor, index: &Tensor) -> Option<Vec<usize>> {
        let axis = self.call.axis("axis", data.shape().len()).ok()?;
        let picked = positions(&index.to_i64()?, data.shape()[axis])?;
        let own = steps(data.shape());
        let target = |(flat, &i): (usize, &usize)| {
            unravel(flat, index.shape())
                .enumerate()
                .map(|(a, at)| (if a == axis { i } else { at }) * own[a] as usize)
                .sum()
        };
        Some(picked.iter().enumerate().map(target).collect())
    }

    /// For each tuple of `GatherND` or `ScatterND`, where its slice of `inner` elements starts.
    fn slice_targets(
        &self,
        data: &Tensor,
        index: &Tensor,
        batch: usize,
    ) -> Option<(Vec<usize>, usize)> {
        let tuple = *index.shape().last()?;
        let own = steps(data.shape());
        let inner = data.shape()[batch + tuple..].iter().product();
        let values = index.to_i64()?;
        let outer: usize = index.shape()[..index.shape().len() - 1].iter().product();
        let batches: usize = index.shape()[..batch].iter().product();
        let block: usize = data.shape()[batch..].iter().product();
        let mut starts = Vec::with_capacity(outer);
        for o in 0..outer {
            let mut start = outer.checked_div(batches).map_or(0, |each| o / each * block);
            for t in 0..tuple {
                let at = positions(&values[o * tuple + t..][..1], data.shape()[batch + t])?[0];
                start += at * own[batch + t] as usize;
            }
            starts.push(start);
        }
        Some((starts, inner))
    }

    fn gather_elements(&self) -> Option<Tensor> {
        let (x, index) = (self.input(0)?, self.input(1)?);
        let targets = self.element_targets(x, index)?;
        tensor(&self.types[0], x.data().pick(targets.into_iter()))
    }

    fn gather_nd(&self) -> Option<Tensor> {
        let (x, index) = (self.input(0)?, self.input(1)?);
        let batch = usize::try_from(self.call.int("batch_dims")?).ok()?;
        let (starts, inner) = self.slice_targets(x, index, batch)?;
        let picked = starts.into_iter().flat_map(|s| s..s + inner);
        tensor(&self.types[0], x.data().pick(picked))
    }

    fn scatter_elements(&self) -> Option<Tensor> {
        let targets = self.element_targets(self.input(0)?, self.input(1)?)?;
        self.scatter(targets)
    }

    fn scatter_nd(&self) -> Option<Tensor> {
        let (starts, inner) = self.slice_targets(self.input(0)?, self.input(1)?, 0)?;
        self.scatter(starts.into_iter().flat_map(|s| s..s + inner).collect())
    }

    /// Writes the updates, in order, to the targets.
    fn scatter(&self, targets: Vec<usize>) -> Option<Tensor> {
        let (x, updates) = (self.input(0)?, self.input(2)?);
        let reduction = self.call.str("reduction")?;
        if reduction == "none" {
            let mut picked: Vec<usize> = (0..x.elements()).collect();
            for (u, &t) in targets.iter().enumerate() {
                *picked.get_mut(t)? = x.elements() + u;
            }
            return tensor(
                &self.types[0],
                join(x.dtype(), &[x, updates])?.pick(picked.into_iter()),
            );
        }
        // Sums of floats depend on their order and rounding; the runtime defines those.
        let (Numbers::Int(mut all), Numbers::Int(new)) = (Numbers::of(x), Numbers::of(updates))
        else {
            return None;
        };
        for (&t, &u) in targets.iter().zip(&new) {
            let old = all.get_mut(t)?;
            *old = match reduction {
                "add" => *old + u,
                "mul" => old.checked_mul(u)?,
                "max" => u.max(*old),
                "min" => u.min(*old),
                _ => return None,
            };
        }
        Numbers::Int(all).tensor(&self.types[0])
    }

    fn one_hot(&self) -> Option<Tensor> {
        let ty = &self.types[0];
        let (index, values) = (self.input(0)?, self.input(1)?);
        let depth = self.call.int("depth")?;
        let axis = self.call.axis("axis", ty.rank()).ok()?;
        let index_values = index.to_i64()?;
        let own = steps(index.shape());
        let at = |flat: usize| {
            let place: Vec<usize> = unravel(flat, &ty.shape).collect();
            let rest = place.iter().enumerate().filter(|(a, _)| *a != axis);
            let i: usize = rest.zip(&own).map(|((_, &p), &s)| p * s as usize).sum();
            let hot = index_values[i];
            let hot = if hot < 0 { hot + depth } else { hot };
            usize::from(hot == place[axis] as i64)
        };
        tensor(ty, values.data().pick((0..ty.elements()).map(at)))
    }
}

/// Indices counted from the end if negative; `None` where one is out of range.
fn positions(indices: &[i64], len: usize) -> Option<Vec<usize>> {
    let n = len as i64;
    indices
        .iter()
        .map(|&i| {
            let i = if i < 0 { i + n } else { i };
            (0..n).contains(&i).then_some(i as usize)
        })
        .collect()
}
