// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Configuration space of a function (PCI Local Bus 3.0, 6.1): which bits there are, and which of them a guest can
//! change.

use cvmm_firmware::Range;

/// Bytes of a function's configuration space. The extended space of PCI Express is not there.
pub const SIZE: usize = 256;

/// Offsets of registers of a type 0 header (PCI 3.0, figure 6-1).
pub mod register {
    /// Vendor and device ID.
    pub const ID: usize = 0x00;
    /// Command.
    pub const COMMAND: usize = 0x04;
    /// Status.
    pub const STATUS: usize = 0x06;
    /// Revision ID, and class code after it.
    pub const REVISION: usize = 0x08;
    /// First base address register.
    pub const BAR0: usize = 0x10;
    /// The one after the two registers of a BAR 0 of 64 bits.
    pub const BAR2: usize = 0x18;
    /// Subsystem vendor and subsystem ID.
    pub const SUBSYSTEM: usize = 0x2c;
    /// Head of the list of capabilities.
    pub const CAPABILITIES: usize = 0x34;
    /// Interrupt line: a note of the guest's firmware to its drivers.
    pub const INTERRUPT_LINE: usize = 0x3c;
    /// Interrupt pin: 1 is INTA#.
    pub const INTERRUPT_PIN: usize = 0x3d;
    /// Where capabilities can be.
    pub const AFTER_HEADER: usize = 0x40;
}

/// Bits of the command register (PCI 3.0, 6.2.2).
pub mod command {
    /// The function answers in memory space.
    pub const MEMORY: u16 = 1 << 1;
    /// The function may read and write memory, and send messages.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// The function does not assert its interrupt pin.
    pub const INTERRUPT_DISABLE: u16 = 1 << 10;
}

/// Bits of the status register (PCI 3.0, 6.2.3).
mod status {
    /// The function wants an interrupt, whether or not it may assert its pin.
    pub const INTERRUPT: u8 = 1 << 3;
    /// There is a list of capabilities.
    pub const CAPABILITIES: u8 = 1 << 4;
}

/// Low bits of a memory BAR (PCI 3.0, 6.2.5.1): it is 64 bits wide.
const BAR_64_BIT: u64 = 0b100;
/// Reads have no side effects: it is memory.
const PREFETCHABLE: u64 = 0b1000;

/// Who a function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code: base class, subclass, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor ID and subsystem ID.
    pub subsystem: [u16; 2],
}

/// Registers, and for each bit whether a write changes it.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    bar_size: u64,
    memory_size: u64,
    last_capability: usize,
    end_of_capabilities: usize,
}

