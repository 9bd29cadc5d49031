// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Included twice by gate.rs, where `devices` is the crate with the check and the one without it.

use std::fs::File;
use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use devices::blk::{Blk, Disk};
use devices::pool::{Gate, Pool};
use devices::queue::{Chain, Queue, QueueFeatures, QueueLayout};
use devices::virtio::{Core, Interrupt};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, MmapRegion, VolatileSlice};

use super::{BASE, CHAIN, QUEUE, READ, REQUESTS, SIZE, shared_file};

/// A driver, and what it drives.
pub struct Device {
    memory: GuestMemoryMmap,
    gate: Gate,
    index: u16,
    queue: Queue,
    chain: Chain,
    blk: Core,
    blk_index: u16,
}

const WALK: QueueLayout = QueueLayout {
    size: QUEUE,
    descriptor_table: BASE,
    available_ring: BASE + 0x2000,
    used_ring: BASE + 0x3000,
};
const BLK: QueueLayout = QueueLayout {
    size: QUEUE,
    descriptor_table: BASE + 0x8000,
    available_ring: BASE + 0xa000,
    used_ring: BASE + 0xb000,
};
const HEADERS: u64 = BASE + 0xc000;
const DATA: u64 = BASE + 0x10_0000;

impl Device {
    pub fn new() -> Self {
        let file = shared_file();
        let map = || {
            let all = FileOffset::new(file.try_clone().unwrap(), 0);
            MmapRegion::from_file(all, usize::try_from(SIZE).unwrap()).unwrap()
        };
        let gate = Gate::new(Pool::new("pool", BASE, map()).unwrap());
        let region = vm_memory::GuestRegionMmap::new(map(), GuestAddress(BASE)).unwrap();
        let memory = GuestMemoryMmap::from_regions(vec![region]).unwrap();

        let queue = Queue::new(&gate, 0, QUEUE, WALK, QueueFeatures::default()).unwrap();
        let disk = Arc::new(Pages { file: super::disk_file(), at: AtomicU64::new(0) });
        let blk = Box::new(Blk::new(disk, "", SIZE, 1));
        let mut blk = Core::new("blk", blk, gate.clone(), Arc::new(Quiet));
        for status in [1, 3] {
            blk.set_status(status);
        }
        blk.set_driver_features(1, 0b11); // VERSION_1, ACCESS_PLATFORM
        blk.set_status(11);
        blk.change_queue_layout(0, |layout| *layout = BLK);
        blk.enable_queue(0);
        blk.set_status(15);
        assert_eq!(blk.status(), 15);

        let device = Self { memory, gate, index: 0, queue, chain: Chain::default(), blk, blk_index: 0 };
        device.write_chains();
        device.write_requests();
        device
    }

    /// Chains of `CHAIN` descriptors, of 64 bytes each.
    fn write_chains(&self) {
        for index in 0..QUEUE {
            let last = index % CHAIN == CHAIN - 1;
            let next = if last { (0, 0) } else { (1, index + 1) };
            let address = DATA + 64 * u64::from(index);
            self.descriptor(WALK.descriptor_table, index, address, 64, 2 | next.0, next.1);
            self.entry(WALK.available_ring, index, index / CHAIN * CHAIN);
        }
    }

    /// Reads of 4 KiB: header, data, status.
    fn write_requests(&self) {
        for request in 0..REQUESTS {
            let (first, number) = (3 * request, u64::from(request));
            let header = HEADERS + 32 * number;
            // type: VIRTIO_BLK_T_IN; sector
            self.write(header, &0u64);
            self.write(header + 8, &(number * u64::from(READ) / 512));
            let table = BLK.descriptor_table;
            self.descriptor(table, first, header, 16, 1, first + 1);
            self.descriptor(table, first + 1, DATA + number * u64::from(READ), READ, 3, first + 2);
            self.descriptor(table, first + 2, header + 16, 1, 2, 0);
        }
        (0..QUEUE).for_each(|slot| self.entry(BLK.available_ring, slot, 3 * (slot % REQUESTS)));
    }

    fn descriptor(&self, table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = table + 16 * u64::from(index);
        self.write(at, &address);
        self.write(at + 8, &len);
        self.write(at + 12, &flags);
        self.write(at + 14, &next);
    }

    fn entry(&self, ring: u64, slot: u16, head: u16) {
        self.write(ring + 4 + 2 * u64::from(slot), &head);
    }

    fn write<T: vm_memory::ByteValued>(&self, address: u64, value: &T) {
        self.memory.write_obj(*value, GuestAddress(address)).unwrap();
    }

    /// Checks as many addresses as a queue has descriptors, `times` times.
    pub fn check(&mut self, times: u32) -> Duration {
        let started = super::cpu_time();
        for _ in 0..times {
            for index in 0..QUEUE {
                let address = black_box(DATA + 64 * u64::from(index));
                let _ = black_box(self.gate.check(address, black_box(64)));
            }
        }
        super::cpu_time() - started
    }

    /// Takes a queue full of chains, `times` times.
    pub fn walk(&mut self, times: u32) -> Duration {
        let started = super::cpu_time();
        for _ in 0..times {
            self.index = self.index.wrapping_add(QUEUE);
            self.write(WALK.available_ring + 2, &self.index);
            while self.queue.pop(&mut self.chain).unwrap() {}
        }
        super::cpu_time() - started
    }

    /// Serves `REQUESTS` reads, `times` times.
    pub fn read(&mut self, times: u32) -> Duration {
        let started = super::cpu_time();
        for _ in 0..times {
            self.blk_index = self.blk_index.wrapping_add(REQUESTS);
            self.write(BLK.available_ring + 2, &self.blk_index);
            while self.blk.handle().serve(0) {}
        }
        let time = super::cpu_time() - started;
        let used: u16 = self.memory.read_obj(GuestAddress(BLK.used_ring + 2)).unwrap();
        let status: u8 = self.memory.read_obj(GuestAddress(HEADERS + 16)).unwrap();
        assert_eq!((self.blk.status(), used, status), (15, self.blk_index, 0));
        time
    }
}

/// A file in the page cache, read by one system call a request.
#[derive(Debug)]
struct Pages {
    file: File,
    at: AtomicU64,
}

impl Disk for Pages {
    fn size(&self) -> u64 {
        u64::from(READ) * u64::from(REQUESTS)
    }
    fn read_only(&self) -> bool {
        false
    }
    fn can_punch(&self) -> bool {
        false
    }
    fn read_at(&self, offset: u64, to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        use vm_memory::ReadVolatile;
        if self.at.load(Ordering::Relaxed) != offset {
            io::Seek::seek(&mut &self.file, io::SeekFrom::Start(offset))?;
        }
        let mut done = 0;
        for mut slice in to {
            done += (&self.file).read_volatile(&mut slice).map_err(io::Error::other)? as u64;
        }
        self.at.store(offset + done, Ordering::Relaxed);
        Ok(done)
    }
    fn write_at(&self, _: u64, _: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Nobody hears it.
#[derive(Debug)]
struct Quiet;

impl Interrupt for Quiet {
    fn used_buffer(&self, _: u16) {}
    fn config_change(&self) {}
    fn reset(&self) {}
}
