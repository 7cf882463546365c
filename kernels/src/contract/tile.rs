//! The register tile that the micro-kernels of every extension compute.

/// Rows of a register tile.
pub(crate) const TILE_ROWS: usize = 12;
/// Columns of a register tile.
pub(crate) const TILE_COLUMNS: usize = 32;

/// The sums of a register tile.
pub(crate) type Tile = [f32; TILE_ROWS * TILE_COLUMNS];

/// What the bits of the slopes of a tile are raised by, in whole cache lines.
#[cfg(target_arch = "x86_64")]
#[repr(align(64))]
pub(crate) struct Raises(pub [i32; TILE_ROWS * TILE_COLUMNS]);

/// Which operand of an exact derivative the slopes come from; the other one is the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slopes {
    /// They do for the derivative by the right operand.
    Left,
    /// They do for the derivative by the left operand.
    Right,
}
