// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory on a PCI device: a KVM slot that follows the function's BAR 2.

#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use cvmm_devices::pool::Pool;
use cvmm_firmware::{Range, VirtioDevice};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

/// What the memory of `device` is called, where pools have their names.
pub fn memory_name(device: &VirtioDevice) -> String {
    format!("{} device memory", device.name)
}

/// The memory of a function. It answers before registers that are in the same place, as RAM does before devices.
#[derive(Debug)]
pub struct DeviceMemory {
    /// Name of the device, for messages.
    pub name: String,
    /// The VM.
    pub vm: Arc<VmFd>,
    /// The KVM slot.
    pub slot: u32,
    /// The memory; keeps it mapped.
    pub pool: Pool,
    /// Where the host bridge has BARs. Elsewhere is the guest's RAM, or a device that does not move.
    pub bars: Range,
    /// Where guests reach it now.
    pub mapped: Mutex<Option<Range>>,
}

impl DeviceMemory {
    /// Puts it at `window`, or nowhere. Whether it is there.
    pub fn map(&self, window: Option<Range>) -> bool {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = *mapped {
            if let Err(error) = self.set(old.base(), 0) {
                log::warn!("{}: its memory can't move, and stays at {old}: {error}", self.name);
                return false;
            }
            *mapped = None;
        }
        let Some(new) = window.filter(|window| self.bars.contains(window)) else { return false };
        // Fails over another device's memory: slots may not overlap (Linux, Documentation/virt/kvm/api.rst, 4.35).
        match self.set(new.base(), self.pool.size()) {
            Ok(()) => {
                *mapped = Some(new);
                true
            }
            Err(error) => {
                log::debug!("{}: its memory can't be at {new}: {error}", self.name);
                false
            }
        }
    }

    /// A size of 0 takes the slot away.
    fn set(&self, guest_phys_addr: u64, memory_size: u64) -> Result<(), kvm_ioctls::Error> {
        let (userspace_addr, _) = self.pool.mapping();
        let region = kvm_userspace_memory_region {
            slot: self.slot,
            flags: 0,
            guest_phys_addr,
            memory_size,
            userspace_addr,
        };
        // SAFETY: the slot is one whole mapping of this process, which `pool` keeps. No vCPU runs after that is gone: its bus
        // has the function, which has this.
        unsafe { self.vm.set_user_memory_region(region) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PoolConfig;
    use crate::machine::memory::map_pool;

    const BARS: Range = Range::fixed(0xc000_0000, 0x1000_0000);
    const SIZE: u64 = 0x20_0000;

    fn option() -> PoolConfig {
        let (option, name) = (String::new(), String::new());
        PoolConfig { option, name, size: SIZE, base: None, default: true, hugepages: false }
    }

    fn memory(vm: &Arc<VmFd>, slot: u32) -> DeviceMemory {
        let pool = map_pool("memory", Range::fixed(0xc000_0000, SIZE), &option()).unwrap();
        let (name, mapped) = (format!("blk{slot}"), Mutex::new(None));
        DeviceMemory { name, vm: Arc::clone(vm), slot, pool, bars: BARS, mapped }
    }

    /// Where it would cover RAM, a device that does not move, or another's memory, it is not.
    #[test]
    fn memory_is_where_bars_belong_and_in_one_place() {
        let Ok(kvm) = kvm_ioctls::Kvm::new() else {
            return crate::testing::not_tested("there is no /dev/kvm");
        };
        let vm = Arc::new(kvm.create_vm().unwrap());
        let [one, two] = [0, 1].map(|slot| memory(&vm, slot));
        let map = |memory: &DeviceMemory, base| {
            let (window, there) = (Range::new(base, SIZE), memory.map(Range::new(base, SIZE)));
            assert_eq!(*memory.mapped.lock().unwrap(), window.filter(|_| there));
            there
        };
        for (base, there) in [
            (0xc000_0000, true),
            (0xcfe0_0000, true),
            (0xd000_0000, false),
            (0, false),
            (0xbfe0_0000, false),
            (0xfec0_0000, false),
            (1 << 40, false),
            (u64::MAX - SIZE + 1, false),
            (0xc400_0000, true),
        ] {
            assert_eq!(map(&one, base), there, "{base:#x}");
        }
        // KVM would refuse a second slot in the place of one that is there: so these were taken away.
        for base in [0xc000_0000, 0xcfe0_0000] {
            assert!(map(&two, base), "{base:#x}");
        }
        assert!(!map(&two, 0xc400_0000), "over another's memory");
        assert!(!one.map(None) && one.mapped.lock().unwrap().is_none());
        assert!(map(&two, 0xc400_0000), "where there was another's memory");
        assert!(!map(&one, 0xc400_0000));
    }
}
