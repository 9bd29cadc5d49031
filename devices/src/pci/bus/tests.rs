// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Expectations are from PCI 3.0, 3.2.2.3.2, 6.1 and 6.2, and PCI Express 5.0, 7.2.2; the clause stands at each test.

mod arbitrary;
mod decode;

use super::*;
use crate::bus::Bus;
use crate::pci::{ConfigSpace, Identity};
use crate::testing::pci::{ECAM, read, write};

/// A function that is its configuration space and a BAR of 4 KiB; behind that it answers with its device number.
#[derive(Debug)]
struct Plain {
    space: Mutex<ConfigSpace>,
    number: u8,
    /// What was written behind the BAR: offset, bytes.
    written: Mutex<Vec<(u64, Vec<u8>)>>,
}

const BAR_SIZE: u64 = 0x1000;

impl Plain {
    fn new(number: u8) -> Arc<Self> {
        let identity =
            Identity { vendor: 0x1234, device: 0x5678, revision: 9, class: [1, 2, 3], subsystem: [4, 5] };
        let mut space = ConfigSpace::new(&identity);
        space.set_bar(Range::fixed(0xc000_0000 + BAR_SIZE * u64::from(number), BAR_SIZE));
        Arc::new(Self { space: Mutex::new(space), number, written: Mutex::default() })
    }

    fn take_written(&self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.written.lock().unwrap())
    }
}

impl Function for Plain {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.space.lock().unwrap().read(offset, data);
    }
    fn write_config(&self, offset: usize, data: &[u8]) {
        self.space.lock().unwrap().write(offset, data);
    }
    fn window(&self) -> Option<Range> {
        self.space.lock().unwrap().window()
    }
}

impl BusDevice for Plain {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(self.number);
    }
    fn write(&self, offset: u64, data: &[u8]) {
        self.written.lock().unwrap().push((offset, data.to_vec()));
    }
}

/// Memory and ports, with functions at these numbers.
struct Bench {
    memory: Bus,
    ports: Bus,
    functions: Vec<Arc<Plain>>,
}

impl Bench {
    fn new(numbers: &[u8]) -> Self {
        let mut bus = PciBus::default();
        let functions: Vec<_> = numbers.iter().map(|&number| Plain::new(number)).collect();
        for function in &functions {
            bus.insert(function.number, function.clone()).unwrap();
        }
        let bus = Arc::new(bus);
        let (mut memory, mut ports) = (Bus::default(), Bus::default());
        memory.insert(Range::fixed(ECAM, 1 << 20), Arc::new(Ecam(bus.clone()))).unwrap();
        memory.set_movable(bus.clone());
        ports.insert(Range::fixed(0xcf8, 8), Arc::new(ConfigPorts::new(bus))).unwrap();
        Self { memory, ports, functions }
    }

    /// ECAM: bus in bits 27 to 20, device in 19 to 15, function in 14 to 12, register in 11 to 0.
    fn ecam(&self, device: u64, function: u64, offset: u64, len: usize) -> u64 {
        read(&self.memory, ECAM + (device << 15 | function << 12 | offset), len)
    }

    fn set_ecam(&self, device: u64, offset: u64, len: usize, value: u64) {
        write(&self.memory, ECAM + (device << 15 | offset), len, value);
    }

    fn select(&self, address: u64) {
        write(&self.ports, 0xcf8, 4, address);
    }

    /// All of a function's first 256 bytes.
    fn space(&self, device: u64) -> Vec<u64> {
        (0..64).map(|register| self.ecam(device, 0, 4 * register, 4)).collect()
    }
}

fn ones(len: usize) -> u64 {
    u64::MAX >> (64 - 8 * len)
}

/// Address of mechanism #1: enable, bus, device, function, register.
fn address(bus: u64, device: u64, function: u64, register: u64) -> u64 {
    1 << 31 | bus << 16 | device << 11 | function << 8 | register
}

