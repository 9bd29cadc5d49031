// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Vectors (virtio 1.3, 4.1.5.1.2, 4.1.5.3, 4.1.5.4). The table itself is tested in `pci/msix`.

use super::*;
use crate::pci::Message;
use crate::pool::{Reason, Structure as Refused};

/// config_msix_vector, queue_msix_vector (4.1.4.3).
const CONFIG_VECTOR: u64 = 0x10;
const QUEUE_VECTOR: u64 = 0x1a;
const NONE: u64 = 0xffff;

impl PciDriver {
    fn map(&self, queue: u16, vector: u64) -> u64 {
        self.select(queue);
        self.set(QUEUE_VECTOR, 2, vector);
        self.get(QUEUE_VECTOR, 2)
    }

    fn map_config(&self, vector: u64) -> u64 {
        self.set(CONFIG_VECTOR, 2, vector);
        self.get(CONFIG_VECTOR, 2)
    }
}

impl Bench<PciMsix> {
    /// A chain that is refused.
    fn break_device(&mut self) {
        self.drivers[0].offer(0xffff);
        self.notify(0);
        assert_eq!(self.status(), 15 | 64);
    }
}

/// 4.1.5.1.2.1: "MUST support mapping any event type to any valid vector 0 to MSI-X Table Size", "MUST support unmapping
/// any event type", "MUST report mapping failures by returning the NO_VECTOR value".
#[test]
fn any_event_can_have_any_vector_or_none() {
    let bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    for vector in [0, 1, 2, NONE, 2] {
        assert_eq!(driver.map_config(vector), vector);
        assert_eq!((driver.map(0, vector), driver.map(1, 2 - vector.min(2))), (vector, 2 - vector.min(2)));
        driver.select(0);
        assert_eq!(driver.get(QUEUE_VECTOR, 2), vector, "each queue has its own");
    }
    for vector in [3, 4, 0x7ff, 0x800, 0xfffe] {
        assert_eq!((driver.map_config(1), driver.map_config(vector)), (1, NONE));
        assert_eq!((driver.map(0, 1), driver.map(0, vector)), (1, NONE));
    }
    // No such queue.
    for queue in [2, 0xffff] {
        assert_eq!(driver.map(queue, 1), NONE);
    }
    assert_eq!((driver.map(0, 0), driver.map(1, 1), driver.map_config(2)), (0, 1, 2));
    // Unmapped at first, and upon reset.
    let fresh = probe(Toy::new().0);
    assert_eq!((fresh.get(CONFIG_VECTOR, 2), fresh.get(QUEUE_VECTOR, 2)), (NONE, NONE));
    bench.transport.set_status(0);
    driver.select(0);
    assert_eq!((driver.get(CONFIG_VECTOR, 2), driver.get(QUEUE_VECTOR, 2)), (NONE, NONE));
    driver.select(1);
    assert_eq!(driver.get(QUEUE_VECTOR, 2), NONE);
}

/// 4.1.5.3.1, 4.1.5.4.1: the message is that of the event's vector; with NO_VECTOR "the device MUST NOT deliver an
/// interrupt".
#[test]
fn an_event_sends_the_message_of_its_vector() {
    let mut bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    for (vectors, expected) in [
        ([0, 1], [1, 1, 0]),
        ([2, 0], [1, 0, 1]),
        ([1, 1], [0, 2, 0]),
        ([NONE, 2], [0, 0, 1]),
        ([NONE, NONE], [0, 0, 0]),
    ] {
        for (queue, vector) in (0u16..).zip(vectors) {
            driver.map(queue, vector);
            assert_eq!(bench.request(queue).len(), 1);
        }
        assert_eq!(driver.take_messages(), expected, "{vectors:?}");
    }
    for (vector, expected) in [(0, [1, 0, 0]), (NONE, [0; 3]), (2, [0, 0, 1])] {
        bench.restart(15);
        [0, 1].into_iter().for_each(|queue| _ = driver.map(queue, NONE));
        driver.map_config(vector);
        bench.break_device();
        assert_eq!(driver.take_messages(), expected, "{vector:#x}");
        assert_eq!(driver.read(driver.isr.offset, 1), 2, "4.1.4.5.1: before the notification");
    }
}

