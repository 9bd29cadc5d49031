// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--spec rfc`: a disk whose rings and buffers are in its own memory, BAR 2, which its driver moves (RFC of April 2025,
//! 1/3 and 3/3).

use core::fmt::Write;
use core::sync::atomic::{Ordering, fence};

use super::Hardware;
use super::bench::Result;
use super::device::{ACCESS_PLATFORM, Device, FEATURES_OK, NEEDS_RESET, PATIENCE, VERSION_1};
use super::machine::Machine;
use super::pci;
use super::uart::Uart;
use crate::table::case::Setup;
use crate::table::{DATA, DISK_PATTERN, Places, QUEUE_SIZE, Request, WRITTEN};

/// VIRTIO_F_SWIOTLB (1/3).
const SWIOTLB: u64 = 1 << 27;
const FEATURES: u64 = VERSION_1 | ACCESS_PLATFORM | SWIOTLB;

/// Private memory that is watched: each word is its address and this.
const PRIVATE: (u64, u64) = (24 << 20, 26 << 20);
const CANARY: u64 = 0xc5e7_a6b3_0000_0000;

/// Free places in the window of the host bridge.
const ELSEWHERE: [u64; 2] = [0xc400_0000, 0xc820_0000];
/// The registers of all functions.
const REGISTERS: u64 = 0xc000_0000;

struct Stage {
    hardware: Hardware,
    disk: Device,
    /// Another device with memory of its own.
    other: Device,
    /// The pool of the devices that have none.
    shared: (u64, u64),
}

type Row = (&'static str, fn(&Stage) -> Result);

const ROWS: &[Row] = &[
    ("it-is-memory", Stage::it_is_memory),
    ("a-driver-without-bit-27", Stage::a_driver_without_bit_27),
    ("served-in-the-bar", Stage::served_in_the_bar),
    ("buffers-elsewhere", Stage::buffers_elsewhere),
    ("queues-elsewhere", Stage::queues_elsewhere),
    ("moved-while-running", Stage::moved_while_running),
    ("decoding-off", Stage::decoding_off),
    ("over-ram", Stage::over_ram),
    ("over-another-device-s-memory", Stage::over_anothers_memory),
    ("over-registers", Stage::over_registers),
];

/// Rows of this file.
pub const RFC_CASES: usize = ROWS.len();

/// Puts the first disk on PCI through all rows. Returns how many there were.
pub(super) fn run(machine: &Machine, uart: &mut Uart) -> core::result::Result<u32, &'static str> {
    let hardware = machine.hardware;
    let mut functions = machine.devices().filter(Device::is_pci);
    let disk = functions.next().filter(|device| device.id == 2).ok_or("there is no disk on PCI")?;
    let other = functions.next().ok_or("there is no second function")?;
    let shared = machine.devices().find(|device| !device.is_pci()).ok_or("there is no device on mmio")?.pool;
    let stage = Stage { hardware, disk, other, shared };
    words(PRIVATE).for_each(|address| hardware.write(address, CANARY | address));
    let mut done = 0;
    for (name, row) in ROWS {
        let _ = match row(&stage).and_then(|()| stage.recovers()) {
            Ok(()) => writeln!(uart, "ok {name}"),
            Err(why) => writeln!(uart, "FAILED {name}: {why}"),
        };
        done += 1;
    }
    Ok(done)
}

impl Stage {
    fn it_is_memory(&self) -> Result {
        for (first, end) in [self.disk.pool, self.other.pool] {
            words((first, end)).for_each(|address| self.hardware.write(address, !address));
            let same = words((first, end)).all(|address| self.hardware.read::<u64>(address) == !address);
            ensure(same, "it does not hold what was written")?;
        }
        Ok(())
    }

    /// "MAY fail to operate further if not accepted" (1/3); cvmm does, without `--unaware allow`.
    fn a_driver_without_bit_27(&self) -> Result {
        for wrong in [FEATURES & !SWIOTLB, FEATURES & !ACCESS_PLATFORM] {
            ensure(self.disk.reset() && !self.disk.accept(wrong), "FEATURES_OK")?;
        }
        ensure(self.disk.reset() && self.disk.accept(FEATURES), "no FEATURES_OK")
    }

    fn served_in_the_bar(&self) -> Result {
        let at = self.home();
        self.start(at)?;
        self.ask(at, at, Request::Read, 1);
        self.served(at, Request::Read, 1)?;
        self.ask(at, at, Request::Write, 2);
        self.served(at, Request::Write, 2)
    }

