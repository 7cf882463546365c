//! The exact derivatives of matrix products: contractions of three operands.

use super::{K_CHUNK, Matrices};
use crate::Pool;
use crate::pa::{self, Offset, round_mantissa};

/// `grad[m, k] = Σ_n mul_grad(a[m, k], b[k, n], delta[m, n])`, n in the order of all contractions.
///
/// # Panics
/// Where the operands are too short for their shapes.
pub fn matmul_grad_a(
    pool: &Pool,
    (offset, mantissa): (Offset, u32),
    [m, n, k]: [usize; 3],
    a: Matrices<'_>,
    b: Matrices<'_>,
    delta: Matrices<'_>,
    out: &mut [f32],
) {
    grad(pool, (offset, mantissa), [m, k, n], [a, transposed(b), delta], out);
}

/// `grad[k, n] = Σ_m mul_grad(b[k, n], a[m, k], delta[m, n])`, m in the order of all contractions.
///
/// # Panics
/// Where the operands are too short for their shapes.
pub fn matmul_grad_b(
    pool: &Pool,
    (offset, mantissa): (Offset, u32),
    [m, n, k]: [usize; 3],
    a: Matrices<'_>,
    b: Matrices<'_>,
    delta: Matrices<'_>,
    out: &mut [f32],
) {
    // With rows and columns exchanged it is the same contraction: the row is k, the column n, and
    // the slope's operand a depends on the row.
    let operands = [b, a, delta];
    let batch = b.offsets.len();
    let sizes = k * n;
    if sizes == 0 {
        return;
    }
    assert_eq!(out.len(), batch * sizes, "the output is dense");
    let rows: Vec<(usize, &mut [f32])> = out.chunks_mut(n).enumerate().collect();
    each_row(pool, rows, &|(row, out)| {
        let (i, k) = (row / k, row % k);
        let [b, a, delta] = operands.map(|x| At { x, offset: x.offsets[i] });
        sum(m, out, |m, j| {
            let (x, y) = (b.at(k, j), a.at(m, k));
            let (x, y) = (round_mantissa(x, mantissa), round_mantissa(y, mantissa));
            pa::mul_grad(x, y, delta.at(m, j), offset)
        });
    });
}

fn transposed(x: Matrices<'_>) -> Matrices<'_> {
    Matrices { row: x.col, col: x.row, ..x }
}

/// `out[i, j] = Σ_n mul_grad(x[i, j], y[n, j], delta[i, n])`.
fn grad(
    pool: &Pool,
    (offset, mantissa): (Offset, u32),
    [rows, columns, n]: [usize; 3],
    operands: [Matrices<'_>; 3],
    out: &mut [f32],
) {
    if rows * columns == 0 {
        return;
    }
    assert_eq!(out.len(), operands[0].offsets.len() * rows * columns, "the output is dense");
    let all: Vec<(usize, &mut [f32])> = out.chunks_mut(columns).enumerate().collect();
    each_row(pool, all, &|(row, out)| {
        let (batch, i) = (row / rows, row % rows);
        let [x, y, delta] = operands.map(|x| At { x, offset: x.offsets[batch] });
        sum(n, out, |n, j| {
            let (p, q) = (x.at(i, j), y.at(n, j));
            let (p, q) = (round_mantissa(p, mantissa), round_mantissa(q, mantissa));
            pa::mul_grad(p, q, delta.at(i, n), offset)
        });
    });
}

#[derive(Clone, Copy)]
struct At<'a> {
    x: Matrices<'a>,
    offset: usize,
}

impl At<'_> {
    #[inline(always)]
    fn at(&self, i: usize, j: usize) -> f32 {
        self.x.data[self.offset + i * self.x.row + j * self.x.col]
    }
}

/// Sums over `n` in the order of all contractions, for every element of a row.
fn sum(n: usize, out: &mut [f32], term: impl Fn(usize, usize) -> f32) {
    for (j, out) in out.iter_mut().enumerate() {
        let chunk = |start: usize| {
            (start..(start + K_CHUNK).min(n)).fold(0.0, |sum: f32, i| sum + term(i, j))
        };
        let first = chunk(0);
        *out = (K_CHUNK..n).step_by(K_CHUNK).fold(first, |sum, start| sum + chunk(start));
    }
}

fn each_row<'o>(
    pool: &Pool,
    mut rows: Vec<(usize, &'o mut [f32])>,
    f: &(impl Fn((usize, &'o mut [f32])) + Sync),
) {
    if rows.len() <= 1 || pool.threads() == 1 {
        return rows.into_iter().for_each(f);
    }
    let right = rows.split_off(rows.len() / 2);
    pool.join(|| each_row(pool, rows, f), || each_row(pool, right, f));
}
