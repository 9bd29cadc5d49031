// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest does with a disk that it may or may not be able to use: agreed between guest and tests.

/// Bytes of the pattern that are on the disk.
pub const PATTERN: usize = 1 << 20;
/// Where the guest writes,
pub const AT: u64 = 512 << 10;
/// how many bytes,
pub const LENGTH: usize = 64 << 10;
/// and how much the seed of those is above that of the rest.
pub const WRITTEN: u64 = 1;
