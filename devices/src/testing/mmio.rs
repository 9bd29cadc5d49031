// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver's side of virtio-mmio. Offsets are those of virtio 1.3, 4.2.2.

use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Transport;
use crate::bus::BusDevice;
use crate::pool::Gate;
use crate::virtio::mmio::{MmioInterrupt, MmioTransport};
use crate::virtio::{Core, DeviceType, EventFds, RestrictedDma, Worker};

/// A driver of a device with its registers in a window.
pub(crate) struct Mmio {
    transport: MmioTransport,
    interrupt: Arc<MmioInterrupt>,
}

impl Mmio {
    /// Reads a register.
    pub(crate) fn read(&self, register: u64) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes a register.
    pub(crate) fn write(&self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    /// The window, for accesses that a driver does not make.
    pub(crate) fn window(&self) -> &dyn BusDevice {
        &self.transport
    }

    /// How often the interrupt line was pulsed since the last call.
    pub(crate) fn edges(&self) -> u64 {
        self.interrupt.line().read().unwrap_or(0)
    }

    fn select(&self, queue: u16) {
        self.write(0x30, queue.into());
    }
}

impl Transport for Mmio {
    fn plug_saying(device: Box<dyn DeviceType>, gate: Gate, restricted: RestrictedDma) -> (Self, Worker) {
        let interrupt = Arc::new(MmioInterrupt::new(EventFd::new(EFD_NONBLOCK).unwrap()));
        let core = Core::new("device", device, gate, interrupt.clone()).with_restricted_dma(restricted);
        let notifications = Arc::new(EventFds::new(core.queue_count()).unwrap());
        let worker = Worker::new(core.handle().clone(), notifications.clone());
        let transport = MmioTransport::new(core, interrupt.clone(), notifications);
        (Self { transport, interrupt }, worker)
    }

    fn with_core<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        self.transport.with_core(look)
    }

    /// Always there: they read as zeros where the pool has no name.
    fn named_pool(&self) -> Option<(u64, u64)> {
        let wide = |low| u64::from(self.read(low)) | u64::from(self.read(low + 4)) << 32;
        Some((wide(0xd0), wide(0xd8)))
    }

    fn device_id(&self) -> u32 {
        self.read(0x08)
    }
    fn status(&self) -> u8 {
        u8::try_from(self.read(0x70)).unwrap()
    }
    fn set_status(&self, status: u8) {
        self.write(0x70, status.into());
    }
    fn device_features(&self, select: u32) -> u32 {
        self.write(0x14, select);
        self.read(0x10)
    }
    fn set_driver_features(&self, select: u32, bits: u32) {
        self.write(0x24, select);
        self.write(0x20, bits);
    }
    fn max_queue_size(&self, queue: u16) -> u16 {
        self.select(queue);
        u16::try_from(self.read(0x34)).unwrap()
    }
    fn set_queue_size(&self, queue: u16, size: u16) {
        self.select(queue);
        self.write(0x38, size.into());
    }
    fn set_area(&self, queue: u16, area: usize, address: u64) {
        self.select(queue);
        let low = [0x80, 0x90, 0xa0][area];
        self.write(low, u32::try_from(address & 0xffff_ffff).unwrap());
        self.write(low + 4, u32::try_from(address >> 32).unwrap());
    }
    fn enable_queue(&self, queue: u16) {
        self.select(queue);
        self.write(0x44, 1);
    }
    fn queue_enabled(&self, queue: u16) -> bool {
        self.select(queue);
        self.read(0x44) == 1
    }
    fn notify(&self, queue: u16) {
        self.write(0x50, queue.into());
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.transport.read(0x100 + offset, data);
    }
    fn write_config(&self, offset: u64, data: &[u8]) {
        self.transport.write(0x100 + offset, data);
    }
    fn config_generation(&self) -> u8 {
        self.read(0xfc).to_le_bytes()[0]
    }

    fn set_up_interrupts(&self) {}

    /// 4.2.3.4 and 4.2.3.5: the driver reads InterruptStatus, and acknowledges what it found.
    fn take_interrupts(&self) -> (bool, bool) {
        let status = self.read(0x60);
        assert_eq!(self.edges() > 0, status != 0, "the line goes with InterruptStatus {status:#x}");
        self.write(0x64, status);
        assert_eq!(self.read(0x60), 0);
        (status & 1 != 0, status & 2 != 0)
    }

    fn discard_interrupts(&self) {
        self.edges();
        self.write(0x64, u32::MAX);
    }
}
