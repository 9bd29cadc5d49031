// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ACPI tables of a machine (ACPI 6.5): hardware-reduced, as nothing of a PC's legacy hardware is there.
//!
//! What the device tree says with `restricted-dma-pool` and `memory-region`, the DSDT says with the same words in `_DSD`
//! (ACPI 6.5, 6.2.5): an object for each pool, and a reference to it in each device that is bound to it.

mod check;
mod dsdt;
mod fixed;
mod objects;
mod pci;

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;

use crate::Machine;
pub use check::Error;

/// ACPI 6.5, table 5.4: who wrote the tables.
const OEM_ID: [u8; 6] = *b"CVMM  ";
const OEM_TABLE_ID: [u8; 8] = *b"CVMMVIRT";
const OEM_REVISION: u32 = 1;

/// Alignment of the tables. Only the RSDP needs it, where firmware does not say where it is (ACPI 6.5, 5.2.5.1).
const ALIGN: u64 = 16;

/// One table, as it lies in guest memory.
#[derive(Clone, Debug)]
pub struct Table {
    /// `RSDP`, `XSDT`, `FACP`, `APIC`, `MCFG`, `SPCR` or `DSDT`.
    pub name: &'static str,
    /// Guest-physical address.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The ACPI tables of `machine`, laid out from the guest-physical address `base` on, without overlap, each aligned to
/// 16 bytes. The first is the RSDP, at `base`.
pub fn acpi_tables(machine: &Machine, base: u64) -> Result<Vec<Table>, Error> {
    check::expressible(machine)?;
    with_dsdt(machine, base, dsdt::dsdt(machine)?)
}

/// The same with another DSDT, of which nothing is checked here.
pub fn acpi_tables_with_dsdt(machine: &Machine, base: u64, dsdt: Vec<u8>) -> Result<Vec<Table>, Error> {
    check::expressible(machine)?;
    with_dsdt(machine, base, dsdt)
}

fn with_dsdt(machine: &Machine, base: u64, dsdt: Vec<u8>) -> Result<Vec<Table>, Error> {
    let mut area = Area::new(base)?;
    // A table is placed before what names its address.
    let rsdp = area.reserve(Rsdp::len())?;
    let dsdt = area.place("DSDT", dsdt)?;
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(area.place("FACP", fixed::fadt(machine, dsdt))?);
    xsdt.add_entry(area.place("APIC", fixed::madt(machine)?)?);
    if let Some(host) = &machine.pci {
        xsdt.add_entry(area.place("MCFG", fixed::mcfg(host))?);
    }
    xsdt.add_entry(area.place("SPCR", fixed::spcr(machine))?);
    let xsdt = area.place("XSDT", bytes(&xsdt))?;
    let rsdp = Table { name: "RSDP", address: rsdp, bytes: bytes(&Rsdp::new(OEM_ID, xsdt)) };
    area.tables.insert(0, rsdp);
    Ok(area.tables)
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Where the tables go, one after the other.
struct Area {
    base: u64,
    next: u64,
    tables: Vec<Table>,
}

impl Area {
    fn new(base: u64) -> Result<Self, Error> {
        if !base.is_multiple_of(ALIGN) {
            return Err(Error::Base(base));
        }
        Ok(Self { base, next: base, tables: Vec::new() })
    }

    /// The address of the next `size` bytes.
    fn reserve(&mut self, size: usize) -> Result<u64, Error> {
        let address = self.next;
        let end = u64::try_from(size).ok().and_then(|size| address.checked_add(size));
        let next = end.and_then(|end| end.checked_next_multiple_of(ALIGN));
        self.next = next.ok_or(Error::Base(self.base))?;
        Ok(address)
    }

    fn place(&mut self, name: &'static str, bytes: Vec<u8>) -> Result<u64, Error> {
        let address = self.reserve(bytes.len())?;
        self.tables.push(Table { name, address, bytes });
        Ok(address)
    }
}
