// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The common configuration structure (virtio 1.3, 4.1.4.3): each field with its own width, 64-bit ones in halves.

use super::{Function, NO_VECTOR, QUEUES};
use crate::memory::Shadow;
use crate::spec::core::{Step, half};

/// Offset and width of the fields, halves of 64 bits by themselves; after queue_device some that are never there, and those
/// that name the pool (resources/review/step4.md, 2).
pub const FIELDS: [(u64, usize); 28] = [
    (0x00, 4),
    (0x04, 4),
    (0x08, 4),
    (0x0c, 4),
    (0x10, 2),
    (0x12, 2),
    (0x14, 1),
    (0x15, 1),
    (0x16, 2),
    (0x18, 2),
    (0x1a, 2),
    (0x1c, 2),
    (0x1e, 2),
    (0x20, 4),
    (0x24, 4),
    (0x28, 4),
    (0x2c, 4),
    (0x30, 4),
    (0x34, 4),
    (0x38, 2),
    (0x3a, 2),
    (0x3c, 2),
    (0x3e, 2),
    (0x40, 4),
    (0x44, 4),
    (0x48, 4),
    (0x4c, 4),
    (0x50, 4),
];

impl Function {
    pub(super) fn read_common(&self, offset: u64, len: usize) -> Vec<u8> {
        let selected = u32::from(self.queue_select);
        let queue = self.core.queue(selected);
        let layout = queue.map(|queue| queue.layout).unwrap_or_default();
        let value: u64 = match (offset, len) {
            (0x00, 4) => self.selects[0].into(),
            (0x04, 4) => self.core.offered(self.selects[0]).into(),
            (0x08, 4) => self.selects[1].into(),
            (0x0c, 4) => half(self.core.accepted, self.selects[1]).into(),
            (0x10, 2) => self.config_vector.into(),
            (0x12, 2) => QUEUES as u64,
            (0x14, 1) => self.core.status().into(),
            (0x15, 1) => u64::from(self.core.generation % 256),
            (0x16, 2) => self.queue_select.into(),
            (0x18, 2) if layout.size.is_power_of_two() => layout.size.into(),
            (0x1a, 2) => {
                let vector = self.queue_vectors.get(usize::from(self.queue_select));
                vector.copied().unwrap_or(NO_VECTOR).into()
            }
            (0x1c, 2) => queue.is_some_and(|queue| queue.enabled).into(),
            (0x1e, 2) if queue.is_some() => self.queue_select.into(),
            (0x20 | 0x24 | 0x28 | 0x2c | 0x30 | 0x34, 4) => {
                let (area, select) = field(offset);
                half(layout.areas[area], select).into()
            }
            (0x40 | 0x44 | 0x48 | 0x4c, 4) => {
                let [address, length] = self.core.named_pool();
                half(if offset < 0x48 { address } else { length }, u32::from(offset % 8 == 4)).into()
            }
            _ => 0,
        };
        value.to_le_bytes().into_iter().chain(std::iter::repeat(0)).take(len).collect()
    }

    pub(super) fn write_common(&mut self, offset: u64, data: &[u8], shadow: &Shadow) {
        match *data {
            [status] if offset == 0x14 => self.write_status(status),
            [a, b] => self.write16(offset, u16::from_le_bytes([a, b]), shadow),
            [a, b, c, d] => self.write32(offset, u32::from_le_bytes([a, b, c, d])),
            _ => {}
        }
    }

    fn write_status(&mut self, status: u8) {
        match self.core.set_status(status) {
            Step::Reset => {
                (self.selects, self.queue_select, self.isr) = ([0; 2], 0, 0);
                (self.config_vector, self.queue_vectors) = (NO_VECTOR, [NO_VECTOR; QUEUES]);
                self.msix.clear_pending();
            }
            // A message that was refused before the reset may still be there.
            Step::Started if !self.msix.update_all() => self.refuse(),
            _ => {}
        }
    }

    fn write16(&mut self, offset: u64, value: u16, shadow: &Shadow) {
        let queue = u32::from(self.queue_select);
        // A vector that is not there reads back as none (4.1.5.1.2.1).
        let vector = if usize::from(value) <= QUEUES { value } else { NO_VECTOR };
        match offset {
            0x10 => self.config_vector = vector,
            0x16 => self.queue_select = value,
            0x18 => _ = self.core.layout(queue).map(|layout| layout.size = value),
            0x1a => {
                if let Some(of_queue) = self.queue_vectors.get_mut(usize::from(self.queue_select)) {
                    *of_queue = vector;
                }
            }
            0x1c if value == 1 && self.core.enable(queue, shadow) => self.config_change(),
            _ => {}
        }
    }

    fn write32(&mut self, offset: u64, value: u32) {
        match offset {
            0x00 => self.selects[0] = value,
            0x08 => self.selects[1] = value,
            0x0c => self.core.accept(self.selects[1], value),
            0x20 | 0x24 | 0x28 | 0x2c | 0x30 | 0x34 => {
                let (area, select) = field(offset);
                if let Some(layout) = self.core.layout(self.queue_select.into()) {
                    let kept = half(layout.areas[area], 1 - select);
                    let (low, high) = if select == 0 { (value, kept) } else { (kept, value) };
                    layout.areas[area] = u64::from(high) << 32 | u64::from(low);
                }
            }
            _ => {}
        }
    }
}

/// Area and half of queue_desc, queue_driver and queue_device.
fn field(offset: u64) -> (usize, u32) {
    let halves = u32::try_from((offset - 0x20) / 4).expect("small");
    (usize::try_from(halves / 2).expect("small"), halves % 2)
}
