// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine as JSON, for programs.
//!
//! Addresses are guest-physical, sizes are bytes, interrupts are pins of the I/O APIC; all of them are numbers. A field
//! that a version has, later ones have too, with the same meaning, or `version` is another; fields may be added.
//! Fields that the report of a run has as well have the same names and meanings there.

use std::borrow::Cow;

use cvmm_arch::native::layout;
use cvmm_firmware::{AcpiTable, Binding, Interrupt, Machine, Range, Transport, VirtioDevice};
use serde::Serialize;

use crate::config::{DeviceConfig, DeviceKind, FirmwareKind, MachineConfig, SpecConfig};
use crate::machine::memory_name;
use crate::{Error, Result};

/// Format of the description.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Description<'a> {
    version: u32,
    /// Which form the guest gets: `dt` or `acpi`.
    firmware: FirmwareKind,
    /// What devices say of their pools.
    spec: SpecConfig,
    /// The kernel command line.
    bootargs: &'a str,
    /// The boot processor first.
    cpus: Vec<Cpu>,
    memory: Memory<'a>,
    local_apic: Extent,
    io_apic: IoApic,
    uart: Uart,
    power: Power,
    sleep: Sleep,
    pvpanic: Extent,
    /// Null where no device is on PCI.
    pci: Option<Pci>,
    /// Virtio devices, in the order of their kinds: disks, network, entropy.
    devices: Vec<Device<'a>>,
    /// Null where the guest gets a device tree.
    acpi_tables: Option<Vec<Table>>,
}

#[derive(Serialize)]
struct Extent {
    base: u64,
    size: u64,
}

#[derive(Serialize)]
struct Cpu {
    apic_id: u32,
}

#[derive(Serialize)]
struct Memory<'a> {
    total: u64,
    /// All RAM: `private` and `pools`.
    ram: Vec<Extent>,
    private: Vec<Extent>,
    pools: Vec<Pool<'a>>,
}

#[derive(Serialize)]
struct Pool<'a> {
    name: &'a str,
    #[serde(flatten)]
    extent: Extent,
    /// It is told to be the pool of every device that names none.
    dma_default: bool,
}

#[derive(Serialize)]
struct IoApic {
    #[serde(flatten)]
    window: Extent,
    pins: u32,
}

/// Edge-triggered, active high.
#[derive(Serialize)]
struct Uart {
    #[serde(flatten)]
    window: Extent,
    gsi: u32,
}

/// A register of 32 bits, and what a write of either value does.
#[derive(Serialize)]
struct Power {
    #[serde(flatten)]
    window: Extent,
    power_off_value: u32,
    reset_value: u32,
}

/// Sleep control, sleep status and reset register of hardware-reduced ACPI, one byte each.
#[derive(Serialize)]
struct Sleep {
    #[serde(flatten)]
    window: Extent,
    power_off_type: u8,
    reset_value: u8,
}

/// A host bridge, and bus 0 of segment 0.
#[derive(Serialize)]
struct Pci {
    ecam: Extent,
    /// On I/O ports, not in memory.
    config_ports: Extent,
    /// Where BARs are.
    memory: Extent,
    /// Level-triggered, active low. Pin P (INTA# is 0) of device D is line (D + P) modulo 4.
    lines: [u32; 4],
}

#[derive(Serialize)]
struct Device<'a> {
    name: &'a str,
    /// `blk`, `net` or `rng`.
    kind: &'static str,
    /// `mmio` or `pci`.
    transport: &'static str,
    /// Register window; on PCI, BAR 0 as it is when the guest starts.
    window: Extent,
    /// On PCI: segment, bus, device, function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pci_address: Option<String>,
    /// On PCI: the device's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pci_device: Option<u8>,
    /// On mmio, edge-triggered and active high; on PCI, the line of INTA#, which MSI-X makes superfluous.
    gsi: Option<u32>,
    /// Name of the only memory that it can reach.
    pool: Cow<'a, str>,
    /// That memory, if it is on the device: BAR 2 as it is when the guest starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_memory: Option<Extent>,
    /// Whether the description of the device names it; if not, it is the pool of all that name none, or on the device.
    names_pool: bool,
}

#[derive(Serialize)]
struct Table {
    name: &'static str,
    #[serde(flatten)]
    extent: Extent,
}

