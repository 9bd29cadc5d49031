// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of a virtio device, over either transport.

use super::{Hardware, pci};
use crate::table::case::Setup;
use crate::table::{Kind, QUEUE_SIZE};

/// Device status bits (virtio 1.3, 2.1).
pub(super) const ACKNOWLEDGE: u8 = 1;
pub(super) const DRIVER: u8 = 2;
pub(super) const DRIVER_OK: u8 = 4;
pub(super) const FEATURES_OK: u8 = 8;
pub(super) const NEEDS_RESET: u8 = 64;

/// Feature bits (virtio 1.3, 6).
pub(super) const INDIRECT_DESC: u64 = 1 << 28;
pub(super) const EVENT_IDX: u64 = 1 << 29;
pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const ACCESS_PLATFORM: u64 = 1 << 33;
/// resources/review/step3.md.
const RESTRICTED_DMA: u64 = 1 << 45;

/// Interrupt causes, in InterruptStatus and in ISR status: a buffer was used, the configuration has changed.
pub(super) const USED: u32 = 1;
const CONFIGURATION: u32 = 2;

/// Polls after which a device is taken to be stuck, each of them an exit: a second where those are fast, a minute where not.
pub(super) const PATIENCE: u32 = 1_000_000;

/// Offsets of virtio-mmio registers (virtio 1.3, 4.2.2).
mod mmio {
    pub(super) const MAGIC: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE_ID: u64 = 0x008;
    pub(super) const VENDOR_ID: u64 = 0x00c;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SELECT: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SELECT: u64 = 0x024;
    pub(super) const QUEUE_SELECT: u64 = 0x030;
    pub(super) const QUEUE_SIZE_MAX: u64 = 0x034;
    pub(super) const QUEUE_SIZE: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const QUEUE_NOTIFY: u64 = 0x050;
    pub(super) const INTERRUPT_STATUS: u64 = 0x060;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const AREAS: [u64; 3] = [0x080, 0x090, 0x0a0];
    pub(super) const CONFIG: u64 = 0x100;
    /// resources/review/step4.md: address and length, in halves.
    pub(super) const RESTRICTED_DMA: [u64; 4] = [0x0d0, 0x0d4, 0x0d8, 0x0dc];
}

/// Offsets in the common configuration structure (virtio 1.3, 4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURES_SELECT: u64 = 0x00;
    pub(super) const DEVICE_FEATURES: u64 = 0x04;
    pub(super) const DRIVER_FEATURES_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURES: u64 = 0x0c;
    pub(super) const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub(super) const NUM_QUEUES: u64 = 0x12;
    pub(super) const STATUS: u64 = 0x14;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(super) const AREAS: [u64; 3] = [0x20, 0x28, 0x30];
    /// resources/review/step4.md: address and length, in halves.
    pub(super) const RESTRICTED_DMA: [u64; 4] = [0x40, 0x44, 0x48, 0x4c];
}

/// Where the structures of a virtio-pci function are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pci {
    pub(super) common: u64,
    pub(super) notify: u64,
    pub(super) multiplier: u32,
    pub(super) isr: u64,
    /// Device-specific configuration.
    pub(super) config: u64,
    /// MSI-X table, pending bits, and number of vectors.
    pub(super) table: u64,
    pub(super) pending: u64,
    pub(super) vectors: u64,
    /// Offset of the MSI-X capability.
    pub(super) msix: u32,
    /// Its address in configuration space.
    pub(super) function: u32,
}

/// The register that notifies a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doorbell {
    address: u64,
    queue: u16,
    is_pci: bool,
}

impl Doorbell {
    /// Notifies the queue.
    pub(super) fn ring(&self, hardware: Hardware) {
        if self.is_pci {
            hardware.write(self.address, self.queue);
        } else {
            hardware.write(self.address, u32::from(self.queue));
        }
    }
}

/// A device.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    hardware: Hardware,
    /// The start of its register window.
    pub registers: u64,
    /// virtio 1.3, 5.
    pub id: u32,
    /// First byte of its pool, and the one after its last.
    pub pool: (u64, u64),
    /// The queue that is used.
    queue: u16,
    /// What the driver accepts beside the features that all need.
    features: u64,
    pci: Option<Pci>,
}

