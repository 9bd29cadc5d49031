// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine description.

use std::collections::HashSet;

use crate::Range;

/// Everything that a guest is told about its machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// RAM, in ascending order, the pools included: a pool is RAM that is kept out of general use.
    pub memory: Vec<Range>,
    /// The memory that devices can reach.
    pub pools: Vec<Pool>,
    /// Local APIC identifiers, the boot processor's first.
    pub cpus: Vec<u32>,
    /// Window of the local APIC.
    pub local_apic: Range,
    /// The one I/O APIC; interrupt numbers of devices are its pins.
    pub io_apic: IoApic,
    /// What is not virtio.
    pub system: SystemDevices,
    /// The PCI host bridge and its one bus; `None` where no device is on PCI.
    pub pci: Option<PciHost>,
    /// Virtio devices, in the order of the command line.
    pub virtio: Vec<VirtioDevice>,
    /// Kernel command line.
    pub bootargs: String,
}

impl Machine {
    /// The pool that `id` names.
    pub fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[usize::from(id.0)]
    }

    /// Fails unless pools are apart, each virtio device has one that is there and that the guest is told of, and each on PCI
    /// has a place of its own on a bus that is there.
    pub fn check_devices(&self) -> Result<(), DeviceError> {
        for (index, pool) in self.pools.iter().enumerate() {
            if let Some(other) = self.pools[..index].iter().find(|other| other.range.overlaps(&pool.range)) {
                return Err(DeviceError::PoolsOverlap(other.name.clone(), pool.name.clone()));
            }
        }
        let mut defaults = self.pools.iter().filter(|pool| pool.dma_default);
        if let (Some(_), Some(second)) = (defaults.next(), defaults.next()) {
            return Err(DeviceError::TwoDefaults(second.name.clone()));
        }
        let mut numbers = HashSet::new();
        for device in &self.virtio {
            let name = || device.name.clone();
            if usize::from(device.pool.0) >= self.pools.len() {
                return Err(DeviceError::NoSuchPool(name()));
            }
            if device.binding == Binding::Default && !self.pool(device.pool).dma_default {
                return Err(DeviceError::NotDefault(name()));
            }
            let Transport::Pci { device: number, .. } = device.transport else {
                match device.own_memory() {
                    Some(_) => return Err(DeviceError::NoBar(name())),
                    None => continue,
                }
            };
            if self.pci.is_none() {
                return Err(DeviceError::NoPciHost(name()));
            }
            if !(1..=31).contains(&number) {
                return Err(DeviceError::PciDeviceNumber { device: name(), number });
            }
            if !numbers.insert(number) {
                return Err(DeviceError::PciDeviceTaken { device: name(), number });
            }
        }
        Ok(())
    }
}

/// A device whose place or pool is not there. No description can be made then: Linux would ignore a binding to a pool that
/// is not there, and use any memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A device is bound to a pool that the machine does not have.
    #[error("device {0} is bound to a pool that does not exist")]
    NoSuchPool(String),
    /// A guest would find no pool for a device.
    #[error("device {0} does not name its pool, but its pool is not the default one")]
    NotDefault(String),
    /// Nothing would tell the guest of the memory.
    #[error("device {0} has a pool of its own in a BAR, but is not on PCI")]
    NoBar(String),
    /// The devices of one would reach memory of the other's.
    #[error("the pools {0} and {1} overlap")]
    PoolsOverlap(String, String),
    /// A guest could take either.
    #[error("the pool {0} is the default one, but another is, too")]
    TwoDefaults(String),
    /// A device is on a bus that the machine does not have.
    #[error("device {0} is on PCI, but the machine has no PCI host bridge")]
    NoPciHost(String),
    /// The number is the host bridge's, or none.
    #[error("device {device} has the PCI device number {number}; it must be one of 1 to 31")]
    PciDeviceNumber {
        /// The device's name.
        device: String,
        /// Its number on the bus.
        number: u8,
    },
    /// Two devices have one number.
    #[error("device {device} has the PCI device number {number}, which another device has, too")]
    PciDeviceTaken {
        /// The name of the second.
        device: String,
        /// Their number on the bus.
        number: u8,
    },
}

/// Index of a pool in [`Machine::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolId(pub u16);

