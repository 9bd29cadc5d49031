// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver that does what it is told on the console, an order a line, and answers each with a line that begins with `=`:
//!
//! - `read D S N`, `write D S N F`: N sectors from sector S on of disk D, filled with F. The answer is the status byte, after
//!   a read also what all of the bytes are.
//! - `zero D S N`, `unmap D S N`, `discard D S N`, `flush D`: the answer is the status byte. `unmap` zeroes and may free.
//! - `config D OFFSET`, `offered D`: four bytes of the configuration space; the lower half of the features that are offered.
//! - `work D N`: so many rounds of writing, reading, comparing and flushing.
//! - `send LEN`: a frame on the first network device, which has buffers for what arrives.
//! - `mtu`: the answer is the MTU of the first network device.
//! - `random LEN`: asks the first entropy device for so many bytes. The answer is the length that it says it wrote, and how many
//!   words of eight bytes it did write.
//! - `records D FIRST`: writes records, numbered from FIRST on, and tells the number of each that is flushed, for ever.
//! - `end`: powers off.
//!
//! Disks are told apart by their order in the device tree.

use core::fmt::Write;
use core::sync::atomic::{Ordering, fence};

use super::device::{ACCESS_PLATFORM, Device, VERSION_1};
use super::machine::Machine;
use super::uart::Uart;
use crate::record;
use crate::table::case::Setup;
use crate::table::{Places, QUEUE_SIZE, Request};

/// VIRTIO_BLK_F_FLUSH: writes are on stable storage after a flush, and not before.
const F_FLUSH: u64 = 1 << 9;
/// VIRTIO_NET_F_MTU, and where the MTU is in the configuration (virtio 1.3, 5.1.4).
const F_MTU: u64 = 1 << 3;
const MTU: u64 = 10;
/// VIRTIO_BLK_T_* (virtio 1.3, 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
/// VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP.
const UNMAP: u32 = 1;
/// Bytes of the pool for one queue: rings, header and status in the first half, data in the second.
const SHARE: u64 = 0x2_0000;
const DATA: u64 = SHARE / 2;
/// A status that is none.
const NO_STATUS: u8 = 0xee;
/// Descriptor flags (virtio 1.3, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Bytes of a frame with its header, at most: a packet of 9000 bytes.
const FRAME: u32 = 12 + 14 + 9000;
/// Bytes of a buffer for a frame that arrives.
const BUFFER: u32 = 0x4000;

type Result<T> = core::result::Result<T, &'static str>;

/// A queue that is used for one request at a time.
#[derive(Clone, Copy)]
struct Line<'a> {
    machine: &'a Machine,
    device: Device,
    places: Places,
    submitted: u16,
}

/// Does what it is told.
pub(super) fn run(machine: &Machine, uart: &mut Uart) -> Result<u32> {
    let mut lines = [None; 8];
    let pool = machine.devices().next().map_or((0, 0), |device| device.pool);
    let mut shares = (pool.0..pool.1).step_by(0x2_0000);
    let mut share = || shares.next().ok_or("the pool is too small");
    for (line, device) in lines.iter_mut().zip(machine.devices().filter(|device| device.id == 2)) {
        let disk = Line::new(machine, device, share()?);
        disk.set_up(F_FLUSH)?;
        device.start();
        *line = Some(disk);
    }
    let mut net = None;
    if let Some(device) = machine.devices().find(|device| device.id == 1) {
        let sender = Line::new(machine, device.by_queue(1), share()?);
        let receiver = Line::new(machine, device.by_queue(0), share()?);
        sender.set_up(F_MTU)?;
        receiver.place()?;
        device.start();
        receiver.offer_buffers();
        net = Some(sender);
    }
    let mut entropy = None;
    if let Some(device) = machine.devices().find(|device| device.id == 4) {
        let line = Line::new(machine, device, share()?);
        line.set_up(0)?;
        device.start();
        entropy = Some(line);
    }
    let _ = writeln!(uart, "= ready");
    let mut buffer = [0; 80];
    for done in 0.. {
        let mut words = uart.read_line(&mut buffer).split(' ');
        let order = words.next().unwrap_or_default();
        let mut numbers = [0u64; 4];
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = word.parse().map_err(|_| "an order with a number that is none")?;
        }
        let [disk, sector, count, fill] = numbers;
        if order == "end" {
            return Ok(done);
        }
        if order == "send" {
            let length = u32::try_from(disk).unwrap_or(FRAME).min(FRAME);
            let _ = writeln!(uart, "= {}", net.as_mut().ok_or("no network device")?.send(length)?);
            continue;
        }
        if order == "mtu" {
            let _ = writeln!(uart, "= {}", net.as_ref().ok_or("no network device")?.mtu());
            continue;
        }
        if order == "random" {
            let (said, words) = entropy.as_mut().ok_or("no entropy device")?.random(disk);
            let _ = writeln!(uart, "= {said} {words}");
            continue;
        }
        let disk = usize::try_from(disk).ok().and_then(|disk| lines.get_mut(disk)?.as_mut());
        let disk = disk.ok_or("no such disk")?;
        let _ = match order {
            "read" => {
                let status = disk.transfer(IN, sector, count)?;
                match disk.uniform(count) {
                    Some(byte) => writeln!(uart, "= {status} {byte}"),
                    None => writeln!(uart, "= {status} mixed"),
                }
            }
            "write" => {
                disk.fill(count, fill);
                writeln!(uart, "= {}", disk.transfer(OUT, sector, count)?)
            }
            "zero" => writeln!(uart, "= {}", disk.punch(WRITE_ZEROES, 0, sector, count)?),
            "unmap" => writeln!(uart, "= {}", disk.punch(WRITE_ZEROES, UNMAP, sector, count)?),
            "discard" => writeln!(uart, "= {}", disk.punch(DISCARD, 0, sector, count)?),
            "config" => writeln!(uart, "= {}", disk.device.configuration(sector)),
            "offered" => {
                let [_, _, _, _, _, low, ..] = disk.device.constants();
                writeln!(uart, "= {low}")
            }
            "flush" => writeln!(uart, "= {}", disk.request(FLUSH, 0, None)?),
            "work" => writeln!(uart, "= {}", disk.work(sector)?),
            "records" => disk.records(uart, sector)?,
            _ => return Err("no such order"),
        };
    }
    Ok(0)
}

