// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Virtio over MMIO, version 2 (virtio 1.3, 4.2): a register layout over [`Core`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvmm_firmware::Range;
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES,
    VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING,
    VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_MAGIC_VALUE,
    VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH,
    VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_NUM_MAX,
    VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW,
    VIRTIO_MMIO_SHM_BASE_HIGH, VIRTIO_MMIO_SHM_BASE_LOW, VIRTIO_MMIO_SHM_LEN_HIGH, VIRTIO_MMIO_SHM_LEN_LOW,
    VIRTIO_MMIO_STATUS, VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
};
use vmm_sys_util::eventfd::EventFd;

use super::core::{half, set_half};
use super::{Core, EventFds, Interrupt};
use crate::bus::BusDevice;
use crate::queue::QueueLayout;

/// Bytes of a device's register window.
pub const WINDOW_SIZE: u64 = 0x1000;

/// Offset of the QueueNotify register, for ioeventfds.
pub const QUEUE_NOTIFY: u64 = VIRTIO_MMIO_QUEUE_NOTIFY as u64;

/// Registers that name the pool (resources/review/step4.md): address and length, in halves. The standard has nothing at
/// these offsets. 0 where the device names none.
const POOL_ADDRESS_LOW: u32 = 0x0d0;
const POOL_ADDRESS_HIGH: u32 = 0x0d4;
const POOL_LENGTH_LOW: u32 = 0x0d8;
const POOL_LENGTH_HIGH: u32 = 0x0dc;

/// "virt", little endian (virtio 1.3, 4.2.2).
const MAGIC: u32 = 0x7472_6976;
/// "cvmm", little endian. Any value serves: no vendor identifiers are assigned.
const VENDOR: u32 = 0x6d6d_7663;

/// InterruptStatus and the line behind it. The worker raises it without the registers' lock.
#[derive(Debug)]
pub struct MmioInterrupt {
    status: AtomicU32,
    line: EventFd,
}

impl MmioInterrupt {
    /// An interrupt that pulses `line`, an irqfd of an edge-triggered pin.
    pub fn new(line: EventFd) -> Self {
        Self { status: AtomicU32::new(0), line }
    }

    /// The line, to register as an irqfd.
    pub fn line(&self) -> &EventFd {
        &self.line
    }

    fn raise(&self, cause: u32) {
        self.status.fetch_or(cause, Ordering::SeqCst);
        // Fails only if 2^64 - 2 edges are pending.
        let _ = self.line.write(1);
    }
}

impl Interrupt for MmioInterrupt {
    fn used_buffer(&self, _queue: u16) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    fn config_change(&self) {
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
    }
}

/// A virtio device's registers on the MMIO bus.
#[derive(Debug)]
pub struct MmioTransport {
    registers: Mutex<Registers>,
    interrupt: Arc<MmioInterrupt>,
    notifications: Arc<EventFds>,
}

#[derive(Debug)]
struct Registers {
    core: Core,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
}

impl MmioTransport {
    /// The registers of `core`'s device, whose interrupt must be `interrupt`.
    pub fn new(core: Core, interrupt: Arc<MmioInterrupt>, notifications: Arc<EventFds>) -> Self {
        let registers = Registers { core, device_features_sel: 0, driver_features_sel: 0, queue_sel: 0 };
        Self { registers: Mutex::new(registers), interrupt, notifications }
    }

