//! Which vector extension the contractions use.

use std::sync::atomic::{AtomicU8, Ordering};

/// The vector extensions that there are micro-kernels for, each with more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// None: plain Rust.
    Portable,
    /// AVX2 of x86-64.
    Avx2,
    /// AVX-512F of x86-64.
    Avx512,
}

const ALL: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

static LIMIT: AtomicU8 = AtomicU8::new(Isa::Avx512 as u8);

/// Keeps the contractions of this process from using more than this extension, so that tests and
/// benchmarks reach each form on one machine. The results are the same bits.
pub fn limit_isa(most: Isa) {
    LIMIT.store(most as u8, Ordering::Relaxed);
}

/// The extension that contractions use: the most that the processor has and the limit allows.
pub fn isa() -> Isa {
    ALL[usize::from(LIMIT.load(Ordering::Relaxed))].min(processor())
}

#[cfg(target_arch = "x86_64")]
fn processor() -> Isa {
    if is_x86_feature_detected!("avx512f") {
        Isa::Avx512
    } else if is_x86_feature_detected!("avx2") {
        Isa::Avx2
    } else {
        Isa::Portable
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> Isa {
    Isa::Portable
}
