// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What KVM does for a PCI function: notifications by ioeventfd, wherever the guest puts its BAR; messages by irqfd and
//! routes; its interrupt pin by the I/O APIC; its memory, if it has any, by a slot.

use std::sync::{Arc, Mutex, PoisonError};

use cvmm_arch::native::ioapic::IoApic;
use cvmm_arch::native::irq::{Msi, Routes};
use cvmm_devices::pci::{Message, Slot};
use cvmm_devices::virtio::EventFds;
use cvmm_devices::virtio::pci::notify_offset;
use cvmm_firmware::{Interrupt, Range};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};

use super::device_memory::DeviceMemory;

/// A slot of the bus, and the function in it.
#[derive(Debug)]
pub struct KvmSlot {
    /// Name of the device, for messages.
    pub name: String,
    /// The VM.
    pub vm: Arc<VmFd>,
    /// Its routes.
    pub routes: Arc<Routes>,
    /// Its I/O APIC.
    pub io_apic: Arc<IoApic>,
    /// Where the interrupt pin leads.
    pub line: Interrupt,
    /// The KVM line (GSI) of vector 0; the others follow.
    pub first_gsi: u32,
    /// One eventfd a queue.
    pub notifications: Arc<EventFds>,
    /// Where the host bridge has BARs. Elsewhere a fixed device may be in the same place, and comes first.
    pub bars: Range,
    /// Where the BAR's notifications have ioeventfds now.
    pub window: Mutex<Option<Range>>,
    /// The function's own memory, behind BAR 2.
    pub memory: Option<DeviceMemory>,
}

impl KvmSlot {
    fn addresses(&self, window: Range) -> impl Iterator<Item = IoEventAddress> {
        (0u16..).map(move |queue| IoEventAddress::Mmio(window.base() + notify_offset(queue)))
    }
}

impl Slot for KvmSlot {
    fn map(&self, window: Option<Range>) {
        let mut current = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = current.take() {
            for (fd, address) in self.notifications.iter().zip(self.addresses(old)) {
                // Fails where it was not registered.
                let _ = self.vm.unregister_ioevent(fd, &address, NoDatamatch);
            }
        }
        let Some(new) = window.filter(|window| self.bars.contains(window)) else { return };
        for (fd, address) in self.notifications.iter().zip(self.addresses(new)) {
            // Fails if the guest puts two functions in the same place. Without an ioeventfd, notifications come as
            // exits, and the bus decides whose they are.
            if let Err(error) = self.vm.register_ioevent(fd, &address, NoDatamatch) {
                log::debug!("{}: no ioeventfd at {new}: {error}", self.name);
            }
        }
        *current = Some(new);
    }

    fn map_memory(&self, window: Option<Range>) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.map(window))
    }

    fn route(&self, vector: u16, message: Message) {
        let msi = Msi { address: message.address, data: message.data };
        self.routes.set(self.first_gsi + u32::from(vector), Some(msi));
    }

    fn set_pin(&self, asserted: bool) {
        self.io_apic.set_line(self.line.0, asserted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BAR on top of other devices has no ioeventfds, which would take these devices' writes away.
    #[test]
    fn notifications_bypass_the_bus_only_where_bars_belong() {
        let Ok(kvm) = kvm_ioctls::Kvm::new() else {
            return crate::testing::not_tested("there is no /dev/kvm");
        };
        let vm = Arc::new(kvm.create_vm().unwrap());
        let routes = Arc::new(Routes::new(Arc::clone(&vm)));
        let io_apic = Arc::new(IoApic::new(Arc::clone(&routes)));
        let slot = KvmSlot {
            name: "blk0".into(),
            vm,
            routes,
            io_apic,
            line: Interrupt(60),
            first_gsi: 64,
            notifications: Arc::new(EventFds::new(2).unwrap()),
            bars: Range::fixed(0xc000_0000, 0x1000_0000),
            window: Mutex::new(None),
            memory: None,
        };
        let mapped = |base| {
            slot.map(Range::new(base, 0x8000));
            *slot.window.lock().unwrap()
        };
        assert_eq!(mapped(0xc000_8000), Some(Range::fixed(0xc000_8000, 0x8000)));
        assert_eq!(mapped(0xcfff_8000), Some(Range::fixed(0xcfff_8000, 0x8000)));
        assert_eq!(mapped(0xd000_0000), None);
        slot.map(None);
        assert_eq!(*slot.window.lock().unwrap(), None);
    }
}