    /// Looks at the core: for the report.
    pub fn with_core<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&self.lock().core)
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_register(&self, register: u32) -> u32 {
        if register == VIRTIO_MMIO_INTERRUPT_STATUS {
            return self.interrupt.status.load(Ordering::SeqCst);
        }
        let registers = self.lock();
        let Registers { core, device_features_sel, queue_sel, .. } = &*registers;
        match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => 2,
            VIRTIO_MMIO_DEVICE_ID => core.kind().device_id(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => core.device_features(*device_features_sel),
            VIRTIO_MMIO_QUEUE_NUM_MAX => u32::from(core.max_queue_size(*queue_sel)),
            VIRTIO_MMIO_QUEUE_READY => u32::from(core.queue_enabled(*queue_sel)),
            VIRTIO_MMIO_STATUS => u32::from(core.status()),
            // No shared memory regions: a length of -1 says so (virtio 1.3, 4.2.2).
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            VIRTIO_MMIO_CONFIG_GENERATION => core.config_generation(),
            POOL_ADDRESS_LOW | POOL_ADDRESS_HIGH | POOL_LENGTH_LOW | POOL_LENGTH_HIGH => {
                pool_register(core.named_pool(), register)
            }
            // Reserved, or write-only.
            _ => 0,
        }
    }

    fn write_register(&self, register: u32, value: u32) {
        match register {
            VIRTIO_MMIO_QUEUE_NOTIFY => return self.notifications.notify(value),
            VIRTIO_MMIO_INTERRUPT_ACK => {
                self.interrupt.status.fetch_and(!value, Ordering::SeqCst);
                return;
            }
            _ => {}
        }
        let mut registers = self.lock();
        let Registers { core, device_features_sel, driver_features_sel, queue_sel } = &mut *registers;
        let queue = *queue_sel;
        let mut area = |field: fn(&mut QueueLayout) -> &mut u64, select| {
            core.change_queue_layout(queue, |layout| set_half(field(layout), select, value));
        };
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => *device_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => *driver_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES => core.set_driver_features(*driver_features_sel, value),
            VIRTIO_MMIO_QUEUE_SEL => *queue_sel = value,
            // A size that does not fit 16 bits is no size: 0 is refused when the queue is enabled.
            VIRTIO_MMIO_QUEUE_NUM => {
                core.change_queue_layout(queue, |layout| layout.size = u16::try_from(value).unwrap_or(0))
            }
            VIRTIO_MMIO_QUEUE_READY if value == 1 => core.enable_queue(queue),
            VIRTIO_MMIO_QUEUE_READY if value == 0 => core.disable_queue(queue),
            // The status field is 8 bits wide; a driver that sets others is not understood.
            VIRTIO_MMIO_STATUS => {
                if let Ok(value) = u8::try_from(value) {
                    core.set_status(value);
                }
            }
            VIRTIO_MMIO_QUEUE_DESC_LOW => area(|layout| &mut layout.descriptor_table, 0),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => area(|layout| &mut layout.descriptor_table, 1),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => area(|layout| &mut layout.available_ring, 0),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => area(|layout| &mut layout.available_ring, 1),
            VIRTIO_MMIO_QUEUE_USED_LOW => area(|layout| &mut layout.used_ring, 0),
            VIRTIO_MMIO_QUEUE_USED_HIGH => area(|layout| &mut layout.used_ring, 1),
            // Reserved, or read-only.
            _ => {}
        }
    }
}

fn pool_register(pool: Option<Range>, register: u32) -> u32 {
    let (address, length) = pool.map_or((0, 0), |pool| (pool.base(), pool.size()));
    match register {
        POOL_ADDRESS_LOW => half(address, 0),
        POOL_ADDRESS_HIGH => half(address, 1),
        POOL_LENGTH_LOW => half(length, 0),
        POOL_LENGTH_HIGH => half(length, 1),
        _ => 0,
    }
}

impl BusDevice for MmioTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(at) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            return self.lock().core.read_config(at, data);
        }
        // "32 bit wide and aligned reads and writes" (virtio 1.3, 4.2.2.2). Anything else is no register.
        let value = match (u32::try_from(offset), data.len()) {
            (Ok(register), 4) if register.is_multiple_of(4) => self.read_register(register),
            _ => 0,
        };
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        // The configuration spaces of our devices are read-only.
        if let (Ok(register), Ok(bytes)) = (u32::try_from(offset), <[u8; 4]>::try_from(data))
            && register < VIRTIO_MMIO_CONFIG
            && register.is_multiple_of(4)
        {
            self.write_register(register, u32::from_le_bytes(bytes));
        }
    }
}

#[cfg(test)]
mod tests;
