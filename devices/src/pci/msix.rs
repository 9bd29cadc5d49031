// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MSI-X (PCI 3.0, 6.8.2): the table of messages, the pending bits, and the capability's control word.
//!
//! A message is a write of the device to memory, and there is one place to which it may go: the window of the local
//! APICs. A table entry that points elsewhere is refused when it would take effect.

use std::io;

use vmm_sys_util::eventfd::EventFd;

use super::Slot;
use crate::pool::{Reason, Refusal, Structure};
use crate::virtio::EventFds;

/// Bytes of a table entry: address (8), data (4), vector control (4).
pub const ENTRY_SIZE: u64 = 16;
/// Most vectors that a table can have.
pub const MAX_VECTORS: u16 = 2048;

/// Bits of the message control word (PCI 3.0, 6.8.2.3).
pub mod control {
    /// MSI-X is enabled.
    pub const ENABLE: u16 = 1 << 15;
    /// All vectors are masked.
    pub const FUNCTION_MASK: u16 = 1 << 14;
}

/// Vector control (PCI 3.0, 6.8.2.9): the vector is masked.
const MASKED: u32 = 1;

/// Where the local APICs take messages (Intel SDM 3A, 11.11.1): bits 31 to 20 of the address, and no bit above them.
const INTERRUPT_WINDOW: u64 = 0xfee;
const INTERRUPT_WINDOW_SHIFT: u32 = 20;

/// A message signalled interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Guest-physical address: in the local APICs' window.
    pub address: u64,
    /// Vector, delivery and trigger mode.
    pub data: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Vector {
    message: Message,
    masked: bool,
    pending: bool,
    /// What the slot was told last.
    routed: Option<Message>,
}

/// The vectors of a function.
#[derive(Debug)]
pub struct Msix {
    vectors: Vec<Vector>,
    /// A vector's eventfd sends its message.
    fds: EventFds,
    control: u16,
    /// Messages are writes: without bus mastering the function can't send any.
    bus_master: bool,
}

impl Msix {
    /// `count` masked vectors.
    pub fn new(count: u16) -> io::Result<Self> {
        let masked = Vector { masked: true, ..Vector::default() };
        let fds = EventFds::new(usize::from(count))?;
        Ok(Self { vectors: vec![masked; usize::from(count)], fds, control: 0, bus_master: false })
    }

    /// The vectors' eventfds, to register as irqfds.
    pub fn fds(&self) -> impl Iterator<Item = &EventFd> {
        self.fds.iter()
    }

    /// Whether the guest uses MSI-X rather than the interrupt pin.
    pub fn enabled(&self) -> bool {
        self.control & control::ENABLE != 0
    }

    /// Whether there is such a vector.
    pub fn has(&self, vector: u16) -> bool {
        usize::from(vector) < self.vectors.len()
    }

    /// Sends the message of `vector`, or notes that it is due, if there is such a vector.
    pub fn signal(&mut self, vector: u16, slot: &dyn Slot) {
        if let Some(entry) = self.vectors.get_mut(usize::from(vector)) {
            entry.pending = true;
            // What would be refused was refused, and recorded, when it took effect or the driver was ready.
            let _ = self.update(vector, slot);
        }
    }

    /// The function's message control word and its right to write memory.
    ///
    /// # Errors
    /// The first message that is refused.
    pub fn configure(&mut self, control: u16, bus_master: bool, slot: &dyn Slot) -> Result<(), Refusal> {
        if (self.control, self.bus_master) == (control, bus_master) {
            return Ok(());
        }
        (self.control, self.bus_master) = (control, bus_master);
        self.update_all(slot)
    }

    /// Brings what the slot knows of all vectors up to date, and sends what is due.
    ///
    /// # Errors
    /// The first message that is refused.
    pub fn update_all(&mut self, slot: &dyn Slot) -> Result<(), Refusal> {
        let count = self.vectors.len();
        (0..MAX_VECTORS).take(count).map(|vector| self.update(vector, slot)).fold(Ok(()), Result::and)
    }

    /// Nothing is due any more: the device was reset.
    pub fn clear_pending(&mut self) {
        for vector in &mut self.vectors {
            vector.pending = false;
        }
    }

