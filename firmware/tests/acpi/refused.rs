// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the tables can't say is refused, and the error says what it was.

use cvmm_firmware::{AcpiError, DeviceError, Machine, PciHost, PoolId, Range, Transport, acpi_tables};

use crate::common::usual::{Bus, machine};
use crate::guest::BASE;

/// The error for a usual machine with two virtio devices on PCI, `blk0` and `blk1`, after `change`.
fn refused(change: impl FnOnce(&mut Machine)) -> AcpiError {
    let mut machine = machine(2, Bus::Pci, 2, false, 1);
    acpi_tables(&machine, BASE).expect("a usual machine can be described");
    change(&mut machine);
    acpi_tables(&machine, BASE).expect_err("this can't be said")
}

fn host(machine: &mut Machine) -> &mut PciHost {
    machine.pci.as_mut().expect("there is one")
}

fn number(machine: &mut Machine, index: usize) -> &mut u8 {
    match &mut machine.virtio[index].transport {
        Transport::Pci { device, .. } => device,
        Transport::Mmio { .. } => panic!("it is on PCI"),
    }
}

/// Nothing would say to a driver which memory it may use.
#[test]
fn a_device_without_a_pool() {
    assert_eq!(
        refused(|m| m.virtio[1].pool = PoolId(1)),
        AcpiError::Device(DeviceError::NoSuchPool("blk1".into()))
    );
}

#[test]
fn a_pci_device_without_a_bus() {
    assert_eq!(refused(|m| m.pci = None), AcpiError::Device(DeviceError::NoPciHost("blk0".into())));
}

#[test]
fn a_pci_device_without_a_place_of_its_own() {
    for wrong in [0, 32, 255] {
        let error = refused(|m| *number(m, 1) = wrong);
        assert_eq!(
            error,
            AcpiError::Device(DeviceError::PciDeviceNumber { device: "blk1".into(), number: wrong })
        );
    }
    let error = refused(|m| *number(m, 1) = *number(m, 0));
    assert_eq!(error, AcpiError::Device(DeviceError::PciDeviceTaken { device: "blk1".into(), number: 31 }));
}

#[test]
fn two_cpus_with_one_identifier() {
    assert_eq!(refused(|m| m.cpus = vec![0, 7, 3, 7]), AcpiError::ApicIdTaken(7));
}

#[test]
fn more_objects_than_names() {
    let error = refused(|m| m.cpus = (0..0x1001).collect());
    assert_eq!(error, AcpiError::TooMany { what: "CPUs", number: 0x1001 });
    let error = refused(|m| m.pools = vec![m.pools[0].clone(); 0x1001]);
    assert_eq!(error, AcpiError::TooMany { what: "pools", number: 0x1001 });
    let error = refused(|m| m.virtio = vec![m.virtio[0].clone(); 0x1001]);
    assert_eq!(error, AcpiError::TooMany { what: "virtio devices", number: 0x1001 });
}

#[test]
fn as_many_objects_as_names() {
    let mut machine = machine(1, Bus::Mmio, 1, false, 1);
    machine.cpus = (0..0x1000).collect();
    machine.pools = vec![machine.pools[0].clone(); 0x1000];
    for (pool, base) in machine.pools.iter_mut().zip((1 << 32..).step_by(1 << 21)) {
        pool.range = Range::fixed(base, 1 << 21);
    }
    machine.virtio = vec![machine.virtio[0].clone(); 0x1000];
    acpi_tables(&machine, BASE).expect("there are names for these");
}

#[test]
fn an_interrupt_controller_above_4_gib() {
    let high = Range::fixed(1 << 32, 0x1000);
    let error = refused(|m| m.local_apic = high);
    assert_eq!(error, AcpiError::High { what: "local APIC", window: high });
    let error = refused(|m| m.io_apic.window = high);
    assert_eq!(error, AcpiError::High { what: "I/O APIC", window: high });
}

#[test]
fn configuration_space_that_is_not_of_one_bus() {
    for size in [0x1000, 0xf_f000, 0x20_0000] {
        let ecam = Range::fixed(0xe000_0000, size);
        assert_eq!(refused(|m| host(m).ecam = ecam), AcpiError::Ecam(ecam));
    }
}

#[test]
fn configuration_ports_that_are_none() {
    for ports in [Range::fixed(0x1_0000, 8), Range::fixed(0xfffc, 8), Range::fixed(0, 256)] {
        assert_eq!(refused(|m| host(m).config_ports = ports), AcpiError::ConfigPorts(ports));
    }
}

#[test]
fn sleep_registers_that_are_none() {
    let window = Range::fixed(0xc100_1010, 2);
    assert_eq!(refused(|m| m.system.sleep.window = window), AcpiError::SleepWindow(window));
    assert_eq!(refused(|m| m.system.sleep.type_off = 8), AcpiError::SleepType(8));
}

#[test]
fn a_place_where_no_tables_can_be() {
    let machine = machine(1, Bus::Pci, 1, false, 1);
    for base in [1, 8, BASE + 15, u64::MAX - 15, u64::MAX - 0x20f] {
        assert_eq!(acpi_tables(&machine, base).expect_err("not there"), AcpiError::Base(base));
    }
    acpi_tables(&machine, 0).expect("at 0 there is room");
}
