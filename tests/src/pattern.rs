// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pseudo-random bytes that guest and host can both make from a seed, so that neither has to send the other what to expect.

use sha2::{Digest, Sha256};

/// The seed when `cvmm.seed` says nothing else.
pub const SEED: u64 = 0x6376_6d6d;

/// The files that guest-init writes to a disk with a file system: name and size. File number `i` holds the bytes of seed
/// `SEED + i`. The sizes are chosen to end inside a block and to be larger than one DMA segment (256 KiB).
pub const FILES: [(&str, usize); 4] =
    [("one-byte", 1), ("odd", 4096 * 3 + 123), ("segments", 1 << 20), ("large", (3 << 20) + 1)];

/// Fills `buffer` with the bytes that follow byte `offset` of the endless stream named by `seed`.
///
/// Each 8-byte word is SplitMix64 of its position, so a stream can be entered anywhere: sector 1000 of a disk needs no
/// sectors before it.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    let mut position = offset;
    let mut rest = buffer;
    while !rest.is_empty() {
        let word = word(seed, position / 8).to_le_bytes();
        let from = usize::from(position.to_le_bytes()[0] % 8);
        let (now, later) = rest.split_at_mut(rest.len().min(8 - from));
        now.copy_from_slice(&word[from..from + now.len()]);
        position += now.len() as u64;
        rest = later;
    }
}

/// The first `length` bytes of the stream.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fill(seed, 0, &mut bytes);
    bytes
}

/// Lines of 63 hexadecimal digits, no two alike, `length` bytes in all: a terminal hands them on as they are.
pub fn lines(seed: u64, length: usize) -> Vec<u8> {
    let mut text = hex(&bytes(seed, length.div_ceil(2))).into_bytes();
    text.truncate(length);
    text.iter_mut().skip(63).step_by(64).for_each(|end| *end = b'\n');
    text
}

/// SHA-256 as lower-case hexadecimal, as `sha256sum` prints it.
pub fn sha256(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

/// Lower-case hexadecimal.
pub fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_can_be_entered_anywhere() {
        let whole = bytes(7, 100);
        for from in 0..40 {
            let mut part = vec![0; 33];
            fill(7, from as u64, &mut part);
            assert_eq!(part, whole[from..from + 33], "from {from}");
        }
    }

    #[test]
    fn another_seed_gives_other_bytes() {
        assert_ne!(bytes(1, 64), bytes(2, 64));
    }

    #[test]
    fn sha256_is_the_standard_one() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
