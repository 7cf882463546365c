//! The pam-compile program.
fn main() {}
