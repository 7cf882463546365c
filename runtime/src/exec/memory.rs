//! The one block of memory a plan runs in, and how a step gets at its operands.
//!
//! A step writes a few ranges of the block and reads others. [`split`] cuts the block at the
//! ranges that are written, so that the borrow checker sees that reads and writes are apart; the
//! plan has made sure that they are.

use memmap2::MmapMut;
use smallvec::SmallVec;

/// A block of bytes that starts at a page, and so at a multiple of [`ALIGN`](crate::plan::arena::ALIGN). The pages are
/// large where the system has such for who asks, since a step touches so many that looking them up shows.
pub struct Memory(MmapMut);

impl Memory {
    /// A block of zeros.
    ///
    /// # Errors
    /// `None` where the system does not give that much memory.
    pub fn new(bytes: usize) -> Option<Memory> {
        let block = MmapMut::map_anon(bytes).ok()?;
        // Ordinary pages do, too.
        #[cfg(target_os = "linux")]
        let _ = block.advise(memmap2::Advice::HugePage);
        Some(Memory(block))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The most ranges one step writes.
pub const MAX_OUTS: usize = 8;

/// Ranges that are written.
pub type Outs<'m> = SmallVec<[&'m mut [u8]; MAX_OUTS]>;

/// What is left of the block for reading: pieces and the offsets at which they start.
pub struct Rest<'m>(SmallVec<[(usize, &'m [u8]); MAX_OUTS + 1]>);

impl<'m> Rest<'m> {
    /// The bytes at an offset.
    ///
    /// # Panics
    /// Where the range touches one that is written: a defect of the plan.
    pub fn get(&self, offset: usize, len: usize) -> &'m [u8] {
        if len == 0 {
            return &[];
        }
        let piece = self.0.iter().rev().find(|(start, _)| *start <= offset);
        let (start, bytes) = piece.expect("the first piece starts at 0");
        &bytes[offset - start..][..len]
    }
}

/// Cuts a block into ranges to write, in the order given, and the rest.
///
/// # Panics
/// Where two ranges overlap: a defect of the plan.
pub fn split<'m>(block: &'m mut [u8], ranges: &[(usize, usize)]) -> (Outs<'m>, Rest<'m>) {
    let mut order: SmallVec<[usize; MAX_OUTS]> =
        (0..ranges.len()).filter(|&i| ranges[i].1 > 0).collect();
    order.sort_unstable_by_key(|&i| ranges[i].0);
    let mut outs: Outs<'m> = ranges.iter().map(|_| Default::default()).collect();
    let mut rest = SmallVec::new();
    let (mut block, mut at) = (block, 0);
    for i in order {
        let (offset, len) = ranges[i];
        let (before, tail) = block.split_at_mut(offset - at);
        let (out, tail) = tail.split_at_mut(len);
        rest.push((at, &*before));
        outs[i] = out;
        (block, at) = (tail, offset + len);
    }
    rest.push((at, &*block));
    (outs, Rest(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::arena::ALIGN;

    #[test]
    fn memory_is_aligned_and_splits() {
        let mut memory = Memory::new(200).unwrap();
        assert_eq!(memory.bytes().as_ptr().align_offset(ALIGN), 0);
        for (i, b) in memory.bytes_mut().iter_mut().enumerate() {
            *b = i as u8;
        }
        let (outs, rest) = split(memory.bytes_mut(), &[(100, 20), (10, 5), (50, 0)]);
        assert_eq!((outs[0][0], outs[0].len()), (100, 20));
        assert_eq!((outs[1][0], outs[1].len()), (10, 5));
        assert!(outs[2].is_empty());
        assert_eq!(rest.get(0, 10)[9], 9);
        assert_eq!(rest.get(15, 85)[0], 15);
        assert_eq!(rest.get(120, 80)[79], 199);
    }

    #[test]
    fn too_much_memory_is_an_answer_not_an_abort() {
        assert!(Memory::new(usize::MAX - 3).is_none());
        assert!(Memory::new(isize::MAX as usize - 1).is_none());
    }
}