impl Device {
    pub(super) fn mmio(hardware: Hardware, registers: u64, pool: (u64, u64)) -> Self {
        let id = hardware.read(registers + mmio::DEVICE_ID);
        Self { hardware, registers, id, pool, queue: 0, features: 0, pci: None }
    }

    pub(super) fn pci(hardware: Hardware, registers: u64, id: u32, pool: (u64, u64), pci: Pci) -> Self {
        Self { hardware, registers, id, pool, queue: 0, features: 0, pci: Some(pci) }
    }

    /// Whether this device's registers are where they were: on mmio, what tells which device it is.
    pub(super) fn answers(&self) -> bool {
        self.is_pci() || self.hardware.read::<u32>(self.registers + mmio::DEVICE_ID) == self.id
    }

    /// Four bytes of its configuration space.
    pub(super) fn configuration(&self, offset: u64) -> u32 {
        let base = self.pci.map_or(self.registers + mmio::CONFIG, |pci| pci.config);
        self.hardware.read(base + offset)
    }

    /// What a driver can't change, of a device that was just reset: who it is, what it offers, its queue 0, its configuration.
    pub(super) fn constants(&self) -> [u32; 9] {
        let (hardware, registers) = (self.hardware, self.registers);
        let features = |base, select, features| {
            [0u32, 1].map(|half| {
                hardware.write(base + select, half);
                hardware.read::<u32>(base + features)
            })
        };
        let (config, [low, high], [a, b, c, d, e]) = match self.pci {
            Some(pci) => {
                hardware.write(pci.common + common::QUEUE_SELECT, 0u16);
                let field = |offset| u32::from(hardware.read::<u16>(pci.common + offset));
                let registers = [common::NUM_QUEUES, common::QUEUE_SIZE, common::QUEUE_NOTIFY_OFF].map(field);
                let [queues, size, notify] = registers;
                let offered = features(pci.common, common::DEVICE_FEATURES_SELECT, common::DEVICE_FEATURES);
                (pci.config, offered, [pci::identity(hardware, &pci), queues, size, notify, 0])
            }
            None => {
                hardware.write(registers + mmio::QUEUE_SELECT, 0u32);
                let all =
                    [mmio::MAGIC, mmio::VERSION, mmio::DEVICE_ID, mmio::VENDOR_ID, mmio::QUEUE_SIZE_MAX];
                let offered = features(registers, mmio::DEVICE_FEATURES_SELECT, mmio::DEVICE_FEATURES);
                (registers + mmio::CONFIG, offered, all.map(|offset| hardware.read(registers + offset)))
            }
        };
        [a, b, c, d, e, low, high, hardware.read(config), hardware.read(config + 4)]
    }

    /// Where the device-specific configuration is, which has accesses of any width.
    pub(super) fn config(&self) -> u64 {
        self.pci.map_or(self.registers + mmio::CONFIG, |pci| pci.config)
    }

    /// The device as it is once its BAR is at `registers`.
    pub(super) fn moved(&self, registers: u64) -> Self {
        let there = |at: u64| at.wrapping_sub(self.registers).wrapping_add(registers);
        let pci = self.pci.map(|pci| Pci {
            common: there(pci.common),
            notify: there(pci.notify),
            isr: there(pci.isr),
            config: there(pci.config),
            table: there(pci.table),
            pending: there(pci.pending),
            ..pci
        });
        Self { registers, pci, ..*self }
    }

    /// The same device, to be used as one of this type.
    pub(super) fn of_kind(&self, kind: Kind) -> Self {
        Self { queue: kind.id_and_queue().1, features: kind.features(), ..*self }
    }

    /// The same device by another of its queues.
    pub(super) fn by_queue(&self, queue: u16) -> Self {
        Self { queue, ..*self }
    }

    /// Whether it is on PCI.
    pub fn is_pci(&self) -> bool {
        self.pci.is_some()
    }

    pub(super) fn status(&self) -> u8 {
        match self.pci {
            Some(pci) => self.hardware.read(pci.common + common::STATUS),
            None => self.hardware.read::<u32>(self.registers + mmio::STATUS).to_le_bytes()[0],
        }
    }

