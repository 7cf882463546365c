//! Reading a tensor through strides: the one data movement that transposing, slicing, expanding,
//! tiling and splitting are made of.

use smallvec::SmallVec;

/// The most dimensions that are iterated without spilling.
const RANK: usize = 8;

/// A walk over a source: element `i` of the result, in row-major order of `dims`, is the source's
/// element `offset + Σ index_d · strides_d`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strided {
    /// Dimensions, outermost first.
    pub dims: SmallVec<[usize; RANK]>,
    /// Distance in elements between neighbours along each dimension; 0 repeats.
    pub strides: SmallVec<[isize; RANK]>,
    /// Where the walk begins, in elements.
    pub offset: isize,
}

impl Strided {
    /// A walk without the dimensions of size 1 and with dimensions joined that continue each other.
    pub fn new(dims: &[usize], strides: &[isize], offset: isize) -> Strided {
        let mut s = Strided { dims: SmallVec::new(), strides: SmallVec::new(), offset };
        for (&d, &stride) in dims.iter().zip(strides).filter(|(d, _)| **d != 1) {
            match (s.dims.last_mut(), s.strides.last_mut()) {
                (Some(outer), Some(outer_stride)) if *outer_stride == stride * d as isize => {
                    *outer *= d;
                    *outer_stride = stride;
                }
                _ => {
                    s.dims.push(d);
                    s.strides.push(stride);
                }
            }
        }
        s
    }

    /// How many elements the walk visits.
    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether it visits neighbouring elements in order.
    pub fn is_contiguous(&self) -> bool {
        self.dims.is_empty() || (self.dims.len() == 1 && self.strides[0] == 1)
    }

    /// Whether it stays at one element.
    pub fn is_single(&self) -> bool {
        self.strides.iter().all(|&s| s == 0)
    }

    /// After how many elements it repeats itself, if not before its end.
    pub fn period(&self) -> usize {
        let repeating = self.strides.iter().take_while(|s| **s == 0).count();
        self.dims[repeating..].iter().product()
    }

    /// Copies the elements `from..from + out.len()` of the walk.
    pub fn read<T: Copy>(&self, source: &[T], from: usize, out: &mut [T]) {
        if out.is_empty() {
            return;
        }
        let (Some((&inner, outer)), Some((&step, outer_strides))) =
            (self.dims.split_last(), self.strides.split_last())
        else {
            return out.fill(source[self.offset as usize]);
        };
        let mut index: SmallVec<[usize; RANK]> = SmallVec::from_elem(0, outer.len());
        let mut rest = from / inner;
        let mut at = self.offset;
        for d in (0..outer.len()).rev() {
            index[d] = rest % outer[d];
            rest /= outer[d];
            at += index[d] as isize * outer_strides[d];
        }
        let mut begin = from % inner;
        let mut out = out;
        while !out.is_empty() {
            let n = (inner - begin).min(out.len());
            let (run, tail) = out.split_at_mut(n);
            let start = at + begin as isize * step;
            match step {
                1 => run.copy_from_slice(&source[start as usize..][..n]),
                0 => run.fill(source[start as usize]),
                _ => {
                    let mut p = start;
                    for o in run {
                        *o = source[p as usize];
                        p += step;
                    }
                }
            }
            (out, begin) = (tail, 0);
            for d in (0..outer.len()).rev() {
                index[d] += 1;
                at += outer_strides[d];
                if index[d] < outer[d] {
                    break;
                }
                at -= outer[d] as isize * outer_strides[d];
                index[d] = 0;
            }
        }
    }
}

/// The strides, in elements, at which an operand of `shape` is read when it is broadcast to `to`.
pub fn broadcast_strides(shape: &[usize], to: &[usize]) -> SmallVec<[isize; RANK]> {
    let own = pam_ir::tensor::strides(shape);
    let missing = to.len().saturating_sub(shape.len());
    (0..to.len())
        .map(|d| match d.checked_sub(missing) {
            Some(i) if shape[i] != 1 => own[i] as isize,
            _ => 0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_range_of_a_walk_is_read_right(
            dims in proptest::collection::vec(1usize..5, 0..5),
            strides in proptest::collection::vec(-3isize..4, 5),
            cut in 0.0f64..1.0,
            length in 0.0f64..1.0,
        ) {
            let strides = &strides[..dims.len()];
            let source: Vec<u32> = (0..200).collect();
            let walk = Strided::new(&dims, strides, 100);
            let mut expected = vec![100isize];
            for (&d, &s) in dims.iter().zip(strides) {
                expected = expected
                    .iter()
                    .flat_map(|&e| (0..d).map(move |i| e + i as isize * s))
                    .collect();
            }
            prop_assert_eq!(walk.count(), expected.len());
            let from = (cut * expected.len() as f64) as usize;
            let n = (length * (expected.len() - from) as f64).ceil() as usize;
            let mut out = vec![0u32; n];
            walk.read(&source, from, &mut out);
            let expected: Vec<u32> =
                expected[from..from + n].iter().map(|&e| e as u32).collect();
            prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn broadcasting_repeats() {
        assert_eq!(broadcast_strides(&[3, 1], &[2, 3, 4]).as_slice(), [0, 1, 0]);
        let walk = Strided::new(&[2, 3], &broadcast_strides(&[3], &[2, 3]), 0);
        let mut out = [0; 6];
        walk.read(&[7, 8, 9], 0, &mut out);
        assert_eq!(out, [7, 8, 9, 7, 8, 9]);
    }
}
