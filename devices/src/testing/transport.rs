// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver needs of a transport, so that the tests of a device run over each from one source.

use crate::pool::Gate;
use crate::queue::QueueLayout;
use crate::virtio::{Core, DeviceType, RestrictedDma, Worker};

/// A driver's way to the registers of a device. It forbids nothing: it writes what it is told.
pub(crate) trait Transport: Sized {
    /// Plugs `device` in, and does what a driver does before its first access to the device status. The worker is to
    /// be put into an event loop.
    fn plug(device: Box<dyn DeviceType>, gate: Gate) -> (Self, Worker) {
        Self::plug_saying(device, gate, RestrictedDma::default())
    }

    /// The same, with a device that says `restricted` of its pool.
    fn plug_saying(device: Box<dyn DeviceType>, gate: Gate, restricted: RestrictedDma) -> (Self, Worker);

    /// Looks behind the registers.
    fn with_core<T>(&self, look: impl FnOnce(&Core) -> T) -> T;

    /// Address and length of the pool that the registers name; `None` where there are no such registers.
    fn named_pool(&self) -> Option<(u64, u64)>;
    /// Virtio device ID.
    fn device_id(&self) -> u32;
    fn status(&self) -> u8;
    fn set_status(&self, status: u8);
    fn device_features(&self, select: u32) -> u32;
    fn set_driver_features(&self, select: u32, bits: u32);
    /// Largest size of a queue whose size has not been written since the reset; 0 if there is no such queue.
    fn max_queue_size(&self, queue: u16) -> u16;
    fn set_queue_size(&self, queue: u16, size: u16);
    /// Address of the descriptor table (0), the available ring (1) or the used ring (2).
    fn set_area(&self, queue: u16, area: usize, address: u64);
    fn enable_queue(&self, queue: u16);
    fn queue_enabled(&self, queue: u16) -> bool;
    fn notify(&self, queue: u16);
    fn read_config(&self, offset: u64, data: &mut [u8]);
    fn write_config(&self, offset: u64, data: &[u8]);
    fn config_generation(&self) -> u8;

    /// Makes interrupts arrive: to be repeated after a reset.
    fn set_up_interrupts(&self);
    /// Whether an interrupt has arrived since the last call: for a used buffer, for a configuration change. What tells
    /// the driver the cause is acknowledged.
    fn take_interrupts(&self) -> (bool, bool);
    /// What has arrived does not count.
    fn discard_interrupts(&self);

    /// Device reset, and interrupts after it.
    fn reset(&self) {
        self.set_status(0);
        self.discard_interrupts();
        self.set_up_interrupts();
    }

    /// Accepts these features, and no others.
    fn accept(&self, features: u64) {
        for select in [0u32, 1] {
            let bits = features >> (32 * select) & 0xffff_ffff;
            self.set_driver_features(select, u32::try_from(bits).unwrap());
        }
    }

    /// Writes all that a queue is made of; does not enable it.
    fn set_queue(&self, queue: u16, layout: QueueLayout) {
        self.set_queue_size(queue, layout.size);
        let areas = [layout.descriptor_table, layout.available_ring, layout.used_ring];
        areas.into_iter().enumerate().for_each(|(area, address)| self.set_area(queue, area, address));
    }
}

/// Instantiates generic tests once for each transport, and each way of virtio-pci to interrupt.
macro_rules! over_each_transport {
    ($($test:ident),* $(,)?) => {
        mod mmio {
            $(#[test] fn $test() { super::$test::<crate::testing::Mmio>(); })*
        }
        mod pci_msix {
            $(#[test] fn $test() { super::$test::<crate::testing::PciMsix>(); })*
        }
        mod pci_intx {
            $(#[test] fn $test() { super::$test::<crate::testing::PciIntx>(); })*
        }
    };
}
pub(crate) use over_each_transport;
