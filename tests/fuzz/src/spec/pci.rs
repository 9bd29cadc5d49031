// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A virtio-pci function: configuration space (PCI 3.0, 6.1 and 6.2), MSI-X (6.8.2), and the structures in its BAR
//! (virtio 1.3, 4.1.4 and 4.1.5). What never changes in configuration space is taken from the real function once.

mod common;
mod msix;

pub use common::FIELDS;
pub use msix::{Msix, Vector};

use super::core::Core;
use super::queue::Turn;
use crate::memory::{SIZE, Shadow, usize_of};
use crate::profile::Profile;

/// Queues of the function.
pub const QUEUES: usize = 2;
/// Bytes of the BAR.
pub const BAR_SIZE: u64 = 0x8000;
/// Registers, and the bits of the command register that there are: memory space, bus master, interrupt disable.
const COMMAND: usize = 0x04;
const BAR: usize = 0x10;
/// The function's own memory, if it has any (RFC of April 2025, 3/3).
const MEMORY_BAR: usize = 0x18;
const INTERRUPT_LINE: usize = 0x3c;
const COMMAND_BITS: u16 = 0x0406;
const NO_VECTOR: u16 = 0xffff;

/// See above.
#[derive(Clone, Debug)]
pub struct Function {
    bytes: Vec<u8>,
    /// Offsets of MSI-X' message control, and of the access capability (4.1.4.9).
    control: usize,
    access: usize,
    has_memory: bool,
    /// The virtio device.
    pub core: Core,
    /// Messages.
    pub msix: Msix,
    selects: [u32; 2],
    queue_select: u16,
    config_vector: u16,
    queue_vectors: [u16; QUEUES],
    isr: u8,
    /// Queues whose notification is due.
    pub notified: [bool; QUEUES],
}