#[test]
fn a_device_number_is_given_once() {
    let mut bus = PciBus::default();
    assert!(bus.insert(0, Plain::new(0)).is_err(), "the host bridge");
    bus.insert(31, Plain::new(31)).unwrap();
    assert!(bus.insert(31, Plain::new(31)).is_err());
    for device in [32, 33, 255] {
        assert!(bus.insert(device, Plain::new(device)).is_err());
    }
}

/// 6.2.1: class code 0x060000 is a host bridge. It has no BAR, and nothing in it changes.
#[test]
fn device_0_is_a_host_bridge() {
    let bench = Bench::new(&[]);
    assert_eq!(bench.ecam(0, 0, 0x08, 4) >> 8, 0x06_0000);
    assert_eq!(bench.ecam(0, 0, 0x0e, 1), 0, "header type 0, one function");
    let before = bench.space(0);
    for offset in 0..256 {
        bench.set_ecam(0, offset, 1, 0xff);
        bench.set_ecam(0, offset, 1, 0x00);
    }
    assert_eq!(bench.space(0), before);
    assert_eq!(read(&bench.memory, 0, 4), ones(4), "no BAR");
}

/// 6.1: what is not there reads as ones, and writes to it are lost.
#[test]
fn what_is_not_there_reads_as_ones() {
    let bench = Bench::new(&[1, 31]);
    for device in 0..32 {
        for function in 0..8 {
            let there = function == 0 && [0, 1, 31].contains(&device);
            for len in [1, 2, 4] {
                let got = bench.ecam(device, function, 0, len);
                assert_eq!(got != ones(len), there, "{device}.{function}");
                bench.select(address(0, device, function, 0));
                assert_eq!(read(&bench.ports, 0xcfc, len), got, "{device}.{function}");
                write(&bench.ports, 0xcfc, len, 0);
                if !there {
                    bench.set_ecam(device, function << 12, len, 0);
                    assert_eq!(bench.ecam(device, function, 0, len), ones(len));
                }
            }
        }
    }
    // Other buses exist for the ports only: there is nothing on them.
    for bus in [1, 2, 0x80, 0xff] {
        bench.select(address(bus, 1, 0, 0));
        assert_eq!(read(&bench.ports, 0xcfc, 4), ones(4));
        bench.select(address(bus, 1, 0, 4));
        write(&bench.ports, 0xcfc, 2, 7);
    }
    // What was written there did not go to the first function.
    for function in 1..8 {
        bench.set_ecam(1, function << 12 | 4, 2, 7);
    }
    assert_eq!(bench.ecam(1, 0, 4, 2), 0);
}

/// PCI Express 5.0, 7.2.2: accesses of 1, 2 and 4 bytes; here others reach nothing. PCI 3.0,
/// 6.1: within one register. 7.7.2.2 (PCI Express): a function without extended capabilities reads zeros from 0x100 on.
#[test]
fn ecam_reaches_every_byte_of_a_function() {
    let bench = Bench::new(&[1]);
    bench.set_ecam(1, 0x3c, 1, 0x5a);
    let bytes: Vec<u64> = (0..0x1000).map(|at| bench.ecam(1, 0, at, 1)).collect();
    assert_eq!(bytes[..4], [0x34, 0x12, 0x78, 0x56]);
    assert_eq!(bytes[0x3c], 0x5a);
    assert!(bytes[0x100..].iter().all(|byte| *byte == 0));
    for offset in (0..0x120u64).chain([0xffc, 0xffe, 0xfff]) {
        for len in [1usize, 2, 4, 8] {
            let aligned = offset % len as u64 == 0 && len < 8;
            let at = usize::try_from(offset).unwrap();
            let expected = match aligned {
                true => bytes[at..at + len].iter().rev().fold(0, |value, byte| value << 8 | byte),
                false => ones(len),
            };
            assert_eq!(bench.ecam(1, 0, offset, len), expected, "{offset:#x} {len}");
        }
    }
}

