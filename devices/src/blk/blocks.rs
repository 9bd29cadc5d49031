// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The sizes of a disk's blocks, as the driver is told them (virtio 1.3, 5.2.4): hints for good performance. The units of
//! a request are sectors of 512 bytes, whatever stands here.

use super::SECTOR;
use super::request::MAX_PUNCH_SECTORS;

/// Largest `blk_size`: Linux takes none that is larger than a page.
const MAX_BLOCK: u32 = 4096;

/// Sizes of a disk's blocks, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The smallest part that can be read or written, a power of two.
    pub logical: u32,
    /// The smallest part that can be written without reading first, a power of two.
    pub physical: u32,
    /// How far the first physical block that is whole is from the disk's start.
    pub offset: u32,
    /// The smallest and the best size of a transfer; 0 if not known.
    pub transfer: [u32; 2],
    /// The smallest part that a discard frees.
    pub discard: u32,
}

impl Default for Blocks {
    /// Those of a file: any sector, and a file system's block at a time to free.
    fn default() -> Self {
        Self { logical: 512, physical: 512, offset: 0, transfer: [0; 2], discard: 4096 }
    }
}

impl Blocks {
    /// `blk_size`.
    pub(super) fn blk_size(&self) -> u32 {
        self.logical.clamp(512, MAX_BLOCK)
    }

    /// `struct virtio_blk_topology`: physical_block_exp, alignment_offset, min_io_size, opt_io_size, the last three in
    /// logical blocks.
    pub(super) fn topology(&self) -> [u8; 8] {
        let unit = self.blk_size();
        let exponent = (self.physical.max(self.logical) / unit).checked_ilog2().unwrap_or(0);
        let [min, opt] = self.transfer.map(|bytes| bytes / unit);
        let [m0, m1] = u16::try_from(min).unwrap_or(0).to_le_bytes();
        let [o0, o1, o2, o3] = opt.to_le_bytes();
        let offset = u8::try_from(self.offset / unit).unwrap_or(0);
        [u8::try_from(exponent).unwrap_or(0), offset, m0, m1, o0, o1, o2, o3]
    }

    /// Whether the topology says more than `blk_size` does.
    pub(super) fn has_topology(&self) -> bool {
        self.topology() != [0; 8]
    }

    /// `discard_sector_alignment`, no larger than one request.
    pub(super) fn discard_sectors(&self) -> u32 {
        u32::try_from(u64::from(self.discard) / SECTOR).unwrap_or(0).clamp(1, MAX_PUNCH_SECTORS)
    }
}
