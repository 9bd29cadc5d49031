// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupt routes: which message KVM sends to the local APICs when a line (GSI) is signalled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi, kvm_msi};
use kvm_ioctls::VmFd;

/// A message signalled interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Guest-physical address: in the local APICs' window.
    pub address: u64,
    /// Vector, delivery and trigger mode.
    pub data: u32,
}

/// The routes of one VM.
#[derive(Debug)]
pub struct Routes {
    vm: Arc<VmFd>,
    table: Mutex<BTreeMap<u32, Msi>>,
}

impl Routes {
    /// No routes yet.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, table: Mutex::default() }
    }

    /// Routes `gsi` to `msi`, or nowhere: an edge on a line without a route is lost, as on a masked pin.
    pub fn set(&self, gsi: u32, msi: Option<Msi>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let old = match msi {
            Some(msi) => table.insert(gsi, msi),
            None => table.remove(&gsi),
        };
        if old == msi {
            return;
        }
        let entries: Vec<_> = table.iter().map(|(gsi, msi)| entry(*gsi, *msi)).collect();
        let result = match KvmIrqRouting::from_entries(&entries) {
            Ok(routing) => self.vm.set_gsi_routing(&routing).map_err(|error| error.to_string()),
            Err(error) => Err(format!("{error:?}")),
        };
        if let Err(error) = result {
            log::error!("KVM refused the interrupt routes: {error}");
        }
    }

    /// Sends `msi` now. `false` if no local APIC took it.
    pub fn signal(&self, msi: Msi) -> bool {
        let [address_lo, address_hi] = halves(msi.address);
        let sent =
            self.vm.signal_msi(kvm_msi { address_lo, address_hi, data: msi.data, ..Default::default() });
        sent.is_ok_and(|taken| taken > 0)
    }
}

fn halves(address: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn entry(gsi: u32, msi: Msi) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    let [address_lo, address_hi] = halves(msi.address);
    entry.u.msi = kvm_irq_routing_msi { address_lo, address_hi, data: msi.data, ..Default::default() };
    entry
}
