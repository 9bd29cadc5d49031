// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tables as a guest finds them: by address, from the RSDP on. Offsets are those of the specification.

use cvmm_firmware::{AcpiTable, Machine, Range, acpi_tables};

/// Where the tables of the tests begin: where they do in a guest.
pub const BASE: u64 = 0xe_0000;

/// Guest memory with nothing but the tables.
pub struct Guest {
    tables: Vec<AcpiTable>,
}

/// The bytes of a table, read by offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Guest {
    pub fn new(machine: &Machine) -> Self {
        Self::at(machine, BASE)
    }

    pub fn at(machine: &Machine, base: u64) -> Self {
        Self { tables: acpi_tables(machine, base).expect("every machine can be described") }
    }

    /// What was written, in order.
    pub fn written(&self) -> &[AcpiTable] {
        &self.tables
    }

    /// The RSDP (ACPI 6.5, 5.2.5.3), which is the first table.
    pub fn rsdp(&self) -> Bytes {
        self.read(self.tables[0].address, 36)
    }

    /// The XSDT.
    pub fn xsdt(&self) -> Bytes {
        self.table(self.rsdp().u64(24))
    }

    /// The addresses that the XSDT names (ACPI 6.5, 5.2.8).
    pub fn listed(&self) -> Vec<u64> {
        let xsdt = self.xsdt();
        (36..xsdt.0.len()).step_by(8).map(|at| xsdt.u64(at)).collect()
    }

    /// The table with this signature that the XSDT names, if it does.
    pub fn find(&self, signature: &str) -> Option<Bytes> {
        let is = |table: &Bytes| table.signature() == signature;
        let mut found: Vec<_> = self.listed().into_iter().map(|at| self.table(at)).filter(is).collect();
        assert!(found.len() < 2, "{signature} is there twice");
        found.pop()
    }

    /// The one table with this signature that the XSDT names.
    pub fn the(&self, signature: &str) -> Bytes {
        self.find(signature).unwrap_or_else(|| panic!("there is no {signature}"))
    }

    /// The DSDT: where X_DSDT of the FADT says (ACPI 6.5, table 5.9).
    pub fn dsdt(&self) -> Bytes {
        self.table(self.the("FACP").u64(140))
    }

    /// The table at an address: with as many bytes as its header says (ACPI 6.5, 5.2.6).
    pub fn table(&self, address: u64) -> Bytes {
        let header = self.read(address, 36);
        self.read(address, header.u32(4).into())
    }

    fn read(&self, address: u64, size: u64) -> Bytes {
        let wanted = Range::new(address, size).expect("bytes");
        let found = self.tables.iter().find(|table| range(table).contains(&wanted));
        let table = found.unwrap_or_else(|| panic!("there is no table at {wanted}"));
        let from = usize::try_from(address - table.address).expect("in the table");
        Bytes(table.bytes[from..][..usize::try_from(size).expect("in the table")].to_vec())
    }
}

/// The addresses that a table lies at.
pub fn range(table: &AcpiTable) -> Range {
    Range::new(table.address, u64::try_from(table.bytes.len()).expect("a length")).expect("bytes")
}

impl Bytes {
    pub fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    /// The first four characters.
    pub fn signature(&self) -> String {
        String::from_utf8_lossy(&self.0[..4]).into_owned()
    }

    /// A Generic Address Structure (ACPI 6.5, 5.2.3.2): address space, width, offset, access size; address.
    pub fn generic_address(&self, at: usize) -> ([u8; 4], u64) {
        (self.array(at), self.u64(at + 4))
    }

    /// The sum of all bytes, which must be 0.
    pub fn sum(&self) -> u8 {
        self.0.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("N bytes")
    }
}