    pub(super) fn set_status(&self, status: u8) {
        match self.pci {
            Some(pci) => self.hardware.write(pci.common + common::STATUS, status),
            None => self.hardware.write(self.registers + mmio::STATUS, u32::from(status)),
        }
    }

    /// Resets the device. `false` if it does not say that it did (virtio 1.3, 2.4.2).
    pub(super) fn reset(&self) -> bool {
        self.set_status(0);
        self.status() == 0
    }

    /// A driver's first steps (virtio 1.3, 3.1.1), up to FEATURES_OK, which the device may refuse.
    pub(super) fn negotiate(&self, indirect: bool) -> bool {
        self.negotiate_with(if indirect { INDIRECT_DESC | EVENT_IDX } else { 0 })
    }

    /// The same with these features of rings.
    pub(super) fn negotiate_with(&self, rings: u64) -> bool {
        self.accept(VERSION_1 | ACCESS_PLATFORM | self.restricted_dma() | self.features | rings)
    }

    /// The features that it offers.
    pub(super) fn offered(&self) -> u64 {
        let [_, _, _, _, _, low, high, ..] = self.constants();
        u64::from(high) << 32 | u64::from(low)
    }

    /// The feature bit of the plan, if the device offers it and names the pool that the device tree says it has.
    fn restricted_dma(&self) -> u64 {
        let (base, select, features, registers) = match self.pci {
            Some(pci) => {
                (pci.common, common::DEVICE_FEATURES_SELECT, common::DEVICE_FEATURES, common::RESTRICTED_DMA)
            }
            None => {
                (self.registers, mmio::DEVICE_FEATURES_SELECT, mmio::DEVICE_FEATURES, mmio::RESTRICTED_DMA)
            }
        };
        self.hardware.write(base + select, 1u32);
        let offered = u64::from(self.hardware.read::<u32>(base + features)) << 32;
        let [low, high, length_low, length_high] =
            registers.map(|register| u64::from(self.hardware.read::<u32>(base + register)));
        let (address, length) = (high << 32 | low, length_high << 32 | length_low);
        let is_ours = (address, address.wrapping_add(length)) == self.pool;
        if is_ours { offered & RESTRICTED_DMA } else { 0 }
    }

