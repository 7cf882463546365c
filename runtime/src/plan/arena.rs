//! Offsets: where in one block of memory each buffer lies while it lives.
//!
//! Two ways are tried, and the smaller block is taken. In the one, buffers come and go in the order of
//! the steps: each takes the smallest free gap that holds it, gaps beside each other are joined, and the
//! block grows only where no gap fits; that is n·log n in the number of buffers. In the other, which is
//! quadratic and therefore kept to plans of moderate length, the largest buffer is placed first and each
//! at the lowest offset that is free while it lives (Pisarchyk & Lee, "Efficient memory management for
//! deep neural net inference", 2020, greedy by size).

use std::collections::{BTreeMap, BTreeSet};

/// Every buffer starts at a multiple of this many bytes: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

/// A buffer: its size in bytes and the steps, both included, between which it must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Size in bytes.
    pub bytes: usize,
    /// The step that writes it.
    pub first: usize,
    /// The last step that reads it (or writes it, if nothing reads it).
    pub last: usize,
}

/// Where the buffers lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Offset of each buffer, in bytes.
    pub offsets: Vec<usize>,
    /// Size of the whole block, in bytes.
    pub peak: usize,
    /// The largest sum of the (aligned) sizes of buffers that exist at the same step, in bytes: no
    /// layout can do with less.
    pub live: usize,
}

/// Rounds up to [`ALIGN`]; `None` where the result does not fit.
pub fn aligned(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(ALIGN)
}

/// The most buffers that are laid out by size as well.
const MODERATE: usize = 6000;

/// Lays buffers out.
///
/// # Errors
/// `None` where the sizes add up to more than memory can address.
pub fn layout(buffers: &[Lifetime]) -> Option<Layout> {
    let by_time = by_time(buffers)?;
    if buffers.len() > MODERATE || by_time.peak == by_time.live {
        return Some(by_time);
    }
    let (offsets, peak) = by_size(buffers)?;
    let live = by_time.live;
    Some(if peak < by_time.peak { Layout { offsets, peak, live } } else { by_time })
}

/// Offsets and the size of the block, the largest buffer placed first.
fn by_size(buffers: &[Lifetime]) -> Option<(Vec<usize>, usize)> {
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&i| buffers[i].bytes > 0).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].bytes), buffers[i].first, i));
    let mut offsets = vec![0; buffers.len()];
    // By offset, so that gaps are met in order.
    let mut placed: Vec<(usize, usize, Lifetime)> = Vec::with_capacity(order.len());
    let mut peak = 0usize;
    for i in order {
        let b = Lifetime { last: buffers[i].last.max(buffers[i].first), ..buffers[i] };
        let size = aligned(b.bytes)?;
        let mut at = 0;
        for &(start, end, other) in &placed {
            if other.first <= b.last && b.first <= other.last {
                if start >= at && start - at >= size {
                    break;
                }
                at = at.max(end);
            }
        }
        let end = at.checked_add(size)?;
        let position = placed.partition_point(|p| p.0 <= at);
        placed.insert(position, (at, end, b));
        offsets[i] = at;
        peak = peak.max(end);
    }
    Some((offsets, peak))
}

/// The layout in the order of the steps.
fn by_time(buffers: &[Lifetime]) -> Option<Layout> {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    // Of the buffers that begin together the larger goes first: it has fewer gaps to choose from.
    order.sort_by_key(|&i| (buffers[i].first, std::cmp::Reverse(buffers[i].bytes), i));
    let mut ends: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut gaps = Gaps::default();
    let mut offsets = vec![0; buffers.len()];
    let (mut now, mut live) = (0usize, 0usize);
    for i in order {
        let Lifetime { bytes, first, last } = buffers[i];
        while let Some(&(end, j)) = ends.first()
            && end < first
        {
            ends.pop_first();
            let size = aligned(buffers[j].bytes)?;
            now -= size;
            gaps.free(offsets[j], size);
        }
        let size = aligned(bytes)?;
        if size == 0 {
            continue;
        }
        offsets[i] = gaps.take(size)?;
        now = now.checked_add(size)?;
        live = live.max(now);
        ends.insert((last.max(first), i));
    }
    Some(Layout { offsets, peak: gaps.end, live })
}

