//! Piecewise affine arithmetic on slices.
//!
//! This crate knows numbers and slices, no graphs. [`pa`] is the scalar specification, bit for bit;
//! everything else gives the same bits faster. [`elementwise`] applies it along slices, [`compound`] does several
//! things at once, [`choice`] compares and selects, [`contract`] sums products (matrix products, convolutions and their exact derivatives), [`reduce`] sums and
//! compares along an axis, [`random`] draws numbers, [`memory`] goes ahead of the caches and past them. The native twins of the PA operations, for
//! native and mixed policies, stand beside them; native contractions come from the `gemm` crate.
//! [`audit`] disassembles the PA kernels of an executable and counts what multiplies in them.
//!
//! Results never depend on the number of threads: a [`Pool`] divides outputs, never sums, and the
//! order of the additions behind each output element is fixed (see [`contract`] and [`reduce`]).

pub mod audit;
pub mod choice;
pub mod compound;
pub mod contract;
pub mod elementwise;
mod forms;
mod function;
mod isa;
pub mod memory;
mod native;
pub mod pa;
mod pool;

pub mod random;
pub mod reduce;
mod simd;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use isa::{Isa, isa, limit_isa};
pub use pool::Pool;
