// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Block device (virtio 1.3, 5.2).

mod blocks;
mod lane;
mod request;
mod ring;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
    VIRTIO_BLK_ID_BYTES,
};
use vm_memory::VolatileSlice;

pub use blocks::Blocks;
pub use ring::{MAX_UNDER_WAY, Ring};

use crate::ErrorLog;
use crate::pool::Pool;
use crate::virtio::{BOUNCE_SLOT, DeviceType, Kind, Lane};
use lane::RequestLane;

/// Unit of `capacity` and of a request's `sector`, in bytes (virtio 1.3, 5.2.4).
pub const SECTOR: u64 = 512;
/// Bytes of the device ID string.
pub const ID_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;

/// Descriptors of each queue.
const QUEUE_SIZE: u16 = 256;

/// Linux bounces through the pool in segments of at most this many bytes (IO_TLB_SEGSIZE slots of 2 KiB): a larger
/// one can never be mapped.
const MAX_SEGMENT: u64 = 256 << 10;
/// Segments of one request: what leaves room for header and status in the queue's descriptors, and then some.
const MAX_SEGMENTS: u64 = 126;

/// Feature bits of this type and their names.
pub(crate) const FEATURE_NAMES: &[(u64, &str)] = &[
    (1 << VIRTIO_BLK_F_SIZE_MAX, "SIZE_MAX"),
    (1 << VIRTIO_BLK_F_SEG_MAX, "SEG_MAX"),
    (1 << VIRTIO_BLK_F_RO, "RO"),
    (1 << VIRTIO_BLK_F_BLK_SIZE, "BLK_SIZE"),
    (1 << VIRTIO_BLK_F_FLUSH, "FLUSH"),
    (1 << VIRTIO_BLK_F_TOPOLOGY, "TOPOLOGY"),
    (1 << VIRTIO_BLK_F_MQ, "MQ"),
    (1 << VIRTIO_BLK_F_DISCARD, "DISCARD"),
    (1 << VIRTIO_BLK_F_WRITE_ZEROES, "WRITE_ZEROES"),
];

