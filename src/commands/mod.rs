//! The commands, one file each.

pub mod audit;
pub mod compare;
pub mod compile;
pub mod diff;
pub mod ops;
pub mod run;
pub mod train;
pub mod verify;
