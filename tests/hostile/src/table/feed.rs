// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a disk holds for a queue that feeds itself: a device that reads it is told of more requests by each that it serves,
//! and needs no driver for that. Guest and test share it.

use super::QUEUE_SIZE;

/// The first sector of it; others hold what every disk does.
pub const FIRST: u64 = 8;
/// Sectors: so often a queue is gone around until its index is what it was.
pub const SECTORS: u64 = (1 << 16) / QUEUE_SIZE as u64;

/// How a sector begins: the available index that makes every entry of the ring available once more, counted from the
/// request after the one that reads this, and the sector to read the next time.
pub fn sector(number: u64) -> [u8; 10] {
    let [low, high, ..] = (number * u64::from(QUEUE_SIZE) + u64::from(QUEUE_SIZE) + 1).to_le_bytes();
    let [a, b, c, d, e, f, g, h] = (FIRST + (number + 1) % SECTORS).to_le_bytes();
    [low, high, a, b, c, d, e, f, g, h]
}
