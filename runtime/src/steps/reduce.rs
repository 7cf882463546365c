//! Reductions by addition and comparison over any axes.
//!
//! Reduced axes that are neighbours are reduced as one; where kept axes lie between, there are several
//! passes, see [`reduction_passes`].

use super::pool::rows;
use super::{Io, Site, Step};
use crate::host::number::{Number, of, of_mut, with_type};
use bytemuck::Pod;
use pam_ir::geometry::{reduced_axes, reduction_passes};
use pam_ir::graph::{Graph, Node};
use pam_ir::op::Op;
use pam_ir::types::DType;
use pam_kernels::reduce::{Reduction, reduce};

/// A reduction.
pub struct Reduce {
    pub(crate) reduction: Reduction,
    pub(crate) dtype: DType,
    /// Outer, reduced and inner size of each pass, the first pass first.
    pub(crate) passes: Vec<[usize; 3]>,
}

impl Reduce {
    /// The reduction that a node is.
    ///
    /// # Errors
    /// Where its attributes do not fit.
    pub(crate) fn of(graph: &Graph, node: &Node) -> Result<Reduce, String> {
        Reduce::lower(Site { graph, node })
    }

    pub(super) fn lower(site: Site<'_>) -> Result<Reduce, String> {
        let from = site.input(0)?;
        let rank = from.rank();
        let axes: Vec<usize> = match site.node.op {
            Op::GlobalMaxPool => (2..rank).collect(),
            _ => site.graph.with_call(site.node, |call| reduced_axes(call, rank))?,
        };
        let reduction = match site.node.op {
            Op::ReduceSum => Reduction::Sum,
            Op::ReduceMin => Reduction::Min,
            _ => Reduction::Max,
        };
        Ok(Reduce { reduction, dtype: from.dtype, passes: reduction_passes(&from.shape, &axes) })
    }

    /// Elements that pass `i` leaves.
    pub(crate) fn left(&self, i: usize) -> usize {
        self.passes[i][0] * self.passes[i][2]
    }

    fn passes<T: Pod>(
        &self,
        io: &mut Io<'_>,
        pass: impl Fn(Reduction, [usize; 3], &[T], &mut [T]),
    ) {
        let out = io.output::<T>(0);
        let scratch = std::mem::take(&mut io.scratch);
        let (even, odd) = scratch.split_at_mut(self.half());
        let (mut from, mut to) = (even, odd);
        for (i, &sizes) in self.passes.iter().enumerate() {
            let bytes = |n: usize| n * size_of::<T>();
            let data = match i {
                0 => io.input::<T>(0),
                _ => of(&from[..bytes(self.left(i - 1))]),
            };
            if i + 1 == self.passes.len() {
                return pass(self.reduction, sizes, data, out);
            }
            pass(self.reduction, sizes, data, of_mut(&mut to[..bytes(self.left(i))]));
            (from, to) = (to, from);
        }
    }

    /// Bytes of the largest intermediate result.
    fn half(&self) -> usize {
        let between = (0..self.passes.len().saturating_sub(1)).map(|i| self.left(i));
        (between.max().unwrap_or(0) * self.dtype.size()).next_multiple_of(64)
    }
}

/// One pass over any element type, in order.
fn fold<T: Number>(
    pool: &pam_kernels::Pool,
    reduction: Reduction,
    [_, reduced, inner]: [usize; 3],
    x: &[T],
    out: &mut [T],
) {
    let start = match reduction {
        Reduction::Sum => T::from_i128(0),
        Reduction::Max => T::lowest(),
        Reduction::Min => T::highest(),
    };
    rows(pool, out, inner, reduced, &|o, row| {
        row.fill(start);
        for r in 0..reduced {
            for (y, &x) in row.iter_mut().zip(&x[(o * reduced + r) * inner..]) {
                *y = match reduction {
                    Reduction::Sum => y.add(x),
                    Reduction::Max => Number::greater(*y, x),
                    Reduction::Min => Number::lesser(*y, x),
                };
            }
        }
    });
}

impl Step for Reduce {
    fn scratch(&self) -> usize {
        2 * self.half()
    }

    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let pool = io.pool;
        if self.dtype == DType::F32 {
            self.passes::<f32>(io, |r, sizes, x, y| reduce(pool, r, sizes, x, y));
        } else {
            with_type!(self.dtype, T => self.passes::<T>(io, |r, s, x, y| fold(pool, r, s, x, y)));
        }
        Ok(())
    }
}