impl ConfigSpace {
    /// A header without BARs or capabilities, of which nothing can be written.
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            bar_size: 0,
            memory_size: 0,
            last_capability: register::CAPABILITIES,
            end_of_capabilities: register::AFTER_HEADER,
        };
        let [base, sub, interface] = identity.class;
        space.set(register::ID, &identity.vendor.to_le_bytes());
        space.set(register::ID + 2, &identity.device.to_le_bytes());
        space.set(register::REVISION, &[identity.revision, interface, sub, base]);
        let [vendor, id] = identity.subsystem;
        space.set(register::SUBSYSTEM, &vendor.to_le_bytes());
        space.set(register::SUBSYSTEM + 2, &id.to_le_bytes());
        space
    }

    /// Gives the function BAR 0 at `bar`: its size is a power of two, and its base a multiple of that. What a function
    /// with a BAR needs can be written from now on: the command register, the BAR, the interrupt line.
    pub fn set_bar(&mut self, bar: Range) {
        self.bar_size = self.set_base(register::BAR0, bar, BAR_64_BIT);
        let bits = command::MEMORY | command::BUS_MASTER | command::INTERRUPT_DISABLE;
        self.allow(register::COMMAND, &bits.to_le_bytes());
        self.allow(register::INTERRUPT_LINE, &[0xff]);
        self.set(register::INTERRUPT_PIN, &[1]);
    }

    /// Gives the function memory as BAR 2 at `bar`, with a size and a base like those of BAR 0.
    pub fn set_memory(&mut self, bar: Range) {
        self.memory_size = self.set_base(register::BAR2, bar, BAR_64_BIT | PREFETCHABLE);
    }

    /// Writes a base address register, and says which of its bits a guest can write. Returns the size.
    fn set_base(&mut self, register: usize, bar: Range, bits: u64) -> u64 {
        debug_assert!(bar.size().is_power_of_two() && bar.base().is_multiple_of(bar.size()));
        let mask = bar.size().wrapping_neg();
        self.set(register, &(bar.base() & mask | bits).to_le_bytes());
        self.allow(register, &mask.to_le_bytes());
        bar.size()
    }

    /// Adds a capability with this `id` and `body`, of which the bits in `writable` can be written; both begin after
    /// ID and next pointer. Returns its offset; `None` if there is no room for it.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<usize> {
        let at = self.end_of_capabilities;
        let end = at.checked_add(2)?.checked_add(body.len())?;
        let pointer = u8::try_from(at).ok()?;
        if end > SIZE {
            return None;
        }
        self.set(at, &[id, 0]);
        self.set(at + 2, body);
        self.allow(at + 2, writable);
        // The header's pointer is the link itself; in a capability it comes after the ID.
        let link = if self.last_capability == register::CAPABILITIES { 0 } else { 1 };
        self.set(self.last_capability + link, &[pointer]);
        self.set(register::STATUS, &[status::CAPABILITIES]);
        self.last_capability = at;
        self.end_of_capabilities = end.next_multiple_of(4);
        Some(at)
    }

    /// Reads at `offset`; zeros past the end.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes at `offset`, where that is allowed.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        for (at, value) in (offset..).zip(data) {
            if let (Some(byte), Some(writable)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !writable | value & writable;
            }
        }
    }

    /// The bytes at `offset`; zeros past the end.
    pub fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes);
        bytes
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        u16::from_le_bytes(self.get(register::COMMAND))
    }

    /// The addresses in which the function's registers, BAR 0, answer now.
    pub fn window(&self) -> Option<Range> {
        self.decoded(register::BAR0, self.bar_size)
    }

    /// The addresses of its memory, BAR 2, now.
    pub fn memory(&self) -> Option<Range> {
        self.decoded(register::BAR2, self.memory_size)
    }

    fn decoded(&self, register: usize, size: u64) -> Option<Range> {
        let enabled = self.command() & command::MEMORY != 0;
        let bar = u64::from_le_bytes(self.get(register));
        Range::new(bar & size.wrapping_neg(), size).filter(|_| enabled)
    }

    /// Sets the Interrupt Status bit.
    pub fn set_interrupt_status(&mut self, wanted: bool) {
        if let Some(byte) = self.bytes.get_mut(register::STATUS) {
            *byte = *byte & !status::INTERRUPT | if wanted { status::INTERRUPT } else { 0 };
        }
    }

    fn set(&mut self, offset: usize, value: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(offset).zip(value) {
            *to = *from;
        }
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        for (to, from) in self.writable.iter_mut().skip(offset).zip(mask) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity =
        Identity { vendor: 0x1af4, device: 0x1042, revision: 1, class: [1, 2, 3], subsystem: [0x55, 0x66] };

    fn function() -> ConfigSpace {
        let mut space = ConfigSpace::new(&IDENTITY);
        space.set_bar(Range::fixed(0xc000_8000, 0x8000));
        space
    }

    #[test]
    fn the_header_is_where_pci_3_0_6_1_has_it() {
        let space = function();
        assert_eq!(space.get(0), [0xf4, 0x1a, 0x42, 0x10]);
        assert_eq!(space.get(8), [1, 3, 2, 1]);
        assert_eq!(space.get(0x0e), [0], "header type 0, one function");
        assert_eq!(space.get(0x2c), [0x55, 0, 0x66, 0]);
        assert_eq!(space.get(0x3c), [0, 1]);
    }

    /// Every bit is written as one and as zero: only those of the list change.
    #[test]
    fn only_defined_bits_can_be_written() {
        let mut space = function();
        let at = space.add_capability(0x11, &[0, 0, 4, 0, 0, 0], &[0, 0xc0]).unwrap();
        let before = space.clone();
        for offset in 0..SIZE {
            let mask = match offset {
                0x04 => 0x06,
                0x05 => 0x04,
                0x11 => 0x80,
                0x12..0x18 | 0x3c => 0xff,
                offset if offset == at + 3 => 0xc0,
                _ => 0,
            };
            let [old] = before.get(offset);
            space.write(offset, &[0xff]);
            assert_eq!(space.get(offset), [old | mask], "{offset:#x}");
            space.write(offset, &[0]);
            assert_eq!(space.get(offset), [old & !mask], "{offset:#x}");
        }
        space.write(SIZE - 1, &[0xff; 4]);
        assert_eq!(space.get(SIZE - 1), [0; 4]);
    }

    #[test]
    fn a_bar_tells_its_size_and_decodes_when_enabled() {
        let mut space = function();
        assert_eq!(space.window(), None);
        space.write(register::BAR0, &[0xff; 8]);
        assert_eq!(space.get(register::BAR0), (!0x7fff_u64 | 4).to_le_bytes());
        space.write(register::COMMAND, &[2, 0]);
        // At the very top there is no room for it.
        assert_eq!(space.window(), Range::new(!0x7fff, 0x8000));
        space.write(register::BAR0, &0x12_3456_7000_u64.to_le_bytes());
        assert_eq!(space.window(), Some(Range::fixed(0x12_3456_0000, 0x8000)));
        space.write(register::COMMAND, &[0, 0]);
        assert_eq!(space.window(), None);
    }

    /// PCI 3.0, 6.2.5.1: bits 2 and 1 are 10b, bit 3 is "prefetchable"; each BAR has its own size and place.
    #[test]
    fn memory_is_a_second_bar() {
        let mut space = function();
        assert_eq!(space.get(register::BAR2), [0; 8]);
        space.write(register::COMMAND, &[2, 0]);
        assert_eq!(space.memory(), None);
        space.set_memory(Range::fixed(0xc800_0000, 0x40_0000));
        assert_eq!(space.get(register::BAR2), 0xc800_000c_u64.to_le_bytes());
        assert_eq!(space.memory(), Some(Range::fixed(0xc800_0000, 0x40_0000)));
        space.write(register::BAR2, &[0xff; 8]);
        assert_eq!(space.get(register::BAR2), (!0x3f_ffff_u64 | 12).to_le_bytes());
        space.write(register::BAR2, &0x12_3456_7000_u64.to_le_bytes());
        assert_eq!(space.memory(), Some(Range::fixed(0x12_3440_0000, 0x40_0000)));
        assert_eq!(space.window(), Some(Range::fixed(0xc000_8000, 0x8000)));
        space.write(register::COMMAND, &[0, 0]);
        assert_eq!((space.memory(), space.window()), (None, None));
    }

    #[test]
    fn capabilities_form_a_list_until_there_is_no_room() {
        let mut space = function();
        assert_eq!(space.get(register::STATUS), [0]);
        let offsets: Vec<_> = std::iter::from_fn(|| space.add_capability(9, &[0xab; 14], &[])).collect();
        assert_eq!(offsets.len(), (SIZE - 0x40) / 16);
        assert_eq!(space.get(register::STATUS), [0x10]);
        let (mut at, mut seen) = (usize::from(space.get::<1>(0x34)[0]), Vec::new());
        while at != 0 {
            seen.push(at);
            let [id, next] = space.get(at);
            assert_eq!(id, 9);
            at = next.into();
        }
        assert_eq!(seen, offsets);
    }
}