/// PCI 3.0, 6.8.3.5, with a device behind the vectors.
#[test]
fn a_masked_vector_sends_its_message_when_it_is_unmasked() {
    let mut bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    driver.set_mask(1, true);
    for _ in 0..3 {
        assert_eq!(bench.request(1).len(), 1, "the queue is served");
    }
    bench.request(0);
    assert_eq!((driver.take_messages(), driver.pending_bits()), (vec![1, 0, 0], 0b10));
    for (offset, len) in [(driver.pending, 4), (driver.pending, 8), (driver.pending, 1)] {
        driver.write(offset, len, u64::MAX);
        driver.write(offset, len, 0);
    }
    assert_eq!(driver.pending_bits(), 0b10, "6.8.2.10: read-only");
    driver.set_mask(1, false);
    assert_eq!((driver.take_messages(), driver.pending_bits()), (vec![0, 1, 0], 0));
    driver.set_msix(MSIX_ENABLE | FUNCTION_MASK);
    bench.request(0);
    bench.request(1);
    assert_eq!((driver.take_messages(), driver.pending_bits()), (vec![0; 3], 0b11));
    driver.set_msix(MSIX_ENABLE);
    assert_eq!((driver.take_messages(), driver.pending_bits()), (vec![1, 1, 0], 0));
    // A device reset: nothing is due any more. PCI's registers are not the device's: masks and messages stay.
    driver.set_mask(1, true);
    bench.request(1);
    bench.transport.set_status(0);
    assert_eq!(driver.pending_bits(), 0);
    assert_eq!((driver.read(driver.table + 16 + 12, 4), driver.read(driver.table + 16, 4)), (1, 0xfee0_0000));
    driver.set_mask(1, false);
    assert_eq!(driver.take_messages(), [0; 3]);
}

/// A driver moves a vector to another CPU while the queue runs, as Linux does: mask, write, unmask.
#[test]
fn a_vector_is_reassigned_while_its_queue_runs() {
    let mut bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    let message = |address, data| (0, Message { address, data });
    driver.slot().take();
    for (address, data) in [(0xfee0_1000, 0x41), (0xfee0_2000, 0x41), (0xfee0_2000, 0x42)] {
        driver.set_mask(0, true);
        bench.request(0);
        driver.set_entry(0, address, data.into(), true);
        assert_eq!(driver.slot().take_routes(), []);
        driver.set_mask(0, false);
        assert_eq!(driver.slot().take_routes(), [message(address, data)]);
        assert_eq!(driver.take_messages(), [1, 0, 0]);
        bench.request(0);
        assert_eq!((driver.take_messages(), driver.slot().take()), (vec![1, 0, 0], vec![]));
    }
    // 8 bytes at once.
    driver.set_mask(0, true);
    driver.write(driver.table, 8, 0xfee0_3000);
    driver.write(driver.table + 8, 8, 0x43);
    assert_eq!(driver.slot().take_routes(), [message(0xfee0_3000, 0x43)]);
}

/// The capability's other bits are read-only (6.8.2.3), and the routes of vectors that are masked are not told.
#[test]
fn message_control_enables() {
    let toy = probe(Toy::new().0);
    toy.set_msix(0xffff);
    assert_eq!(toy.config_read(toy.msix + 2, 2), 0xc002);
    toy.set_entry(0, 0xfee0_0000, 5, false);
    toy.set_entry(1, 0xfee0_0000, 6, true);
    assert_eq!(toy.slot().take_routes(), []);
    toy.set_msix(MSIX_ENABLE);
    assert_eq!(toy.config_read(toy.msix + 2, 2), 0x8002);
    assert_eq!(toy.slot().take_routes(), [(0, Message { address: 0xfee0_0000, data: 5 })]);
    toy.set_msix(0);
    assert_eq!(toy.config_read(toy.msix + 2, 2), 2);
    assert_eq!(toy.slot().take_routes(), []);
}

