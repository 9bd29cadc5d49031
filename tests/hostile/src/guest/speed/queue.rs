// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A split virtqueue (virtio 1.3, 2.7) as a driver has it that polls.
//!
//! It asks for an interrupt whenever Linux would, so that the device does all its work, and never takes one.

use core::sync::atomic::{Ordering, fence};

use crate::guest::Hardware;
use crate::guest::device::{Device, Doorbell};
use crate::table::DESCRIPTOR;
use crate::table::subject::Descriptor;

/// Most descriptors; the areas below have room for them.
pub(super) const MAX_SIZE: u16 = 256;
/// Bytes of the three areas, each at a page of its own.
pub(super) const BYTES: u64 = 0x3000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// virtio 1.3, 2.7.10.
const NO_NOTIFY: u16 = 1;

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    hardware: Hardware,
    /// Where its areas are.
    base: u64,
    size: u16,
    doorbell: Doorbell,
    event_idx: bool,
    /// The next index of the available ring, the one that the device knows of, and the next one of the used ring.
    next: u16,
    available: u16,
    used: u16,
    /// How often the device was notified.
    pub(super) notifications: u64,
}

impl Queue {
    /// Enables the device's queue with its areas at `base`, which are zeros then.
    pub(super) fn enable(
        hardware: Hardware,
        device: &Device,
        base: u64,
        event_idx: bool,
    ) -> Result<Self, &'static str> {
        let size = device.max_queue_size().min(MAX_SIZE);
        (base..base + BYTES).step_by(8).for_each(|at| hardware.write(at, 0u64));
        device.select_queue();
        device.size_queue(size);
        for (area, address) in [base, base + AVAILABLE, base + USED].into_iter().enumerate() {
            device.place_half(area, address, false);
            device.place_half(area, address, true);
        }
        if !device.enable() {
            return Err("a queue was not enabled");
        }
        let doorbell = device.doorbell();
        Ok(Self {
            hardware,
            base,
            size,
            doorbell,
            event_idx,
            next: 0,
            available: 0,
            used: 0,
            notifications: 0,
        })
    }

    /// How many descriptors it has.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// Writes a descriptor.
    pub(super) fn describe(&self, index: u16, descriptor: Descriptor) {
        let at = self.base + DESCRIPTOR * u64::from(index);
        self.hardware.write(at, descriptor.address);
        self.hardware.write(at + 8, descriptor.length);
        self.hardware.write(at + 12, descriptor.flags);
        self.hardware.write(at + 14, descriptor.next);
    }

    /// Makes a chain available, of which the device learns by [`Self::publish`].
    pub(super) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.next % self.size);
        self.hardware.write(self.base + AVAILABLE + 4 + 2 * slot, head);
        self.next = self.next.wrapping_add(1);
    }

    /// Tells the device what was offered, and notifies it if it asks for that.
    pub(super) fn publish(&mut self) {
        if self.next == self.available {
            return;
        }
        fence(Ordering::Release);
        self.hardware.write(self.base + AVAILABLE + 2, self.next);
        let new = self.next.wrapping_sub(self.available);
        self.available = self.next;
        // The index is there before what the device wants is read (virtio 1.3, 2.7.13).
        fence(Ordering::SeqCst);
        let asks = if self.event_idx {
            let event: u16 = self.hardware.read(self.base + USED + 4 + 8 * u64::from(self.size));
            // virtio 1.3, 2.7.7.2: whether the index went past the one that the device named.
            self.next.wrapping_sub(event).wrapping_sub(1) < new
        } else {
            self.hardware.read::<u16>(self.base + USED) & NO_NOTIFY == 0
        };
        if asks {
            self.doorbell.ring(self.hardware);
            self.notifications += 1;
        }
    }

    /// The next chain that the device is done with, and how many bytes it says it wrote.
    pub(super) fn take(&mut self) -> Option<(u32, u32)> {
        if self.hardware.read::<u16>(self.base + USED + 2) == self.used {
            return None;
        }
        fence(Ordering::Acquire);
        let element = self.base + USED + 4 + 8 * u64::from(self.used % self.size);
        self.used = self.used.wrapping_add(1);
        Some((self.hardware.read(element), self.hardware.read(element + 4)))
    }

    /// Asks for an interrupt once the next chain is used.
    pub(super) fn ask(&self) {
        if self.event_idx {
            self.hardware.write(self.base + AVAILABLE + 4 + 2 * u64::from(self.size), self.used);
        }
    }
}
