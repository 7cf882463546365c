//! Contractions on the device: packing, choice of grid, and the split along k.
//!
//! A product of `left[rows × depth]` and `right[depth × cols]`, batched, any strides. Both operands
//! are packed into panels of 128 rows with the facts that let the kernel choose its form; neither
//! the facts nor anything else returns to the host. Where the output has too few tiles to fill the
//! device, each chunk of 256 along k becomes a block of its own and a second kernel adds the chunk
//! sums in ascending order: the documented order either way, so the same bits.

use super::CudaError;
use super::machine::{Arg, Buffer, Machine, upload};

/// Rows of a packed panel and edge of an output tile.
const EDGE: u64 = 128;
/// Terms of a contraction that are summed before their sum joins the total.
pub const CHUNK: u64 = 256;
/// `BIAS` of docs/numerics.md.
pub const BIAS: u32 = 0x3F80_0000;

/// What a contraction computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `out[i,j] = Σ_k pa.mul(left[i,k], right[k,j])`
    Product,
    /// `out[i,j] = Σ_k pa.mul_grad(own[i,j], right[k,j], left[i,k])`: `left` is the incoming
    /// gradient, and `own` the differentiated factor.
    ExactGradient,
}

/// Element strides of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strides {
    /// Elements from one row to the next.
    pub row: u64,
    /// Elements from one column to the next.
    pub col: u64,
}

/// The shape of a batched contraction.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What is computed.
    pub kind: Kind,
    /// Rows of `left` and of the output.
    pub rows: u32,
    /// Columns of `right` and of the output.
    pub cols: u32,
    /// Terms per output element.
    pub depth: u32,
    /// Strides of `left` (rows × depth).
    pub left: Strides,
    /// Strides of `right` (depth × cols).
    pub right: Strides,
    /// Strides of the output.
    pub out: Strides,
    /// Strides of `own` (rows × cols), for [`Kind::ExactGradient`].
    pub own: Strides,
    /// Element offsets of each matrix of the batch: left, right, output, own.
    pub batch: Vec<[u64; 4]>,
    /// bits(offset) − BIAS of the error compensation; 0 is plain arithmetic.
    pub offset: i32,
    /// Mantissa bits that the operands are rounded to; 23 keeps them.
    pub mantissa: u32,
}

/// Mirrors `Work` in kernels/cuda/tile.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Work {
    out: u64,
    left_panel: u32,
    right_panel: u32,
    chunk_begin: u32,
    chunk_end: u32,
    spare: [u32; 2],
}

/// One operand's panels: which matrices are packed, and where.
#[derive(Debug)]
struct Panels {
    offsets: Buffer,
    matrices: u32,
    per_matrix: u32,
    /// Where the planes and the facts lie in the workspace, in bytes.
    planes: u64,
    plane_stride: u64,
    facts: u64,
    facts_bytes: usize,
    /// First panel of each batch entry.
    first: Vec<u32>,
}

/// A contraction with its tables on the device, ready to be launched any number of times in a
/// workspace that contractions may share.
#[derive(Debug)]
pub struct Contraction {
    shape: Shape,
    left: Panels,
    right: Panels,
    works: Buffer,
    own_offsets: Buffer,
    blocks: (u32, u32, u32),
    panel_stride: u64,
    chunks: u32,
    // Place of the chunk sums, their number and the number of output elements, when split along k.
    partial: Option<(u64, u32, u64)>,
    workspace: Workspace,
}

/// The layout of a workspace: a block whose parts follow each other.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Workspace {
    bytes: u64,
}

impl Workspace {
    /// Takes so many bytes and says where they begin.
    pub(super) fn take(&mut self, bytes: u64) -> u64 {
        let at = self.bytes;
        self.bytes = (at + bytes).next_multiple_of(256);
        at
    }

    /// Bytes taken.
    pub(super) fn bytes(self) -> usize {
        self.bytes as usize
    }
}

fn too_large(what: &str, value: u64) -> CudaError {
    CudaError::TooLarge { what: format!("{what} ({value})") }
}

