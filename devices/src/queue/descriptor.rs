// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Descriptors and the tables they stand in (virtio 1.3, 2.7.5).

use crate::pool::{Gate, PoolRange, Reason};

use super::DESCRIPTOR_SIZE;

const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;
const F_INDIRECT: u16 = 4;

/// A copy of one descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    /// Index of the next descriptor of the chain.
    pub(super) fn next(&self) -> Option<u16> {
        (self.flags & F_NEXT != 0).then_some(self.next)
    }

    pub(super) fn is_writable(&self) -> bool {
        self.flags & F_WRITE != 0
    }

    pub(super) fn is_indirect(&self) -> bool {
        self.flags & F_INDIRECT != 0
    }
}

/// A descriptor table in the pool: a queue's, or an indirect one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    address: u64,
    range: PoolRange,
    entries: u64,
}

impl Table {
    /// A queue's table of `size` descriptors.
    pub(super) fn of_queue(address: u64, range: PoolRange, size: u16) -> Self {
        Self { address, range, entries: u64::from(size) }
    }

    /// The indirect table that `descriptor` points at, if it lies in the pool from end to end.
    pub(super) fn indirect(gate: &Gate, descriptor: &Descriptor) -> Result<Self, Reason> {
        let len = u64::from(descriptor.len);
        if len == 0 || !len.is_multiple_of(DESCRIPTOR_SIZE) {
            return Err(Reason::IndirectLength);
        }
        let range = gate.check(descriptor.address, len)?;
        Ok(Self { address: descriptor.address, range, entries: len / DESCRIPTOR_SIZE })
    }

    /// Number of descriptors.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Guest-physical address of a descriptor.
    pub(super) fn address_of(&self, index: u16) -> u64 {
        self.address.wrapping_add(u64::from(index) * DESCRIPTOR_SIZE)
    }

    /// Copies one descriptor.
    pub(super) fn read(&self, gate: &Gate, index: u16) -> Result<Descriptor, Reason> {
        let index = u64::from(index);
        if index >= self.entries {
            return Err(Reason::DescriptorIndex);
        }
        // One read of 16 bytes: what follows is decided on this copy.
        let raw: [u8; 16] = gate.read_obj(self.range, index * DESCRIPTOR_SIZE)?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = raw;
        Ok(Descriptor {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        })
    }
}
