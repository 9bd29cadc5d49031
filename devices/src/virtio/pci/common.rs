// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The common configuration structure (virtio 1.3, 4.1.4.3).

use super::PciInterrupt;
use crate::queue::QueueLayout;
use crate::virtio::Core;
use crate::virtio::core::set_half;

/// Offsets of `struct virtio_pci_common_cfg`. What the standard has after queue_device goes with features that are not
/// offered, and reads as zeros.
mod field {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    // Our proposal (resources/review/step4.md): after admin_queue_num, the last field of the standard.
    pub const POOL_ADDRESS: u64 = 0x40;
    pub const POOL_LENGTH: u64 = 0x48;
}
use field::*;

/// The registers that select what others mean.
#[derive(Debug, Default)]
pub(super) struct Common {
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
}

impl Common {
    /// Fields are read with their own width, 64-bit ones in halves (virtio 1.3, 4.1.3.1). Other accesses read zeros.
    pub(super) fn read(&self, core: &Core, interrupt: &PciInterrupt, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match data.len() {
            1 => put(data, &self.read8(core, offset).to_le_bytes()),
            2 => put(data, &self.read16(core, interrupt, offset).to_le_bytes()),
            4 => put(data, &self.read32(core, offset).to_le_bytes()),
            _ => {}
        }
    }

    /// Fields are written with their own width, 64-bit ones in halves. Other accesses have no effect.
    pub(super) fn write(&mut self, core: &mut Core, interrupt: &PciInterrupt, offset: u64, data: &[u8]) {
        match *data {
            [value] if offset == DEVICE_STATUS => {
                core.set_status(value);
                if value == 0 {
                    *self = Self::default();
                }
            }
            [a, b] => self.write16(core, interrupt, offset, u16::from_le_bytes([a, b])),
            [a, b, c, d] => self.write32(core, offset, u32::from_le_bytes([a, b, c, d])),
            _ => {}
        }
    }

    fn read8(&self, core: &Core, offset: u64) -> u8 {
        match offset {
            DEVICE_STATUS => core.status(),
            CONFIG_GENERATION => core.config_generation().to_le_bytes()[0],
            _ => 0,
        }
    }

    fn read16(&self, core: &Core, interrupt: &PciInterrupt, offset: u64) -> u16 {
        let queue = u32::from(self.queue_select);
        match offset {
            CONFIG_MSIX_VECTOR => interrupt.config_vector(),
            NUM_QUEUES => u16::try_from(core.queue_count()).unwrap_or(u16::MAX),
            QUEUE_SELECT => self.queue_select,
            // 0 where there is no such queue, and for what is no size: "either a value of 0 or a power of 2" (4.1.4.3.1).
            QUEUE_SIZE => {
                Some(core.queue_layout(queue).size).filter(|size| size.is_power_of_two()).unwrap_or(0)
            }
            QUEUE_MSIX_VECTOR => interrupt.queue_vector(self.queue_select),
            QUEUE_ENABLE => u16::from(core.queue_enabled(queue)),
            QUEUE_NOTIFY_OFF if core.max_queue_size(queue) > 0 => self.queue_select,
            _ => 0,
        }
    }

    fn read32(&self, core: &Core, offset: u64) -> u32 {
        let layout = core.queue_layout(u32::from(self.queue_select));
        let (address, length) = core.named_pool().map_or((0, 0), |pool| (pool.base(), pool.size()));
        match offset {
            DEVICE_FEATURE_SELECT => self.device_feature_select,
            DEVICE_FEATURE => core.device_features(self.device_feature_select),
            DRIVER_FEATURE_SELECT => self.driver_feature_select,
            DRIVER_FEATURE => core.driver_features(self.driver_feature_select),
            QUEUE_DESC => low(layout.descriptor_table),
            QUEUE_DRIVER => low(layout.available_ring),
            QUEUE_DEVICE => low(layout.used_ring),
            POOL_ADDRESS => low(address),
            POOL_LENGTH => low(length),
            _ => match offset.checked_sub(4) {
                Some(QUEUE_DESC) => low(layout.descriptor_table >> 32),
                Some(QUEUE_DRIVER) => low(layout.available_ring >> 32),
                Some(QUEUE_DEVICE) => low(layout.used_ring >> 32),
                Some(POOL_ADDRESS) => low(address >> 32),
                Some(POOL_LENGTH) => low(length >> 32),
                _ => 0,
            },
        }
    }

    fn write16(&mut self, core: &mut Core, interrupt: &PciInterrupt, offset: u64, value: u16) {
        let queue = u32::from(self.queue_select);
        match offset {
            CONFIG_MSIX_VECTOR => interrupt.set_config_vector(value),
            QUEUE_SELECT => self.queue_select = value,
            QUEUE_SIZE => core.change_queue_layout(queue, |layout| layout.size = value),
            QUEUE_MSIX_VECTOR => interrupt.set_queue_vector(self.queue_select, value),
            // "The driver MUST NOT write a 0 to queue_enable" (4.1.4.3.2).
            QUEUE_ENABLE if value == 1 => core.enable_queue(queue),
            _ => {}
        }
    }

    fn write32(&mut self, core: &mut Core, offset: u64, value: u32) {
        let queue = u32::from(self.queue_select);
        let mut area = |field: fn(&mut QueueLayout) -> &mut u64, select| {
            core.change_queue_layout(queue, |layout| set_half(field(layout), select, value));
        };
        match offset {
            DEVICE_FEATURE_SELECT => self.device_feature_select = value,
            DRIVER_FEATURE_SELECT => self.driver_feature_select = value,
            DRIVER_FEATURE => core.set_driver_features(self.driver_feature_select, value),
            QUEUE_DESC => area(|layout| &mut layout.descriptor_table, 0),
            QUEUE_DRIVER => area(|layout| &mut layout.available_ring, 0),
            QUEUE_DEVICE => area(|layout| &mut layout.used_ring, 0),
            _ => match offset.checked_sub(4) {
                Some(QUEUE_DESC) => area(|layout| &mut layout.descriptor_table, 1),
                Some(QUEUE_DRIVER) => area(|layout| &mut layout.available_ring, 1),
                Some(QUEUE_DEVICE) => area(|layout| &mut layout.used_ring, 1),
                _ => {}
            },
        }
    }
}

fn put(data: &mut [u8], value: &[u8]) {
    for (to, from) in data.iter_mut().zip(value) {
        *to = *from;
    }
}

/// The low half.
fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}
