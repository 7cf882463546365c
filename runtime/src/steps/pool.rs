//! Dividing work among the threads.

use pam_kernels::Pool;

/// Bytes below which work stays on one thread.
const GRAIN: usize = 64 * 1024;

/// Calls `f` with every row of `out` and its number, on as many threads as it is worth. Each row is
/// written by one call, so the division does not show in the result.
pub fn rows<T: Send>(
    pool: &Pool,
    out: &mut [T],
    row: usize,
    work_per_element: usize,
    f: &(impl Fn(usize, &mut [T]) + Sync),
) {
    if row == 0 || out.is_empty() {
        return;
    }
    let work = size_of_val(out).saturating_mul(work_per_element.max(1));
    let parts = pool.threads().min(work / GRAIN + 1).min(out.len() / row).max(1);
    divide(pool, out, row, 0, parts, f);
}

fn divide<T: Send>(
    pool: &Pool,
    out: &mut [T],
    row: usize,
    first: usize,
    parts: usize,
    f: &(impl Fn(usize, &mut [T]) + Sync),
) {
    if parts <= 1 {
        return out.chunks_mut(row).enumerate().for_each(|(i, r)| f(first + i, r));
    }
    let middle = out.len() / row * (parts / 2) / parts;
    let (low, high) = out.split_at_mut(middle * row);
    pool.join(
        || divide(pool, low, row, first, parts / 2, f),
        || divide(pool, high, row, first + middle, parts - parts / 2, f),
    );
}