/// What stores the blocks, for several threads at a time. Offsets and lengths are bytes, within [`Disk::size`]; the device
/// checks them.
pub trait Disk: Debug + Send + Sync {
    /// Bytes, a multiple of [`SECTOR`].
    fn size(&self) -> u64;
    /// Whether writes are refused.
    fn read_only(&self) -> bool;
    /// Whether it frees what is not needed: there are `discard` and `write_zeroes`.
    fn can_punch(&self) -> bool;
    /// The sizes of its blocks. Requests need not respect them.
    fn blocks(&self) -> Blocks {
        Blocks::default()
    }
    /// What works on several transfers at a time between this disk and `pool`, for one queue. None: the host has nothing of
    /// that sort, and the methods below serve.
    fn ring(&self, _pool: &Pool) -> Option<Box<dyn Ring>> {
        None
    }
    /// Fills `to` from `offset`, and returns how many bytes there were: fewer than wanted if the disk was truncated.
    fn read_at(&self, offset: u64, to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64>;
    /// Writes `from` at `offset`, and returns how many bytes that were: all of them.
    fn write_at(&self, offset: u64, from: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64>;
    /// Returns when everything written is on stable storage. Once it has failed it never succeeds again: nobody knows
    /// what was lost.
    fn flush(&self) -> io::Result<()>;
    /// Forgets the contents; they read as anything afterwards.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes the range read as zeros, and keeps it allocated unless `unmap`.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}

/// A block device on one disk.
#[derive(Debug)]
pub struct Blk {
    disk: Arc<dyn Disk>,
    id: [u8; ID_LEN],
    /// One element a request queue.
    queue_sizes: Vec<u16>,
    /// `size_max` and `seg_max` (virtio 1.3, 5.2.4).
    size_max: u32,
    seg_max: u32,
    errors: ErrorLog,
}

impl Blk {
    /// A block device on `disk`, whose ID string is `serial` (cut to [`ID_LEN`] bytes), for a pool of `pool_size`
    /// bytes, with this number of request queues (at least one).
    pub fn new(disk: Arc<dyn Disk>, serial: &str, pool_size: u64, queues: u16) -> Self {
        let mut id = [0; ID_LEN];
        for (to, from) in id.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        let (size_max, seg_max) = segment_limits(pool_size);
        Self {
            disk,
            id,
            queue_sizes: vec![QUEUE_SIZE; usize::from(queues.max(1))],
            size_max,
            seg_max,
            errors: ErrorLog::default(),
        }
    }

    fn num_queues(&self) -> u16 {
        u16::try_from(self.queue_sizes.len()).unwrap_or(u16::MAX)
    }
}

/// Limits under which the largest request needs an eighth of the pool: a request that cannot be mapped would be
/// retried for ever.
fn segment_limits(pool_size: u64) -> (u32, u32) {
    let budget = pool_size / 8;
    // A power of two, at least a page: Linux bounces whole 2 KiB slots and refuses smaller segments.
    let per_segment = (budget / MAX_SEGMENTS).max(4096);
    let size = (1 << per_segment.ilog2()).min(MAX_SEGMENT);
    let segments = (budget / size).clamp(1, MAX_SEGMENTS);
    (u32::try_from(size).unwrap_or(4096), u32::try_from(segments).unwrap_or(1))
}

impl DeviceType for Blk {
    fn kind(&self) -> Kind {
        Kind::Blk
    }

    fn features(&self) -> u64 {
        let always = 1 << VIRTIO_BLK_F_SIZE_MAX
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_FLUSH;
        let always = if self.num_queues() > 1 { always | 1 << VIRTIO_BLK_F_MQ } else { always };
        let topology = self.disk.blocks().has_topology();
        let always = if topology { always | 1 << VIRTIO_BLK_F_TOPOLOGY } else { always };
        match (self.disk.read_only(), self.disk.can_punch()) {
            (true, _) => always | 1 << VIRTIO_BLK_F_RO,
            (false, true) => always | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES,
            (false, false) => always,
        }
    }

    fn max_queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn buffers(&self) -> u64 {
        let request = u64::from(self.size_max).saturating_mul(self.seg_max.into());
        // With header and status.
        request.saturating_add(2 * BOUNCE_SLOT).saturating_mul(self.num_queues().into())
    }

    /// `struct virtio_blk_config` (virtio 1.3, 5.2.4), up to `write_zeroes_may_unmap`.
    fn config_space(&self) -> Vec<u8> {
        let mut config = Vec::with_capacity(60);
        let (zero, one) = (0u32.to_le_bytes(), 1u32.to_le_bytes());
        let most = request::MAX_PUNCH_SECTORS.to_le_bytes();
        let blocks = self.disk.blocks();
        config.extend((self.disk.size() / SECTOR).to_le_bytes()); // 0: capacity
        config.extend(self.size_max.to_le_bytes()); // 8: size_max
        config.extend(self.seg_max.to_le_bytes()); // 12: seg_max
        config.extend(zero); // 16: geometry
        config.extend(blocks.blk_size().to_le_bytes()); // 20: blk_size
        config.extend(blocks.topology()); // 24: topology
        config.extend([0; 2]); // 32: writeback, unused0
        // 34: num_queues, which is there with VIRTIO_BLK_F_MQ only (virtio 1.3, 5.2.4)
        let num_queues = if self.num_queues() > 1 { self.num_queues() } else { 0 };
        config.extend(num_queues.to_le_bytes());
        config.extend(most); // 36: max_discard_sectors
        config.extend(one); // 40: max_discard_seg
        config.extend(blocks.discard_sectors().to_le_bytes()); // 44: discard_sector_alignment
        config.extend(most); // 48: max_write_zeroes_sectors
        config.extend(one); // 52: max_write_zeroes_seg
        config.extend([1, 0, 0, 0]); // 56: write_zeroes_may_unmap
        config
    }

    fn lane_of(&self, queue: u16) -> usize {
        queue.into()
    }

    fn host_errors(&self) -> ErrorLog {
        self.errors.clone()
    }

    fn into_lanes(self: Box<Self>, pool: &Pool) -> Vec<Box<dyn Lane>> {
        let lane = |index| {
            let ring = self.disk.ring(pool);
            Box::new(RequestLane::new(index, Arc::clone(&self.disk), self.id, ring, self.errors.clone())) as _
        };
        (0..self.num_queues()).map(lane).collect()
    }
}

#[cfg(test)]
mod tests;
