// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of a virtio-mmio device (virtio 1.3, 4.2.2), driven by a driver that may do anything.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::guest::machine::{self, VirtioDevice};
use crate::guest::physical::{Caching, Physical};

/// Device status bits (virtio 1.3, 2.1).
pub(super) const ACKNOWLEDGE: u32 = 1;
pub(super) const DRIVER: u32 = 2;
pub(super) const DRIVER_OK: u32 = 4;
pub(super) const FEATURES_OK: u32 = 8;
pub(super) const NEEDS_RESET: u32 = 64;

/// Feature bits (virtio 1.3, 6).
pub(super) const INDIRECT_DESC: u64 = 1 << 28;
pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const ACCESS_PLATFORM: u64 = 1 << 33;

/// Bit of InterruptStatus: the configuration changed.
pub(super) const INTERRUPT_CONFIG: u32 = 2;

/// Longer than any device needs, also on an emulated host.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A register, by its offset.
#[derive(Debug, Clone, Copy)]
pub(super) enum Register {
    Magic = 0x000,
    Version = 0x004,
    DeviceFeatures = 0x010,
    DeviceFeaturesSelect = 0x014,
    DriverFeatures = 0x020,
    DriverFeaturesSelect = 0x024,
    QueueSelect = 0x030,
    QueueMax = 0x034,
    QueueSize = 0x038,
    QueueReady = 0x044,
    QueueNotify = 0x050,
    InterruptStatus = 0x060,
    InterruptAck = 0x064,
    Status = 0x070,
    Descriptors = 0x080,
    Available = 0x090,
    Used = 0x0a0,
}

/// Where the parts of a queue are, and its size.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueuePlaces {
    pub(super) size: u32,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// The register window of one device.
#[derive(Debug)]
pub(super) struct Registers {
    base: u64,
    window: Physical,
}

impl Registers {
    /// Finds a device's window. Its driver must still be bound: only then the kernel lists the window.
    pub(super) fn of(device: &VirtioDevice) -> Result<Self> {
        const LENGTH: usize = 0x100;
        let entry = machine::iomem()?
            .into_iter()
            .find(|entry| entry.name.split(' ').any(|name| name == device.parent))
            .with_context(|| format!("/proc/iomem does not list {}", device.parent))?;
        let base = entry.range.start;
        let registers = Self { base, window: Physical::map(base, LENGTH, Caching::None)? };
        let (magic, version) = (registers.read(Register::Magic), registers.read(Register::Version));
        ensure!(
            (magic, version) == (0x7472_6976, 2),
            "no virtio-mmio device at {base:#x}: {magic:#x}, {version}"
        );
        Ok(registers)
    }

    pub(super) fn read(&self, register: Register) -> u32 {
        self.window.read(self.base + register as u64)
    }

    pub(super) fn write(&self, register: Register, value: u32) {
        self.window.write(self.base + register as u64, value);
    }

    fn write_address(&self, low: Register, address: u64) {
        let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
        let offset = self.base + low as u64;
        self.window.write(offset, u32::from_le_bytes([a, b, c, d]));
        self.window.write(offset + 4, u32::from_le_bytes([e, f, g, h]));
    }

    pub(super) fn status(&self) -> u32 {
        self.read(Register::Status)
    }

    /// Resets the device and waits until it is done.
    pub(super) fn reset(&self) -> Result<()> {
        self.write(Register::Status, 0);
        wait(|| self.status() == 0)
            .with_context(|| format!("no end of the reset: status {:#x}", self.status()))?;
        self.write(Register::InterruptAck, u32::MAX);
        Ok(())
    }

    pub(super) fn offered(&self) -> u64 {
        let half = |select| {
            self.write(Register::DeviceFeaturesSelect, select);
            u64::from(self.read(Register::DeviceFeatures))
        };
        half(0) | half(1) << 32
    }

    /// Resets the device and accepts `features`. The answer is the device's: whether FEATURES_OK stuck.
    pub(super) fn negotiate(&self, features: u64) -> Result<bool> {
        self.reset()?;
        self.write(Register::Status, ACKNOWLEDGE);
        self.write(Register::Status, ACKNOWLEDGE | DRIVER);
        let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
        for (select, half) in [(0, [a, b, c, d]), (1, [e, f, g, h])] {
            self.write(Register::DriverFeaturesSelect, select);
            self.write(Register::DriverFeatures, u32::from_le_bytes(half));
        }
        self.write(Register::Status, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        Ok(self.status() & FEATURES_OK != 0)
    }

    pub(super) fn queue_max(&self, queue: u32) -> u32 {
        self.write(Register::QueueSelect, queue);
        self.read(Register::QueueMax)
    }

    /// Tells the device where a queue is and enables it. The answer is the device's: whether it is enabled now.
    pub(super) fn enable_queue(&self, queue: u32, places: &QueuePlaces) -> bool {
        self.write(Register::QueueSelect, queue);
        self.write(Register::QueueSize, places.size);
        self.write_address(Register::Descriptors, places.descriptors);
        self.write_address(Register::Available, places.available);
        self.write_address(Register::Used, places.used);
        self.write(Register::QueueReady, 1);
        self.read(Register::QueueReady) != 0
    }

    /// Waits until the device says that it needs a reset, and tells so by an interrupt.
    pub(super) fn wait_for_refusal(&self) -> Result<()> {
        let said = wait(|| {
            self.status() & NEEDS_RESET != 0 && self.read(Register::InterruptStatus) & INTERRUPT_CONFIG != 0
        });
        if said.is_err() {
            let (status, interrupt) = (self.status(), self.read(Register::InterruptStatus));
            bail!(
                "no NEEDS_RESET with a configuration interrupt: status {status:#x}, interrupt status {interrupt:#x}"
            );
        }
        Ok(())
    }
}

/// Waits for something to become true.
pub(super) fn wait(condition: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !condition() {
        ensure!(started.elapsed() < PATIENCE, "it did not happen in {} s", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
