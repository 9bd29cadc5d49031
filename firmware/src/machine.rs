// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine description.

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
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug)]
pub struct IoApic {
    /// Register window.
    pub window: Range,
    /// Number of pins.
    pub pins: u32,
}

/// An interrupt line: a pin of the I/O APIC, edge-triggered, active high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt(pub u32);

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
    /// pvpanic event register.
    pub pvpanic: Range,
}

/// A virtio device.
#[derive(Clone, Debug)]
pub struct VirtioDevice {
    /// Its name in the report: `blk0`.
    pub name: String,
    /// How the driver reaches its registers.
    pub transport: Transport,
    /// The only memory that it can reach.
    pub pool: PoolId,
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
}
