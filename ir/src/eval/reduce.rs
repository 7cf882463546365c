//! Reductions and running sums.

use super::numbers::Numbers;
use super::{Eval, strided};
use crate::geometry::reduced_axes;
use crate::op::Op;
use crate::tensor::Tensor;

impl Eval<'_> {
    pub(super) fn reduction(&self) -> Option<Tensor> {
        let x = self.input(0)?;
        let rank = x.shape().len();
        match self.call.op {
            Op::CumSum => self.cumulative(x),
            Op::ArgMax | Op::ArgMin => {
                let axis = self.call.axis("axis", rank).ok()?;
                let values: Vec<f64> = match Numbers::of(x) {
                    Numbers::Int(v) => v.iter().map(|&x| x as f64).collect(),
                    Numbers::Float(v) => v,
                };
                let best = self.groups(x, &[axis]).into_iter().map(|g| self.best(&values, &g));
                Numbers::Int(best.collect::<Option<_>>()?).tensor(&self.types[0])
            }
            _ => {
                let axes = reduced_axes(self.call, rank).ok()?;
                let groups = self.groups(x, &axes);
                self.fold(x, &groups)?.tensor(&self.types[0])
            }
        }
    }

    /// For each element of the output, the elements of the input it is made of, in order.
    fn groups(&self, x: &Tensor, axes: &[usize]) -> Vec<Vec<usize>> {
        let own = strided::steps(x.shape());
        let pick = |keep: bool| -> (Vec<usize>, Vec<i64>) {
            let axes = (0..x.shape().len()).filter(|a| axes.contains(a) != keep);
            axes.map(|a| (x.shape()[a], own[a])).unzip()
        };
        let ((outer, outer_steps), (inner, inner_steps)) = (pick(true), pick(false));
        let starts = strided::indices(&outer, &outer_steps, 0);
        starts.into_iter().map(|s| strided::indices(&inner, &inner_steps, s as i64)).collect()
    }

    fn fold(&self, x: &Tensor, groups: &[Vec<usize>]) -> Option<Numbers> {
        let op = self.call.op;
        Some(match Numbers::of(x) {
            Numbers::Int(v) => {
                let f = |g: &Vec<usize>| -> Option<i128> {
                    let mut items = g.iter().map(|&i| v[i]);
                    match op {
                        Op::ReduceSum => Some(items.sum()),
                        Op::ReduceProd => items.try_fold(1i128, i128::checked_mul),
                        Op::ReduceL1 => Some(items.map(i128::abs).sum()),
                        Op::ReduceMax => items.max(),
                        Op::ReduceMin => items.min(),
                        _ => None,
                    }
                };
                Numbers::Int(groups.iter().map(f).collect::<Option<_>>()?)
            }
            Numbers::Float(v) => {
                let f = |g: &Vec<usize>| -> Option<f64> {
                    let items = g.iter().map(|&i| v[i]);
                    let extreme = |pick: fn(f64, f64) -> f64, start: f64| {
                        let nan = g.iter().any(|&i| v[i].is_nan());
                        if nan { f64::NAN } else { g.iter().map(|&i| v[i]).fold(start, pick) }
                    };
                    match op {
                        Op::ReduceSum => Some(items.sum()),
                        Op::ReduceProd => Some(items.product()),
                        Op::ReduceMean => Some(items.sum::<f64>() / g.len() as f64),
                        Op::ReduceL1 => Some(items.map(f64::abs).sum()),
                        Op::ReduceMax => Some(extreme(f64::max, f64::NEG_INFINITY)),
                        Op::ReduceMin => Some(extreme(f64::min, f64::INFINITY)),
                        _ => None,
                    }
                };
                Numbers::Float(groups.iter().map(f).collect::<Option<_>>()?)
            }
        })
    }

    /// The position of the extreme element in a group.
    fn best(&self, v: &[f64], group: &[usize]) -> Option<i128> {
        let largest = self.call.op == Op::ArgMax;
        let last = self.call.int("select_last_index") == Some(1);
        let mut best = 0;
        let mut extreme = v[*group.first()?];
        for (position, &i) in group.iter().enumerate().skip(1) {
            let better = if largest { v[i] > extreme } else { v[i] < extreme };
            if better || (last && v[i] == extreme) {
                (best, extreme) = (position, v[i]);
            }
        }
        Some(best as i128)
    }

    fn cumulative(&self, x: &Tensor) -> Option<Tensor> {
        let axis = crate::op::normalize_axis(self.call.int("axis")?, x.shape().len()).ok()?;
        let exclusive = self.call.int("exclusive") == Some(1);
        let reverse = self.call.int("reverse") == Some(1);
        let Numbers::Int(v) = Numbers::of(x) else { return None };
        let mut out = vec![0i128; v.len()];
        for group in self.groups(x, &[axis]) {
            let mut order = group;
            if reverse {
                order.reverse();
            }
            let mut sum = 0i128;
            for i in order {
                let next = sum + v[i];
                out[i] = if exclusive { sum } else { next };
                sum = next;
            }
        }
        Numbers::Int(out).tensor(&self.types[0])
    }
}