    /// The same with any features.
    pub(super) fn accept(&self, features: u64) -> bool {
        let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        for (select, half) in [(0u32, [a, b, c, d]), (1, [e, f, g, h])] {
            let (selector, features) = match self.pci {
                Some(pci) => {
                    (pci.common + common::DRIVER_FEATURES_SELECT, pci.common + common::DRIVER_FEATURES)
                }
                None => {
                    (self.registers + mmio::DRIVER_FEATURES_SELECT, self.registers + mmio::DRIVER_FEATURES)
                }
            };
            self.hardware.write(selector, select);
            self.hardware.write(features, u32::from_le_bytes(half));
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    /// Says where the queue is and enables it. `false` if the device did not.
    pub(super) fn enable_queue(&self, setup: &Setup) -> bool {
        self.place_queue(setup);
        self.enable()
    }

    /// Enables the queue where it is. `false` if the device did not.
    pub(super) fn enable(&self) -> bool {
        let hardware = self.hardware;
        if let Some(pci) = self.pci {
            hardware.write(pci.common + common::QUEUE_ENABLE, 1u16);
            return hardware.read::<u16>(pci.common + common::QUEUE_ENABLE) == 1;
        }
        hardware.write(self.registers + mmio::QUEUE_READY, 1u32);
        hardware.read::<u32>(self.registers + mmio::QUEUE_READY) == 1
    }

    /// Writes the registers that say where the queue is, each address in halves.
    pub(super) fn place_queue(&self, setup: &Setup) {
        self.select_queue();
        self.size_queue(QUEUE_SIZE);
        for (area, address) in [setup.descriptors, setup.available, setup.used].into_iter().enumerate() {
            for high in [false, true] {
                self.place_half(area, address, high);
            }
        }
    }

    /// Selects the queue.
    pub(super) fn select_queue(&self) {
        match self.pci {
            Some(pci) => self.hardware.write(pci.common + common::QUEUE_SELECT, self.queue),
            None => self.hardware.write(self.registers + mmio::QUEUE_SELECT, u32::from(self.queue)),
        }
    }

    /// Writes the size of the queue that is selected.
    pub(super) fn size_queue(&self, size: u16) {
        match self.pci {
            Some(pci) => self.hardware.write(pci.common + common::QUEUE_SIZE, size),
            None => self.hardware.write(self.registers + mmio::QUEUE_SIZE, u32::from(size)),
        }
    }

    /// The size of the queue that is selected, where it can be read (virtio 1.3, 4.1.4.3).
    pub(super) fn queue_size(&self) -> Option<u16> {
        self.pci.map(|pci| self.hardware.read(pci.common + common::QUEUE_SIZE))
    }

    /// Writes one half of the address of the descriptor table (0), the available ring (1) or the used ring (2).
    pub(super) fn place_half(&self, area: usize, address: u64, high: bool) {
        let register = match self.pci {
            Some(pci) => pci.common + common::AREAS[area],
            None => self.registers + mmio::AREAS[area],
        };
        let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
        let half = if high { [e, f, g, h] } else { [a, b, c, d] };
        self.hardware.write(register + if high { 4 } else { 0 }, u32::from_le_bytes(half));
    }

    /// Gives the queue an MSI-X vector.
    pub(super) fn use_vector(&self, vector: u16) {
        if let Some(pci) = self.pci {
            self.hardware.write(pci.common + common::QUEUE_SELECT, self.queue);
            self.hardware.write(pci.common + common::QUEUE_MSIX_VECTOR, vector);
        }
    }

    /// Gives configuration changes an MSI-X vector.
    pub(super) fn use_vector_for_configuration(&self, vector: u16) {
        if let Some(pci) = self.pci {
            self.hardware.write(pci.common + common::CONFIG_MSIX_VECTOR, vector);
        }
    }

    pub(super) fn start(&self) {
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// The structures of a virtio-pci function.
    pub(super) fn pci_structures(&self) -> Option<Pci> {
        self.pci
    }

    /// Notifies the queue.
    pub(super) fn notify(&self) {
        self.doorbell().ring(self.hardware);
    }

    /// Why there was an interrupt. On PCI, they are cleared as they are read (virtio 1.3, 4.1.4.5).
    pub(super) fn causes(&self) -> u32 {
        match self.pci {
            Some(pci) => u32::from(self.hardware.read::<u8>(pci.isr)),
            None => self.hardware.read(self.registers + mmio::INTERRUPT_STATUS),
        }
    }

    /// Where to write what to notify the queue, for a driver that looks it up once.
    pub(super) fn doorbell(&self) -> Doorbell {
        let Some(pci) = self.pci else {
            return Doorbell {
                address: self.registers + mmio::QUEUE_NOTIFY,
                queue: self.queue,
                is_pci: false,
            };
        };
        self.select_queue();
        let offset: u16 = self.hardware.read(pci.common + common::QUEUE_NOTIFY_OFF);
        let address = pci.notify + u64::from(offset) * u64::from(pci.multiplier);
        Doorbell { address, queue: self.queue, is_pci: true }
    }

    /// The most descriptors that the queue can have.
    pub(super) fn max_queue_size(&self) -> u16 {
        self.select_queue();
        self.queue_size().unwrap_or_else(|| {
            let size: u32 = self.hardware.read(self.registers + mmio::QUEUE_SIZE_MAX);
            u16::try_from(size).unwrap_or(u16::MAX)
        })
    }

    /// Waits for DEVICE_NEEDS_RESET and for the configuration interrupt that tells of it (virtio 1.3, 2.1.2).
    pub(super) fn wait_for_refusal(&self) -> Result<(), &'static str> {
        let mut causes = 0;
        for _ in 0..PATIENCE {
            if self.status() & NEEDS_RESET == 0 {
                continue;
            }
            causes |= self.causes();
            if causes & CONFIGURATION != 0 {
                return Ok(());
            }
        }
        let set = self.status() & NEEDS_RESET != 0;
        Err(if set { "no configuration interrupt" } else { "no NEEDS_RESET" })
    }
}