/// `machine` as JSON; `tables` are those that the guest gets.
pub(super) fn json(
    config: &MachineConfig,
    machine: &Machine,
    tables: Option<&[AcpiTable]>,
) -> Result<Vec<u8>> {
    let description = Description::new(config, machine, tables);
    let mut text = serde_json::to_vec_pretty(&description).map_err(|error| Error::vmm("JSON", error))?;
    text.push(b'\n');
    Ok(text)
}

impl<'a> Description<'a> {
    fn new(config: &MachineConfig, machine: &'a Machine, tables: Option<&[AcpiTable]>) -> Self {
        let system = &machine.system;
        let (uart, Interrupt(uart_gsi)) = system.uart;
        Self {
            version: VERSION,
            firmware: config.firmware,
            spec: config.spec,
            bootargs: &machine.bootargs,
            cpus: machine.cpus.iter().map(|apic_id| Cpu { apic_id: *apic_id }).collect(),
            memory: Memory::new(machine),
            local_apic: machine.local_apic.into(),
            io_apic: IoApic { window: machine.io_apic.window.into(), pins: machine.io_apic.pins },
            uart: Uart { window: uart.into(), gsi: uart_gsi },
            power: Power {
                window: system.power.into(),
                power_off_value: system.power_off_value,
                reset_value: system.reset_value,
            },
            sleep: Sleep {
                window: system.sleep.window.into(),
                power_off_type: system.sleep.type_off,
                reset_value: system.sleep.reset_value,
            },
            pvpanic: system.pvpanic.into(),
            pci: machine.pci.map(|pci| Pci {
                ecam: pci.ecam.into(),
                config_ports: pci.config_ports.into(),
                memory: pci.memory.into(),
                lines: pci.lines.map(|Interrupt(gsi)| gsi),
            }),
            devices: (config.devices.iter().zip(&machine.virtio))
                .map(|(config, device)| Device::new(config, machine, device))
                .collect(),
            acpi_tables: tables.map(|tables| tables.iter().map(Table::new).collect()),
        }
    }
}

impl<'a> Memory<'a> {
    fn new(machine: &'a Machine) -> Self {
        let pools: Vec<_> = machine.pools.iter().map(|pool| pool.range).collect();
        let extents = |ranges: Vec<Range>| ranges.into_iter().map(Extent::from).collect();
        let named = machine.pools.iter().map(|pool| Pool {
            name: &pool.name,
            extent: pool.range.into(),
            dma_default: pool.dma_default,
        });
        Self {
            total: machine.memory.iter().map(Range::size).sum(),
            ram: extents(machine.memory.clone()),
            private: extents(layout::private(&machine.memory, &pools)),
            pools: named.collect(),
        }
    }
}

impl<'a> Device<'a> {
    fn new(config: &DeviceConfig, machine: &'a Machine, description: &'a VirtioDevice) -> Self {
        let (transport, device, window, gsi) = match description.transport {
            Transport::Mmio { window, interrupt } => ("mmio", None, window, Some(interrupt)),
            Transport::Pci { device, bar } => {
                ("pci", Some(device), bar, machine.pci.map(|pci| pci.interrupt(device, 0)))
            }
        };
        Self {
            name: &description.name,
            kind: match config.kind {
                DeviceKind::Blk { .. } => "blk",
                DeviceKind::Net { .. } => "net",
                DeviceKind::Rng => "rng",
            },
            transport,
            window: window.into(),
            pci_address: device.map(|device| format!("0000:00:{device:02x}.0")),
            pci_device: device,
            gsi: gsi.map(|Interrupt(gsi)| gsi),
            pool: match description.own_memory() {
                Some(_) => memory_name(description).into(),
                None => machine.pool(description.pool).name.as_str().into(),
            },
            device_memory: description.own_memory().map(Extent::from),
            names_pool: description.binding == Binding::Reference,
        }
    }
}

impl Table {
    fn new(table: &AcpiTable) -> Self {
        let extent = Extent { base: table.address, size: table.bytes.len() as u64 };
        Self { name: table.name, extent }
    }
}

impl From<Range> for Extent {
    fn from(range: Range) -> Self {
        Self { base: range.base(), size: range.size() }
    }
}
