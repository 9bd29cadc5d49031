// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the unit tests share: a pool that a driver sees, too; a driver; a device that it has started.
//!
//! The driver's side is written from the specification and uses none of the code under test: it has a mapping of its
//! own of the pool's bytes.

mod mmio;
pub(crate) mod pci;
mod slot;
mod transport;

pub(crate) use mmio::Mmio;
pub(crate) use pci::{PciDriver, PciIntx, PciMachine, PciMsix};
pub(crate) use slot::{RecordingSlot, Told};
pub(crate) use transport::{Transport, over_each_transport};

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion, VolatileSlice,
};
use vmm_sys_util::tempfile::TempFile;

use crate::pool::{Gate, Pool, Refusals};
use crate::queue::QueueLayout;
use crate::virtio::{Core, DeviceType, Interrupt};

/// Where a pool is in most tests: not at 0, so that there is something before it.
pub(crate) const BASE: u64 = 0x4000_0000;
/// ... and its size: small, so that its whole contents are compared quickly.
pub(crate) const SIZE: u64 = 0x4_0000;

/// Flags of a descriptor (virtio 1.3, 2.7.5).
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// VIRTIO_F_VERSION_1 and VIRTIO_F_ACCESS_PLATFORM (virtio 1.3, 6).
pub(crate) const REQUIRED: u64 = 1 << 32 | 1 << 33;
/// VIRTIO_F_INDIRECT_DESC.
pub(crate) const INDIRECT_DESC: u64 = 1 << 28;

/// A pool, mapped twice: for the device, behind its gate, and for the driver.
pub(crate) struct Memory {
    pub(crate) gate: Gate,
    pub(crate) ram: GuestMemoryMmap,
    pub(crate) base: u64,
    pub(crate) size: u64,
    free: Cell<u64>,
}

impl Memory {
    pub(crate) fn new() -> Rc<Self> {
        Self::at(BASE, SIZE)
    }

    pub(crate) fn at(base: u64, size: u64) -> Rc<Self> {
        let file = TempFile::new().unwrap().into_file();
        file.set_len(size).unwrap();
        let map = || {
            let all = FileOffset::new(file.try_clone().unwrap(), 0);
            MmapRegion::from_file(all, usize::try_from(size).unwrap()).unwrap()
        };
        let gate = Gate::new(Pool::new("pool", base, map()).unwrap());
        let region = GuestRegionMmap::new(map(), GuestAddress(base)).unwrap();
        let ram = GuestMemoryMmap::from_regions(vec![region]).unwrap();
        Rc::new(Self { gate, ram, base, size, free: Cell::new(base) })
    }

    pub(crate) fn end(&self) -> u64 {
        self.base + self.size
    }

    /// Unused bytes of the pool, with a gap after what was handed out before.
    pub(crate) fn alloc(&self, len: u64, alignment: u64) -> u64 {
        let at = (self.free.get() + 24).next_multiple_of(alignment);
        self.free.set(at + len);
        assert!(self.free.get() <= self.end(), "the test's pool is too small");
        at
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn read(&self, address: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub(crate) fn write_u16(&self, address: u64, value: u16) {
        self.write(address, &value.to_le_bytes());
    }

    pub(crate) fn read_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address, 2).try_into().unwrap())
    }

    /// Nothing in use, and zeros everywhere.
    pub(crate) fn clear(&self) {
        self.write(self.base, &vec![0; usize::try_from(self.size).unwrap()]);
        self.free.set(self.base);
    }

    /// The bytes of several buffers, one after the other.
    pub(crate) fn gather(&self, buffers: &[(u64, u32)]) -> Vec<u8> {
        buffers.iter().flat_map(|&(address, len)| self.read(address, u64::from(len))).collect()
    }

    /// All bytes of the pool.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.read(self.base, self.size)
    }

    /// Writes a table of descriptors as they are.
    pub(crate) fn write_table(&self, address: u64, table: &[Desc]) {
        for (at, descriptor) in (address..).step_by(16).zip(table) {
            self.write(at, &descriptor.bytes());
        }
    }
}