/// Writes of each width, at each place: they change what a write of their bytes, one by one, changes, or nothing.
#[test]
fn writes_go_where_reads_do() {
    for ports in [false, true] {
        for offset in 0x00..0x40u64 {
            for len in [1usize, 2, 4, 8] {
                let (bench, bytewise) = (Bench::new(&[1]), Bench::new(&[1]));
                match ports {
                    true if offset % 4 + len as u64 <= 4 => {
                        bench.select(address(0, 1, 0, offset & !3));
                        write(&bench.ports, 0xcfc + offset % 4, len, u64::MAX);
                    }
                    true => continue,
                    false => bench.set_ecam(1, offset, len, u64::MAX),
                }
                if offset % len as u64 == 0 && len < 8 {
                    (offset..offset + len as u64).for_each(|at| bytewise.set_ecam(1, at, 1, 0xff));
                }
                assert_eq!(bench.space(1), bytewise.space(1), "{len} at {offset:#x}, ports: {ports}");
            }
        }
    }
}

/// 3.2.2.3.2: bit 31 enables, bits 30 to 24 are reserved and read-only 0, bits 1 and 0 are read-only 0.
#[test]
fn the_address_port_keeps_what_is_defined() {
    let bench = Bench::new(&[1]);
    assert_eq!(read(&bench.ports, 0xcf8, 4), 0, "after reset");
    for (written, kept) in [
        (0xffff_ffff, 0x80ff_fffc),
        (0x8000_0800, 0x8000_0800),
        (0x7f00_0003, 0),
        (0x8000_0803, 0x8000_0800),
        (0, 0),
    ] {
        bench.select(written);
        assert_eq!(read(&bench.ports, 0xcf8, 4), kept);
    }
}

/// 3.2.2.3.2: the address port is written and read with 4 bytes; other accesses are none to it, and here nobody else
/// answers them.
#[test]
fn the_address_port_takes_4_bytes_only() {
    let bench = Bench::new(&[1]);
    let selected = address(0, 1, 0, 0);
    bench.select(selected);
    for offset in 0..4 {
        for len in [1usize, 2, 4, 8] {
            if (offset, len) == (0, 4) {
                continue;
            }
            write(&bench.ports, 0xcf8 + offset, len, 0);
            assert_eq!(read(&bench.ports, 0xcf8, 4), selected, "{len} at {offset}");
            assert_eq!(read(&bench.ports, 0xcf8 + offset, len), ones(len));
        }
    }
}

/// The data port: 1, 2 or 4 bytes within the register that is selected; without the enable bit nothing answers.
#[test]
fn the_data_port_is_the_register_that_is_selected() {
    let bench = Bench::new(&[1, 2]);
    for (device, register) in [(1, 0), (1, 4), (1, 0x10), (2, 8), (2, 0x3c), (0, 8), (2, 0xfc)] {
        for enabled in [true, false] {
            bench.select(address(0, device, 0, register) & if enabled { u64::MAX } else { 0x7fff_ffff });
            for offset in 0..4 {
                for len in [1usize, 2, 4, 8] {
                    let whole = offset % len as u64 == 0 && offset + len as u64 <= 4;
                    let expected = match whole && enabled {
                        true => bench.ecam(device, 0, register + offset, len),
                        false => ones(len),
                    };
                    assert_eq!(read(&bench.ports, 0xcfc + offset, len), expected, "{len} at {offset}");
                }
            }
        }
    }
    // A write without the enable bit is lost.
    bench.select(0x0000_0804);
    write(&bench.ports, 0xcfc, 2, 7);
    assert_eq!(bench.ecam(1, 0, 4, 2), 0);
    bench.select(0x8000_0804);
    write(&bench.ports, 0xcfc, 2, 6);
    assert_eq!((bench.ecam(1, 0, 4, 2), bench.ecam(2, 0, 4, 2)), (6, 0));
}
