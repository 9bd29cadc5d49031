// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Serving requests and accesses to registers allocate nothing: no guest makes cvmm grow, and a host that has no memory to
//! give stops no device.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use allocation_counter::measure;
use vm_memory::VolatileSlice;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::blk::{Blk, Disk};
use crate::net::{Net, ReceiveOffloads, Tap};
use crate::rng::Rng;
use crate::testing::pci::{BUS_MASTER, MEMORY, MSIX_ENABLE};
use crate::testing::{BASE, Desc, INDIRECT_DESC, Memory, Mmio, PciMsix, Rig, Transport, linked};
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
    fn read_at(&self, _: u64, to: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        self.done(len(to))
    }
    fn write_at(&self, _: u64, from: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<u64> {
        self.done(len(from))
    }
    fn flush(&self) -> io::Result<()> {
        self.done(())
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        self.done(())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
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
    fn receive(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<usize> {
        let room = len(frame);
        self.done(usize::try_from(room.min(100)).unwrap())
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
        let mut rig = rig(Box::new(Blk::new(Arc::new(Host::new(fails)), "", 1 << 20, 1)), features);
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
        let mut rig = rig(Box::new(Net::new(vec![Box::new(Host::new(fails))], [0; 6], 1500)), EVENT_IDX);
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

/// A network device, which has queues, and registers of its own type.
fn net() -> Box<dyn DeviceType> {
    Box::new(Net::new(vec![Box::new(Host::new(false))], [0; 6], 1500))
}

/// Counts from the second time on.
fn allocates_nothing(what: &str, access: impl Fn()) {
    access();
    let allocated = measure(&access);
    assert_eq!(allocated.count_total, 0, "{what}: {allocated:?}");
}

/// Each register of the window, and each notification, with a driver that sets up queues. Not among them: enabling a queue,
/// the start, and features that are refused, which happen once or are told.
#[test]
fn registers_of_virtio_mmio_allocate_nothing() {
    let memory = Memory::new();
    let (mmio, _worker) = Mmio::plug(net(), memory.gate.clone());
    for status in [0, 1, 3] {
        mmio.set_status(status);
    }
    mmio.accept(crate::testing::REQUIRED);
    mmio.set_status(11);
    // virtio 1.3, 4.2.2: QueueReady and Status.
    let (ready, status) = (0x44, 0x70);
    for register in (0..0x120).step_by(4) {
        allocates_nothing(&format!("read of {register:#x}"), || {
            mmio.read(register);
        });
        let values: &[u32] = match register {
            r if r == ready => &[0, 2],
            r if r == status => &[11, 3, 99],
            _ => &[0, 1, 2, u32::MAX],
        };
        for value in values {
            allocates_nothing(&format!("{value:#x} to {register:#x}"), || mmio.write(register, *value));
        }
    }
    for len in [1, 2, 8] {
        let data = &mut [0; 8][..len];
        allocates_nothing("another width", || mmio.window().write(0x100, &[0; 8][..len]));
        let allocated = measure(|| mmio.window().read(0x100, data));
        assert_eq!(allocated.count_total, 0, "{len}");
    }
    // A reset, while no queue was started.
    allocates_nothing("reset", || mmio.set_status(0));
}

/// The same over virtio-pci: configuration space, the common configuration, notifications, the device's configuration, and
/// MSI-X.
#[test]
fn registers_of_virtio_pci_allocate_nothing() {
    let memory = Memory::new();
    let (pci, _worker) = PciMsix::plug(net(), memory.gate.clone());
    for status in [0, 1, 3] {
        pci.set_status(status);
    }
    pci.accept(crate::testing::REQUIRED);
    pci.set_status(11);
    let driver = &pci.0;
    for register in (0..256).step_by(4) {
        allocates_nothing(&format!("read of configuration {register:#x}"), || {
            driver.config_read(register, 4);
        });
    }
    for command in [0, MEMORY, MEMORY | BUS_MASTER] {
        allocates_nothing("command", || driver.set_command(command));
    }
    allocates_nothing("a BAR that moves", || {
        driver.move_bar(0xffff_ffff_ffff_ffff);
        driver.move_bar(0xc000_8000);
    });
    for control in [0, MSIX_ENABLE] {
        allocates_nothing("message control", || driver.set_msix(control));
    }
    // virtio 1.3, 4.1.4.3: device_status and queue_enable.
    let (status, enable) = (0x14, 0x1c);
    let bar = driver.bar();
    let (read, write) = (
        |at, len: usize| driver.machine.memory.read(bar + at, &mut [0; 8][..len]),
        |at, value: u64, len: usize| driver.machine.memory.write(bar + at, &value.to_le_bytes()[..len]),
    );
    for field in (0..0x40).step_by(2) {
        let at = driver.common.offset + field;
        for len in [1, 2, 4] {
            allocates_nothing(&format!("read of {field:#x}"), || read(at, len));
            let values: &[u64] = if [status, enable].contains(&field) { &[0x0b] } else { &[0, 1, u64::MAX] };
            for value in values {
                allocates_nothing(&format!("{value:#x} to {field:#x}"), || write(at, *value, len));
            }
        }
    }
    let config = driver.config.unwrap().offset;
    for (what, at) in
        [("notification", driver.notify.offset), ("ISR status", driver.isr.offset), ("configuration", config)]
    {
        for at in (at..at + 16).step_by(4) {
            allocates_nothing(&format!("read of {what}"), || read(at, 4));
            allocates_nothing(&format!("write of {what}"), || write(at, 1, 4));
        }
    }
    for at in (0..16 * driver.vectors).step_by(4) {
        for value in [0, 1] {
            allocates_nothing("write of the table of MSI-X", || write(driver.table + at, value, 4));
        }
        allocates_nothing("read of the table of MSI-X", || read(driver.table + at, 4));
    }
    allocates_nothing("reset", || pci.set_status(0));
}
