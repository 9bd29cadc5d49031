// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The PCI configuration access capability (virtio 1.3, 4.1.4.9): the BAR through configuration space.

use super::*;

/// Distances from the capability's start.
const BAR: u64 = 4;
const OFFSET: u64 = 8;
const LENGTH: u64 = 12;
const DATA: u64 = 16;

impl PciDriver {
    fn aim(&self, bar: u64, offset: u64, length: u64) {
        self.config_write(self.access.at + BAR, 1, bar);
        self.config_write(self.access.at + OFFSET, 4, offset);
        self.config_write(self.access.at + LENGTH, 4, length);
    }

    fn through(&self, offset: u64, len: usize) -> u64 {
        self.aim(0, offset, len as u64);
        self.config_read(self.access.at + DATA, len)
    }

    fn put_through(&self, offset: u64, len: usize, value: u64) {
        self.aim(0, offset, len as u64);
        self.config_write(self.access.at + DATA, len, value);
    }
}

/// 4.1.4.9.1, first and second paragraph, in each width, with the BAR on and off: it is not needed for this.
#[test]
fn the_bar_is_read_and_written_through_configuration_space() {
    for command in [MEMORY | BUS_MASTER, BUS_MASTER, 0] {
        let toy = probe(Toy::new().0);
        let common = toy.common.offset;
        toy.set_command(command);
        for status in [1, 3] {
            toy.put_through(common + 0x14, 1, status);
            assert_eq!(toy.through(common + 0x14, 1), status);
        }
        toy.put_through(common + 0x16, 2, 1);
        assert_eq!((toy.through(common + 0x16, 2), toy.through(common + 0x18, 2)), (1, 8));
        toy.put_through(common, 4, 1);
        assert_eq!(toy.through(common + 4, 4), 0b11);
        assert_eq!(toy.through(toy.config.unwrap().offset + 4, 4), 0x0807_0605);
        // MSI-X' table is in the BAR, too (PCI 3.0, 6.8.2).
        toy.put_through(toy.table + 8, 4, 0x1234_5678);
        assert_eq!(toy.through(toy.table + 8, 4), 0x1234_5678);
        toy.set_command(MEMORY);
        assert_eq!((toy.get(0x14, 1), toy.get(0x16, 2), toy.get(0x00, 4)), (3, 1, 1));
        assert_eq!(toy.read(toy.table + 8, 4), 0x1234_5678);
    }
}

/// 4.1.4.9.1: "using the first cap.length bytes from pci_cfg_data", "store the first cap.length bytes in pci_cfg_data":
/// the length is the capability's, whatever the width with which the driver reaches the data.
#[test]
fn the_length_of_the_access_is_the_capabilitys() {
    let toy = probe(Toy::new().0);
    let (common, data) = (toy.common.offset, toy.access.at + DATA);
    toy.aim(0, toy.config.unwrap().offset, 1);
    toy.config_write(data, 4, 0);
    assert_eq!(toy.config_read(data, 4) & 0xff, 1);
    toy.aim(0, toy.config.unwrap().offset + 2, 2);
    assert_eq!(toy.config_read(data, 4) & 0xffff, 0x0403);
    toy.aim(0, common + 0x14, 1);
    toy.config_write(data, 4, 0xffff_ff01);
    assert_eq!(toy.get(0x14, 1), 1);
    toy.config_write(data, 2, 0x0003);
    assert_eq!(toy.get(0x14, 1), 3);
    toy.aim(0, common + 0x16, 2);
    toy.config_write(data, 4, 0xffff_0001);
    assert_eq!(toy.get(0x16, 2), 1);
    // Narrower: the bytes that are not written are those that stand there.
    toy.aim(0, common + 0x08, 4);
    toy.config_write(data, 4, 0x1111_2222);
    toy.config_write(data, 2, 0x3333);
    assert_eq!(toy.get(0x08, 4), 0x1111_3333);
    toy.config_write(data + 2, 2, 0x4444);
    assert_eq!(toy.get(0x08, 4), 0x4444_3333);
    assert_eq!((toy.config_read(data, 1), toy.config_read(data + 3, 1)), (0x33, 0x44));
}