/// `struct virtq_desc` (virtio 1.3, 2.7.5).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desc {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Desc {
    /// A device-readable buffer.
    pub(crate) fn readable(addr: u64, len: u32) -> Self {
        Self { addr, len, flags: 0, next: 0 }
    }

    /// A device-writable buffer.
    pub(crate) fn writable(addr: u64, len: u32) -> Self {
        Self { addr, len, flags: WRITE, next: 0 }
    }

    /// An indirect table.
    pub(crate) fn indirect(addr: u64, len: u32) -> Self {
        Self { addr, len, flags: INDIRECT, next: 0 }
    }

    /// The same, continued at `next`.
    pub(crate) fn then(self, next: u16) -> Self {
        Self { flags: self.flags | NEXT, next, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.addr.to_le_bytes().to_vec();
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.next.to_le_bytes());
        bytes
    }
}

/// These descriptors, each continued at the one after it; the first will stand at index `first`.
pub(crate) fn linked(descriptors: &[Desc], first: u16, table_len: u16) -> Vec<Desc> {
    let last = descriptors.len() - 1;
    let next = |i: usize| (first + u16::try_from(i + 1).unwrap()) % table_len;
    descriptors.iter().enumerate().map(|(i, d)| if i < last { d.then(next(i)) } else { *d }).collect()
}

/// The driver's side of one queue. It believes nothing and forbids nothing: it writes what it is told.
pub(crate) struct Driver {
    memory: Rc<Memory>,
    pub(crate) layout: QueueLayout,
    next_descriptor: u16,
    pub(crate) avail: u16,
    pub(crate) used: u16,
}

impl Driver {
    /// A queue of `size` descriptors with its areas, with nothing in them.
    pub(crate) fn new(memory: &Rc<Memory>, size: u16) -> Self {
        let n = u64::from(size);
        // virtio 1.3, 2.7: size and alignment of the three areas.
        let layout = QueueLayout {
            size,
            descriptor_table: memory.alloc(16 * n, 16),
            available_ring: memory.alloc(6 + 2 * n, 2),
            used_ring: memory.alloc(6 + 8 * n, 4),
        };
        Self { memory: Rc::clone(memory), layout, next_descriptor: 0, avail: 0, used: 0 }
    }

    /// Where `used_event` is (virtio 1.3, 2.7.6).
    pub(crate) fn used_event(&self) -> u64 {
        self.layout.available_ring + 4 + 2 * u64::from(self.layout.size)
    }

    /// Where `avail_event` is (virtio 1.3, 2.7.8).
    pub(crate) fn avail_event(&self) -> u64 {
        self.layout.used_ring + 4 + 8 * u64::from(self.layout.size)
    }

    /// Writes one descriptor of the table as it is.
    pub(crate) fn put(&self, index: u16, descriptor: Desc) {
        self.memory.write(self.layout.descriptor_table + 16 * u64::from(index), &descriptor.bytes());
    }

    /// Makes whatever is at `head` available.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.avail % self.layout.size);
        self.memory.write_u16(self.layout.available_ring + 4 + 2 * slot, head);
        self.avail = self.avail.wrapping_add(1);
        self.memory.write_u16(self.layout.available_ring + 2, self.avail);
    }

    /// Makes a chain of these descriptors available, and returns its head.
    pub(crate) fn chain(&mut self, descriptors: &[Desc]) -> u16 {
        let (head, size) = (self.next_descriptor, self.layout.size);
        for (i, descriptor) in (head..).zip(linked(descriptors, head, size)) {
            self.put(i % size, descriptor);
        }
        self.next_descriptor = (head + u16::try_from(descriptors.len()).unwrap()) % size;
        self.offer(head);
        head
    }

    /// Makes a request of these device-readable buffers and device-writable ones of these lengths available, each in a
    /// place of its own. Returns the latter.
    pub(crate) fn request(&mut self, readable: &[&[u8]], writable: &[u32]) -> Vec<(u64, u32)> {
        let mut descriptors = Vec::new();
        for bytes in readable {
            let at = self.memory.alloc(bytes.len() as u64, 1);
            self.memory.write(at, bytes);
            descriptors.push(Desc::readable(at, u32::try_from(bytes.len()).unwrap()));
        }
        let place = |&len| (self.memory.alloc(u64::from(len), 1), len);
        let places: Vec<_> = writable.iter().map(place).collect();
        descriptors.extend(places.iter().map(|&(at, len)| Desc::writable(at, len)));
        self.chain(&descriptors);
        places
    }

    /// The used elements that are new: id and len.
    pub(crate) fn take_used(&mut self) -> Vec<(u32, u32)> {
        let mut elements = Vec::new();
        while self.used != self.memory.read_u16(self.layout.used_ring + 2) {
            let at = self.layout.used_ring + 4 + 8 * u64::from(self.used % self.layout.size);
            let field = |at| u32::from_le_bytes(self.memory.read(at, 4).try_into().unwrap());
            elements.push((field(at), field(at + 4)));
            self.used = self.used.wrapping_add(1);
        }
        elements
    }
}

