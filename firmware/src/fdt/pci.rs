// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The PCI host bridge (dt-schema, pci/host-generic-pci.yaml; PCI Bus Binding to IEEE Std 1275, revision 2.1).
//!
//! Linux on x86 finds the bus through the configuration ports, takes this node for its bridge by `device_type` and
//! `bus-range`, and the children for its functions by their `reg`.

use vm_fdt::FdtWriter;

use super::{LEVEL_LOW, PHANDLE_IO_APIC, Result, memory_region, node_name, reg};
use crate::{Interrupt, Machine, PciHost, Range, Transport};

/// First cell of an address on the bus: the address space.
const MEMORY_32: u32 = 0b10 << 24;
const MEMORY_64: u32 = 0b11 << 24;

/// The bits of an address that `interrupt-map` is looked up by: the device number. And those of an interrupt pin.
const MASK_DEVICE: u32 = 0xf800;
const MASK_PIN: u32 = 7;

pub(super) fn host_bridge(fdt: &mut FdtWriter, machine: &Machine, host: &PciHost) -> Result {
    let node = fdt.begin_node(&node_name("pci", host.ecam))?;
    fdt.property_string("compatible", "pci-host-ecam-generic")?;
    fdt.property_string("device_type", "pci")?;
    reg(fdt, host.ecam)?;
    fdt.property_array_u32("bus-range", &[0, 0])?;
    fdt.property_u32("#address-cells", 3)?;
    fdt.property_u32("#size-cells", 2)?;
    ranges(fdt, host.memory)?;
    let interrupt_map = interrupt_map(machine, host);
    if !interrupt_map.is_empty() {
        fdt.property_u32("#interrupt-cells", 1)?;
        fdt.property_array_u32("interrupt-map-mask", &[MASK_DEVICE, 0, 0, MASK_PIN])?;
        fdt.property_array_u32("interrupt-map", &interrupt_map)?;
    }
    fdt.property_null("dma-coherent")?;
    functions(fdt, machine)?;
    fdt.end_node(node)
}

/// One memory window, not prefetchable; addresses on the bus are those of the CPU.
fn ranges(fdt: &mut FdtWriter, memory: Range) -> Result {
    let space = if u32::try_from(memory.last()).is_ok() { MEMORY_32 } else { MEMORY_64 };
    let [base, size] = [memory.base(), memory.size()].map(cells);
    fdt.property_array_u32("ranges", &[space, base[0], base[1], base[0], base[1], size[0], size[1]])
}

/// Each pin of each device that there is. The I/O APIC has no `#address-cells`, so no unit address comes before its
/// interrupt.
fn interrupt_map(machine: &Machine, host: &PciHost) -> Vec<u32> {
    let mut map = Vec::new();
    for virtio in &machine.virtio {
        let Transport::Pci { device, .. } = virtio.transport else { continue };
        for pin in 0..4 {
            let Interrupt(line) = host.interrupt(device, pin);
            map.extend([address(device), 0, 0, u32::from(pin) + 1, PHANDLE_IO_APIC, line, LEVEL_LOW]);
        }
    }
    map
}

fn functions(fdt: &mut FdtWriter, machine: &Machine) -> Result {
    for virtio in &machine.virtio {
        let Transport::Pci { device, .. } = virtio.transport else { continue };
        let node = fdt.begin_node(&format!("virtio@{device:x},0"))?;
        fdt.property_array_u32("reg", &[address(device), 0, 0, 0, 0])?;
        memory_region(fdt, virtio)?;
        fdt.end_node(node)?;
    }
    Ok(())
}

/// First cell of the address of configuration space: bus 0, the device, function 0.
fn address(device: u8) -> u32 {
    u32::from(device) << 11
}

/// A number in two cells.
fn cells(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}