    /// "MUST never pass system memory addresses" (3/3); nor any others.
    fn buffers_elsewhere(&self) -> Result {
        let (home, end) = self.disk.pool;
        let places = [self.shared.0, PRIVATE.0, self.disk.registers, self.other.pool.0, end, 0];
        for wrong in places {
            self.start(home)?;
            self.ask(home, wrong, Request::Read, 1);
            self.refused(home, 1)?;
        }
        Ok(())
    }

    fn queues_elsewhere(&self) -> Result {
        for wrong in [self.shared.0, PRIVATE.0, self.other.pool.0] {
            ensure(self.disk.reset() && self.disk.accept(FEATURES), "no FEATURES_OK")?;
            let setup = Setup::honest(&self.places(wrong), Request::Read, false);
            ensure(!self.disk.enable_queue(&setup), "a queue outside of the memory was enabled")?;
            ensure(self.disk.status() & NEEDS_RESET != 0, "no NEEDS_RESET")?;
        }
        Ok(())
    }

    /// What the thread found wrong with addresses in a BAR: they change while rings are in use.
    fn moved_while_running(&self) -> Result {
        let mut old = self.home();
        self.start(old)?;
        let mut index = 1;
        for new in [ELSEWHERE[0], ELSEWHERE[1], self.home()] {
            self.ask(old, old, Request::Read, index);
            self.served(old, Request::Read, index)?;
            self.move_memory(new);
            ensure(self.hardware.read::<u64>(old) == u64::MAX, "something answers where it was")?;
            let data = self.places(new).data();
            ensure(self.hardware.read::<u8>(data) == DISK_PATTERN, "its bytes did not come along")?;
            self.ask(new, new, Request::Read, index + 1);
            self.served(new, Request::Read, index + 1)?;
            (old, index) = (new, index + 2);
        }
        self.ask(old, ELSEWHERE[0], Request::Read, index);
        self.refused(old, index)
    }

    fn decoding_off(&self) -> Result {
        let at = self.home();
        self.hardware.write(at, 0x1234_u64);
        self.command(0);
        ensure(self.hardware.read::<u64>(at) == u64::MAX, "it answers with decoding off")?;
        self.hardware.write(at, 0u64);
        self.command(MEMORY_AND_MASTER);
        ensure(self.hardware.read::<u64>(at) == 0x1234, "its bytes are others")
    }

    /// RAM stays RAM, and the device reaches nothing there.
    fn over_ram(&self) -> Result {
        let (home, ram) = (self.home(), PRIVATE.0);
        self.start(home)?;
        self.move_memory(ram);
        self.private_is_unchanged()?;
        self.move_memory(home);
        self.ask(home, ram, Request::Read, 1);
        self.refused(home, 1)
    }

    /// Who was there first stays.
    fn over_anothers_memory(&self) -> Result {
        let (home, theirs) = (self.home(), self.other.pool.0);
        self.hardware.write(home, 1u64);
        self.hardware.write(theirs, 2u64);
        self.move_memory(theirs);
        ensure(self.hardware.read::<u64>(theirs) == 2, "another device's memory went away")?;
        self.hardware.write(theirs, 3u64);
        self.move_memory(home);
        ensure(self.hardware.read::<u64>(home) == 1, "it was written in another's place")?;
        ensure(self.hardware.read::<u64>(theirs) == 3, "another device's memory was not written")
    }

    /// Memory answers before registers, its own too; these are there again when it is gone.
    fn over_registers(&self) -> Result {
        let (home, status) = (self.home(), self.other.status());
        self.hardware.write(home + 8, 0x5678_u64);
        self.move_memory(REGISTERS);
        ensure(self.hardware.read::<u64>(REGISTERS + 8) == 0x5678, "registers answer before memory")?;
        self.move_memory(home);
        ensure(self.other.status() == status && status & FEATURES_OK == 0, "registers were written")
    }

    /// Nothing but its own memory has changed, and it serves.
    fn recovers(&self) -> Result {
        self.private_is_unchanged()?;
        let same = words(self.shared).all(|address| self.hardware.read::<u64>(address) == 0);
        ensure(same, "the shared pool was written")?;
        let at = self.home();
        self.start(at)?;
        self.ask(at, at, Request::Read, 1);
        self.served(at, Request::Read, 1)?;
        ensure(self.disk.reset(), "not reset at the end")
    }

