// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Differentiated System Description Table (ACPI 6.5, 5.2.11.1): the devices.

use acpi_tables::Aml;
use acpi_tables::aml::{AddressSpaceCacheable, EISAName, ONE, Package, Path, Scope};
use acpi_tables::sdt::Sdt;

use super::objects::{consumed, crs, device, dsd, edge, memory_region, name, pool_name, window};
use super::{Error, OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes, fixed, pci};
use crate::{DMA_DEFAULT, Machine, PoolId, Transport};

/// Integers have 64 bits from this revision on (ACPI 6.5, 5.2.11.1).
const REVISION: u8 = 2;

/// The DSDT.
pub(super) fn dsdt(machine: &Machine) -> Result<Vec<u8>, Error> {
    let mut devices = Vec::new();
    processors(machine, &mut devices);
    pools(machine, &mut devices);
    system_devices(machine, &mut devices);
    // In the order of the command line: Linux probes in this order.
    virtio_mmio_devices(machine, &mut devices);
    if let Some(host) = &machine.pci {
        pci::reserved(host).to_aml_bytes(&mut devices);
        pci::root(machine, host)?.to_aml_bytes(&mut devices);
    }

    let mut table = Sdt::new(*b"DSDT", 36, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&Scope::raw(Path::new("\\_SB_"), devices));
    table.append_slice(&bytes(&sleep_type(machine)));
    Ok(bytes(&table))
}

/// `\_S5` (ACPI 6.5, 7.4.2): what to write to the sleep control register for power off. The second is that of PM1b, for
/// which hardware-reduced ACPI has no use.
fn sleep_type(machine: &Machine) -> impl Aml {
    let off = machine.system.sleep.type_off;
    name("\\_S5_", &Package::new(vec![&off, &off]))
}

fn processors(machine: &Machine, devices: &mut Vec<u8>) {
    for (index, apic_id) in machine.cpus.iter().enumerate() {
        let children: [&dyn Aml; 2] = [&name("_HID", &"ACPI0007"), &name("_UID", &fixed::uid(*apic_id))];
        device(&format!("C{index:03X}"), &children).to_aml_bytes(devices);
    }
}

/// Each pool is an object that Linux matches by the `compatible` of the device tree (ACPI 6.5 has no identifier for such
/// memory; PRP0001: Linux, Documentation/firmware-guide/acpi/enumeration).
fn pools(machine: &Machine, devices: &mut Vec<u8>) {
    for (index, pool) in (0..).zip(&machine.pools) {
        let memory = consumed(pool.range, AddressSpaceCacheable::Cacheable);
        let compatible = ("compatible", &"restricted-dma-pool" as &dyn Aml);
        let properties = match pool.dma_default {
            true => dsd(&[compatible, (DMA_DEFAULT, &ONE)]),
            false => dsd(&[compatible]),
        };
        device(
            &pool_name(PoolId(index)),
            &[&name("_HID", &"PRP0001"), &name("_UID", &index), &crs(&[&memory]), &properties],
        )
        .to_aml_bytes(devices);
    }
}

fn system_devices(machine: &Machine, devices: &mut Vec<u8>) {
    let (registers, interrupt) = machine.system.uart;
    let uart = crs(&[&window(registers), &edge(interrupt)]);
    device("COM1", &[&name("_HID", &EISAName::new("PNP0501")), &name("_UID", &0u8), &uart])
        .to_aml_bytes(devices);

    // QEMU, docs/specs/pvpanic.rst.
    let pvpanic = crs(&[&window(machine.system.pvpanic)]);
    device("PEVT", &[&name("_HID", &"QEMU0001"), &name("_UID", &0u8), &pvpanic]).to_aml_bytes(devices);
}

fn virtio_mmio_devices(machine: &Machine, devices: &mut Vec<u8>) {
    for (index, virtio) in machine.virtio.iter().enumerate() {
        let Transport::Mmio { window: registers, interrupt } = virtio.transport else { continue };
        let ids = [name("_HID", &"LNRO0005"), name("_UID", &index), name("_CCA", &ONE)];
        let resources = crs(&[&window(registers), &edge(interrupt)]);
        let binding = memory_region(virtio);
        let mut children: Vec<&dyn Aml> = ids.iter().map(|id| id as &dyn Aml).collect();
        children.push(&resources);
        children.extend(binding.iter().map(|binding| binding as &dyn Aml));
        device(&format!("V{index:03X}"), &children).to_aml_bytes(devices);
    }
}