impl Contraction {
    /// Lays out the workspace on the device.
    ///
    /// # Errors
    ///
    /// Out of memory, or a shape beyond the grid's limits (65,535 row tiles or batch entries).
    pub fn new(device: &dyn Machine, shape: Shape) -> Result<Self, CudaError> {
        let row_tiles = u64::from(shape.rows).div_ceil(EDGE);
        let col_tiles = u64::from(shape.cols).div_ceil(EDGE);
        let depth = u64::from(shape.depth);
        let chunks = depth.div_ceil(CHUNK);
        let panel_stride = depth.div_ceil(16) * 16 * EDGE;
        let batch = shape.batch.len() as u64;
        let elements = batch * u64::from(shape.rows) * u64::from(shape.cols);

        // Splitting needs a dense output, since the chunk sums are added over its whole extent.
        let tiles = row_tiles * col_tiles * batch;
        let fills = tiles >= 2 * u64::from(device.multiprocessors());
        let split = !fills && chunks > 1 && dense(&shape);
        let parts = if split { chunks } else { 1 };
        if row_tiles > 65_535 || parts * batch > 65_535 {
            return Err(too_large("a contraction's grid", row_tiles.max(parts * batch)));
        }

        let planes = if shape.kind == Kind::Product { 2 } else { 3 };
        let left_offsets: Vec<u64> = shape.batch.iter().map(|b| b[0]).collect();
        let right_offsets: Vec<u64> = shape.batch.iter().map(|b| b[1]).collect();
        let mut workspace = Workspace::default();
        let space = &mut workspace;
        let left = panels(device, space, &left_offsets, row_tiles, panel_stride, planes, chunks)?;
        let right = panels(device, space, &right_offsets, col_tiles, panel_stride, 1, chunks)?;

        let mut works = Vec::new();
        let mut own_offsets = Vec::new();
        for part in 0..parts {
            for (i, b) in shape.batch.iter().enumerate() {
                works.push(Work {
                    out: part * elements * u64::from(split) + b[2],
                    left_panel: left.first[i],
                    right_panel: right.first[i],
                    chunk_begin: if split { part as u32 } else { 0 },
                    chunk_end: if split { part as u32 + 1 } else { chunks as u32 },
                    spare: [0; 2],
                });
                own_offsets.push(b[3]);
            }
        }
        let partial = split.then(|| (workspace.take(parts * elements * 4), parts as u32, elements));
        Ok(Contraction {
            works: upload(device, &works, "a contraction's table")?,
            own_offsets: upload(device, &own_offsets, "a contraction's offsets")?,
            blocks: (col_tiles as u32, row_tiles as u32, works.len() as u32),
            shape,
            left,
            right,
            panel_stride,
            chunks: chunks as u32,
            partial,
            workspace,
        })
    }

    /// Bytes of workspace that a launch uses.
    pub fn workspace(&self) -> usize {
        self.workspace.bytes()
    }

    /// Multiply-accumulates per launch.
    pub fn macs(&self) -> u64 {
        let s = &self.shape;
        u64::from(s.rows) * u64::from(s.cols) * u64::from(s.depth) * s.batch.len() as u64
    }

    /// Packs both operands and computes the output.
    ///
    /// # Safety
    ///
    /// The device addresses must cover the shape's matrices, and `workspace` as many bytes as
    /// [`Contraction::workspace`] says; `own` is read only for [`Kind::ExactGradient`].
    ///
    /// # Errors
    ///
    /// The driver's.
    pub unsafe fn launch(
        &self,
        device: &dyn Machine,
        workspace: u64,
        [left, right, own, out]: [u64; 4],
    ) -> Result<(), CudaError> {
        // SAFETY: the caller vouches for the operands.
        unsafe {
            self.pack(device, workspace, left, right)?;
            self.contract(device, workspace, own, out)
        }
    }

    /// Packs both operands and gathers their facts.
    ///
    /// # Safety
    ///
    /// As for [`Contraction::launch`].
    ///
    /// # Errors
    ///
    /// The driver's.
    pub unsafe fn pack(
        &self,
        device: &dyn Machine,
        workspace: u64,
        left: u64,
        right: u64,
    ) -> Result<(), CudaError> {
        let s = &self.shape;
        // Only a product's left operand carries the bias; a slope takes the offset itself.
        let bias = if s.kind == Kind::Product { BIAS.wrapping_sub(s.offset as u32) } else { BIAS };
        let kernel = if s.kind == Kind::Product { "pam_pack_left" } else { "pam_pack_gradient" };
        // The incoming gradient is not a factor, so it is never narrowed.
        let keep = if s.kind == Kind::Product { s.mantissa } else { 23 };
        let rights = Strides { row: s.right.col, col: s.right.row };
        for (kernel, panels, source, rows, strides, keep) in [
            (kernel, &self.left, left, s.rows, s.left, keep),
            ("pam_pack_right", &self.right, right, s.cols, rights, s.mantissa),
        ] {
            let args = [
                Arg::U64(source),
                Arg::U64(panels.offsets.address()),
                Arg::U32(rows),
                Arg::U32(s.depth),
                Arg::U64(strides.row),
                Arg::U64(strides.col),
                Arg::U64(workspace + panels.planes),
                Arg::U64(panels.plane_stride),
                Arg::U64(self.panel_stride),
                Arg::U32(panels.per_matrix),
                Arg::U64(workspace + panels.facts),
                Arg::U32(self.chunks),
                Arg::U32(bias),
                Arg::U32(keep),
            ];
            let grid = (s.depth.div_ceil(32), panels.per_matrix, panels.matrices);
            // SAFETY: the workspace was laid out for this shape; the caller vouches for the rest.
            unsafe {
                device.fill(workspace + panels.facts, 0, panels.facts_bytes)?;
                device.launch(kernel, grid, 256, &args)?;
            }
        }
        Ok(())
    }

