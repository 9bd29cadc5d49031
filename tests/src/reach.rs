// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest does with a disk and a network that it may or may not be able to use: agreed between guest and tests.

/// Bytes of the pattern that are on the disk.
pub const PATTERN: usize = 1 << 20;
/// Where the guest writes,
pub const AT: u64 = 512 << 10;
/// how many bytes,
pub const LENGTH: usize = 64 << 10;
/// and how much the seed of those is above that of the rest.
pub const WRITTEN: u64 = 1;

/// The host's and the guest's address on the network of a transport, and the bits of the mask.
pub fn network(transport: &str) -> ([u8; 4], [u8; 4], u32) {
    let third = if transport == "pci" { 95 } else { 94 };
    ([192, 168, third, 1], [192, 168, third, 2], 24)
}
