//! Random numbers from Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy
//! as 1, 2, 3", SC 2011): additions, rotations and exclusive ors only, and any number by its index.

use crate::simd::multiversion;

const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];
const PARITY: u32 = 0x1BD1_1BDA;

/// The two words that a key and a counter give.
#[inline(always)]
pub fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    let keys = [key[0], key[1], PARITY ^ key[0] ^ key[1]];
    let mut x = [counter[0].wrapping_add(keys[0]), counter[1].wrapping_add(keys[1])];
    for block in 0..5 {
        let half = if block % 2 == 0 { 0 } else { 4 };
        for rotation in &ROTATIONS[half..half + 4] {
            x[0] = x[0].wrapping_add(x[1]);
            x[1] = x[1].rotate_left(*rotation) ^ x[0];
        }
        let next = block + 1;
        x[0] = x[0].wrapping_add(keys[next % 3]);
        x[1] = x[1].wrapping_add(keys[(next + 1) % 3]).wrapping_add(next as u32);
    }
    x
}

/// A uniform number in [0, 1) with 23 random bits.
#[inline(always)]
pub fn uniform(word: u32) -> f32 {
    f32::from_bits(0x3F80_0000 | word >> 9) - 1.0
}

/// Fills `out` with uniform numbers; the counter is (step, first + index).
pub fn fill_uniform(key: [u32; 2], step: u32, first: u32, out: &mut [f32]) {
    fill(key, [step, first], out);
}

multiversion! { pam
    fn fill(key: [u32; 2], counter: [u32; 2], out: &mut [f32]) {
        for (i, y) in out.iter_mut().enumerate() {
            *y = uniform(threefry(key, [counter[0], counter[1].wrapping_add(i as u32)])[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // The known-answer vectors that come with the authors' Random123 library.
        assert_eq!(threefry([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(
            threefry([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]),
            [0xc492_3a9c, 0x483d_f7a0]
        );
    }
}