/// The free gaps of the block, by position and by size.
#[derive(Default)]
struct Gaps {
    by_offset: BTreeMap<usize, usize>,
    by_size: BTreeSet<(usize, usize)>,
    end: usize,
}

impl Gaps {
    /// Takes the smallest gap of at least `size` bytes, or grows the block.
    fn take(&mut self, size: usize) -> Option<usize> {
        if let Some(&(len, at)) = self.by_size.range((size, 0)..).next() {
            self.remove(at, len);
            if len > size {
                self.insert(at + size, len - size);
            }
            return Some(at);
        }
        // The last gap, if it touches the end, is used up first.
        let last = self.by_offset.last_key_value().map(|(&at, &len)| (at, len));
        let at = match last {
            Some((at, len)) if at + len == self.end => {
                self.remove(at, len);
                at
            }
            _ => self.end,
        };
        self.end = at.checked_add(size)?;
        Some(at)
    }

    /// Gives a range back and joins it with its neighbours.
    fn free(&mut self, mut at: usize, mut len: usize) {
        if len == 0 {
            return;
        }
        let before = self.by_offset.range(..at).next_back().map(|(&a, &l)| (a, l));
        if let Some((a, l)) = before
            && a + l == at
        {
            self.remove(a, l);
            (at, len) = (a, l + len);
        }
        if let Some(&l) = self.by_offset.get(&(at + len)) {
            self.remove(at + len, l);
            len += l;
        }
        self.insert(at, len);
    }

    fn insert(&mut self, at: usize, len: usize) {
        self.by_offset.insert(at, len);
        self.by_size.insert((len, at));
    }

    fn remove(&mut self, at: usize, len: usize) {
        self.by_offset.remove(&at);
        self.by_size.remove(&(len, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn overlap(a: usize, n: usize, b: usize, m: usize) -> bool {
        n > 0 && m > 0 && a < b + m && b < a + n
    }

    proptest! {
        #[test]
        fn no_two_live_buffers_overlap(
            raw in proptest::collection::vec((0usize..5000, 0usize..40, 0usize..12), 0..60)
        ) {
            let buffers: Vec<Lifetime> = raw
                .iter()
                .map(|&(bytes, first, length)| Lifetime { bytes, first, last: first + length })
                .collect();
            let layout = layout(&buffers).unwrap();
            for (i, a) in buffers.iter().enumerate() {
                prop_assert_eq!(layout.offsets[i] % ALIGN, 0);
                prop_assert!(a.bytes == 0 || layout.offsets[i] + a.bytes <= layout.peak);
                for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let clash =
                        overlap(layout.offsets[i], a.bytes, layout.offsets[j], b.bytes);
                    prop_assert!(!(together && clash), "{i} and {j}: {a:?} {b:?}");
                }
            }
            let live = (0..60).map(|step| {
                let at = buffers.iter().filter(|b| b.first <= step && step <= b.last);
                at.map(|b| aligned(b.bytes).unwrap()).sum::<usize>()
            });
            prop_assert_eq!(layout.live, live.max().unwrap());
            prop_assert!(layout.peak >= layout.live);
        }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let chain: Vec<Lifetime> =
            (0..1000).map(|i| Lifetime { bytes: 256, first: i, last: i + 1 }).collect();
        let layout = layout(&chain).unwrap();
        assert_eq!((layout.peak, layout.live), (512, 512));
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let huge = Lifetime { bytes: usize::MAX - 100, first: 0, last: 1 };
        assert_eq!(layout(&[huge, huge]), None);
    }
}