/// Guest memory that the VMM's devices may reach: a `restricted-dma-pool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The name it has on the command line and in the report.
    pub name: String,
    /// Where it is.
    pub range: Range,
    /// The guest is told that it is the pool of every device that names none: `linux,dma-default` (four-step plan, 1).
    pub dma_default: bool,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug)]
pub struct IoApic {
    /// Register window.
    pub window: Range,
    /// Number of pins.
    pub pins: u32,
}

/// An interrupt line: a pin of the I/O APIC. Edge-triggered, active high, but for the lines of PCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt(pub u32);

/// A PCI host bridge with one bus, number 0 of segment 0. Device 0 on it is the bridge itself.
///
/// Addresses on the bus are guest-physical addresses.
#[derive(Clone, Copy, Debug)]
pub struct PciHost {
    /// Configuration space of all functions (ECAM), 1 MiB: 4 KiB for each of 8 functions of 32 devices.
    pub ecam: Range,
    /// The two 32-bit I/O ports of configuration mechanism #1: address and data.
    pub config_ports: Range,
    /// Where BARs are.
    pub memory: Range,
    /// Four lines, level-triggered, active low, that the devices share: see [`PciHost::interrupt`].
    pub lines: [Interrupt; 4],
}

impl PciHost {
    /// The line of the interrupt pin `pin` (0 is INTA#) of `device`. Each device starts at the next of the four lines.
    pub fn interrupt(&self, device: u8, pin: u8) -> Interrupt {
        self.lines[usize::from((device % 4 + pin % 4) % 4)]
    }
}

/// The devices that every machine has.
#[derive(Clone, Copy, Debug)]
pub struct SystemDevices {
    /// 16550 UART: register window (registers one byte apart) and interrupt.
    pub uart: (Range, Interrupt),
    /// Power control register, 32 bits wide.
    pub power: Range,
    /// What a write of this value to the power control register does: power off.
    pub power_off_value: u32,
    /// What a write of this value to the power control register does: reset.
    pub reset_value: u32,
    /// How a guest with ACPI ends itself.
    pub sleep: SleepRegisters,
    /// pvpanic event register.
    pub pvpanic: Range,
}

/// The registers of hardware-reduced ACPI for the end of a run (ACPI 6.5, 4.8.3.6 and 4.8.3.7).
#[derive(Clone, Copy, Debug)]
pub struct SleepRegisters {
    /// Sleep control, sleep status and reset register: one byte each, in this order.
    pub window: Range,
    /// The sleep type (`SLP_TYP`, of `\_S5`) that means power off: 0 to 7.
    pub type_off: u8,
    /// What a write of this value to the reset register does: reset.
    pub reset_value: u8,
}

/// A virtio device.
#[derive(Clone, Debug)]
pub struct VirtioDevice {
    /// Its name in the report: `blk0`.
    pub name: String,
    /// How the driver reaches its registers.
    pub transport: Transport,
    /// The only memory that it can reach, unless it has its own: see [`Binding::OnDevice`].
    pub pool: PoolId,
    /// How the guest learns of that.
    pub binding: Binding,
}

impl VirtioDevice {
    /// Where its own memory is when the guest starts, if it has any.
    pub fn own_memory(&self) -> Option<Range> {
        match self.binding {
            Binding::OnDevice(bar) => Some(bar),
            Binding::Reference | Binding::Default => None,
        }
    }
}

/// How a guest learns which pool is a device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The description of the device names the pool: `memory-region`.
    Reference,
    /// The device names none, and the pool is [`Pool::dma_default`].
    Default,
    /// The pool is on the device, which tells of it itself: a PCI function's BAR 2, 64 bits wide, prefetchable; here as it is
    /// when the guest starts (RFC of April 2025, 3/3). Of [`VirtioDevice::pool`] it has the size, and no byte.
    OnDevice(Range),
}

/// How a driver reaches a virtio device.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    /// virtio-mmio: a register window and one interrupt.
    Mmio {
        /// Register window.
        window: Range,
        /// The device's interrupt.
        interrupt: Interrupt,
    },
    /// virtio-pci: function 0 of a device on the PCI bus.
    Pci {
        /// Device number, 1 to 31.
        device: u8,
        /// Where its registers are when the guest starts: BAR 0, 64 bits wide, not prefetchable.
        bar: Range,
    },
}
