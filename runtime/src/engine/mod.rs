//! Other engines that run a source model as it stands, to compare with.

#[cfg(feature = "tract")]
pub mod tract;