    /// Computes the output from operands packed before.
    ///
    /// # Safety
    ///
    /// As for [`Contraction::launch`].
    ///
    /// # Errors
    ///
    /// The driver's.
    pub unsafe fn contract(
        &self,
        device: &dyn Machine,
        workspace: u64,
        own: u64,
        out: u64,
    ) -> Result<(), CudaError> {
        let s = &self.shape;
        if s.depth == 0 {
            return Err(too_large("a contraction over nothing", 0));
        }
        let target = self.partial.map_or(out, |(at, ..)| workspace + at);
        let mut args = vec![
            Arg::U64(workspace + self.left.planes),
            Arg::U64(self.left.plane_stride),
            Arg::U64(workspace + self.left.facts),
            Arg::U64(workspace + self.right.planes),
            Arg::U64(workspace + self.right.facts),
            Arg::U64(self.panel_stride),
            Arg::U32(self.chunks),
            Arg::U64(self.works.address()),
        ];
        if s.kind == Kind::ExactGradient {
            args.extend([
                Arg::U64(own),
                Arg::U64(self.own_offsets.address()),
                Arg::U64(s.own.row),
                Arg::U64(s.own.col),
            ]);
        }
        args.extend([
            Arg::U64(target),
            Arg::U64(s.out.row),
            Arg::U64(s.out.col),
            Arg::U32(s.rows),
            Arg::U32(s.cols),
            Arg::U32(s.depth),
        ]);
        let kernel = match s.kind {
            Kind::Product => {
                args.push(Arg::U32(BIAS.wrapping_sub(s.offset as u32)));
                "pam_contract"
            }
            Kind::ExactGradient => {
                args.extend([Arg::U32(s.offset as u32), Arg::U32(s.mantissa)]);
                "pam_contract_grad"
            }
        };
        // SAFETY: the arguments follow the kernels' parameter lists, and the workspace was laid out
        // for this shape; the caller vouches for `own` and `out`.
        unsafe {
            device.launch(kernel, self.blocks, 256, &args)?;
            if let Some((partial, parts, elements)) = self.partial {
                let args = [
                    Arg::U64(workspace + partial),
                    Arg::U64(out),
                    Arg::U64(elements),
                    Arg::U32(parts),
                ];
                let blocks = elements.div_ceil(256) as u32;
                device.launch("pam_chunk_sum", (blocks, 1, 1), 256, &args)?;
            }
        }
        Ok(())
    }
}

/// Whether the batch's outputs fill one contiguous range without gaps, starting at 0.
fn dense(shape: &Shape) -> bool {
    let (rows, cols) = (u64::from(shape.rows), u64::from(shape.cols));
    let plain = shape.out == Strides { row: cols, col: 1 };
    let turned = shape.out == Strides { row: 1, col: rows };
    let mut offsets: Vec<u64> = shape.batch.iter().map(|b| b[2]).collect();
    offsets.sort_unstable();
    (plain || turned) && offsets.iter().enumerate().all(|(i, &o)| o == i as u64 * rows * cols)
}

fn panels(
    device: &dyn Machine,
    workspace: &mut Workspace,
    offsets: &[u64],
    per_matrix: u64,
    panel_stride: u64,
    planes: u64,
    chunks: u64,
) -> Result<Panels, CudaError> {
    // A matrix that several batch entries share is packed once.
    let mut distinct = offsets.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let count = distinct.len() as u64 * per_matrix;
    if count > u64::from(u32::MAX) || distinct.len() > 65_535 {
        return Err(too_large("the number of panels", count));
    }
    let first = offsets
        .iter()
        .map(|o| (distinct.partition_point(|d| d < o) as u64 * per_matrix) as u32)
        .collect();
    let plane_stride = count * panel_stride;
    let facts_bytes = count * chunks * 16;
    Ok(Panels {
        matrices: distinct.len() as u32,
        per_matrix: per_matrix as u32,
        planes: workspace.take(planes * plane_stride * 4),
        plane_stride,
        facts: workspace.take(facts_bytes),
        facts_bytes: facts_bytes as usize,
        offsets: upload(device, &distinct, "batch offsets")?,
        first,
    })
}
