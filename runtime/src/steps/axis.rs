//! Ops along one axis: ArgMax, ArgMin, Hardmax, CumSum, TopK.

use super::{Io, Site, Step};
use crate::host::number::{Number, with_type};
use pam_ir::types::{DType, Type};
use std::cmp::Ordering;

/// A tensor seen as `outer × n × inner` around an axis.
#[derive(Clone, Copy)]
pub(crate) struct Around {
    pub(crate) outer: usize,
    pub(crate) n: usize,
    pub(crate) inner: usize,
    pub(crate) dtype: DType,
}

impl Around {
    fn new(ty: &Type, axis: usize) -> Around {
        Around {
            outer: ty.shape[..axis].iter().product(),
            n: ty.shape[axis],
            inner: ty.shape[axis + 1..].iter().product(),
            dtype: ty.dtype,
        }
    }

    /// For every line along the axis: its number and the position of its first element.
    fn lines(self) -> impl Iterator<Item = (usize, usize)> {
        let line = move |l: usize| l / self.inner * self.n * self.inner + l % self.inner;
        (0..self.outer * self.inner).map(move |l| (l, line(l)))
    }
}

/// Larger first; NaN counts as larger than everything.
fn descending<T: Number>(a: T, b: T) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
    }
}

/// Position of the extreme along a line; ties go to the first, or to the last.
fn extreme<T: Number>(data: &[T], at: usize, a: Around, least: bool, last: bool) -> usize {
    let mut best = 0;
    for k in 1..a.n {
        let (x, y) = (data[at + k * a.inner], data[at + best * a.inner]);
        let order =
            if least && !x.is_nan() && !y.is_nan() { descending(y, x) } else { descending(x, y) };
        if order == Ordering::Less || (last && order == Ordering::Equal) {
            best = k;
        }
    }
    best
}

/// ArgMax and ArgMin.
pub struct ArgExtreme {
    pub(crate) around: Around,
    pub(crate) least: bool,
    pub(crate) last: bool,
}

impl ArgExtreme {
    pub(super) fn lower(site: Site<'_>) -> Result<ArgExtreme, String> {
        let ty = site.input(0)?;
        let around = Around::new(ty, site.axis("axis", ty.rank())?);
        if around.n == 0 {
            return Err("the axis is empty".to_owned());
        }
        let last = site.int("select_last_index")? != 0;
        Ok(ArgExtreme { around, least: site.node.op == pam_ir::op::Op::ArgMin, last })
    }
}

impl Step for ArgExtreme {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let out = io.output::<i64>(0);
        with_type!(self.around.dtype, T => {
            let data = io.input::<T>(0);
            for (l, at) in self.around.lines() {
                out[l] = extreme(data, at, self.around, self.least, self.last) as i64;
            }
        });
        Ok(())
    }
}

/// Hardmax.
pub struct Hardmax(pub(crate) Around);

impl Hardmax {
    pub(super) fn lower(site: Site<'_>) -> Result<Hardmax, String> {
        let ty = site.input(0)?;
        Ok(Hardmax(Around::new(ty, site.axis("axis", ty.rank())?)))
    }
}

impl Step for Hardmax {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        with_type!(self.0.dtype, T => {
            let (data, out) = (io.input::<T>(0), io.output::<T>(0));
            out.fill(T::from_i128(0));
            for (_, at) in self.0.lines() {
                let best = extreme(data, at, self.0, false, false);
                out[at + best * self.0.inner] = T::from_i128(1);
            }
        });
        Ok(())
    }
}

/// CumSum: in order along the axis, one addition an element.
pub struct CumSum {
    pub(crate) around: Around,
    pub(crate) exclusive: bool,
    pub(crate) reverse: bool,
}

impl CumSum {
    pub(super) fn lower(site: Site<'_>) -> Result<CumSum, String> {
        let ty = site.input(0)?;
        Ok(CumSum {
            around: Around::new(ty, site.axis("axis", ty.rank())?),
            exclusive: site.int("exclusive")? != 0,
            reverse: site.int("reverse")? != 0,
        })
    }
}

impl Step for CumSum {
    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let a = self.around;
        with_type!(a.dtype, T => {
            let (data, out) = (io.input::<T>(0), io.output::<T>(0));
            for (_, at) in a.lines() {
                let mut sum = T::from_i128(0);
                for k in 0..a.n {
                    let k = if self.reverse { a.n - 1 - k } else { k };
                    let p = at + k * a.inner;
                    let next = sum.add(data[p]);
                    out[p] = if self.exclusive { sum } else { next };
                    sum = next;
                }
            }
        });
        Ok(())
    }
}

/// TopK: sorted, ties by position.
pub struct TopK {
    pub(crate) around: Around,
    pub(crate) k: usize,
    pub(crate) largest: bool,
}

impl TopK {
    pub(super) fn lower(site: Site<'_>) -> Result<TopK, String> {
        let ty = site.input(0)?;
        let around = Around::new(ty, site.axis("axis", ty.rank())?);
        let k = site.int("K")?;
        if k < 0 || k as usize > around.n {
            return Err(format!("K = {k} is outside 0..={}", around.n));
        }
        Ok(TopK { around, k: k as usize, largest: site.int("largest")? != 0 })
    }
}

impl Step for TopK {
    fn scratch(&self) -> usize {
        self.around.n * 8
    }

    fn run(&self, io: &mut Io<'_>) -> Result<(), String> {
        let a = self.around;
        let order: &mut [u64] =
            bytemuck::cast_slice_mut(&mut std::mem::take(&mut io.scratch)[..a.n * 8]);
        with_type!(a.dtype, T => {
            let data = io.input::<T>(0);
            let (values, indices) = (io.output::<T>(0), io.output::<i64>(1));
            for (l, at) in a.lines() {
                let element = |p: u64| data[at + p as usize * a.inner];
                for (p, o) in order.iter_mut().enumerate() {
                    *o = p as u64;
                }
                order.sort_unstable_by(|&p, &q| {
                    let by_value = match self.largest {
                        true => descending(element(p), element(q)),
                        false => descending(element(q), element(p)),
                    };
                    by_value.then(p.cmp(&q))
                });
                for (j, &p) in order[..self.k].iter().enumerate() {
                    let to = (l / a.inner * self.k + j) * a.inner + l % a.inner;
                    if let Some(v) = values.get_mut(to) {
                        *v = element(p);
                    }
                    if let Some(i) = indices.get_mut(to) {
                        *i = p as i64;
                    }
                }
            }
        });
        Ok(())
    }
}