    fn home(&self) -> u64 {
        self.disk.pool.0
    }

    /// Where everything of a request is, in memory that begins at `at`.
    fn places(&self, at: u64) -> Places {
        let (first, end) = self.disk.pool;
        let registers = self.disk.registers;
        Places {
            pool: at,
            pool_end: at + (end - first),
            other: at,
            registers,
            window: registers,
            bar: registers,
        }
    }

    /// From reset to DRIVER_OK, with the queue in memory that is at `at`.
    fn start(&self, at: u64) -> Result {
        ensure(self.disk.reset() && self.disk.accept(FEATURES), "no FEATURES_OK")?;
        let setup = Setup::honest(&self.places(at), Request::Read, false);
        let work = (setup.descriptors, setup.descriptors + 0x8000);
        words(work).for_each(|address| self.hardware.write(address, 0u64));
        ensure(self.disk.enable_queue(&setup), "a queue in the memory was not enabled")?;
        self.disk.start();
        Ok(())
    }

    /// Makes the `index`th request available in memory that is at `at`, with data where it would be if that were at `named`.
    fn ask(&self, at: u64, named: u64, request: Request, index: u16) {
        let places = self.places(at);
        let setup = Setup::honest(&places, request, false);
        let mut table = setup.queue_table;
        table[1].address = named + (places.data() - at);
        for (slot, descriptor) in (0..).zip(&table[..3]) {
            for (byte, value) in (0..).zip(descriptor.bytes()) {
                self.hardware.write(setup.descriptors + 16 * slot + byte, value);
            }
        }
        let (kind, sector) = if request == Request::Write { (1u32, 2u64) } else { (0, 1) };
        let fill = if request == Request::Write { WRITTEN } else { 0 };
        (0..DATA).for_each(|byte| self.hardware.write(places.data() + byte, fill));
        self.hardware.write(places.header(), kind);
        self.hardware.write(places.header() + 8, sector);
        self.hardware.write(places.status(), 0xff_u8);
        let slot = u64::from((index - 1) % QUEUE_SIZE);
        self.hardware.write(setup.available + 4 + 2 * slot, 0u16);
        fence(Ordering::SeqCst);
        self.hardware.write(setup.available + 2, index);
        self.disk.notify();
    }

    fn served(&self, at: u64, request: Request, index: u16) -> Result {
        let places = self.places(at);
        let waits = |_: &u32| {
            // An exit, so that the other side has the CPU.
            self.disk.status() & NEEDS_RESET == 0 && self.hardware.read::<u16>(places.used() + 2) != index
        };
        let waited = (0..PATIENCE).take_while(waits).count();
        ensure(self.disk.status() & NEEDS_RESET == 0, "an honest request was refused")?;
        ensure(waited < PATIENCE as usize, "the request was not served")?;
        fence(Ordering::SeqCst);
        ensure(self.hardware.read::<u8>(places.status()) == 0, "the status is not OK")?;
        let data = |byte| self.hardware.read::<u8>(places.data() + byte) == DISK_PATTERN;
        ensure(request == Request::Write || (0..DATA).all(data), "the data is not the disk's")
    }

    fn refused(&self, at: u64, index: u16) -> Result {
        self.disk.wait_for_refusal()?;
        ensure(self.disk.reset(), "the device was not reset")?;
        let used = self.hardware.read::<u16>(self.places(at).used() + 2);
        ensure(used == index - 1, "a request that was refused is completed")
    }

    fn private_is_unchanged(&self) -> Result {
        let same = words(PRIVATE).all(|address| self.hardware.read::<u64>(address) == CANARY | address);
        ensure(same, "private memory was written")
    }

    fn move_memory(&self, to: u64) {
        if let Some(pci) = self.disk.pci_structures() {
            pci::move_memory(self.hardware, &pci, to);
        }
    }

    fn command(&self, command: u32) {
        if let Some(pci) = self.disk.pci_structures() {
            pci::set_command(self.hardware, &pci, command);
        }
    }
}

const MEMORY_AND_MASTER: u32 = 6;

fn words((start, end): (u64, u64)) -> impl Iterator<Item = u64> {
    (start..end).step_by(8)
}

fn ensure(condition: bool, otherwise: &'static str) -> Result {
    if condition { Ok(()) } else { Err(otherwise) }
}