impl Function {
    /// A function whose configuration space is this after power-on.
    pub fn new(bytes: Vec<u8>, profile: Profile) -> Self {
        let (mut control, mut access, mut at) = (0, 0, usize::from(bytes[0x34]));
        while at != 0 {
            match (bytes[at], bytes[at + 3]) {
                (0x11, _) => control = at + 2,
                (0x09, 5) => access = at,
                _ => {}
            }
            at = usize::from(bytes[at + 1]);
        }
        assert!(control > 0 && access > 0, "the capabilities of MSI-X and of virtio's access");
        Self {
            bytes,
            control,
            access,
            has_memory: profile.on_device(),
            core: Core::new(QUEUES, profile),
            msix: Msix::new(QUEUES + 1),
            selects: [0; 2],
            queue_select: 0,
            config_vector: NO_VECTOR,
            queue_vectors: [NO_VECTOR; QUEUES],
            isr: 0,
            notified: [false; QUEUES],
        }
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("4 bytes"))
    }

    fn bus_master(&self) -> bool {
        self.u16(COMMAND) & 4 != 0
    }

    /// Where the BAR answers, if it does.
    pub fn window(&self) -> Option<u64> {
        (self.u16(COMMAND) & 2 != 0).then_some(self.bar())
    }

    /// Where the BAR is, or would be.
    pub fn bar(&self) -> u64 {
        let bar = u64::from(self.u32(BAR)) | u64::from(self.u32(BAR + 4)) << 32;
        bar & !(BAR_SIZE - 1)
    }

    /// Whether it has memory of its own.
    pub fn has_memory(&self) -> bool {
        self.has_memory
    }

    /// Where its memory is on the bus, if it has any that answers.
    pub fn memory(&self) -> Option<u64> {
        let bar = u64::from(self.u32(MEMORY_BAR)) | u64::from(self.u32(MEMORY_BAR + 4)) << 32;
        (self.has_memory && self.u16(COMMAND) & 2 != 0).then_some(bar & !(SIZE - 1))
    }

    /// Offsets of MSI-X' message control, and of the access capability.
    pub fn capabilities(&self) -> (usize, usize) {
        (self.control, self.access)
    }

    /// Whether INTA# is asserted (PCI 3.0, 6.2.2 and 6.8.3.3).
    pub fn pin(&self) -> bool {
        self.wants_pin() && self.u16(COMMAND) & 0x400 == 0
    }

    fn wants_pin(&self) -> bool {
        self.isr != 0 && !self.msix.enabled()
    }

    /// The bits of a byte that a write changes.
    fn writable(&self, at: usize) -> u8 {
        let [low, high] = COMMAND_BITS.to_le_bytes();
        let access = self.access;
        match at {
            _ if at == COMMAND => low,
            _ if at == COMMAND + 1 => high,
            // 64 bits, less those that the BAR's size takes.
            _ if at == BAR + 1 => 0x80,
            _ if (BAR + 2..BAR + 8).contains(&at) || at == INTERRUPT_LINE => 0xff,
            _ if self.has_memory && at == MEMORY_BAR + 1 => 0xc0,
            _ if self.has_memory && (MEMORY_BAR + 2..MEMORY_BAR + 8).contains(&at) => 0xff,
            _ if at == self.control + 1 => 0xc0,
            // bar; offset, length and data.
            _ if at == access + 4 || (access + 8..access + 20).contains(&at) => 0xff,
            _ => 0,
        }
    }

    /// The access in the BAR that one to pci_cfg_data at `offset` stands for.
    fn cfg_access(&self, offset: usize) -> Option<(u64, usize)> {
        let (target, len) = (self.u32(self.access + 8), self.u32(self.access + 12));
        let data = self.access + 16..self.access + 20;
        let good = self.bytes[self.access + 4] == 0 && matches!(len, 1 | 2 | 4) && target % len == 0;
        (good && data.contains(&offset)).then(|| (target.into(), usize_of(len.into())))
    }

    /// The guest reads configuration space, within a register.
    pub fn read_config(&mut self, offset: usize, len: usize) -> Vec<u8> {
        if let Some((target, len)) = self.cfg_access(offset) {
            let data = self.read_bar(target, len);
            self.bytes[self.access + 16..][..len].copy_from_slice(&data);
        }
        let status = u8::from(self.wants_pin()) << 3;
        self.bytes[6] = self.bytes[6] & !8 | status;
        (offset..offset + len).map(|at| self.bytes.get(at).copied().unwrap_or(0)).collect()
    }

    /// The guest writes configuration space, within a register.
    pub fn write_config(&mut self, offset: usize, data: &[u8], shadow: &Shadow) {
        let master = self.bus_master();
        for (at, value) in (offset..).zip(data).filter(|(at, _)| *at < 256) {
            let writable = self.writable(at);
            self.bytes[at] = self.bytes[at] & !writable | value & writable;
        }
        if let Some((target, len)) = self.cfg_access(offset) {
            let data = self.bytes[self.access + 16..][..len].to_vec();
            self.write_bar(target, &data, shadow);
        }
        if !master && self.bus_master() {
            // What the driver asked for meanwhile.
            self.notified = [true; QUEUES];
        }
        let (control, master) = (self.u16(self.control), self.bus_master());
        if !self.msix.configure(control, master) {
            self.refuse();
        }
    }

    /// The guest reads in the BAR: only what one structure has all of.
    pub fn read_bar(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let within = |base: u64, size: u64| offset >= base && offset + len as u64 <= base + size;
        if within(0, 0x50) {
            self.read_common(offset, len)
        } else if within(0x1000, 1) {
            vec![std::mem::take(&mut self.isr)]
        } else if within(0x2000, 0x1000) {
            self.core.config(offset - 0x2000, len)
        } else if within(0x4000, 0x2000) {
            self.msix.read_table(offset - 0x4000, len)
        } else if within(0x6000, 0x1000) {
            self.msix.read_pending(offset - 0x6000, len)
        } else {
            vec![0; len]
        }
    }

    /// The guest writes in the BAR.
    pub fn write_bar(&mut self, offset: u64, data: &[u8], shadow: &Shadow) {
        let within = |base: u64, size: u64| offset >= base && offset + data.len() as u64 <= base + size;
        if within(0, 0x50) {
            self.write_common(offset, data, shadow);
        } else if within(0x3000, 0x1000) {
            // One address a queue, whatever is written (4.1.4.4).
            let queue = usize_of((offset - 0x3000) / 4);
            _ = self.notified.get_mut(queue).map(|notified| *notified = true);
        } else if within(0x4000, 0x2000) && !self.msix.write_table(offset - 0x4000, data) {
            self.refuse();
        }
    }

    /// 2.1.2: DEVICE_NEEDS_RESET and a configuration change notification.
    fn refuse(&mut self) {
        self.core.refuse();
        self.config_change();
    }

    fn config_change(&mut self) {
        self.isr |= 2;
        if self.msix.enabled() {
            self.msix.signal(self.config_vector);
        }
    }

    fn used_buffer(&mut self, queue: usize) {
        if self.msix.enabled() {
            self.msix.signal(self.queue_vectors[queue]);
        } else {
            self.isr |= 1;
        }
    }

    /// A turn at a queue: nothing without the right to use memory. Returns whether there is more to do.
    pub fn serve(&mut self, queue: usize, shadow: &mut Shadow, log: &mut Vec<u8>) -> bool {
        if !self.bus_master() {
            return false;
        }
        let index = u16::try_from(queue).expect("few");
        match self.core.serve(index, shadow, log) {
            Ok(Turn { interrupt, more }) => {
                if interrupt {
                    self.used_buffer(queue);
                }
                more
            }
            Err(_) => {
                self.used_buffer(queue);
                self.config_change();
                false
            }
        }
    }
}
