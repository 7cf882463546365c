//! Plans and executes certified graphs.
//!
//! ```text
//! Certified ──plan──▶ Plan ──Executor::new──▶ Executor ──step──▶ outputs, new state
//! ```
//!
//! [`plan::plan`] is the only entrance and takes nothing but a [`pam_ir::certify::Certified`]:
//! nothing runs that has not been certified for some target. Everything that can be decided before
//! running is decided there: the order of the steps, which of them are one fused program, where
//! every value lives and for how long, what takes over whose memory, all loop bounds. An
//! [`exec::Executor`] then only moves along the steps. It allocates nothing per node per step.
//!
//! Results do not depend on the number of threads: work is divided among them so that each element
//! is computed by one thread in one order.
//!
//! Rooms: [`plan`] plans, [`exec`] runs; [`steps`] holds the kernels that move elements, follow
//! indices and reduce, and the resolved geometry of those that `pam-kernels` computes; [`host`] is
//! the plain arithmetic of all other element types; [`io`] reads and writes tensors; [`train`] is
//! the training loop; [`engine`] runs source models in tract, to compare with. No rule that rewrites
//! lives here, and nothing here decides what is legal.

pub mod cuda;
pub mod engine;
pub mod error;
pub mod exec;
pub mod host;
pub mod io;
pub mod plan;
pub mod steps;
pub mod train;

pub use error::{IoError, PlanError, RunError};
pub use exec::Executor;
pub use plan::{Plan, PlanOptions, plan};
