// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices with a register window.

use std::collections::HashSet;

use cvmm_firmware::{Interrupt, Machine, Range, Transport};
use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};

use crate::tree::{cell, cells, compatible, flag, has_exactly, names_pool, nodes, reg, regs, strings, the};

/// Second cell of an interrupt of an `intel,ce4100-ioapic`, from Linux' arch/x86/kernel/devicetree.c: 0 edge falling,
/// 1 level high, 2 level low, 3 edge rising.
const EDGE_RISING: u32 = 3;

/// virtio/mmio.yaml: compatible, one register window, one interrupt.
///
/// That schema names no `memory-region`; memory-region.yaml, which holds for every node, does.
pub fn virtio_mmio_devices(fdt: &Fdt, machine: &Machine) {
    let nodes = compatible(fdt, "virtio,mmio");
    let devices = on_mmio(machine);
    assert_eq!(nodes.len(), devices.len());
    for (node, (window, interrupt)) in nodes.iter().zip(devices) {
        let usual = ["compatible", "dma-coherent", "interrupts", "reg"];
        match names_pool(node) {
            true => has_exactly(node, &[&usual[..], &["memory-region"]].concat()),
            false => has_exactly(node, &usual),
        }
        assert_eq!(node.name_without_address(), "virtio");
        assert_eq!(strings(node, "compatible"), ["virtio,mmio"]);
        assert!(flag(node, "dma-coherent"), "dma-coherent has no value");
        assert_eq!(reg(node), window);
        assert_interrupt(node, interrupt);
    }
}

/// Linux probes in the order of the blob: /dev/vda is the command line's first disk.
pub fn virtio_mmio_devices_keep_their_order(fdt: &Fdt, machine: &Machine) {
    let described: Vec<_> = compatible(fdt, "virtio,mmio").iter().map(reg).collect();
    let windows: Vec<_> = on_mmio(machine).into_iter().map(|(window, _)| window).collect();
    assert_eq!(described, windows);
}

fn on_mmio(machine: &Machine) -> Vec<(Range, Interrupt)> {
    let transports = machine.virtio.iter().map(|device| device.transport);
    transports
        .filter_map(|transport| match transport {
            Transport::Mmio { window, interrupt } => Some((window, interrupt)),
            Transport::Pci { .. } => None,
        })
        .collect()
}

/// serial/8250.yaml for an `ns16550a`: reg and interrupts, and a clock that is known.
pub fn uart(fdt: &Fdt, machine: &Machine) {
    let (window, interrupt) = machine.system.uart;
    let node = the(fdt, "ns16550a");
    has_exactly(&node, &["clock-frequency", "compatible", "interrupts", "reg"]);
    assert_eq!(node.name_without_address(), "serial");
    assert_eq!(strings(&node, "compatible"), ["ns16550a"]);
    assert_eq!(reg(&node), window);
    assert_interrupt(&node, interrupt);
    assert_eq!(cell(&node, "clock-frequency"), 115_200 * 16, "the clock of a PC's UART");
}

/// qemu,pvpanic-mmio.yaml: compatible and one window of 2 bytes (event register, reserved), nothing else.
pub fn pvpanic(fdt: &Fdt, machine: &Machine) {
    let node = the(fdt, "qemu,pvpanic-mmio");
    has_exactly(&node, &["compatible", "reg"]);
    assert_eq!(strings(&node, "compatible"), ["qemu,pvpanic-mmio"]);
    assert_eq!(reg(&node), machine.system.pvpanic);
}

/// Interrupts are edge-triggered, so no two devices can share a pin, nor have one of PCI's; and the I/O APIC has the pin.
pub fn every_interrupt_is_a_pin_of_its_own(fdt: &Fdt, machine: &Machine) {
    let mut pins = HashSet::new();
    for (path, node) in nodes(fdt) {
        if node.property("interrupts").is_some() {
            let [pin, _] = cells(&node, "interrupts");
            assert!(pin < machine.io_apic.pins, "{path}: the I/O APIC has no pin {pin}");
            assert!(pins.insert(pin), "{path}: pin {pin} is another device's");
        }
    }
    assert_eq!(pins.len(), on_mmio(machine).len() + 1, "devices with an interrupt of their own");
    for host in compatible(fdt, "pci-host-ecam-generic") {
        for route in crate::tree::routes(&host) {
            assert!(route.pin_of_io_apic < machine.io_apic.pins, "{route:?}: the I/O APIC has no such pin");
            assert!(!pins.contains(&route.pin_of_io_apic), "{route:?}: another device's");
        }
    }
}

/// No two windows share a byte, those behind the PCI host bridge included, and none is in memory.
pub fn windows_are_apart(fdt: &Fdt, _: &Machine) {
    let mut ranges = Vec::new();
    for node in fdt.root().children() {
        let behind = node.property("ranges").map(|_| crate::tree::bridged(&node)).unwrap_or_default();
        for range in regs(&node).into_iter().chain(behind.into_iter().map(|(_, range)| range)) {
            for (other, of_other) in &ranges {
                assert!(!range.overlaps(other), "{} and {of_other} overlap", node.name());
            }
            ranges.push((range, node.name().to_owned()));
        }
    }
}

fn assert_interrupt(node: &FdtNode, Interrupt(pin): Interrupt) {
    assert_eq!(cells(node, "interrupts"), [pin, EDGE_RISING], "interrupts of {}", node.name());
}