    /// Reads the table: aligned accesses of 4 or 8 bytes (PCI 3.0, 6.8.2); others read as zeros.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !is_access(offset, data.len()) {
            return;
        }
        for (at, word) in words(offset).zip(data.chunks_mut(4)) {
            word.copy_from_slice(&self.read_word(at).to_le_bytes());
        }
    }

    /// Writes the table: aligned accesses of 4 or 8 bytes.
    ///
    /// # Errors
    /// The message is refused.
    pub fn write_table(&mut self, offset: u64, data: &[u8], slot: &dyn Slot) -> Result<(), Refusal> {
        if !is_access(offset, data.len()) {
            return Ok(());
        }
        for (at, word) in words(offset).zip(data.chunks(4)) {
            if let Ok(word) = <[u8; 4]>::try_from(word) {
                self.write_word(at, u32::from_le_bytes(word));
            }
        }
        match u16::try_from(offset / ENTRY_SIZE) {
            Ok(vector) => self.update(vector, slot),
            Err(_) => Ok(()),
        }
    }

    /// Reads the pending bits, one a vector, in 64-bit words.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !is_access(offset, data.len()) {
            return;
        }
        let first = usize::try_from(offset).unwrap_or(usize::MAX).saturating_mul(8);
        for (bit, vector) in self.vectors.iter().skip(first).take(data.len().saturating_mul(8)).enumerate() {
            if let Some(byte) = data.get_mut(bit / 8) {
                *byte |= u8::from(vector.pending) << (bit % 8);
            }
        }
    }

    /// Brings what the slot knows of `vector` up to date, and sends what is due.
    fn update(&mut self, vector: u16, slot: &dyn Slot) -> Result<(), Refusal> {
        let live = self.enabled() && self.control & control::FUNCTION_MASK == 0 && self.bus_master;
        let Some(entry) = self.vectors.get_mut(usize::from(vector)) else { return Ok(()) };
        if !live || entry.masked {
            return Ok(());
        }
        check(vector, entry.message)?;
        if entry.routed != Some(entry.message) {
            slot.route(vector, entry.message);
            entry.routed = Some(entry.message);
        }
        if std::mem::take(&mut entry.pending) {
            self.fds.notify(u32::from(vector));
        }
        Ok(())
    }

    fn read_word(&self, offset: u64) -> u32 {
        let Some(vector) = usize::try_from(offset / ENTRY_SIZE).ok().and_then(|i| self.vectors.get(i)) else {
            return 0;
        };
        let [a, b, c, d, e, f, g, h] = vector.message.address.to_le_bytes();
        match offset % ENTRY_SIZE {
            0 => u32::from_le_bytes([a, b, c, d]),
            4 => u32::from_le_bytes([e, f, g, h]),
            8 => vector.message.data,
            _ => u32::from(vector.masked),
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        let vector = usize::try_from(offset / ENTRY_SIZE).ok().and_then(|i| self.vectors.get_mut(i));
        let Some(Vector { message, masked, .. }) = vector else { return };
        let (low, high) = (message.address & 0xffff_ffff, message.address & !0xffff_ffff);
        match offset % ENTRY_SIZE {
            0 => message.address = high | u64::from(value),
            4 => message.address = u64::from(value) << 32 | low,
            8 => message.data = value,
            _ => *masked = value & MASKED != 0,
        }
    }
}

fn is_access(offset: u64, len: usize) -> bool {
    matches!(len, 4 | 8) && offset.is_multiple_of(len as u64)
}

/// The offsets of an access's 32-bit words: there are one or two.
fn words(offset: u64) -> impl Iterator<Item = u64> {
    [offset, offset.saturating_add(4)].into_iter()
}

fn check(vector: u16, Message { address, .. }: Message) -> Result<(), Refusal> {
    let refuse =
        |reason| Refusal { queue: vector, structure: Structure::Message, address, length: 4, reason };
    if address >> INTERRUPT_WINDOW_SHIFT != INTERRUPT_WINDOW {
        return Err(refuse(Reason::NoInterrupt));
    }
    if !address.is_multiple_of(4) {
        return Err(refuse(Reason::Misaligned));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
