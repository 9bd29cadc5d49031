// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The PCI host bridge and the functions behind it.

use cvmm_firmware::{Machine, Transport};
use dtoolkit::Node;
use dtoolkit::fdt::{Fdt, FdtNode};

use crate::tree::{
    at, bridged, cell, cells, compatible, flag, function, has_exactly, has_exactly_properties, names_pool,
    reg, routes, string, strings, the,
};

/// Second cell of an interrupt of an `intel,ce4100-ioapic`, from Linux' arch/x86/kernel/devicetree.c.
const LEVEL_LOW: u32 = 2;

/// pci/host-generic-pci.yaml, and what Linux on x86 looks for: `device_type` and the first bus of `bus-range`. There is one
/// bridge where the machine has one.
pub fn host_bridge(fdt: &Fdt, machine: &Machine) {
    let Some(node) = bridge(fdt, machine) else { return };
    assert_eq!(node.name_without_address(), "pci");
    assert_eq!(strings(&node, "compatible"), ["pci-host-ecam-generic"]);
    assert_eq!(string(&node, "device_type"), "pci");
    assert_eq!(Some(reg(&node)), machine.pci.map(|host| host.ecam));
    assert_eq!(cells(&node, "bus-range"), [0, 0]);
    assert_eq!((cell(&node, "#address-cells"), cell(&node, "#size-cells")), (3, 2));
    assert!(flag(&node, "dma-coherent"), "dma-coherent has no value");
    let mut properties = vec![
        "#address-cells",
        "#size-cells",
        "bus-range",
        "compatible",
        "device_type",
        "dma-coherent",
        "ranges",
        "reg",
    ];
    if node.children().count() > 0 {
        properties.extend(["#interrupt-cells", "interrupt-map", "interrupt-map-mask"]);
    }
    has_exactly_properties(&node, &properties);
}

/// pci/host-generic-pci.yaml: `ranges` must have memory that is not prefetchable. The code of its address space says with
/// how many bits it is reached (PCI Bus Binding, 2.2.1.1).
pub fn memory_window(fdt: &Fdt, machine: &Machine) {
    let (Some(node), Some(host)) = (bridge(fdt, machine), machine.pci) else { return };
    let space = if host.memory.end() > 1 << 32 { 0x0300_0000 } else { 0x0200_0000 };
    assert_eq!(bridged(&node), [(space, host.memory)]);
}

/// Each of the four pins of each device leads to one pin of the I/O APIC: the one that the machine says; level-triggered,
/// active low.
pub fn interrupts(fdt: &Fdt, machine: &Machine) {
    let (Some(node), Some(host)) = (bridge(fdt, machine), machine.pci) else { return };
    let mut wanted = Vec::new();
    for number in numbers(machine) {
        wanted
            .extend((0..4).map(|pin| (u32::from(number), u32::from(pin) + 1, host.interrupt(number, pin).0)));
    }
    let routes = routes(&node);
    let described: Vec<_> = routes.iter().map(|to| (to.device, to.pin, to.pin_of_io_apic)).collect();
    assert_eq!(described, wanted);
    if routes.is_empty() {
        return;
    }
    assert_eq!(cell(&node, "#interrupt-cells"), 1);
    assert_eq!(cells(&node, "interrupt-map-mask"), [0xf800, 0, 0, 7]);
    let io_apic = the(fdt, "intel,ce4100-ioapic");
    for route in routes {
        assert_eq!(route.controller, cell(&io_apic, "phandle"), "{route:?}");
        assert_eq!(route.trigger, LEVEL_LOW, "{route:?}");
    }
    // What an entry has after the phandle: a unit address, of which there is none without this property, and an interrupt.
    assert!(io_apic.property("#address-cells").is_none());
    assert_eq!(cell(&io_apic, "#interrupt-cells"), 2);
}

/// pci/pci-device.yaml: each virtio-pci function has a node, with its unit address, in the order of the command line.
/// Linux binds it by `reg`.
pub fn functions(fdt: &Fdt, machine: &Machine) {
    let Some(node) = bridge(fdt, machine) else { return };
    let functions: Vec<_> = node.children().collect();
    for node in &functions {
        match names_pool(node) {
            true => has_exactly(node, &["memory-region", "reg"]),
            false => has_exactly(node, &["reg"]),
        }
        let (device, function) = function(node);
        assert_eq!(node.name(), format!("virtio@{device:x},{function:x}"));
    }
    let described: Vec<_> = functions.iter().map(function).collect();
    let wanted: Vec<_> = numbers(machine).into_iter().map(|number| (number, 0)).collect();
    assert_eq!(described, wanted);
}

fn numbers(machine: &Machine) -> Vec<u8> {
    let transports = machine.virtio.iter().map(|device| device.transport);
    transports
        .filter_map(|transport| match transport {
            Transport::Pci { device, .. } => Some(device),
            Transport::Mmio { .. } => None,
        })
        .collect()
}

fn bridge<'a>(fdt: &Fdt<'a>, machine: &Machine) -> Option<FdtNode<'a>> {
    let mut found = compatible(fdt, "pci-host-ecam-generic");
    assert_eq!(found.len(), usize::from(machine.pci.is_some()), "PCI host bridges");
    let of_type =
        |node: &FdtNode| node.property("device_type").is_some() && string(node, "device_type") == "pci";
    assert_eq!(at(fdt, "/").children().filter(of_type).count(), found.len(), "nodes of type pci");
    found.pop()
}
