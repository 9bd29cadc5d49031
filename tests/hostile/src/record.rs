// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Numbered records that a guest writes to a disk and flushes, until its VMM is killed. Guest and test share what is in
//! them.

/// Sectors of a record: odd, so that most begin and end inside of a page.
pub const SECTORS: u64 = 7;
/// Places for records, which are all of a disk; after the last one comes the first again.
pub const SLOTS: u64 = 64;
/// 64-bit words of a record.
pub const WORDS: u64 = SECTORS * 512 / 8;

/// The first sector of the record with this number.
pub fn sector(number: u64) -> u64 {
    number % SLOTS * SECTORS
}

/// A word of a record: the number, so that it is known whose word it is, mixed with all there is (splitmix64), so that no
/// word is like another.
pub fn word(number: u64, index: u64) -> u64 {
    if index == 0 {
        return number;
    }
    let mixed = (number << 16 ^ index).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
