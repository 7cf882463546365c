//! Convolutions on the device: the tables by which the kernel finds the elements of a window.
//!
//! A coordinate along an axis is the window's start plus the kernel element's distance; the axis's map
//! turns it into an offset in the image, or into nothing outside the image and between the elements of
//! a dilated input. Several images are taken together where one has few windows.

use super::super::CudaError;
use super::super::contract::{BIAS, CHUNK};
use super::super::emit::{Header, number};
use super::super::order::{Order, Word};
use super::{Builder, small};
use crate::steps::contract::Conv;
use pam_ir::types::DType;
use pam_kernels::contract::{Arithmetic, ConvShape, Spatial};

/// Rows of a packed panel and edge of an output tile.
const EDGE: usize = 128;
/// Windows that a work item takes if the images have fewer.
const COLUMNS: usize = 1024;
/// The most blocks of a grid along z.
const GRID: usize = 65_535;
/// No element.
const NOWHERE: u32 = u32::MAX;

/// Mirrors `Column` in kernels/cuda/conv.cu.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Column {
    image: u64,
    at: [u32; 3],
    out: u32,
    spare: u64,
}

/// Mirrors `ConvWork` there.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Work {
    out: u64,
    source: u64,
    left_panel: u32,
    chunk_begin: u32,
    chunk_end: u32,
    cols: u32,
    spare: [u64; 4],
}

/// The indices of three nested loops, outermost first.
fn nested(sizes: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [a, b, c] = sizes;
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| [i, j, k])))
}

/// The offset of each coordinate along an axis whose elements lie `stride` apart.
fn map(axis: &Spatial, stride: usize) -> Vec<u32> {
    let length = (axis.output.max(1) - 1) * axis.stride + (axis.kernel.max(1) - 1) * axis.dilation;
    let element = |v: usize| {
        let p = v as i64 - axis.before;
        let d = axis.input_dilation as i64;
        let inside = p >= 0 && p % d == 0 && p / d < axis.input as i64;
        if inside { (p / d) as u32 * stride as u32 } else { NOWHERE }
    };
    (0..=length).map(element).collect()
}

/// Adds the orders of a convolution.
pub(super) fn lower(b: &mut Builder<'_, '_>, c: &Conv, out: usize) -> Result<(), CudaError> {
    let shape = &c.shape;
    let axes = shape.axes();
    let positions: usize = axes.iter().map(|a| a.output).product();
    let depth = shape.channels * axes.iter().map(|a| a.kernel).product::<usize>();
    if depth == 0 {
        b.orders.list.push(Order::Fill { at: Word::Out(0), value: 0, bytes: out });
    } else {
        match (c.arithmetic, c.dtype) {
            (Arithmetic::Pa { offset, mantissa }, DType::F32) => {
                product(b, shape, offset, mantissa)?;
            }
            _ => native(b, shape, c.dtype, out)?,
        }
    }
    if c.bias {
        let kernel = b.emit(Header::Movement, format!("PAM_ADD_BIAS(@, {})", number(c.dtype)));
        let count = out / c.dtype.size();
        let args = vec![
            Word::Out(0),
            Word::In(2),
            Word::U32(small(count, "a tensor")?),
            Word::U32(small(positions, "an image")?),
            Word::U32((shape.groups * shape.outputs) as u32),
        ];
        b.each(kernel, count, args);
    }
    Ok(())
}

fn native(
    b: &mut Builder<'_, '_>,
    shape: &ConvShape,
    dtype: DType,
    out: usize,
) -> Result<(), CudaError> {
    let kernel = b.emit(Header::Native, format!("PAM_NATIVE_CONV(@, {})", number(dtype)));
    let mut table = Vec::new();
    for a in shape.axes() {
        for n in [a.input, a.kernel, a.output, a.stride, a.dilation, a.input_dilation] {
            table.push(small(n, "an axis")?);
        }
        table.extend([a.before as i32 as u32, 0]);
    }
    let count = out / dtype.size();
    let args = vec![
        Word::In(0),
        Word::In(1),
        Word::Out(0),
        Word::U32(small(count, "a tensor")?),
        b.table(&table)?,
        Word::U32(shape.groups as u32),
        Word::U32(shape.channels as u32),
        Word::U32(shape.outputs as u32),
    ];
    b.each(kernel, count, args);
    Ok(())
}

