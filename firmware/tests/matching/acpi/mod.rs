// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads ACPI tables from guest memory, from the RSDP on. A table, field, object or descriptor that it does not know fails.

mod asl;
mod bytes;
mod devices;
mod iasl;
mod namespace;
mod pci;
mod resources;
mod tables;

use std::collections::BTreeMap;

use self::devices::Devices;
use self::resources::Resource;
use crate::model::{Model, Pci, Routes, Window};

/// What ACPI alone says.
#[derive(Debug, PartialEq)]
pub struct AcpiOnly {
    /// Address of the sleep control register.
    pub sleep_control: u64,
    /// Address of the sleep status register.
    pub sleep_status: u64,
    /// Address of the reset register.
    pub reset_register: u64,
    /// What is written to it for reset.
    pub reset_value: u8,
    /// The sleep type that is power off.
    pub type_off: u8,
    /// The ports of PCI configuration mechanism #1.
    pub config_ports: Option<Window>,
    /// Interrupt lines of all PCI device numbers.
    pub routes: Routes,
}

/// Guest memory, where there is a table: by address.
struct Memory<'a> {
    tables: BTreeMap<u64, &'a [u8]>,
}

impl<'a> Memory<'a> {
    /// Takes the table at `address`.
    fn take(&mut self, address: u64) -> &'a [u8] {
        self.tables.remove(&address).unwrap_or_else(|| panic!("there is no table at {address:#x}, or twice"))
    }
}

/// Reads the tables that lie in memory, each with its address. The RSDP is at `rsdp`.
pub fn read(tables: &[(u64, &[u8])], rsdp: u64) -> (Model, AcpiOnly) {
    let mut memory = Memory { tables: tables.iter().copied().collect() };
    assert_eq!(memory.tables.len(), tables.len(), "two tables have one address");
    let xsdt = tables::rsdp(memory.take(rsdp));
    let mut by_signature = BTreeMap::new();
    for address in tables::xsdt(memory.take(xsdt)) {
        let table = memory.take(address);
        let signature = String::from_utf8_lossy(&table[..4]).into_owned();
        assert!(by_signature.insert(signature.clone(), table).is_none(), "two tables are {signature}");
    }
    let mut take = |signature: &str| by_signature.remove(signature);
    let fadt = tables::fadt(take("FACP").expect("a FADT"));
    let madt = tables::madt(take("APIC").expect("a MADT"));
    let mcfg = take("MCFG").map(tables::mcfg);
    let spcr = tables::spcr(take("SPCR").expect("an SPCR"));
    assert!(by_signature.is_empty(), "tables that the reader does not know: {:?}", by_signature.keys());

    let dsdt = memory.take(fadt.dsdt);
    bytes::Bytes::with_header("DSDT", 2, dsdt);
    assert!(memory.tables.is_empty(), "tables that nothing refers to: {:x?}", memory.tables.keys());
    let devices = devices::read(&iasl::disassemble(dsdt));

    let uids: Vec<_> = madt.cpus.iter().map(|(_, uid)| *uid).collect();
    assert_eq!(devices.processors, uids, "processors of the DSDT and of the MADT");
    let [uart] = devices.uart[..] else { panic!("UARTs: {:?}", devices.uart) };
    assert_eq!(spcr, (uart.0.base, uart.1.pin), "the UARTs of SPCR and DSDT: address, interrupt");
    let [pvpanic] = devices.pvpanic[..] else { panic!("pvpanic: {:?}", devices.pvpanic) };

    let only = AcpiOnly {
        sleep_control: fadt.sleep_control,
        sleep_status: fadt.sleep_status,
        reset_register: fadt.reset_register,
        reset_value: fadt.reset_value,
        type_off: devices.type_off,
        config_ports: devices.pci.as_ref().map(|root| root.config_ports),
        routes: devices.pci.as_ref().map(|root| root.routes.clone()).unwrap_or_default(),
    };
    let pci = pci(&devices, mcfg);
    let mut pools: Vec<_> = devices.pools.into_values().collect();
    pools.sort();
    let model = Model {
        pools,
        cpus: madt.cpus.iter().map(|(apic_id, _)| *apic_id).collect(),
        local_apic: madt.local_apic,
        io_apic: madt.io_apic,
        uart,
        pvpanic,
        pci,
        virtio_mmio: devices.virtio_mmio,
        virtio_pci: devices.virtio_pci,
    };
    (model, only)
}

/// MCFG and DSDT must speak of one bridge, and the DSDT must reserve its configuration space, or Linux does not use it.
fn pci(devices: &Devices, mcfg: Option<(Window, (u8, u8))>) -> Option<Pci> {
    let Some(root) = &devices.pci else {
        assert_eq!((&devices.reserved[..], mcfg), (&[][..], None), "there is no PCI root");
        return None;
    };
    let (ecam, buses) = mcfg.expect("an MCFG for the PCI root");
    assert_eq!(devices.reserved, [Resource::Registers(ecam)], "the motherboard's resources: ECAM");
    assert_eq!(root.buses, buses, "bus numbers of DSDT and MCFG");
    let present = |device: u8| devices.virtio_pci.iter().any(|virtio| virtio.device == device);
    let routes = root.routes.iter().filter(|((device, _), _)| present(*device));
    Some(Pci {
        ecam,
        buses,
        memory: root.memory.clone(),
        routes: routes.map(|(at, line)| (*at, *line)).collect(),
        coherent: root.coherent,
    })
}
