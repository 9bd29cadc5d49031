// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads a table from its first byte to its last, field by field.

/// What is left of a table.
pub struct Bytes<'a> {
    /// The table, for messages.
    pub name: String,
    bytes: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// All of `bytes`.
    pub fn new(name: &str, bytes: &'a [u8]) -> Self {
        Self { name: name.to_owned(), bytes }
    }

    /// After the header that all tables but the RSDP have (ACPI 6.5, 5.2.6), the number of the revision checked.
    pub fn with_header(signature: &str, revision: u8, bytes: &'a [u8]) -> Self {
        let mut table = Self::new(signature, bytes);
        sums_to_zero(signature, bytes);
        table.expect("signature", signature.as_bytes());
        let length = table.u32();
        assert_eq!(usize::try_from(length), Ok(bytes.len()), "length of {signature}");
        assert_eq!(table.u8(), revision, "revision of {signature}");
        table.u8();
        table.expect("OEM ID", b"CVMM  ");
        // OEM table ID, OEM revision, creator ID, creator revision: names, that tell a guest nothing about the machine.
        table.array::<20>();
        table
    }

    /// Whether there is nothing left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Fails if something is left.
    pub fn done(self) {
        assert!(self.is_empty(), "{} goes on where the reader knows nothing: {:x?}", self.name, self.bytes);
    }

    /// The next bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let (first, rest) =
            self.bytes.split_first_chunk().unwrap_or_else(|| panic!("{} ends too early", self.name));
        self.bytes = rest;
        *first
    }

    /// The next number.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// The next number.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// The next number.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The next number.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A field that has only one value that the reader knows.
    pub fn expect(&mut self, field: &str, known: &[u8]) {
        for (index, known) in known.iter().enumerate() {
            assert_eq!(self.u8(), *known, "{}: {field}, byte {index}", self.name);
        }
    }

    /// Fields of `N` bytes in all, that are zero.
    pub fn zero<const N: usize>(&mut self, fields: &str) {
        self.expect(fields, &[0; N]);
    }

    /// Address of a register of one byte in memory: a Generic Address Structure (ACPI 6.5, 5.2.3.2) of address space 0,
    /// 8 bits at bit 0, byte access.
    pub fn register(&mut self, field: &str) -> u64 {
        self.expect(field, &[0, 8, 0, 1]);
        self.u64()
    }
}

/// The checksum of a table.
pub fn sums_to_zero(name: &str, bytes: &[u8]) {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(sum, 0, "checksum of {name}");
}
