// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ISR status and the interrupt pin (virtio 1.3, 4.1.4.5.1; PCI 3.0, 6.2.2 to 6.2.4), and MSI-X in its place.

use super::*;

/// Interrupt Status (PCI 3.0, 6.2.3).
const INTERRUPT_STATUS: u64 = 1 << 3;

impl PciDriver {
    fn isr(&self) -> u64 {
        self.read(self.isr.offset, 1)
    }

    fn interrupt_status(&self) -> bool {
        self.config_read(0x06, 2) & INTERRUPT_STATUS != 0
    }
}

/// "The device MUST set the Interrupt Status bit ... to the logical OR of all bits in ISR status"; "MUST reset ISR status
/// to 0 on driver read"; the read "causes the device to de-assert the interrupt".
#[test]
fn an_event_asserts_the_pin_until_isr_status_is_read() {
    let mut bench = Bench::<PciIntx>::started();
    let driver = bench.transport.0.clone();
    driver.slot().take();
    for queue in [0, 1] {
        assert!(!driver.interrupt_status());
        assert_eq!(bench.request(queue).len(), 1);
        assert_eq!(driver.slot().take(), [Told::Pin(true)]);
        assert!(driver.interrupt_status());
        // A second event while it is asserted changes nothing.
        bench.request(queue);
        assert_eq!(driver.slot().take(), []);
        assert_eq!(driver.isr(), 1);
        assert_eq!(driver.slot().take(), [Told::Pin(false)]);
        assert!(!driver.interrupt_status());
        assert_eq!((driver.isr(), driver.slot().take()), (0, vec![]));
    }
    bench.request(0);
    bench.drivers[1].offer(0xffff);
    bench.notify(1);
    assert_eq!((driver.isr(), driver.isr()), (3, 0));
    assert_eq!(driver.slot().take(), [Told::Pin(true), Told::Pin(false)]);
    assert_eq!(driver.take_messages(), [0; 3]);
}

/// ISR status is one byte: other widths do not read it, and writes do not change it.
#[test]
fn isr_status_is_read_with_one_byte() {
    let mut bench = Bench::<PciIntx>::started();
    bench.request(0);
    let driver = bench.transport.0.clone();
    for (offset, len) in [(0, 2), (0, 4), (0, 8), (1, 1), (4, 1)] {
        assert_eq!(driver.read(driver.isr.offset + offset, len), 0);
        driver.write(driver.isr.offset + offset, len, u64::MAX);
    }
    for value in [0, 1, 2, 0xff] {
        driver.write(driver.isr.offset, 1, value);
    }
    assert!(driver.slot().pin());
    assert_eq!(driver.isr(), 1);
}

/// PCI 3.0, 6.2.2 (Interrupt Disable) and 6.2.3: the Interrupt Status bit does not depend on
/// it.
#[test]
fn interrupt_disable_keeps_the_pin_released() {
    let mut bench = Bench::<PciIntx>::started();
    let driver = bench.transport.0.clone();
    let on = MEMORY | BUS_MASTER;
    driver.slot().take();
    driver.set_command(on | INTERRUPT_DISABLE);
    bench.request(0);
    assert!(!driver.slot().pin() && driver.interrupt_status());
    for _ in 0..2 {
        driver.set_command(on);
        assert!(driver.slot().pin() && driver.interrupt_status());
        driver.set_command(on | INTERRUPT_DISABLE);
        assert!(!driver.slot().pin() && driver.interrupt_status());
    }
    assert_eq!(driver.isr(), 1);
    driver.set_command(on);
    assert!(!driver.slot().pin() && !driver.interrupt_status());
}

/// The pin is no access to memory: neither bus mastering nor memory space matter to it.
#[test]
fn the_pin_stays_asserted_whatever_else_is_off() {
    let mut bench = Bench::<PciIntx>::started();
    let driver = bench.transport.0.clone();
    bench.request(0);
    for command in [BUS_MASTER, MEMORY, 0] {
        driver.set_command(command);
        assert!(driver.slot().pin() && driver.interrupt_status());
    }
    driver.set_command(MEMORY);
    assert_eq!(driver.isr(), 1);
    assert!(!driver.slot().pin());
}

/// A device reset releases the pin.
#[test]
fn a_reset_clears_isr_status() {
    let mut bench = Bench::<PciIntx>::started();
    bench.request(0);
    assert!(bench.transport.0.slot().pin());
    bench.transport.set_status(0);
    assert!(!bench.transport.0.slot().pin() && !bench.transport.0.interrupt_status());
    assert_eq!(bench.transport.0.isr(), 0);
}

/// PCI 3.0, 6.8.2.3: with MSI-X enabled the function does not use its interrupt pin. Virtio 1.3, 4.1.4.5.1:
/// only the configuration bit is set then.
#[test]
fn msix_takes_over_from_the_pin_and_gives_it_back() {
    let mut bench = Bench::<PciIntx>::started();
    let driver = bench.transport.0.clone();
    bench.request(0);
    assert!(driver.slot().pin());
    driver.set_msix(MSIX_ENABLE | FUNCTION_MASK);
    assert!(!driver.slot().pin() && !driver.interrupt_status());
    driver.set_msix(0);
    assert!(driver.slot().pin() && driver.interrupt_status());
    assert_eq!(driver.isr(), 1);
    driver.set_msix(MSIX_ENABLE);
    bench.request(0);
    assert!(!driver.slot().pin() && !driver.interrupt_status());
    assert_eq!(driver.isr(), 0, "no queue bit");
    bench.drivers[0].offer(0xffff);
    bench.notify(0);
    assert!(!driver.slot().pin() && !driver.interrupt_status());
    assert_eq!(driver.isr(), 2, "the configuration bit");
    assert_eq!(driver.take_messages(), [0; 3], "nothing is mapped to a vector");
}

/// Function Mask without Enable means nothing: the pin works.
#[test]
fn a_function_mask_alone_is_not_msix() {
    let mut bench = Bench::<PciIntx>::started();
    bench.transport.0.set_msix(FUNCTION_MASK);
    bench.request(0);
    assert!(bench.transport.0.slot().pin());
}
