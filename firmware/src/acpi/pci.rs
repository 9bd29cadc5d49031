// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The PCI host bridge and what is behind it (ACPI 6.5, 6.1.1, 6.2.13 and 6.5.5; PCI Firmware Specification 3.3, 4).

use acpi_tables::Aml;
use acpi_tables::aml::{AddressSpace, EISAName, IO, ONE, PackageBuilder, ZERO};

use super::Error;
use super::objects::{Raw, crs, device, memory_region, name, produced, window};
use crate::{Machine, PciHost, Range, Transport};

/// Device numbers of a bus, and interrupt pins of a device.
const DEVICES: u8 = 32;
const PINS: u8 = 4;

/// The host bridge's `_ADR` of a device, and of all its functions.
const ALL_FUNCTIONS: u32 = 0xffff;

/// Motherboard resources that reserve the window of configuration space: Linux does not use one that nothing reserves
/// (PCI Firmware Specification 3.3, 4.1.2).
pub(super) fn reserved(host: &PciHost) -> Raw {
    let reserved = crs(&[&window(host.ecam)]);
    device("MBRD", &[&name("_HID", &EISAName::new("PNP0C02")), &name("_UID", &0u8), &reserved])
}

/// The host bridge.
pub(super) fn root(machine: &Machine, host: &PciHost) -> Result<Raw, Error> {
    let ids = [
        name("_HID", &EISAName::new("PNP0A08")),
        name("_CID", &EISAName::new("PNP0A03")),
        name("_SEG", &ZERO),
        name("_BBN", &ZERO),
        name("_UID", &ZERO),
        name("_CCA", &ONE),
    ];
    let bus = AddressSpace::<u16>::new_bus_number(0, 0);
    let resources = crs(&[&bus, &config_ports(host.config_ports)?, &produced(host.memory)]);
    let routes = routes(host);
    let functions = functions(machine);

    let mut children: Vec<&dyn Aml> = ids.iter().map(|id| id as &dyn Aml).collect();
    children.push(&resources);
    children.push(&routes);
    children.extend(functions.iter().map(|function| function as &dyn Aml));
    Ok(device("PCI0", &children))
}

/// The ports of configuration mechanism #1, which the bridge keeps to itself.
fn config_ports(ports: Range) -> Result<IO, Error> {
    match (u16::try_from(ports.base()), u8::try_from(ports.size()), u16::try_from(ports.last())) {
        (Ok(base), Ok(size), Ok(_)) => Ok(IO::new(base, base, 1, size)),
        _ => Err(Error::ConfigPorts(ports)),
    }
}

/// `_PRT` (ACPI 6.5, 6.2.13): to which global system interrupt each pin of each device leads. Those of PCI are level-
/// triggered and active low, without a word about it.
fn routes(host: &PciHost) -> impl Aml {
    let mut routes = PackageBuilder::new();
    for number in 0..DEVICES {
        for pin in 0..PINS {
            let mut route = PackageBuilder::new();
            route.add_element(&(address(number) | ALL_FUNCTIONS));
            route.add_element(&pin);
            route.add_element(&ZERO);
            route.add_element(&host.interrupt(number, pin).0);
            routes.add_element(&route);
        }
    }
    name("_PRT", &routes)
}

/// An object for each virtio function, with the pool that it names.
fn functions(machine: &Machine) -> Vec<Raw> {
    let mut functions = Vec::new();
    for virtio in &machine.virtio {
        let Transport::Pci { device: number, .. } = virtio.transport else { continue };
        let address = name("_ADR", &address(number));
        let binding = memory_region(virtio);
        let mut children: Vec<&dyn Aml> = vec![&address];
        children.extend(binding.iter().map(|binding| binding as &dyn Aml));
        functions.push(device(&format!("S{number:03X}"), &children));
    }
    functions
}

/// `_ADR` of function 0 of a device (ACPI 6.5, table 6.2).
fn address(number: u8) -> u32 {
    u32::from(number) << 16
}