fn product(
    b: &mut Builder<'_, '_>,
    shape: &ConvShape,
    offset: i32,
    mantissa: u32,
) -> Result<(), CudaError> {
    let [deep, high, wide] = shape.axes();
    let (groups, channels, outputs) = (shape.groups, shape.channels, shape.outputs);
    let pixels = deep.input * high.input * wide.input;
    let positions = deep.output * high.output * wide.output;
    let taps = deep.kernel * high.kernel * wide.kernel;
    let depth = channels * taps;
    let elements = shape.batch * groups * outputs * positions;
    let inputs = shape.batch * groups * channels * pixels;
    // Offsets within the images that are taken together are counted in 32 bits.
    small(groups * channels * pixels, "an image")?;
    let bias = BIAS.wrapping_sub(offset as u32);
    let chunks = depth.div_ceil(CHUNK as usize);
    let panels = outputs.div_ceil(EDGE);

    // As many images together as fill a few tiles, and more where the grid would be too deep.
    let mut together = COLUMNS.div_ceil(positions).clamp(1, shape.batch);
    while shape.batch.div_ceil(together) * groups > GRID && together < shape.batch {
        together = (together + together).min(shape.batch);
    }
    let runs = shape.batch.div_ceil(together);
    let columns = together * positions;
    let tiles = columns.div_ceil(EDGE) * panels * runs * groups;
    let split = chunks > 1 && tiles < 2 * b.machine.multiprocessors() as usize;
    let parts = if split { chunks } else { 1 };
    if parts * runs * groups > GRID {
        let what = format!("the grid of a convolution ({})", parts * runs * groups);
        return Err(CudaError::TooLarge { what });
    }

    let panel_stride = depth.next_multiple_of(16) * EDGE;
    let plane_stride = panel_stride * panels * groups;
    let facts_bytes = groups * panels * chunks * 16;
    let planes = Word::Work(b.space.take(plane_stride as u64 * 8));
    let facts = Word::Work(b.space.take(facts_bytes as u64));
    let source_facts = Word::Work(b.space.take(16));
    b.orders.list.push(Order::Fill { at: facts, value: 0, bytes: facts_bytes });
    b.orders.list.push(Order::Fill { at: source_facts, value: 0, bytes: 16 });
    let offsets: Vec<u64> = (0..groups).map(|g| (g * outputs * depth) as u64).collect();
    let table = b.table(&offsets)?;
    let d = small(depth, "the depth of a convolution")?;
    let (p, k) = (panels as u32, chunks as u32);
    let pack = vec![
        Word::In(1),
        table,
        Word::U32(outputs as u32),
        Word::U32(d),
        Word::U64(depth as u64),
        Word::U64(1),
        planes,
        Word::U64(plane_stride as u64),
        Word::U64(panel_stride as u64),
        Word::U32(p),
        facts,
        Word::U32(k),
        Word::U32(bias),
        Word::U32(mantissa),
    ];
    b.launch("pam_pack_left", (d.div_ceil(32), p, groups as u32), pack);
    // The images are read in place, unless they have to be rounded first.
    let mut source = Word::In(0);
    if mantissa < 23 {
        let narrow = Word::Work(b.space.take(inputs as u64 * 4));
        let args = vec![source, narrow, Word::U64(inputs as u64), Word::U32(mantissa)];
        b.each("pam_narrow", inputs, args);
        source = narrow;
    }
    b.each("pam_facts", inputs, vec![source, Word::U64(inputs as u64), source_facts]);

    let mut terms = Vec::with_capacity(depth * 4);
    for channel in 0..channels {
        for [i, j, l] in nested([deep.kernel, high.kernel, wide.kernel]) {
            terms.extend(
                [channel * pixels, i * deep.dilation, j * high.dilation, l * wide.dilation]
                    .map(|n| n as u32),
            );
        }
    }
    let mut list = Vec::with_capacity(columns);
    for image in 0..together {
        let places = nested([deep.output, high.output, wide.output]);
        for (position, [i, j, l]) in places.enumerate() {
            list.push(Column {
                image: (image * groups * channels * pixels) as u64,
                at: [i * deep.stride, j * high.stride, l * wide.stride].map(|n| n as u32),
                out: small(image * groups * outputs * positions + position, "an image")?,
                spare: 0,
            });
        }
    }
    let mut works = Vec::with_capacity(parts * runs * groups);
    for part in 0..parts {
        for run in 0..runs {
            let first = run * together;
            for group in 0..groups {
                works.push(Work {
                    out: (part * elements + (first * groups + group) * outputs * positions) as u64,
                    source: ((first * groups + group) * channels * pixels) as u64,
                    left_panel: (group * panels) as u32,
                    chunk_begin: if split { part as u32 } else { 0 },
                    chunk_end: if split { part as u32 + 1 } else { k },
                    cols: ((shape.batch - first).min(together) * positions) as u32,
                    spare: [0; 4],
                });
            }
        }
    }
    // A window that leaves the image meets zeros there.
    let padded = [deep, high, wide].iter().any(|a| map(a, 1).contains(&NOWHERE));
    let partial =
        if split { Word::Work(b.space.take((parts * elements * 4) as u64)) } else { Word::Out(0) };
    let args = vec![
        planes,
        Word::U64(plane_stride as u64),
        facts,
        source,
        source_facts,
        Word::U32(padded.into()),
        Word::U64(panel_stride as u64),
        Word::U32(k),
        b.table(&works)?,
        b.table(&terms)?,
        b.table(&list)?,
        b.table(&map(&deep, high.input * wide.input))?,
        b.table(&map(&high, wide.input))?,
        b.table(&map(&wide, 1))?,
        partial,
        Word::U64(positions as u64),
        Word::U32(outputs as u32),
        Word::U32(d),
        Word::U32(bias),
    ];
    let grid = (columns.div_ceil(EDGE) as u32, p, works.len() as u32);
    b.launch("pam_conv", grid, args);
    if split {
        let args = vec![partial, Word::Out(0), Word::U64(elements as u64), Word::U32(parts as u32)];
        b.launch("pam_chunk_sum", (small(elements, "a tensor")?.div_ceil(256), 1, 1), args);
    }
    Ok(())
}
