// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A queue with its requests, each in a slot of its own, which is offered again as soon as it is used.

use super::clock;
use super::queue::Queue;
use crate::frame;
use crate::guest::Hardware;
use crate::speed::{Load, Order};
use crate::table::subject::{Descriptor, NEXT, WRITE};

/// VIRTIO_BLK_T_* (virtio 1.3, 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const SECTOR: u64 = 512;
/// Bytes of a slot's header and status, and where in them the status is.
pub(super) const HEAD: u64 = 32;
const STATUS: u64 = 16;
/// Descriptors of a request: of a disk header, data and status.
const CHAIN: u16 = 3;
/// Bytes before a frame.
pub(super) const HEADER: u64 = frame::HEADER as u64;
const NO_STATUS: u8 = 0xee;

/// Blocks of the disk that one lane uses: the first, and how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    pub(super) first: u64,
    pub(super) count: u64,
}

/// Where a lane's slots are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    /// Headers and status bytes.
    pub(super) heads: u64,
    /// Data, each slot's at a multiple of `stride`.
    pub(super) data: u64,
    pub(super) stride: u64,
}

/// A queue and its requests.
#[derive(Debug)]
pub(super) struct Lane {
    hardware: Hardware,
    queue: Queue,
    load: Load,
    bytes: u64,
    depth: u16,
    slots: Slots,
    blocks: Blocks,
    /// The next block in order, and the state of the random numbers.
    next: u64,
    random: u64,
    in_flight: u16,
    /// Requests that were completed, and bytes that the device says it wrote.
    pub(super) requests: u64,
    pub(super) written: u64,
}

impl Lane {
    /// Prepares the slots of `queue`.
    pub(super) fn new(
        hardware: Hardware,
        queue: Queue,
        order: &Order,
        slots: Slots,
        blocks: Blocks,
    ) -> Result<Self, &'static str> {
        let Order { load, depth, bytes, .. } = *order;
        let chain = if load.device() == 2 { CHAIN } else { 1 };
        if depth.checked_mul(chain).is_none_or(|descriptors| descriptors > queue.size()) {
            return Err("the queue is too short for this depth");
        }
        // Of no meaning, and not zero.
        let random = clock::now() | 1;
        let lane = Self {
            hardware,
            queue,
            load,
            bytes: bytes.into(),
            depth,
            slots,
            blocks,
            next: 0,
            random,
            in_flight: 0,
            requests: 0,
            written: 0,
        };
        (0..depth).for_each(|slot| lane.prepare(slot));
        Ok(lane)
    }

    /// What stays as it is for all requests of a slot.
    fn prepare(&self, slot: u16) {
        let (head, data) = (self.head(slot), self.slots.data + self.slots.stride * u64::from(slot));
        let length = u32::try_from(self.bytes).unwrap_or(0);
        let describe = |index, address, length, flags| {
            self.queue.describe(index, Descriptor { address, length, flags, next: index + 1 });
        };
        match self.load {
            Load::Entropy => describe(slot, data, length, WRITE),
            Load::Receive => describe(slot, data, u32::try_from(self.slots.stride).unwrap_or(0), WRITE),
            Load::Send => describe(slot, data, self.write_frame(data, length), 0),
            _ => {
                let (kind, direction) = if self.load.is_write() { (OUT, 0) } else { (IN, WRITE) };
                self.hardware.write(head, kind);
                self.hardware.write(head + 4, 0u32);
                let first = CHAIN * slot;
                describe(first, head, 16, NEXT);
                describe(first + 1, data, length, NEXT | direction);
                describe(first + 2, head + STATUS, 1, WRITE);
            }
        }
    }

    /// Writes a frame of this length, after its header. Returns the length of both.
    fn write_frame(&self, at: u64, length: u32) -> u32 {
        let (header, frame) = frame::start(length);
        let bytes = header.into_iter().chain(frame).chain(core::iter::repeat(0));
        let total = HEADER + u64::from(length);
        (at..at + total).zip(bytes).for_each(|(at, byte)| self.hardware.write(at, byte));
        u32::try_from(total).unwrap_or(0)
    }

    fn head(&self, slot: u16) -> u64 {
        self.slots.heads + HEAD * u64::from(slot)
    }

    fn is_disk(&self) -> bool {
        self.load.device() == 2
    }

    /// The sector of the next request.
    fn sector(&mut self) -> u64 {
        let Blocks { first, count } = self.blocks;
        let block = if self.load.is_random() {
            // xorshift64: the upper half of its product with the number of blocks.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let product = u128::from(self.random) * u128::from(count);
            u64::try_from(product >> 64).unwrap_or(0)
        } else {
            let block = self.next;
            self.next = if block + 1 < count { block + 1 } else { 0 };
            block
        };
        (first + block) * (self.bytes / SECTOR)
    }

    fn offer(&mut self, slot: u16) {
        let mut first = slot;
        if self.is_disk() {
            first *= CHAIN;
            let (sector, head) = (self.sector(), self.head(slot));
            self.hardware.write(head + 8, sector);
            self.hardware.write(head + STATUS, NO_STATUS);
        }
        self.queue.offer(first);
        self.in_flight += 1;
    }

    /// Offers all slots, if none is.
    pub(super) fn fill(&mut self) {
        if self.in_flight == 0 {
            (0..self.depth).for_each(|slot| self.offer(slot));
            self.queue.ask();
            self.queue.publish();
        }
    }

    /// Takes what the device is done with, and offers it again.
    pub(super) fn step(&mut self, again: bool) -> Result<(), &'static str> {
        let before = self.in_flight;
        while let Some((id, length)) = self.queue.take() {
            let head = u16::try_from(id).map_err(|_| "the device used a chain that is none")?;
            let slot = if self.is_disk() { head / CHAIN } else { head };
            if slot >= self.depth || self.in_flight == 0 {
                return Err("the device used a chain that it does not have");
            }
            if self.is_disk() && self.hardware.read::<u8>(self.head(slot) + STATUS) != 0 {
                return Err("a request failed");
            }
            self.in_flight -= 1;
            self.requests += 1;
            self.written += u64::from(length);
            if again {
                self.offer(slot);
            } else if self.in_flight == before {
                break;
            }
        }
        self.queue.ask();
        self.queue.publish();
        Ok(())
    }

    /// Whether the device has nothing to do: buffers for frames stay with it.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 || self.load == Load::Receive
    }

    /// How often the device was notified.
    pub(super) fn notifications(&self) -> u64 {
        self.queue.notifications
    }
}
