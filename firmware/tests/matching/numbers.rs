// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Were a number in one of the two forms another, the comparison would fail; and so it would were there something that a
//! reader does not know.

use std::panic::catch_unwind;

use cvmm_firmware::{
    Binding, Interrupt, Machine, PciHost, PoolId, Range, Transport, acpi_tables, device_tree,
};

use crate::machines::{Buses, Usual};
use crate::{TABLES, agree, check};

/// A machine that has all there is: devices 0, 2 and 4 on mmio, 1, 3 and 5 on PCI.
const ALL: Usual = Usual { buses: Buses::Mixed, of_each: 2, cpus: 3, high_memory: true, pools: 3 };

/// Which form has the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Both,
    Dt,
    Acpi,
}
use In::{Acpi, Both, Dt};

type Change = (&'static str, In, fn(&mut Machine));

/// Changes of one number each.
const CHANGES: &[Change] = &[
    ("base of a pool", Both, |m| m.pools[1].range = base(m.pools[1].range)),
    ("size of a pool", Both, |m| m.pools[1].range = size(m.pools[1].range)),
    ("base of a pool above 4 GiB", Both, |m| m.pools[2].range = base(m.pools[2].range)),
    ("identifier of the boot processor", Both, |m| m.cpus[0] = 7),
    ("identifier of another processor", Both, |m| m.cpus[2] = 7),
    ("order of processors", Both, |m| m.cpus.swap(0, 1)),
    ("base of the local APIC", Both, |m| m.local_apic = base(m.local_apic)),
    ("size of the local APIC", Dt, |m| m.local_apic = size(m.local_apic)),
    ("base of the I/O APIC", Both, |m| m.io_apic.window = base(m.io_apic.window)),
    ("size of the I/O APIC", Dt, |m| m.io_apic.window = size(m.io_apic.window)),
    ("base of the UART", Both, |m| m.system.uart.0 = base(m.system.uart.0)),
    ("size of the UART", Both, |m| m.system.uart.0 = size(m.system.uart.0)),
    ("interrupt of the UART", Both, |m| m.system.uart.1.0 += 32),
    ("base of the power register", Dt, |m| m.system.power = base(m.system.power)),
    ("size of the power register", Dt, |m| m.system.power = size(m.system.power)),
    ("value for power off", Dt, |m| m.system.power_off_value += 1),
    ("value for reset", Dt, |m| m.system.reset_value += 1),
    ("base of the sleep registers", Acpi, |m| m.system.sleep.window = base(m.system.sleep.window)),
    ("sleep type for power off", Acpi, |m| m.system.sleep.type_off += 1),
    ("value for the reset register", Acpi, |m| m.system.sleep.reset_value += 1),
    ("base of pvpanic", Both, |m| m.system.pvpanic = base(m.system.pvpanic)),
    ("size of pvpanic", Both, |m| m.system.pvpanic = size(m.system.pvpanic)),
    ("base of ECAM", Both, |m| pci(m).ecam = Range::fixed(0xe800_0000, 1 << 20)),
    ("configuration ports", Acpi, |m| pci(m).config_ports = Range::fixed(0xcf0, 8)),
    ("number of configuration ports", Acpi, |m| pci(m).config_ports = size(pci(m).config_ports)),
    ("base of PCI memory", Both, |m| pci(m).memory = base(pci(m).memory)),
    ("size of PCI memory", Both, |m| pci(m).memory = Range::fixed(0xc000_0000, 128 << 20)),
    ("PCI memory above 4 GiB", Both, |m| pci(m).memory = Range::fixed(0xc0_0000_0000, 256 << 20)),
    ("line 0", Both, |m| pci(m).lines[0].0 -= 8),
    ("line 1", Both, |m| pci(m).lines[1].0 -= 8),
    ("line 2", Both, |m| pci(m).lines[2].0 -= 8),
    ("line 3", Both, |m| pci(m).lines[3].0 -= 8),
    ("base of a virtio-mmio window", Both, |m| *mmio(m, 2).0 = base(*mmio(m, 2).0)),
    ("size of a virtio-mmio window", Both, |m| *mmio(m, 2).0 = size(*mmio(m, 2).0)),
    ("a virtio-mmio window above 4 GiB", Both, |m| *mmio(m, 2).0 = Range::fixed(0xd0_0000_0000, 0x200)),
    ("interrupt of a virtio-mmio device", Both, |m| mmio(m, 4).1.0 += 32),
    ("pool of a virtio-mmio device", Both, |m| m.virtio[2].pool = other(m.virtio[2].pool)),
    ("a PCI function that names its pool", Both, |m| m.virtio[1].binding = Binding::Reference),
    ("a virtio-mmio device that names its pool", Both, |m| m.virtio[4].binding = Binding::Reference),
    ("the default pool", Both, |m| {
        m.virtio.retain(|device| device.binding == Binding::Reference);
        (m.pools[1].dma_default, m.pools[2].dma_default) = (false, true);
    }),
    ("order of virtio-mmio devices", Both, |m| m.virtio.swap(0, 2)),
    ("pool of a PCI function", Both, |m| m.virtio[3].pool = other(m.virtio[3].pool)),
    ("number of a PCI device", Both, |m| *device(m, 5) = 1),
    ("a virtio-mmio device less", Both, |m| drop(m.virtio.remove(2))),
    ("a PCI device less", Both, |m| drop(m.virtio.remove(1))),
    ("no PCI", Both, |m| {
        m.pci = None;
        m.virtio.retain(|virtio| matches!(virtio.transport, Transport::Mmio { .. }));
    }),
    ("size of memory", Dt, |m| m.memory[0] = size(m.memory[0])),
    ("base of high memory", Dt, |m| m.memory[1] = base(m.memory[1])),
    ("command line", Dt, |m| m.bootargs.push('0')),
];

#[test]
fn every_number_counts() {
    let machine = ALL.machine();
    for (what, place, change) in CHANGES {
        let mut changed = machine.clone();
        change(&mut changed);
        let differs = |dt: &Machine, acpi: &Machine| {
            let blob = device_tree(dt).expect("a device tree");
            let tables = acpi_tables(acpi, TABLES).expect("ACPI tables");
            catch_unwind(|| agree(&machine, &blob, &tables, TABLES)).is_err()
        };
        assert!(!differs(&machine, &machine), "nothing was changed");
        assert_eq!(differs(&changed, &machine), *place != Acpi, "changed in the device tree: {what}");
        assert_eq!(differs(&machine, &changed), *place != Dt, "changed in ACPI: {what}");
    }
}

#[test]
#[should_panic(expected = "properties that the reader does not know: [\"dma-cohereNt\"]")]
fn a_property_that_the_reader_does_not_know_fails() {
    let machine = ALL.machine();
    let mut blob = device_tree(&machine).expect("a device tree");
    replace(&mut blob, b"dma-coherent\0", b"dma-cohereNt\0");
    crate::dt::read(&blob);
}

#[test]
#[should_panic(expected = "nodes that the reader does not know")]
fn a_node_that_the_reader_does_not_know_fails() {
    let machine = ALL.machine();
    let mut blob = device_tree(&machine).expect("a device tree");
    replace(&mut blob, b"virtio,mmio\0", b"virtio,Mmio\0");
    crate::dt::read(&blob);
}

#[test]
#[should_panic(expected = "a device that the reader does not know: Some(\"LNRO0006\")")]
fn a_device_that_the_reader_does_not_know_fails() {
    read_acpi(|dsdt| replace(dsdt, b"LNRO0005\0", b"LNRO0006\0"));
}

#[test]
#[should_panic(expected = "objects that the reader does not know: [\"_SUN\"]")]
fn an_object_that_the_reader_does_not_know_fails() {
    read_acpi(|dsdt| dsdt.extend(b"\x08_SUN\0"));
}

/// Ports with 10 bits of address.
#[test]
#[should_panic(expected = "a descriptor that the reader does not know")]
fn a_descriptor_that_the_reader_does_not_know_fails() {
    read_acpi(|dsdt| replace(dsdt, &[0x47, 0x01, 0xf8, 0x0c], &[0x47, 0x00, 0xf8, 0x0c]));
}

/// Both forms agree, and the description with them.
#[test]
#[should_panic(expected = "pvpanic at 0x1000..=0x1001 is in memory")]
fn a_window_in_memory_fails() {
    let mut machine = ALL.machine();
    machine.system.pvpanic = Range::fixed(0x1000, 2);
    check(&machine, TABLES);
}

#[test]
#[should_panic(expected = "pvpanic at 0xd1000007..=0xd1000008 meets UART")]
fn windows_that_overlap_fail() {
    let mut machine = ALL.machine();
    machine.system.pvpanic = Range::fixed(0xd100_0007, 2);
    check(&machine, TABLES);
}

/// Reads ACPI tables after a change of the DSDT; length and checksum follow.
fn read_acpi(change: impl Fn(&mut Vec<u8>)) {
    let mut tables = acpi_tables(&ALL.machine(), TABLES).expect("ACPI tables");
    let dsdt = tables.iter_mut().find(|table| table.name == "DSDT").expect("a DSDT");
    change(&mut dsdt.bytes);
    let length = u32::try_from(dsdt.bytes.len()).expect("a small table");
    dsdt.bytes[4..8].copy_from_slice(&length.to_le_bytes());
    dsdt.bytes[9] = dsdt.bytes[9].wrapping_sub(sum(&dsdt.bytes));
    let tables: Vec<_> = tables.iter().map(|table| (table.address, table.bytes.as_slice())).collect();
    crate::acpi::read(&tables, TABLES);
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let at = bytes.windows(old.len()).position(|window| window == old).expect("it is there");
    bytes[at..at + old.len()].copy_from_slice(new);
}

/// Somewhere else, at a place that is free.
fn base(range: Range) -> Range {
    Range::fixed(range.base() + 0x10_0000, range.size())
}

fn size(range: Range) -> Range {
    Range::fixed(range.base(), range.size() + 1)
}

fn other(PoolId(pool): PoolId) -> PoolId {
    PoolId((pool + 1) % 3)
}

fn pci(machine: &mut Machine) -> &mut PciHost {
    machine.pci.as_mut().expect("there is PCI")
}

fn mmio(machine: &mut Machine, index: usize) -> (&mut Range, &mut Interrupt) {
    match &mut machine.virtio[index].transport {
        Transport::Mmio { window, interrupt } => (window, interrupt),
        Transport::Pci { .. } => panic!("{index} is on PCI"),
    }
}

fn device(machine: &mut Machine, index: usize) -> &mut u8 {
    match &mut machine.virtio[index].transport {
        Transport::Pci { device, .. } => device,
        Transport::Mmio { .. } => panic!("{index} is not on PCI"),
    }
}
