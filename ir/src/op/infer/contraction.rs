//! Matrix products, convolutions, einsum and attention.

use super::{Types, one, product, same_dtype};
use crate::geometry::windows;
use crate::op::Call;
use crate::types::{Type, broadcast};

/// `MatMul`: numpy's matrix product.
pub(in crate::op) fn matmul(call: &Call<'_>) -> Types {
    let (a, b) = (call.input(0)?, call.input(1)?);
    same_dtype(a, b)?;
    if a.rank() == 0 || b.rank() == 0 {
        return Err("a matrix product takes no scalars".to_owned());
    }
    let (row, col) = (a.rank() > 1, b.rank() > 1);
    let a_shape = if row { a.shape.clone() } else { vec![1, a.shape[0]] };
    let b_shape = if col { b.shape.clone() } else { vec![b.shape[0], 1] };
    let (a_batch, a_matrix) = a_shape.split_at(a_shape.len() - 2);
    let (b_batch, b_matrix) = b_shape.split_at(b_shape.len() - 2);
    if a_matrix[1] != b_matrix[0] {
        return Err(format!(
            "{a} and {b} do not multiply: {} against {}",
            a_matrix[1], b_matrix[0]
        ));
    }
    let mut shape = broadcast(a_batch, b_batch)
        .ok_or_else(|| format!("the batches of {a} and {b} do not broadcast"))?;
    shape.extend(row.then_some(a_matrix[0]));
    shape.extend(col.then_some(b_matrix[1]));
    one(a.dtype, shape)
}

/// `[..., m, k]` from `a` of that shape, `b` of `[..., k, n]` and `delta` of `[..., m, n]`.
pub(in crate::op) fn matmul_grad_a(call: &Call<'_>) -> Types {
    matmul_operands(call)?;
    Ok(vec![call.input(0)?.clone()])
}

/// `[..., k, n]` from `a` of `[..., m, k]`, `b` of that shape and `delta` of `[..., m, n]`.
pub(in crate::op) fn matmul_grad_b(call: &Call<'_>) -> Types {
    matmul_operands(call)?;
    Ok(vec![call.input(1)?.clone()])
}

fn matmul_operands(call: &Call<'_>) -> Result<(), String> {
    let (a, b, delta) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let product = matmul(call)?;
    let same_batch = a.rank() == b.rank() && a.rank() >= 2 && {
        let n = a.rank() - 2;
        a.shape[..n] == b.shape[..n]
    };
    if !same_batch || product != [delta.clone()] {
        return Err(format!("{a}, {b} and {delta} are not operands, and gradient, of a product"));
    }
    Ok(())
}

/// `Gemm`.
pub(in crate::op) fn gemm(call: &Call<'_>) -> Types {
    let (a, b) = (call.input(0)?, call.input(1)?);
    same_dtype(a, b)?;
    let ([a0, a1], [b0, b1]) = (a.shape.as_slice(), b.shape.as_slice()) else {
        return Err(format!("takes matrices, not {a} and {b}"));
    };
    let (m, k) = if call.int("transA") == Some(1) { (*a1, *a0) } else { (*a0, *a1) };
    let (k2, n) = if call.int("transB") == Some(1) { (*b1, *b0) } else { (*b0, *b1) };
    if k != k2 {
        return Err(format!("{a} and {b} do not multiply: {k} against {k2}"));
    }
    if let Some(c) = call.get(2)
        && broadcast(&c.shape, &[m, n]) != Some(vec![m, n])
    {
        return Err(format!("{c} does not broadcast to {m} by {n}"));
    }
    one(a.dtype, vec![m, n])
}

/// `Conv` and the PA convolution.
pub(in crate::op) fn conv(call: &Call<'_>) -> Types {
    let (x, w) = (call.input(0)?, call.input(1)?);
    same_dtype(x, w)?;
    if x.rank() < 3 || x.rank() != w.rank() {
        return Err(format!("takes an input and a kernel of one rank above 2, not {x} and {w}"));
    }
    let group = group(call)?;
    let (channels, outputs) = (x.shape[1], w.shape[0]);
    if w.shape[1].checked_mul(group) != Some(channels) || outputs % group != 0 {
        return Err(format!("{w} in {group} groups does not fit the {channels} channels of {x}"));
    }
    kernel_shape(call, &w.shape[2..])?;
    bias(call, outputs)?;
    let windows = windows(call, &x.shape[2..], &w.shape[2..])?;
    let mut shape = vec![x.shape[0], outputs];
    shape.extend(windows.iter().map(|w| w.output));
    one(x.dtype, shape)
}

