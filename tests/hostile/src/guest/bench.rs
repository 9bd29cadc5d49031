// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that is watched, and one request at a time.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use super::Hardware;
use super::device::{Device, PATIENCE};
use super::machine::Machine;
use crate::table::case::Setup;
use crate::table::subject::{Descriptor, Table, WRITE};
use crate::table::{DATA, DISK_PATTERN, Kind, PROBE, Places, QUEUE_SIZE, Request, SENT, WRITTEN};

/// What went wrong.
pub(super) type Result = core::result::Result<(), &'static str>;

/// This program and what the loader put into memory end below it; all other private memory holds the canary.
const CANARY_START: u64 = 8 << 20;
const PAGE: u64 = 0x1000;
/// The canary of a word is this and its address.
const CANARY: u64 = 0xc5e7_a6b3_0000_0000;
const POOL_WORDS: usize = (2 << 20) / 8;
const WORK: u64 = 0x8000;
/// Bytes before a frame (virtio 1.3, 5.1.6), and of the frame that answers ours.
const HEADER: u32 = 12;
const ANSWER: u32 = 42;
/// Bytes of a used ring (virtio 1.3, 2.7.8): flags, index, elements, and the event field.
const USED_LEN: u64 = 6 + 8 * QUEUE_SIZE as u64;

/// A copy of the pool as it was before a request.
static SNAPSHOT: [AtomicU64; POOL_WORDS] = [const { AtomicU64::new(0) }; POOL_WORDS];

/// The memory of the machine.
#[derive(Debug)]
pub(super) struct Bench {
    hardware: Hardware,
    /// The pool of the devices that are attacked.
    pool: (u64, u64),
    memory_end: u64,
    /// Where the first functions on PCI are: one of them is another than the one that is attacked.
    bars: [u64; 2],
    /// Where this program is.
    program: (u64, u64),
    /// What is in private memory around it: a sum over that.
    low: u64,
    /// The device that nobody attacks, in a pool of its own before theirs, and how many requests it got.
    witness: Device,
    witnessed: u16,
}

