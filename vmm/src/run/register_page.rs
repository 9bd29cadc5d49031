// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A page of memory in the place of the UART's registers, which the guest reads without an exit while it boots. Its writes
//! are exits all the time: the slot is read-only (Linux, Documentation/virt/kvm/api.rst, 4.35).
//!
//! Whoever may change slots could give the guest any memory of this process. So a thread that does nothing else takes the
//! page away, and ends.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use cvmm_devices::serial::{self, Console};
use cvmm_firmware::Range;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, VmFd};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use super::control::ExitRequest;
use super::io_thread::PanicGuard;
use crate::machine::Vm;
use crate::sandbox::{Sandbox, ThreadKind};
use crate::{Error, Outcome, Result};

const PAGE: usize = 4096;

/// The thread that takes the page away.
#[derive(Debug)]
pub struct RegisterPage(JoinHandle<()>);

impl RegisterPage {
    /// Puts a page at the UART's registers, `window`. `None`: this KVM has no read-only memory.
    pub fn open(vm: &Vm, window: Range, exit: &Arc<ExitRequest>, sandbox: &Sandbox) -> Result<Option<Self>> {
        // Nothing else is in its page (layout), so the rest of it reads as ones, like all where no device is.
        if !vm.fd.check_extension(Cap::ReadonlyMem) || !window.base().is_multiple_of(PAGE as u64) {
            return Ok(None);
        }
        let failed = |error: &dyn std::fmt::Display| Error::Host(format!("the UART's page: {error}"));
        let memory = MmapRegion::new(PAGE).map_err(|error| failed(&error))?;
        let ones = [0xff; PAGE];
        memory.as_volatile_slice().write_slice(&ones, 0).map_err(|error| failed(&error))?;
        let slot = Slot { vm: Arc::clone(&vm.fd), memory: Arc::new(memory), number: vm.next_slot, window };
        slot.set(PAGE as u64).map_err(|error| failed(&error))?;

        let (close, closing) = mpsc::channel();
        let (done, closed) = mpsc::channel();
        let page = Page { memory: Arc::clone(&slot.memory), close, closed };
        let exit = Arc::clone(exit);
        let body = move || {
            let _guard = PanicGuard(&exit);
            // An error: the guest was not started.
            let _ = closing.recv();
            if let Err(error) = slot.set(0) {
                // The guest would go on reading what is there.
                let what = format!("the UART's page can't be taken away: {error}");
                exit.ask(Outcome::VmmError(what));
                std::mem::forget(slot);
            }
            // An error: nobody waits for it.
            let _ = done.send(());
        };
        let thread = sandbox.spawn("uart", ThreadKind::RegisterPage, body)?;
        vm.console.read_in(Box::new(page));
        Ok(Some(Self(thread)))
    }

    /// Returns when the page is away and the thread has ended.
    pub fn close(self, console: &Console) {
        console.close_page();
        let _ = self.0.join();
    }
}

struct Slot {
    vm: Arc<VmFd>,
    memory: Arc<MmapRegion>,
    number: u32,
    window: Range,
}

impl Slot {
    /// A size of 0 takes it away.
    fn set(&self, memory_size: u64) -> std::result::Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot: self.number,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: self.window.base(),
            memory_size,
            userspace_addr: self.memory.as_ptr() as u64,
        };
        // SAFETY: the slot is one whole mapping of this process, which lives until the slot is away, or for ever.
        unsafe { self.vm.set_user_memory_region(region) }
    }
}

struct Page {
    memory: Arc<MmapRegion>,
    close: Sender<()>,
    closed: Receiver<()>,
}

impl serial::RegisterPage for Page {
    fn show(&self, registers: [u8; serial::REGISTERS]) {
        // All at once. It is in the page and aligned.
        let _ = self.memory.as_volatile_slice().store(u64::from_le_bytes(registers), 0, Ordering::Release);
    }

    fn close(self: Box<Self>) {
        // Errors: the thread has ended, and said why.
        let _ = self.close.send(());
        let _ = self.closed.recv();
    }
}
