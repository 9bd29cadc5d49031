// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host bridge as a function of its own bus. Linux looks for it before it believes that there is a bus.

use std::sync::{Mutex, PoisonError};

use cvmm_firmware::Range;

use super::{ConfigSpace, Function, Identity};
use crate::bus::BusDevice;

/// Vendor and device ID that QEMU's documentation (docs/specs/pci-ids.rst) gives to a generic PCIe host bridge.
const IDENTITY: Identity =
    Identity { vendor: 0x1b36, device: 0x0008, revision: 0, class: [0x06, 0x00, 0x00], subsystem: [0; 2] };

/// Function 0 of device 0. It has no BAR, and nothing in it can be changed.
#[derive(Debug)]
pub struct HostBridge(Mutex<ConfigSpace>);

impl Default for HostBridge {
    fn default() -> Self {
        Self(Mutex::new(ConfigSpace::new(&IDENTITY)))
    }
}

impl Function for HostBridge {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
    }

    fn window(&self) -> Option<Range> {
        None
    }
}

impl BusDevice for HostBridge {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}
