// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Conventional PCI (PCI Local Bus 3.0): a bus of functions with configuration spaces, and what virtio-pci needs to be
//! one of them.

mod bridge;
mod bus;
mod config_space;
mod msix;

use std::fmt::Debug;

use cvmm_firmware::Range;

pub use bridge::HostBridge;
pub use bus::{ConfigPorts, Ecam, NoSlot, PciBus};
pub use config_space::{ConfigSpace, Identity, command, register};
pub use msix::{ENTRY_SIZE, Message, Msix, control};

use crate::bus::BusDevice;

/// Function 0 of a device. As a [`BusDevice`] it is the registers behind its BAR 0.
pub trait Function: BusDevice {
    /// Reads configuration space, within an aligned 32-bit register.
    fn read_config(&self, offset: usize, data: &mut [u8]);
    /// Writes configuration space, within an aligned 32-bit register.
    fn write_config(&self, offset: usize, data: &[u8]);
    /// The guest-physical addresses in which it answers now.
    fn window(&self) -> Option<Range>;
}

/// What the machine does for a function.
pub trait Slot: Debug + Send + Sync {
    /// From now on the function's BAR is at `window`, or nowhere: notifications may go past its registers there.
    fn map(&self, window: Option<Range>);
    /// From now on the function's memory, BAR 2, is at `window`, or nowhere. Whether the guest's CPUs reach it there; where
    /// it was before they don't any more when this returns.
    fn map_memory(&self, window: Option<Range>) -> bool {
        let _ = window;
        false
    }
    /// From now on the eventfd of the MSI-X vector `vector` sends `message`.
    fn route(&self, vector: u16, message: Message);
    /// Asserts the function's interrupt pin, or releases it.
    fn set_pin(&self, asserted: bool);
}