impl Bench {
    /// Fills private memory with the canary and starts the witness.
    pub(super) fn new(machine: &Machine) -> core::result::Result<Self, &'static str> {
        let hardware = machine.hardware;
        let witness = machine.devices().filter(|device| device.id == 4 && !device.is_pci()).last();
        let witness = witness.ok_or("there is no witness")?.of_kind(Kind::Rng);
        let mut pools = machine.devices().map(|device| device.pool).filter(|pool| *pool != witness.pool);
        let pool = pools.next().ok_or("there is no other pool than the witness's")?;
        if pool.1 - pool.0 != 2 << 20 || witness.pool.1 != pool.0 || pools.any(|other| other != pool) {
            return Err("the pool must have 2M and follow the witness's");
        }
        let Machine { memory_end, program, .. } = *machine;
        let mut bars = [0; 2];
        let functions = machine.devices().filter(Device::is_pci).map(|device| device.registers);
        bars.iter_mut().zip(functions).for_each(|(bar, function)| *bar = function);
        let mut bench = Self { hardware, pool, memory_end, bars, program, low: 0, witness, witnessed: 0 };
        // Pages with other bytes are the loader's.
        let is_free = |page: &(u64, u64)| words(*page).all(|at| hardware.read::<u64>(at) == 0);
        let pages = |(start, end)| (0..(end - start) / PAGE).map(move |page| start + PAGE * page);
        let free =
            bench.around_program().into_iter().flat_map(pages).map(|at| (at, at + PAGE)).filter(is_free);
        for address in bench.private().into_iter().chain(free).flat_map(words) {
            hardware.write(address, CANARY | address);
        }
        bench.low = bench.sum_of_low();
        let honest = Setup::honest(&bench.places(&witness), Request::Random, false);
        if !(witness.reset() && witness.negotiate(false) && witness.enable_queue(&honest)) {
            return Err("the witness does not start");
        }
        witness.start();
        Ok(bench)
    }

    /// The devices to attack, as ones of this type.
    pub(super) fn victims<'a>(
        &self,
        machine: &'a Machine,
        kind: Kind,
        pci: bool,
    ) -> impl Iterator<Item = Device> + use<'a> {
        let (id, pool) = (kind.id_and_queue().0, self.pool);
        let chosen = move |device: &Device| device.id == id && device.is_pci() == pci && device.pool == pool;
        machine.devices().filter(chosen).map(move |device| device.of_kind(kind))
    }

    pub(super) fn places(&self, device: &Device) -> Places {
        let ((pool, pool_end), other) = (device.pool, self.witness.pool.0);
        let (registers, window) = (device.registers, self.witness.registers);
        let bar = self.bars.into_iter().find(|bar| *bar != registers).unwrap_or_default();
        Places { pool, pool_end, other, registers, window, bar }
    }

    /// A request that must be served, by a device that was just reset, and that writes its used element, its buffers, and
    /// nothing else.
    pub(super) fn serve(&self, device: &Device, setup: &Setup, indirect: bool) -> Result {
        if !self.submit(device, setup, indirect)? {
            return Err("a queue in the pool was not enabled");
        }
        self.finish(device, setup)?;
        let table = setup.chain();
        let writable = table.iter().filter(|buffer| buffer.flags & WRITE != 0);
        self.pool_is_unchanged_but(|at| {
            // Its index and its first element.
            let used = [(setup.used, 12)].into_iter().chain(self.fields(device, setup.used));
            let mut written =
                used.chain(writable.clone().map(|buffer| (buffer.address, u64::from(buffer.length))));
            written.any(|(start, length)| at.wrapping_sub(start) < length)
        })
    }

    /// Waits for the end of a request, and looks at what it brought.
    pub(super) fn finish(&self, device: &Device, setup: &Setup) -> Result {
        self.wait(setup.used, 1)?;
        let (places, request) = (self.places(device), setup.request);
        let table = setup.chain();
        let [data, status] = data_and_status(&table, request, &places);
        let written: u32 = self.hardware.read(setup.used + 8);
        if written != length(request) {
            return Err("the used element has another length");
        }
        if request.has_status() && self.hardware.read::<u8>(status) != 0 {
            return Err("the status is not OK");
        }
        let byte = |at: u64| self.hardware.read::<u8>(data + at);
        match request {
            Request::Read if (0..DATA).any(|at| byte(at) != DISK_PATTERN) => {
                Err("the data is not the disk's")
            }
            Request::Random if (0..DATA).all(|at| byte(at) == 0) => Err("no random data"),
            Request::Receive if PROBE[6..12].iter().zip(0..).any(|(ours, at)| byte(at) != *ours) => {
                Err("the frame is not for us")
            }
            Request::Receive if (ANSWER.into()..DATA).any(|at| byte(at) != 0) => {
                Err("there is more than the frame")
            }
            _ => Ok(()),
        }
    }

    /// A request that must be refused, and move no byte.
    pub(super) fn refuse(&mut self, device: &Device, setup: &Setup, indirect: bool) -> Result {
        let enabled = self.submit(device, setup, indirect)?;
        device.wait_for_refusal()?;
        let places = self.places(device);
        let area = [setup.descriptors, setup.available, setup.used]
            != [places.descriptors(), places.available(), places.used()];
        if area == enabled {
            return Err(if enabled { "a bad queue was enabled" } else { "a good queue was not enabled" });
        }
        self.witness()?;
        if !device.reset() {
            return Err("the device was not reset");
        }
        // From here on the device may touch nothing: what it did is done.
        if self.hardware.read::<u16>(places.used() + 2) != 0 {
            return Err("the request was completed");
        }
        self.pool_is_unchanged(device)
    }

    /// Private memory is as it was.
    pub(super) fn private_is_unchanged(&self) -> Result {
        fence(Ordering::SeqCst);
        let same = |(start, end)| (start..end).step_by(8).zip(self.hardware.words(start, end)).all(canary);
        let same = self.private().into_iter().all(same);
        let low = self.sum_of_low() == self.low;
        if same && low { Ok(()) } else { Err("private memory was written") }
    }

    /// Private memory below [`CANARY_START`], but for this program's own, in whole pages.
    fn around_program(&self) -> [(u64, u64); 2] {
        let (start, end) = self.program;
        [(0, start - start % PAGE), (end.next_multiple_of(PAGE), CANARY_START)]
    }

    /// A sum over it that is another one if a word is another one.
    fn sum_of_low(&self) -> u64 {
        let words = self.around_program().into_iter().flat_map(words);
        let mix = |sum: u64, at| (sum ^ self.hardware.read::<u64>(at)).wrapping_mul(0x0100_0000_01b3);
        words.fold(0, mix)
    }

    /// The other device serves one more request.
    pub(super) fn witness(&mut self) -> Result {
        if !self.witness.answers() {
            return Err("another device's registers are not there");
        }
        let places = self.places(&self.witness);
        let setup = Setup::honest(&places, Request::Random, false);
        for (at, byte) in setup.queue_table[0].bytes().into_iter().enumerate() {
            self.hardware.write(setup.descriptors + at as u64, byte);
        }
        self.hardware.write(places.data(), 0u64);
        let slot = u64::from(self.witnessed % QUEUE_SIZE);
        self.hardware.write(setup.available + 4 + 2 * slot, 0u16);
        self.witnessed = self.witnessed.wrapping_add(1);
        fence(Ordering::SeqCst);
        self.hardware.write(setup.available + 2, self.witnessed);
        self.witness.notify();
        self.wait(setup.used, self.witnessed).map_err(|_| "another device stopped")?;
        if self.hardware.read::<u64>(places.data()) == 0 {
            Err("another device gave no data")
        } else {
            Ok(())
        }
    }

    /// Prepares memory, starts the device and submits the request. Whether the queue was enabled.
    pub(super) fn submit(
        &self,
        device: &Device,
        setup: &Setup,
        indirect: bool,
    ) -> core::result::Result<bool, &'static str> {
        if !(device.reset() && device.negotiate(indirect)) {
            return Err("the device does not start");
        }
        self.prepare(device, setup);
        let enabled = device.enable_queue(setup);
        if enabled {
            self.start(device, setup)?;
        } else {
            device.start();
            device.notify();
        }
        Ok(enabled)
    }

    /// Starts a device whose queue is enabled, notifies it, and asks for a frame if that is what it waits for.
    pub(super) fn start(&self, device: &Device, setup: &Setup) -> Result {
        let asks = setup.request == Request::Receive;
        let asking = Setup::honest(&self.places(device).asking(), Request::Send, false);
        if asks && !asker(device).enable_queue(&asking) {
            return Err("the sending queue was not enabled");
        }
        device.start();
        device.notify();
        if asks {
            asker(device).notify();
        }
        Ok(())
    }

    /// Makes the same chain available once more, as the one with this number.
    pub(super) fn again(&self, device: &Device, setup: &Setup, number: u16) {
        self.hardware.write(setup.available + 2, number);
        device.notify();
        if setup.request == Request::Receive {
            self.hardware.write(self.places(device).asking().available() + 2, number);
            asker(device).notify();
        }
    }

    /// Writes the pool: rings, tables, buffers, and nothing else.
    pub(super) fn prepare(&self, device: &Device, setup: &Setup) {
        for address in words(self.pool) {
            self.hardware.write(address, 0u64);
        }
        let table = setup.chain();
        let places = self.places(device);
        if matches!(setup.request, Request::Read | Request::Write) {
            // type and sector (virtio 1.3, 5.2.6)
            let (kind, sector) = if setup.request == Request::Write { (1u32, 2u64) } else { (0, 1) };
            self.put(table[0].address, &kind.to_le_bytes());
            self.put(table[0].address.wrapping_add(8), &sector.to_le_bytes());
            let [data, status] = data_and_status(&table, setup.request, &places);
            self.put(status, &[0xff]);
            if setup.request == Request::Write {
                self.put(data, &[WRITTEN; 512]);
            }
        }
        match setup.request {
            Request::Send => (0..DATA).for_each(|at| self.put(table[1].address.wrapping_add(at), &[SENT])),
            Request::Command => {
                // VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET (virtio 1.3, 5.1.6.5.6), to one pair
                self.put(table[0].address, &[4, 0]);
                self.put(table[1].address, &1u16.to_le_bytes());
                self.put(table[2].address, &[0xff]);
            }
            Request::Receive => self.ask(&places.asking()),
            Request::Read | Request::Write | Request::Random => {}
        }
        if let Some((address, table)) = &setup.indirect {
            self.write_table(*address, table);
        }
        self.write_table(setup.descriptors, &setup.queue_table);
        self.put(setup.available.wrapping_add(2), &setup.index.to_le_bytes());
        for slot in 0..u64::from(QUEUE_SIZE) {
            self.put(setup.available.wrapping_add(4 + 2 * slot), &setup.head.to_le_bytes());
        }
        self.remember_pool();
    }

    /// Puts a frame on the sending queue that the host's kernel answers.
    fn ask(&self, places: &Places) {
        let honest = Setup::honest(places, Request::Send, false);
        let mut table = honest.queue_table;
        table[1].length = 42;
        self.write_table(honest.descriptors, &table);
        self.put(places.data(), &PROBE);
        self.put(honest.available + 2, &1u16.to_le_bytes());
    }

    /// Copies the pool, for [`Self::pool_is_unchanged`].
    pub(super) fn remember_pool(&self) {
        for (address, copy) in words(self.pool).zip(&SNAPSHOT) {
            copy.store(self.hardware.read(address), Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// Whether the pool is as it was, but for what is the device's at any time.
    pub(super) fn pool_is_unchanged(&self, device: &Device) -> Result {
        let used = self.places(device).used();
        self.pool_is_unchanged_but(|at| {
            self.fields(device, used).into_iter().any(|(start, length)| at.wrapping_sub(start) < length)
        })
    }

    /// Flags and event field of a used ring, by which the device says when it wants notifications (virtio 1.3, 2.7.10), and
    /// the ring of the queue that sends, if it asks for a frame.
    pub(super) fn fields(&self, device: &Device, used: u64) -> [(u64, u64); 3] {
        [(used, 2), (used + USED_LEN - 2, 2), (self.places(device).asking().used(), USED_LEN)]
    }

    /// The same, but for other bytes.
    pub(super) fn pool_is_unchanged_but(&self, may: impl Fn(u64) -> bool) -> Result {
        for (address, copy) in words(self.pool).zip(&SNAPSHOT) {
            let differing = self.hardware.read::<u64>(address) ^ copy.load(Ordering::Relaxed);
            let mut bytes = (address..).zip(differing.to_le_bytes()).filter(|(_, bits)| *bits != 0);
            if differing != 0 && !bytes.all(|(at, _)| may(at)) {
                return Err("the pool was written");
            }
        }
        let witness = self.places(&self.witness).descriptors();
        let mut others = words(self.witness.pool).filter(|at| !(witness..witness + WORK).contains(at));
        let same = others.all(|address| self.hardware.read::<u64>(address) == 0);
        if same { Ok(()) } else { Err("another device's pool was written") }
    }

    /// Waits until the used ring has this index.
    pub(super) fn wait(&self, used: u64, index: u16) -> Result {
        self.wait_until(|| self.hardware.read::<u16>(used + 2) == index)
    }

    /// Waits until the device has got so far.
    pub(super) fn wait_until(&self, served: impl Fn() -> bool) -> Result {
        for _ in 0..PATIENCE {
            if served() {
                fence(Ordering::SeqCst);
                return Ok(());
            }
            // An exit, so that the other side has the CPU.
            self.witness.status();
        }
        Err("the request was not served")
    }

    fn write_table(&self, address: u64, table: &Table) {
        for (offset, entry) in (0..).step_by(16).zip(table) {
            if *entry != Descriptor::default() {
                self.put(address.wrapping_add(offset), &entry.bytes());
            }
        }
    }

    /// Writes bytes that are in the pool; others are no memory, or hold the canary.
    fn put(&self, address: u64, bytes: &[u8]) {
        for (at, byte) in bytes.iter().enumerate() {
            let address = address.wrapping_add(at as u64);
            if (self.pool.0..self.pool.1).contains(&address) {
                self.hardware.write(address, *byte);
            }
        }
    }

    fn private(&self) -> [(u64, u64); 2] {
        [(CANARY_START, self.witness.pool.0), (self.pool.1, self.memory_end)]
    }
}

/// The bytes that a device writes for an honest request, by its used element.
pub(super) fn length(request: Request) -> u32 {
    match request {
        Request::Read => 513,
        Request::Write | Request::Command => 1,
        Request::Random => 512,
        Request::Send => 0,
        Request::Receive => HEADER + ANSWER,
    }
}

/// The queue by which a frame is asked for, of the same device.
fn asker(device: &Device) -> Device {
    device.by_queue(Kind::Net.id_and_queue().1)
}

fn canary((address, word): (u64, &u64)) -> bool {
    *word == CANARY | address
}

fn words((start, end): (u64, u64)) -> impl Iterator<Item = u64> {
    (0..(end - start) / 8).map(move |word| start + 8 * word)
}

/// Where the data and the status byte are: in the first and the last device-writable descriptor, as a rule.
fn data_and_status(table: &Table, request: Request, places: &Places) -> [u64; 2] {
    match request {
        Request::Random => [table[0].address, places.status()],
        Request::Send | Request::Receive => [table[1].address, places.status()],
        Request::Read | Request::Write | Request::Command => [table[1].address, table[2].address],
    }
}