/// Fills these parts with a frame, as a tap does: what does not fit is cut off. Returns how many bytes those were.
pub(crate) fn scatter(frame: &[u8], to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> usize {
    let mut rest = frame;
    for slice in to {
        let (now, later) = rest.split_at(slice.len().min(rest.len()));
        slice.copy_from(now);
        rest = later;
    }
    frame.len() - rest.len()
}

/// Counts interrupts.
#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    pub(crate) used_buffer: AtomicU32,
    pub(crate) config_change: AtomicU32,
}

impl Interrupts {
    /// Interrupts since the last call: used buffer, configuration change.
    pub(crate) fn take(&self) -> (u32, u32) {
        (self.used_buffer.swap(0, Ordering::SeqCst), self.config_change.swap(0, Ordering::SeqCst))
    }
}

impl Interrupt for Interrupts {
    fn used_buffer(&self, _queue: u16) {
        self.used_buffer.fetch_add(1, Ordering::SeqCst);
    }
    fn config_change(&self) {
        self.config_change.fetch_add(1, Ordering::SeqCst);
    }
    fn reset(&self) {
        self.take();
    }
}

/// A device that a driver has started, with a queue of the largest size each.
pub(crate) struct Rig {
    pub(crate) memory: Rc<Memory>,
    pub(crate) core: Core,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) drivers: Vec<Driver>,
}

impl Rig {
    /// Starts `device` in `memory`; the driver accepts `features` and what it has to.
    pub(crate) fn start(memory: Rc<Memory>, device: Box<dyn DeviceType>, features: u64) -> Self {
        let interrupts = Arc::<Interrupts>::default();
        let core = Core::new("device", device, memory.gate.clone(), interrupts.clone());
        let mut rig = Self { memory, core, interrupts, drivers: Vec::new() };
        rig.initialise(features | REQUIRED);
        rig
    }

    /// virtio 1.3, 3.1.1, from the reset on.
    pub(crate) fn initialise(&mut self, features: u64) {
        for status in [0, 1, 3] {
            self.core.set_status(status);
        }
        self.core.set_driver_features(0, u32::try_from(features & 0xffff_ffff).unwrap());
        self.core.set_driver_features(1, u32::try_from(features >> 32).unwrap());
        self.core.set_status(11);
        assert_eq!(self.core.status(), 11, "features {features:#x}");
        self.drivers.clear();
        for index in 0..u32::try_from(self.core.queue_count()).unwrap() {
            let driver = Driver::new(&self.memory, self.core.max_queue_size(index));
            self.core.change_queue_layout(index, |layout| *layout = driver.layout);
            self.core.enable_queue(index);
            self.drivers.push(driver);
        }
        self.core.set_status(15);
        assert_eq!(self.core.status(), 15);
    }

    /// The device serves a queue until there is nothing more to do.
    pub(crate) fn serve(&self, queue: u16) {
        while self.core.handle().serve(queue) {}
    }

    pub(crate) fn refusals(&self) -> Refusals {
        self.memory.gate.audit().refusals()
    }

    /// Serves a queue whose next request must be refused as not fitting the device, without a byte moved: one refusal,
    /// DEVICE_NEEDS_RESET and a configuration interrupt (virtio 1.3, 2.1.2), and nothing written to the pool but the
    /// hints about notifications, which are the device's own.
    pub(crate) fn assert_refused(&mut self, queue: u16) {
        let layout = self.drivers[usize::from(queue)].layout;
        let image = || {
            let mut image = self.memory.image();
            let flags = usize::try_from(layout.used_ring - self.memory.base).unwrap();
            image[flags..flags + 2].fill(0);
            image
        };
        let (before, total) = (image(), self.refusals().total);
        self.interrupts.take();
        let (read, written) =
            (self.memory.gate.audit().read().bytes, self.memory.gate.audit().written().bytes);
        self.serve(queue);
        assert!(before == image(), "the pool was changed");
        assert_eq!(self.memory.gate.audit().written().bytes, written);
        assert_eq!(self.refusals().total, total + 1);
        assert_eq!(self.core.status(), 15 | 64);
        assert_eq!(self.interrupts.take().1, 1);
        let moved = self.memory.gate.audit().read().bytes - read;
        assert!(moved <= 16, "{moved} bytes were read: more than a header");
    }
}