/// A message is a write to memory, and this one goes elsewhere: refused when it takes effect, recorded, the device is
/// stopped; after a reset and with a right address it works again.
#[test]
fn a_message_to_another_place_stops_the_device() {
    type Effect = fn(&PciDriver);
    let effects: [(&str, Effect); 4] = [
        ("unmasked", |driver| driver.set_mask(1, false)),
        ("function unmasked", |driver| {
            driver.set_msix(MSIX_ENABLE | FUNCTION_MASK);
            driver.set_mask(1, false);
            driver.set_msix(MSIX_ENABLE);
        }),
        ("enabled", |driver| {
            driver.set_msix(0);
            driver.set_mask(1, false);
            driver.set_msix(MSIX_ENABLE);
        }),
        ("bus master", |driver| {
            driver.set_command(MEMORY);
            driver.set_mask(1, false);
            driver.set_command(MEMORY | BUS_MASTER);
        }),
    ];
    for (name, effect) in effects {
        for address in [0x1000, crate::testing::BASE, 0xfef0_0000, 0x1_fee0_0000] {
            let mut bench = Bench::<PciMsix>::started();
            let driver = bench.transport.0.clone();
            driver.set_mask(1, true);
            driver.set_entry(1, address, 0x55, true);
            assert_eq!((bench.status(), bench.refusals().total), (15, 0), "{name}: nothing yet");
            driver.slot().take();
            effect(&driver);
            let refusal = Refusal {
                queue: 1,
                structure: Refused::Message,
                address,
                length: 4,
                reason: Reason::NoInterrupt,
            };
            assert_eq!(bench.refusals().first, [(refusal, 1)], "{name}");
            assert_eq!(bench.status(), 15 | 64);
            // The notification, by the vector that is right (2.1.2).
            assert_eq!(driver.take_messages(), [0, 0, 1], "{name}");
            assert!(driver.slot().take_routes().iter().all(|(vector, _)| *vector != 1));
            // It took effect once. What has nothing to do with it does not repeat that.
            driver.config_write(0x3c, 1, 7);
            assert_eq!((bench.refusals().total, driver.take_messages()), (1, vec![0; 3]), "{name}");
            assert_eq!((bench.request(0), bench.request(1)), (vec![], vec![]));
            driver.set_mask(1, true);
            driver.set_entry(1, 0xfee0_1000, 0x55, false);
            assert_eq!(bench.status(), 15 | 64, "{name}: until the reset");
            bench.assert_works_after_reset();
            assert_eq!(bench.refusals().total, 1);
        }
    }
}

/// A driver that leaves a wrong entry as it is over a reset is told again (virtio 1.3, 2.1.2): silence would lose interrupts.
#[test]
fn a_wrong_message_is_refused_again_after_a_reset() {
    let mut bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    driver.set_mask(1, true);
    driver.set_entry(1, 0x1000, 0x55, true);
    driver.set_mask(1, false);
    assert_eq!(bench.refusals().total, 1);
    bench.transport.reset();
    bench.initialise(11);
    bench.transport.set_status(15);
    assert_eq!(bench.transport.status(), 15 | 64);
    assert_eq!(bench.refusals().total, 2);
    // It can be mended while the device needs a reset, and then all is well.
    driver.set_entry(1, 0xfee0_0000, 0x55, true);
    bench.transport.reset();
    bench.initialise(15);
    assert_eq!(bench.transport.status(), 15);
    assert_eq!(bench.refusals().total, 2);
}

/// The registers that select what others mean are as at the start after a reset.
#[test]
fn a_reset_clears_the_selectors() {
    let bench = Bench::<PciMsix>::started();
    let driver = bench.transport.0.clone();
    for (offset, width) in [(0, 4), (8, 4), (0x16, 2)] {
        driver.set(offset, width, 1);
    }
    bench.transport.set_status(0);
    for (offset, width) in [(0, 4), (8, 4), (0x16, 2)] {
        assert_eq!(driver.get(offset, width), 0, "{offset:#x}");
    }
}
