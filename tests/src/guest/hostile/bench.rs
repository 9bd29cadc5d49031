// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The test bench: the pool, which belongs to nobody else now, private memory beside it, and one device.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::registers::{
    ACCESS_PLATFORM, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, INDIRECT_DESC, QueuePlaces, Register,
    Registers, VERSION_1, wait,
};
use super::request::{Descriptor, Request};
use crate::guest::physical::{self, Caching, Physical};

pub(super) const QUEUE_SIZE: u16 = 8;
const PAGE: usize = 4096;
/// What memory holds that a device must not write.
const CANARY: u8 = 0xa5;

/// Features of an honest driver, as far as the device offers them.
pub(super) const HONEST: u64 = VERSION_1 | ACCESS_PLATFORM | INDIRECT_DESC;

/// Addresses that requests are made of.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) pool: Range<u64>,
    /// A page of this program: memory that no device may touch.
    pub(super) private: u64,
    /// Another one, for tables and headers that look good but lie in the wrong place.
    pub(super) private_table: u64,
    pub(super) header: u64,
    pub(super) status: u64,
    pub(super) table: u64,
    pub(super) data: u64,
}

impl Places {
    /// Where a queue is when its driver is honest.
    pub(super) fn queue(&self) -> QueuePlaces {
        let base = work_area(&self.pool);
        QueuePlaces {
            size: u32::from(QUEUE_SIZE),
            descriptors: base,
            available: base + 0x1000,
            used: base + 0x2000,
        }
    }
}

/// Where rings and buffers lie: inside the pool, with room before and after.
fn work_area(pool: &Range<u64>) -> u64 {
    pool.start + 0x1_0000
}

/// Memory of all kinds, mapped.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) places: Places,
    pool: Physical,
    private: [Physical; 2],
    /// Keeps the private pages ours.
    _pages: Vec<u8>,
}

impl Bench {
    pub(super) fn new(pool: Range<u64>) -> Result<Self> {
        // written to, so that the pages exist; three, so that two of them are ours from end to end
        let pages = vec![CANARY; 3 * PAGE];
        let first = pages.as_ptr().align_offset(PAGE);
        let private = physical::address_of(&pages[first..])?;
        let private_table = physical::address_of(&pages[first + PAGE..])?;
        for page in [private, private_table] {
            ensure!(
                !pool.contains(&page),
                "the page at {page:#x} is in the pool: the pool's memory was given away"
            );
        }
        let map = |address| Physical::map(address, PAGE, Caching::Normal);
        let work = work_area(&pool);
        Ok(Self {
            pool: Physical::map(pool.start, usize::try_from(pool.end - pool.start)?, Caching::Normal)?,
            private: [map(private)?, map(private_table)?],
            _pages: pages,
            places: Places {
                private,
                private_table,
                header: work + 0x3000,
                status: work + 0x3100,
                table: work + 0x3200,
                data: work + 0x4000,
                pool,
            },
        })
    }

    /// The mapping that holds an address.
    pub(super) fn at(&self, address: u64) -> &Physical {
        self.private.iter().find(|page| page.contains(address)).unwrap_or(&self.pool)
    }

    /// Resets and starts a device with one empty queue, all memory around it painted.
    pub(super) fn start(&self, registers: &Registers, queue: u32) -> Result<()> {
        let features = registers.offered() & HONEST;
        ensure!(features & ACCESS_PLATFORM != 0, "the device does not offer ACCESS_PLATFORM");
        ensure!(registers.negotiate(features)?, "the device refused the features {features:#x}");
        let places = self.places.queue();
        self.pool.paint(places.descriptors, 0x3000, 0);
        for range in self.watched() {
            self.at(range.start).paint(range.start, range.end - range.start, CANARY);
        }
        ensure!(registers.enable_queue(queue, &places), "the device does not enable a queue inside the pool");
        registers.write(Register::Status, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        ensure!(
            registers.status() & DRIVER_OK != 0,
            "the device did not start: status {:#x}",
            registers.status()
        );
        Ok(())
    }

    /// Writes a request's descriptors.
    fn place(&self, request: &Request) {
        self.write_table(self.places.queue().descriptors, &request.descriptors);
        if let Some((address, entries)) = &request.table {
            self.write_table(*address, entries);
        }
    }

    /// Makes a request available and notifies the device.
    fn submit(&self, registers: &Registers, queue: u32, request: &Request) {
        let available = self.places.queue().available;
        let slot = u64::from(request.index.wrapping_sub(1) % QUEUE_SIZE);
        self.pool.write(available + 4 + 2 * slot, request.head);
        self.pool.write(available + 2, request.index);
        registers.write(Register::QueueNotify, queue);
    }

    /// Index of the used ring: how many requests the device finished.
    fn finished(&self) -> u16 {
        self.pool.read(self.places.queue().used + 2)
    }

    /// Submits a request that must work.
    pub(super) fn serve(&self, registers: &Registers, queue: u32, request: &Request) -> Result<()> {
        self.place(request);
        self.submit(registers, queue, request);
        wait(|| self.finished() == request.index)
            .with_context(|| format!("the request was not served: status {:#x}", registers.status()))
    }

    /// Submits a request that must be refused, without a byte moved.
    pub(super) fn refuse(&self, registers: &Registers, queue: u32, request: &Request) -> Result<()> {
        self.place(request);
        let before = self.snapshot();
        self.submit(registers, queue, request);
        let refused = registers.wait_for_refusal();
        // what a device does too much, it may do a little later
        thread::sleep(Duration::from_millis(20));
        for ((address, was), (_, is)) in before.iter().zip(self.snapshot()) {
            if let Some(at) = was.iter().zip(&is).position(|(was, is)| was != is) {
                bail!("the byte at {:#x} was written", address + at as u64);
            }
        }
        ensure!(self.finished() == 0, "the device says that it served the request");
        refused
    }

    /// Memory that must stay as it is when a request is refused: the worst first.
    fn watched(&self) -> [Range<u64>; 4] {
        let Places { pool, private, private_table, header, data, .. } = &self.places;
        let page = |start: u64| start..start + PAGE as u64;
        [page(*private), page(*private_table), pool.end - PAGE as u64..pool.end, *header..page(*data).end]
    }

    fn snapshot(&self) -> Vec<(u64, Vec<u8>)> {
        let bytes = |range: Range<u64>| self.at(range.start).bytes(range.start, range.end - range.start);
        self.watched().into_iter().map(|range| (range.start, bytes(range))).collect()
    }

    fn write_table(&self, address: u64, entries: &[Descriptor]) {
        for (at, entry) in (address..).step_by(16).zip(entries) {
            let memory = self.at(at);
            memory.write(at, entry.address);
            memory.write(at + 8, entry.length);
            memory.write(at + 12, entry.flags);
            memory.write(at + 14, entry.next);
        }
    }
}
