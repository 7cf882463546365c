//! Plain arithmetic and data movement on slices of any element type.

pub mod number;
pub mod pointwise;
pub mod strided;