impl<'a> Line<'a> {
    fn new(machine: &'a Machine, device: Device, share: u64) -> Self {
        // Places are 64 KiB into what they call the pool.
        let (pool, registers) = (share.wrapping_sub(0x1_0000), device.registers);
        let places = Places {
            pool,
            pool_end: share + SHARE,
            other: pool,
            registers,
            window: registers,
            bar: registers,
        };
        Self { machine, device, places, submitted: 0 }
    }

    /// A driver's steps up to DRIVER_OK (virtio 1.3, 3.1.1).
    fn set_up(&self, features: u64) -> Result<()> {
        let ready = self.device.reset() && self.device.accept(VERSION_1 | ACCESS_PLATFORM | features);
        if ready { self.place() } else { Err("the device does not start") }
    }

    fn place(&self) -> Result<()> {
        let setup = Setup::honest(&self.places, Request::Read, false);
        if self.device.enable_queue(&setup) { Ok(()) } else { Err("the queue is not enabled") }
    }

    fn data(&self) -> u64 {
        self.places.descriptors() + DATA
    }

    fn describe(&self, index: u16, (address, length): (u64, u32), flags: u16) {
        let (hardware, at) = (self.machine.hardware, self.places.descriptors() + 16 * u64::from(index));
        hardware.write(at, address);
        hardware.write(at + 8, length);
        hardware.write(at + 12, flags);
        hardware.write(at + 14, index + 1);
    }

    fn offer(&mut self, head: u16) {
        let hardware = self.machine.hardware;
        let slot = u64::from(self.submitted % QUEUE_SIZE);
        hardware.write(self.places.available() + 4 + 2 * slot, head);
        self.submitted = self.submitted.wrapping_add(1);
        fence(Ordering::SeqCst);
        hardware.write(self.places.available() + 2, self.submitted);
        fence(Ordering::SeqCst);
    }

    /// Notifies the device and waits until it has used all that it was offered: as long as it takes, since the test
    /// decides how long that is.
    fn finish(&self) {
        self.device.notify();
        while self.machine.hardware.read::<u16>(self.places.used() + 2) != self.submitted {
            // An exit, so that the other side has the CPU.
            self.device.status();
        }
        fence(Ordering::SeqCst);
    }

    /// A request of blk (virtio 1.3, 5.2.6): the status byte.
    fn request(&mut self, kind: u32, sector: u64, data: Option<(u32, u16)>) -> Result<u8> {
        let hardware = self.machine.hardware;
        let (header, status) = (self.places.header(), self.places.status());
        hardware.write(header, kind);
        hardware.write(header + 4, 0u32);
        hardware.write(header + 8, sector);
        hardware.write(status, NO_STATUS);
        self.describe(0, (header, 16), NEXT);
        // In three descriptors, so that a transfer has parts.
        let mut last = 0;
        if let Some((length, direction)) = data {
            let mut at = self.data();
            for part in [length / 4, length / 2, length - length / 4 - length / 2] {
                last += 1;
                self.describe(last, (at, part), NEXT | direction);
                at += u64::from(part);
            }
        }
        self.describe(last + 1, (status, 1), WRITE);
        self.offer(0);
        self.finish();
        match hardware.read(status) {
            NO_STATUS => Err("no status"),
            status => Ok(status),
        }
    }

