// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bus 0: which functions there are, and the two ways to their configuration spaces.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cvmm_firmware::Range;

use super::{Function, HostBridge};
use crate::bus::{BusDevice, Decode};

const DEVICES: usize = 32;

/// A device number that is taken, or none at all.
#[derive(Debug, thiserror::Error)]
#[error("PCI has no free device {0}")]
pub struct NoSlot(pub u8);

/// A bus with a host bridge as device 0 and functions beside it.
#[derive(Debug)]
pub struct PciBus {
    functions: [Option<Arc<dyn Function>>; DEVICES],
    /// Where functions answer, by device number. The guest may put them anywhere, also on top of each other.
    windows: RwLock<[Option<Range>; DEVICES]>,
}

impl Default for PciBus {
    fn default() -> Self {
        let mut functions = [const { None }; DEVICES];
        functions[0] = Some(Arc::new(HostBridge::default()) as _);
        Self { functions, windows: RwLock::default() }
    }
}

impl PciBus {
    /// Makes `function` the device with this number.
    pub fn insert(&mut self, device: u8, function: Arc<dyn Function>) -> Result<(), NoSlot> {
        match self.functions.get_mut(usize::from(device)) {
            Some(slot @ None) => {
                *slot = Some(function);
                Ok(())
            }
            _ => Err(NoSlot(device)),
        }
    }

    /// Reads configuration space. What is not there reads as ones (PCI 3.0, 6.1).
    fn read_config(&self, address: &ConfigAddress, data: &mut [u8]) {
        match self.function(address) {
            Some(function) if address.is_in_one_register(data.len()) => {
                function.read_config(address.offset, data);
            }
            _ => data.fill(0xff),
        }
    }

    fn write_config(&self, address: &ConfigAddress, data: &[u8]) {
        let Some(function) = self.function(address).filter(|_| address.is_in_one_register(data.len())) else {
            return;
        };
        function.write_config(address.offset, data);
        // Two CPUs may have written: whoever comes last finds out what holds.
        let mut windows = self.windows.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get_mut(address.device) {
            *window = function.window();
        }
    }

    fn function(&self, address: &ConfigAddress) -> Option<&Arc<dyn Function>> {
        self.functions.get(address.device)?.as_ref().filter(|_| address.bus == 0 && address.function == 0)
    }
}

impl Decode for PciBus {
    fn decode(&self, access: &Range) -> Option<(u64, &dyn BusDevice)> {
        let windows = *self.windows.read().unwrap_or_else(PoisonError::into_inner);
        let hit = |window: &Option<Range>| window.is_some_and(|window| window.contains(access));
        let device = windows.iter().position(hit)?;
        let offset = access.base().checked_sub(windows.get(device).copied().flatten()?.base())?;
        Some((offset, self.functions.get(device)?.as_deref()? as &dyn BusDevice))
    }
}

/// A register of some function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ConfigAddress {
    bus: usize,
    device: usize,
    function: usize,
    offset: usize,
}

impl ConfigAddress {
    /// From a number that has the offset in its `offset_bits` low bits, and then function, device and bus.
    fn new(number: u64, offset_bits: u32) -> Option<Self> {
        let number = usize::try_from(number).ok()?;
        let bdf = number >> offset_bits;
        Some(Self {
            bus: bdf >> 8,
            device: bdf >> 3 & 0x1f,
            function: bdf & 7,
            offset: number & ((1 << offset_bits) - 1),
        })
    }

    fn is_in_one_register(&self, len: usize) -> bool {
        matches!(len, 1 | 2 | 4) && self.offset.is_multiple_of(len)
    }
}

/// Configuration space as memory (PCI Express 5.0, 7.2.2, ECAM).
#[derive(Debug)]
pub struct Ecam(pub Arc<PciBus>);

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match ConfigAddress::new(offset, 12) {
            Some(address) => self.0.read_config(&address, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(address) = ConfigAddress::new(offset, 12) {
            self.0.write_config(&address, data);
        }
    }
}

/// Configuration mechanism #1 (PCI 3.0, 3.2.2.3.2): an address port, and four data ports after it.
#[derive(Debug)]
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    address: Mutex<u32>,
    /// The reset control register, if the machine has one: a byte of the address port.
    reset: Option<Arc<dyn BusDevice>>,
}

/// Bit 31 of the address: the data ports are configuration space.
const ENABLE: u32 = 1 << 31;
/// Bits of the address that exist.
const DEFINED: u32 = ENABLE | 0xff_fffc;
const RESET: u64 = 1;
const DATA: u64 = 4;

impl ConfigPorts {
    /// The ports of `bus`.
    pub fn new(bus: Arc<PciBus>) -> Self {
        Self { bus, address: Mutex::new(0), reset: None }
    }

    /// With `reset` at the second byte of the address port: the address is all four bytes, and other accesses go to what else
    /// is there (PCI 3.0, 3.2.2.3.2).
    #[must_use]
    pub fn with_reset(self, reset: Arc<dyn BusDevice>) -> Self {
        Self { reset: Some(reset), ..self }
    }

    fn reset(&self, offset: u64, len: usize) -> Option<&dyn BusDevice> {
        self.reset.as_deref().filter(|_| (offset, len) == (RESET, 1))
    }

    fn selected(&self, offset: u64) -> Option<ConfigAddress> {
        let address = *self.address.lock().unwrap_or_else(PoisonError::into_inner);
        let byte = offset.checked_sub(DATA)?;
        ConfigAddress::new(u64::from(address & !ENABLE) + byte, 8).filter(|_| address & ENABLE != 0)
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let (0, Ok(data)) = (offset, <&mut [u8; 4]>::try_from(&mut *data)) {
            *data = self.address.lock().unwrap_or_else(PoisonError::into_inner).to_le_bytes();
        } else if let Some(reset) = self.reset(offset, data.len()) {
            reset.read(0, data);
        } else if let Some(address) = self.selected(offset) {
            self.bus.read_config(&address, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (0, Ok(data)) = (offset, <[u8; 4]>::try_from(data)) {
            *self.address.lock().unwrap_or_else(PoisonError::into_inner) = u32::from_le_bytes(data) & DEFINED;
        } else if let Some(reset) = self.reset(offset, data.len()) {
            reset.write(0, data);
        } else if let Some(address) = self.selected(offset) {
            self.bus.write_config(&address, data);
        }
    }
}

#[cfg(test)]
mod tests;
