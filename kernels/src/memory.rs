//! What loops tell the memory: what they will need soon, and what nobody will. Neither changes bits; where there is
//! no such instruction, nothing is fetched, and an ordinary copy is made.

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
const AHEAD: usize = 1024;

/// Fetches what lies some way behind this block, which a loop over blocks reads later. A loop with more
/// than a few instructions for each number leaves the memory idle otherwise.
#[inline(always)]
pub(crate) fn prefetch_ahead<const N: usize>(block: &[f32; N]) {
    for line in (0..N).step_by(LINE / size_of::<f32>()) {
        prefetch_line(block.as_ptr().wrapping_add(AHEAD + line));
    }
}

/// Fetches the line of a number; there need be none.
#[inline(always)]
pub(crate) fn prefetch_line(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint about an address reads nothing, whatever the address is.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Copies past the caches, for memory that is larger than they are and is not read again soon: no line is read
/// only to be overwritten, and none is displaced.
///
/// # Panics
/// Where the lengths differ.
pub fn stream(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "a copy has the length of its source");
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
        let head = to.as_ptr().align_offset(LINE).min(to.len());
        let (from_head, from) = from.split_at(head);
        let (to_head, to) = to.split_at_mut(head);
        to_head.copy_from_slice(from_head);
        let (from, from_rest) = from.as_chunks::<LINE>();
        let (to, to_rest) = to.as_chunks_mut::<LINE>();
        for (from, to) in from.iter().zip(to) {
            for part in 0..LINE / size_of::<__m128i>() {
                // SAFETY: the part lies within both lines, and the second one is aligned.
                unsafe {
                    let value = _mm_loadu_si128(from.as_ptr().cast::<__m128i>().add(part));
                    _mm_stream_si128(to.as_mut_ptr().cast::<__m128i>().add(part), value);
                }
            }
        }
        to_rest.copy_from_slice(from_rest);
        // SAFETY: a fence reads and writes nothing. Other threads must see the stores before anything later.
        unsafe { _mm_sfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_copy_from_anywhere_to_anywhere() {
        let from: Vec<u8> = (0..600u32).map(|i| (i % 251) as u8).collect();
        for (start, end, offset) in [(0, 600, 0), (1, 1, 3), (3, 66, 7), (5, 300, 64), (64, 599, 1)]
        {
            let mut to = vec![255; 700];
            let n = end - start;
            stream(&from[start..end], &mut to[offset..offset + n]);
            assert_eq!(to[offset..offset + n], from[start..end]);
            assert!(to[..offset].iter().chain(&to[offset + n..]).all(|b| *b == 255));
        }
    }
}