    fn transfer(&mut self, kind: u32, sector: u64, count: u64) -> Result<u8> {
        let length = u32::try_from(count * 512).unwrap_or(0);
        if u64::from(length) > DATA {
            return Err("a transfer that is too long");
        }
        if kind == IN {
            self.fill(count, 0xa5);
        }
        self.request(kind, sector, Some((length, if kind == IN { WRITE } else { 0 })))
    }

    /// `struct virtio_blk_discard_write_zeroes` (virtio 1.3, 5.2.6).
    fn punch(&mut self, kind: u32, flags: u32, sector: u64, count: u64) -> Result<u8> {
        let hardware = self.machine.hardware;
        hardware.write(self.data(), sector);
        hardware.write(self.data() + 8, u32::try_from(count).unwrap_or(0));
        hardware.write(self.data() + 12, flags);
        self.request(kind, 0, Some((16, 0)))
    }

    fn fill(&self, count: u64, byte: u64) {
        for at in (0..count * 512).step_by(8) {
            self.machine.hardware.write(self.data() + at, (byte & 0xff) * 0x0101_0101_0101_0101);
        }
    }

    fn words(&self, count: u64) -> &'static [u64] {
        self.machine.hardware.words(self.data(), self.data() + count * 512)
    }

    /// What all bytes of the data are.
    fn uniform(&self, count: u64) -> Option<u8> {
        let words = self.words(count);
        let [byte, ..] = words.first()?.to_le_bytes();
        words.iter().all(|word| word.to_le_bytes() == [byte; 8]).then_some(byte)
    }

    /// Rounds of requests that must all succeed, on the first 64 sectors.
    fn work(&mut self, rounds: u64) -> Result<&'static str> {
        for round in 0..rounds {
            let sector = round * 8 % 64;
            let fill = round % 251;
            self.fill(8, fill);
            if self.transfer(OUT, sector, 8)? != 0 {
                return Ok("a write failed");
            }
            if round % 4 == 3 && self.request(FLUSH, 0, None)? != 0 {
                return Ok("a flush failed");
            }
            if round % 8 == 7 && self.punch(WRITE_ZEROES, 0, 64, 8)? != 0 {
                return Ok("zeroes failed");
            }
            if self.transfer(IN, sector, 8)? != 0 {
                return Ok("a read failed");
            }
            if self.uniform(8).map(u64::from) != Some(fill) {
                return Ok("another sector was read than was written");
            }
        }
        Ok("all well")
    }

    /// Comes back only with an error.
    fn records(&mut self, uart: &mut Uart, first: u64) -> Result<core::fmt::Result> {
        for number in first.. {
            for index in 0..record::WORDS {
                self.machine.hardware.write(self.data() + 8 * index, record::word(number, index));
            }
            let written = self.transfer(OUT, record::sector(number), record::SECTORS)?;
            if written != 0 || self.request(FLUSH, 0, None)? != 0 {
                return Err("a record was not written");
            }
            let _ = writeln!(uart, "= {number}");
        }
        Ok(Ok(()))
    }

    /// A frame to everybody, of an experimental type (IEEE 802), after a header of zeros (virtio 1.3, 5.1.6).
    fn send(&mut self, length: u32) -> Result<&'static str> {
        let hardware = self.machine.hardware;
        for at in 0..u64::from(length) {
            hardware.write(self.data() + at, if (12..18).contains(&at) { 0xffu8 } else { 0 });
        }
        hardware.write(self.data() + 12 + 12, 0xb588u16);
        self.describe(0, (self.data(), length), 0);
        self.offer(0);
        self.finish();
        Ok("sent")
    }

    fn mtu(&self) -> u16 {
        self.machine.hardware.read(self.device.config() + MTU)
    }

    /// What the device says that it wrote (virtio 1.3, 2.7.8: `len` of the used element), and the words that are not zero.
    fn random(&mut self, length: u64) -> (u32, usize) {
        let length = length.min(DATA);
        self.fill(length.div_ceil(512), 0);
        self.describe(0, (self.data(), u32::try_from(length).unwrap_or(0)), WRITE);
        self.offer(0);
        self.finish();
        let slot = u64::from(self.submitted.wrapping_sub(1) % QUEUE_SIZE);
        let said = self.machine.hardware.read(self.places.used() + 4 + 8 * slot + 4);
        (said, self.words(length.div_ceil(512)).iter().filter(|word| **word != 0).count())
    }

    /// Buffers for frames that arrive; nobody looks at them, so they may share memory.
    fn offer_buffers(mut self) {
        for index in 0..QUEUE_SIZE {
            let offset = u64::from(index) * u64::from(BUFFER) % DATA;
            self.describe(index, (self.data() + offset, BUFFER), WRITE);
            self.offer(index);
        }
        self.device.notify();
    }
}
