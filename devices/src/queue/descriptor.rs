// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Descriptors and the tables they stand in (virtio 1.3, 2.7.5).

use virtio_queue::desc::split::Descriptor;

use super::DESCRIPTOR_SIZE;
use crate::pool::{Gate, PoolRange, Reason};

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
        let len = u64::from(descriptor.len());
        if len == 0 || !len.is_multiple_of(DESCRIPTOR_SIZE) {
            return Err(Reason::IndirectLength);
        }
        let address = descriptor.addr().0;
        Ok(Self { address, range: gate.check(address, len)?, entries: len / DESCRIPTOR_SIZE })
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
        gate.read_obj(self.range, index * DESCRIPTOR_SIZE)
    }
}
