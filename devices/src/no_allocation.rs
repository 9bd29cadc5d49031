// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Serving requests allocates nothing: no guest makes cvmm grow, and a host that has no memory to give stops no device.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use allocation_counter::measure;
use vm_memory::VolatileSlice;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::blk::{Blk, Disk};
use crate::net::{Net, ReceiveOffloads, Tap};
use crate::rng::Rng;
use crate::testing::{BASE, Desc, INDIRECT_DESC, Memory, Rig, linked};
use crate::virtio::DeviceType;

/// Rounds that are counted, after one that is not: the first request of each shape may still find its place.
const ROUNDS: usize = 40;
/// VIRTIO_F_EVENT_IDX and VIRTIO_BLK_F_FLUSH.
const EVENT_IDX: u64 = 1 << 29;
const F_FLUSH: u64 = 1 << 9;
/// Where requests are in the pool, away from the rings.
const HEADER: u64 = BASE + 0x2_0000;
const TABLE: u64 = BASE + 0x2_1000;
const DATA: u64 = BASE + 0x2_2000;

/// The host: it works, or each call fails.
#[derive(Debug)]
struct Host {
    fails: bool,
    event: EventFd,
}

impl Host {
    fn new(fails: bool) -> Self {
        Self { fails, event: EventFd::new(EFD_NONBLOCK).unwrap() }
    }

    fn done<T>(&self, result: T) -> io::Result<T> {
        if self.fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(result) }
    }
}

fn len(slices: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> u64 {
    slices.map(|slice| slice.len() as u64).sum()
}

impl Disk for Host {
    fn size(&self) -> u64 {
        1 << 20
    }
    fn read_only(&self) -> bool {
        false
    }
    fn can_punch(&self) -> bool {
        true
    }
    fn read_at(&mut self, _: u64, to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        self.done(len(to))
    }
    fn write_at(&mut self, _: u64, from: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        self.done(len(from))
    }
    fn flush(&mut self) -> io::Result<()> {
        self.done(())
    }
    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        self.done(())
    }
    fn write_zeroes(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        self.done(())
    }
}

impl Tap for Host {
    fn attach(&mut self, _: bool) -> io::Result<()> {
        self.done(())
    }
    fn set_offloads(&mut self, _: ReceiveOffloads) -> io::Result<()> {
        self.done(())
    }
    fn receive(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.done(100)
    }
    fn send(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<()> {
        self.done(len(frame)).map(|_| ())
    }
    fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

impl Read for Host {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.done(to.len())
    }
}

/// A driver makes this request again and again, by itself and by an indirect table.
fn serving_allocates_nothing(rig: &mut Rig, queue: u16, what: &str, request: &[Desc]) {
    let index = usize::from(queue);
    rig.memory.write_table(TABLE, &linked(request, 0, u16::MAX));
    let table = Desc::indirect(TABLE, u32::try_from(16 * request.len()).unwrap());
    let mut served = 0;
    for round in 0..=ROUNDS {
        for descriptors in [request, &[table]] {
            rig.drivers[index].chain(descriptors);
            let allocated = measure(|| rig.serve(queue));
            served += rig.drivers[index].take_used().len();
            assert!(round == 0 || allocated.count_total == 0, "{what}, round {round}: {allocated:?}");
        }
    }
    assert_eq!(served, 2 * (ROUNDS + 1), "{what}");
    assert_eq!(rig.refusals().total, 0, "{what}");
}

fn rig(device: Box<dyn DeviceType>, features: u64) -> Rig {
    Rig::start(Memory::new(), device, features | INDIRECT_DESC)
}

#[test]
fn blk_allocates_nothing() {
    for (fails, features) in [(false, F_FLUSH), (false, EVENT_IDX), (true, F_FLUSH | EVENT_IDX)] {
        let mut rig = rig(Box::new(Blk::new(Box::new(Host::new(fails)), "", 1 << 20, 1)), features);
        let memory = Rc::clone(&rig.memory);
        let (header, status) = (Desc::readable(HEADER, 16), Desc::writable(HEADER + 16, 1));
        let to = [0, 1, 2, 3].map(|part| Desc::writable(DATA + part * 4096, 4096));
        let from = [0, 1, 2, 3].map(|part| Desc::readable(DATA + part * 4096, 4096));
        let range = [Desc::readable(HEADER + 32, 16)];
        // struct virtio_blk_discard_write_zeroes: one sector (virtio 1.3, 5.2.6).
        memory.write(HEADER + 32, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        for (kind, what, data) in [
            (0u8, "read", &to[..]),
            (1, "write", &from),
            (4, "flush", &[]),
            (8, "get id", &to[..1]),
            (11, "discard", &range),
            (13, "write zeroes", &range),
            (99, "unknown", &[]),
        ] {
            memory.write(HEADER, &[kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let request = [&[header], data, &[status]].concat();
            serving_allocates_nothing(&mut rig, 0, &format!("{what}, {fails}"), &request);
            let expected = if kind == 99 { 2 } else { u8::from(fails && kind != 8) };
            assert_eq!(memory.read(HEADER + 16, 1), [expected], "{what}");
        }
    }
}

#[test]
fn net_allocates_nothing() {
    for fails in [false, true] {
        let mut rig = rig(Box::new(Net::new(vec![Box::new(Host::new(fails))], [0; 6])), EVENT_IDX);
        serving_allocates_nothing(
            &mut rig,
            1,
            "send",
            &[Desc::readable(HEADER, 12), Desc::readable(DATA, 1500)],
        );
        if !fails {
            let buffer = [Desc::writable(HEADER, 12), Desc::writable(DATA, 1600)];
            serving_allocates_nothing(&mut rig, 0, "receive", &buffer);
        }
    }
}

#[test]
fn rng_allocates_nothing() {
    for fails in [false, true] {
        let mut rig = rig(Box::new(Rng::new(Box::new(Host::new(fails)))), 0);
        serving_allocates_nothing(
            &mut rig,
            0,
            "entropy",
            &[Desc::writable(DATA, 64), Desc::writable(HEADER, 8)],
        );
    }
}
