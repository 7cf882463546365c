//! Matrix products and their exact derivatives.

use super::super::CudaError;
use super::super::contract::{Contraction, Kind, Shape, Strides};
use super::super::emit::{Header, number};
use super::super::order::{Order, Word};
use super::{Builder, small};
use crate::steps::contract::{Layout, Matmul, MatmulGrad};
use pam_ir::types::DType;
use pam_kernels::contract::Arithmetic;

fn strides(layout: &Layout, turned: bool) -> Strides {
    let (row, col) = (layout.row as u64, layout.col as u64);
    if turned { Strides { row: col, col: row } } else { Strides { row, col } }
}

pub(super) fn matmul(b: &mut Builder<'_, '_>, m: &Matmul, out: usize) -> Result<(), CudaError> {
    let [rows, cols, depth] = m.sizes;
    let batch = m.a.offsets.iter().zip(&m.b.offsets);
    if depth == 0 {
        b.orders.list.push(Order::Fill { at: Word::Out(0), value: 0, bytes: out });
        return Ok(());
    }
    let (offset, mantissa) = match (m.arithmetic, m.dtype) {
        (Arithmetic::Pa { offset, mantissa }, DType::F32) => (offset, mantissa),
        _ => {
            let kernel =
                b.emit(Header::Native, format!("PAM_NATIVE_PRODUCT(@, {})", number(m.dtype)));
            let count = out / m.dtype.size();
            let offsets = b.pairs(batch.map(|(&a, &b)| (a, b)))?;
            let args = vec![
                Word::In(0),
                Word::In(1),
                Word::Out(0),
                Word::U32(small(count, "a product")?),
                Word::U32(rows as u32),
                Word::U32(cols as u32),
                Word::U32(small(depth, "the depth of a product")?),
                offsets,
                Word::U64(m.a.row as u64),
                Word::U64(m.a.col as u64),
                Word::U64(m.b.row as u64),
                Word::U64(m.b.col as u64),
            ];
            b.each(kernel, count, args);
            return Ok(());
        }
    };
    let dense = Strides { row: cols as u64, col: 1 };
    let entry = |(i, (&a, &b)): (usize, (&usize, &usize))| {
        [a as u64, b as u64, (i * rows * cols) as u64, 0]
    };
    let shape = Shape {
        kind: Kind::Product,
        rows: small(rows, "the rows of a product")?,
        cols: small(cols, "the columns of a product")?,
        depth: small(depth, "the depth of a product")?,
        left: strides(&m.a, false),
        right: strides(&m.b, false),
        out: dense,
        own: dense,
        batch: batch.enumerate().map(entry).collect(),
        offset,
        mantissa,
    };
    contract(b, shape, [Word::In(0), Word::In(1), Word::U64(0), Word::Out(0)])
}

fn contract(b: &mut Builder<'_, '_>, shape: Shape, operands: [Word; 4]) -> Result<(), CudaError> {
    let contraction = Box::new(Contraction::new(b.machine, shape)?);
    b.space.take(contraction.workspace() as u64);
    b.orders.list.push(Order::Contract { contraction, operands });
    Ok(())
}

pub(super) fn matmul_grad(b: &mut Builder<'_, '_>, g: &MatmulGrad) -> Result<(), CudaError> {
    let [m, n, k] = g.sizes;
    let [a, right, delta] = &g.operands;
    let ((offset, mantissa), kind) = (g.numbers, Kind::ExactGradient);
    let size = |x: usize| small(x, "a product");
    // By b, the product is the same with rows and columns exchanged.
    let (own, other, turned) = if g.by_a { (a, right, false) } else { (right, a, true) };
    let (rows, cols, depth) = if g.by_a { (m, k, n) } else { (n, k, m) };
    let entry = |i: usize| {
        let at = [delta.offsets[i], other.offsets[i], i * rows * cols, own.offsets[i]];
        at.map(|x| x as u64)
    };
    if depth == 0 {
        let bytes = delta.offsets.len() * rows * cols * 4;
        b.orders.list.push(Order::Fill { at: Word::Out(0), value: 0, bytes });
        return Ok(());
    }
    let shape = Shape {
        kind,
        rows: size(rows)?,
        cols: size(cols)?,
        depth: size(depth)?,
        left: strides(delta, turned),
        right: strides(other, !turned),
        out: match turned {
            true => Strides { row: 1, col: rows as u64 },
            false => Strides { row: cols as u64, col: 1 },
        },
        own: strides(own, turned),
        batch: (0..delta.offsets.len()).map(entry).collect(),
        offset,
        mantissa,
    };
    let (own, other) = if g.by_a { (0, 1) } else { (1, 0) };
    contract(b, shape, [Word::In(2), Word::In(other), Word::In(own), Word::Out(0)])
}
