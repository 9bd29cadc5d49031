// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MSI-X (PCI 3.0, 6.8.2): a vector is four words, a pending bit, and the message that the host was told of.

use crate::memory::usize_of;

const ENABLE: u16 = 0x8000;
const FUNCTION_MASK: u16 = 0x4000;
/// The local APICs' window: the one place for messages.
const WINDOW: std::ops::RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

/// One vector.
#[derive(Clone, Debug)]
pub struct Vector {
    words: [u32; 4],
    pending: bool,
    /// Address and data that its eventfd has.
    pub route: Option<(u64, u32)>,
    /// Messages that are not looked at yet.
    pub sent: u64,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Msix {
    /// The table.
    pub vectors: Vec<Vector>,
    control: u16,
    bus_master: bool,
}

impl Msix {
    /// That many, masked.
    pub fn new(count: usize) -> Self {
        let vector = Vector { words: [0, 0, 0, 1], pending: false, route: None, sent: 0 };
        Self { vectors: vec![vector; count], control: 0, bus_master: false }
    }

    /// Rather than the interrupt pin.
    pub fn enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// `false` if a message is refused.
    pub fn configure(&mut self, control: u16, bus_master: bool) -> bool {
        let control = control & (ENABLE | FUNCTION_MASK);
        let same = (self.control, self.bus_master) == (control, bus_master);
        (self.control, self.bus_master) = (control, bus_master);
        same || self.update_all()
    }

    /// Sends what can be sent. `false` if a message is refused.
    pub fn update_all(&mut self) -> bool {
        let refused = (0..self.vectors.len()).filter(|vector| !self.update(*vector)).count();
        refused == 0
    }

    fn update(&mut self, vector: usize) -> bool {
        let live = self.control == ENABLE && self.bus_master;
        let Some(vector) = self.vectors.get_mut(vector) else { return true };
        let [low, high, data, control] = vector.words;
        if !live || control & 1 != 0 {
            return true;
        }
        let address = u64::from(high) << 32 | u64::from(low);
        if !WINDOW.contains(&address) || address % 4 != 0 {
            return false;
        }
        vector.route = Some((address, data));
        vector.sent += u64::from(std::mem::take(&mut vector.pending));
        true
    }

    /// A message is due.
    pub fn signal(&mut self, vector: u16) {
        let vector = usize::from(vector);
        if let Some(entry) = self.vectors.get_mut(vector) {
            entry.pending = true;
            self.update(vector);
        }
    }

    /// Nothing is due.
    pub fn clear_pending(&mut self) {
        self.vectors.iter_mut().for_each(|vector| vector.pending = false);
    }

    /// Aligned accesses of 4 or 8 bytes; others read as zeros.
    pub fn read_table(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in words(offset, len) {
            let vector = self.vectors.get(word / 4);
            bytes.extend(vector.map_or(0, |vector| vector.words[word % 4]).to_le_bytes());
        }
        bytes.resize(len, 0);
        bytes
    }

    /// Aligned accesses of 4 or 8 bytes. `false` if the message is refused.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) -> bool {
        let mut last = None;
        for (word, value) in words(offset, data.len()).zip(data.chunks(4)) {
            if let Some(vector) = self.vectors.get_mut(word / 4) {
                let value = u32::from_le_bytes(value.try_into().expect("4 bytes"));
                // Of vector control there is one bit (6.8.2.9).
                vector.words[word % 4] = if word % 4 == 3 { value & 1 } else { value };
                last = Some(word / 4);
            }
        }
        last.is_none_or(|vector| self.update(vector))
    }

    /// A bit a vector.
    pub fn read_pending(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in words(offset, len) {
            let bit = |bit: usize| self.vectors.get(32 * word + bit).is_some_and(|vector| vector.pending);
            let bits = (0..32).fold(0, |bits, at| bits | u32::from(bit(at)) << at);
            bytes.extend(bits.to_le_bytes());
        }
        bytes.resize(len, 0);
        bytes
    }
}

/// The 32-bit words of an access, if it is one.
fn words(offset: u64, len: usize) -> std::ops::Range<usize> {
    let good = matches!(len, 4 | 8) && offset.is_multiple_of(len as u64);
    let first = usize_of(offset / 4);
    if good { first..first + len / 4 } else { 0..0 }
}