/// `ConvTranspose`.
pub(in crate::op) fn conv_transpose(call: &Call<'_>) -> Types {
    let (x, w) = (call.input(0)?, call.input(1)?);
    same_dtype(x, w)?;
    if x.rank() < 3 || x.rank() != w.rank() {
        return Err(format!("takes an input and a kernel of one rank above 2, not {x} and {w}"));
    }
    let group = group(call)?;
    if w.shape[0] != x.shape[1] || x.shape[1] % group != 0 {
        return Err(format!("{w} in {group} groups does not fit the channels of {x}"));
    }
    kernel_shape(call, &w.shape[2..])?;
    let outputs = product(&[w.shape[1], group])?;
    bias(call, outputs)?;
    let mut shape = vec![x.shape[0], outputs];
    let transposed = crate::geometry::transposed_windows(call, &x.shape[2..], &w.shape[2..])?;
    shape.extend(transposed.iter().map(|w| w.output));
    one(x.dtype, shape)
}

fn group(call: &Call<'_>) -> Result<usize, String> {
    let group = call.int("group").unwrap_or(1);
    usize::try_from(group).ok().filter(|&g| g > 0).ok_or_else(|| format!("`group` is {group}"))
}

fn kernel_shape(call: &Call<'_>, kernel: &[usize]) -> Result<(), String> {
    match call.ints("kernel_shape") {
        Some(k) if !k.iter().map(|&d| d as usize).eq(kernel.iter().copied()) => {
            Err(format!("`kernel_shape` is {k:?}, the kernel has {kernel:?}"))
        }
        _ => Ok(()),
    }
}

fn bias(call: &Call<'_>, outputs: usize) -> Result<(), String> {
    match call.get(2) {
        Some(b) if b.shape != [outputs] => Err(format!("the bias is {b} for {outputs} channels")),
        _ => Ok(()),
    }
}

/// `Einsum`.
pub(in crate::op) fn einsum(call: &Call<'_>) -> Types {
    let shapes: Vec<&[usize]> = (0..call.inputs.len())
        .map(|i| call.input(i).map(|t| t.shape.as_slice()))
        .collect::<Result<_, _>>()?;
    let first = call.input(0)?;
    for i in 1..call.inputs.len() {
        same_dtype(first, call.input(i)?)?;
    }
    let einsum = crate::einsum::Einsum::parse(call.str("equation").unwrap_or(""), &shapes)?;
    one(first.dtype, einsum.output.iter().map(|&l| einsum.sizes[l]).collect())
}

/// `Attention`: rank 4 is [batch, heads, sequence, size], rank 3 [batch, sequence, heads · size].
pub(in crate::op) fn attention(call: &Call<'_>) -> Types {
    let (q, k, v) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let heads = |name: &str| {
        let n = call.int(name).and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
        n.ok_or_else(|| format!("operands of rank 3 need `{name}`"))
    };
    let split = |t: &Type, name: &str| -> Result<[usize; 4], String> {
        match t.shape[..] {
            [b, h, s, d] => Ok([b, h, s, d]),
            [b, s, hd] => {
                let h = heads(name)?;
                if hd % h == 0 {
                    Ok([b, h, s, hd / h])
                } else {
                    Err(format!("{t} has no {h} heads"))
                }
            }
            _ => Err(format!("{t} is not of rank 3 or 4")),
        }
    };
    let shown = call.int("qk_matmul_output_mode").unwrap_or(0);
    if !(0..=3).contains(&shown) {
        return Err(format!("`qk_matmul_output_mode` is {shown}, not 0 to 3"));
    }
    let [b, qh, qs, qd] = split(q, "q_num_heads")?;
    let [kb, kh, ks, kd] = split(k, "kv_num_heads")?;
    let [vb, vh, vs, vd] = split(v, "kv_num_heads")?;
    if [kb, vb] != [b, b] || kd != qd || vh != kh || vs != ks || kh == 0 || qh % kh != 0 {
        return Err(format!("{q}, {k} and {v} do not fit each other"));
    }
    let past = call
        .get(4)
        .map_or(Ok(0), |p| p.shape.get(2).copied().ok_or_else(|| format!("the past key is {p}")))?;
    let total = ks.checked_add(past).ok_or("the sequence is too long")?;
    if let Some(lengths) = call.get(6).filter(|t| t.shape != [b] || !t.dtype.is_int()) {
        return Err(format!("`nonpad_kv_seqlen` is {lengths}, not an integer for each of {b}"));
    }
    let y = match q.rank() {
        3 => vec![b, qs, product(&[qh, vd])?],
        _ => vec![b, qh, qs, vd],
    };
    let shapes = [y, vec![b, kh, total, qd], vec![b, kh, total, vd], vec![b, qh, qs, total]];
    Ok(shapes.map(|s| Type::new(q.dtype, s)).into())
}
