//! Hints that memory will be needed soon. They change no bits, and do nothing where there is no such hint.

/// Bytes that one hint fetches.
const LINE: usize = 64;

/// What will be done with the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It is read.
    Read,
    /// It is written, so that no other core may keep it.
    Write,
}

/// Fetches these bytes into the first-level cache while other work goes on.
pub fn prefetch(bytes: &[u8], intent: Intent) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(LINE) {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
        let at = line.as_ptr().cast::<i8>();
        // SAFETY: a hint about an address reads nothing, whatever the address is.
        unsafe {
            match intent {
                Intent::Read => _mm_prefetch::<_MM_HINT_T0>(at),
                Intent::Write => _mm_prefetch::<_MM_HINT_ET0>(at),
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, intent, LINE);
}

/// Numbers between what a loop reads and what it asks for.
const AHEAD: usize = 256;

/// Fetches what lies some way behind this block, which a loop over blocks reads later. A loop with more
/// than a few instructions for each number leaves the memory idle otherwise.
#[inline(always)]
pub(crate) fn prefetch_ahead<const N: usize>(block: &[f32; N]) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..N / (LINE / size_of::<f32>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let at = block.as_ptr().wrapping_add(AHEAD + line * (LINE / size_of::<f32>()));
        // SAFETY: a hint about an address reads nothing, whatever the address is.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = block;
}