/// Reading executes the read each time: ISR status is cleared by it (4.1.4.5).
#[test]
fn a_read_has_the_effects_of_a_read() {
    let mut bench = Bench::<PciIntx>::started();
    bench.request(0);
    let driver = bench.transport.0.clone();
    assert!(driver.slot().pin());
    assert_eq!(driver.through(driver.isr.offset, 1), 1);
    assert!(!driver.slot().pin());
    assert_eq!(driver.through(driver.isr.offset, 1), 0);
    // Reading another register of configuration space is no access.
    bench.request(0);
    driver.aim(0, driver.isr.offset, 1);
    (0..0x40)
        .filter(|at| *at != (driver.access.at + DATA) / 4)
        .for_each(|at| _ = driver.config_read(4 * at, 4));
    assert!(driver.slot().pin());
    assert_eq!(driver.config_read(driver.access.at + DATA, 1), 1);
}

/// Queues work through it, notifications too.
#[test]
fn a_queue_is_notified_through_configuration_space() {
    let mut bench = Bench::<PciMsix>::started();
    bench.drivers[1].request(&[], &[4]);
    let driver = bench.transport.0.clone();
    let offset = driver.notify_offset(1);
    driver.put_through(offset, 2, 1);
    bench.events.run();
    assert_eq!(bench.drivers[1].take_used(), [(0, 4)]);
    assert_eq!(driver.take_messages(), [0, 1, 0]);
}

/// 4.1.4.9.2: what a driver must not ask for reaches nothing; the data is then four bytes that can be written.
#[test]
fn an_access_that_is_not_allowed_reaches_nothing() {
    let toy = probe(Toy::new().0);
    let status = toy.common.offset + 0x14;
    toy.set(0x14, 1, 1);
    let bars = [1, 2, 3, 4, 5, 6, 0x80, 0xff].map(|bar| (bar, status, 1));
    let lengths = [0, 3, 5, 8, 0x101, 0x8000_0001, 0xffff_ffff].map(|length| (0, status, length));
    let misaligned = [(0, toy.common.offset + 0x15, 2), (0, toy.common.offset + 0x16, 4)];
    let outside = [(0, 0x8000 + status, 1), (0, 0x1_0000, 4), (0, 0xffff_fffc, 4), (0, 0xffff_ffff, 1)];
    for (bar, offset, length) in bars.into_iter().chain(lengths).chain(misaligned).chain(outside) {
        toy.aim(bar, offset, length);
        toy.config_write(toy.access.at + DATA, 4, 0x0303_0303);
        toy.config_write(toy.access.at + DATA, 1, 3);
        assert_eq!(toy.get(0x14, 1), 1, "{bar} {offset:#x} {length:#x}");
        assert_eq!(toy.get(0x16, 2), 0);
        let read = toy.config_read(toy.access.at + DATA, 4);
        assert!([0x0303_0303, 0x0303_0300, 0x0303_0000, 0].contains(&read), "{read:#x}");
    }
}

/// The configuration space of the device answers in any width (4.1.4.6), and is not reached in a width or at an offset
/// that this capability does not have.
#[test]
fn lengths_are_1_2_and_4_and_offsets_their_multiples() {
    let toy = probe(Toy::new().0);
    let (config, data) = (toy.config.unwrap().offset, toy.access.at + DATA);
    for length in 0..=8 {
        for offset in config..config + 5 {
            toy.aim(0, offset, length);
            toy.config_write(data, 4, 0xaaaa_aaaa);
            let executed = [1, 2, 4].contains(&length) && offset % length == 0;
            assert_eq!(toy.config_read(data, 4) != 0xaaaa_aaaa, executed, "{length} at {offset:#x}");
        }
    }
}
