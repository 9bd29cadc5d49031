// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! CPUs and interrupt controllers.

use cvmm_firmware::{Machine, Range};
use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};

use crate::tree::{at, cell, flag, has_exactly, reg, string, strings, the};

/// cpus.yaml, cpu.yaml and Linux on x86: `reg` is the local APIC identifier, the boot processor's node comes first.
pub fn cpus(fdt: &Fdt, machine: &Machine) {
    let parent = at(fdt, "/cpus");
    assert_eq!((cell(&parent, "#address-cells"), cell(&parent, "#size-cells")), (1, 0));
    let mut apic_ids = Vec::new();
    for cpu in parent.children() {
        assert_eq!(cpu.name_without_address(), "cpu");
        assert_eq!(string(&cpu, "device_type"), "cpu");
        has_exactly(&cpu, &["device_type", "reg"]);
        apic_ids.push(cell(&cpu, "reg"));
    }
    assert_eq!(apic_ids, machine.cpus);
}

/// intel,ce4100-ioapic.yaml; devices name pin and trigger in two cells.
pub fn io_apic(fdt: &Fdt, machine: &Machine) {
    let node = the(fdt, "intel,ce4100-ioapic");
    interrupt_controller(&node, "intel,ce4100-ioapic", machine.io_apic.window);
    has_exactly(&node, &["#interrupt-cells", "compatible", "interrupt-controller", "reg"]);
    assert_eq!(cell(&at(fdt, "/"), "interrupt-parent"), cell(&node, "phandle"), "whose pins interrupts are");
}

/// intel,ce4100-lapic.yaml; virtual wire mode, as there is no 8259 to switch away from.
pub fn local_apic(fdt: &Fdt, machine: &Machine) {
    let node = the(fdt, "intel,ce4100-lapic");
    interrupt_controller(&node, "intel,ce4100-lapic", machine.local_apic);
    let properties =
        ["#interrupt-cells", "compatible", "intel,virtual-wire-mode", "interrupt-controller", "reg"];
    has_exactly(&node, &properties);
    assert!(flag(&node, "intel,virtual-wire-mode"), "intel,virtual-wire-mode has no value");
}

fn interrupt_controller(node: &FdtNode, compatible: &str, window: Range) {
    assert_eq!(node.name_without_address(), "interrupt-controller");
    assert_eq!(strings(node, "compatible"), [compatible]);
    assert!(flag(node, "interrupt-controller"), "interrupt-controller has no value");
    assert_eq!(cell(node, "#interrupt-cells"), 2);
    assert_eq!(reg(node), window);
}
