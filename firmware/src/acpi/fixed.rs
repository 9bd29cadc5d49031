// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tables of fixed form: all but the DSDT.

use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::{GenericAddress, Sdt};
use acpi_tables::{Aml, AmlSink};

use super::{Error, OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes};
use crate::{Interrupt, Machine, PciHost, Range};

/// FADT, IAPC_BOOT_ARCH (ACPI 6.5, table 5.11). Bits 0 and 1, legacy devices and 8042, are clear: there are none.
const VGA_NOT_PRESENT: u16 = 1 << 2;
const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;

/// FADT (ACPI 6.5, 5.2.9).
pub(super) fn fadt(machine: &Machine, dsdt: u64) -> Vec<u8> {
    let sleep = machine.system.sleep;
    let register = |index| {
        GAS::new(AddressSpace::SystemMemory, 8, 0, AccessSize::ByteAccess, sleep.window.base() + index)
    };
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::PerformanceServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // These say that something is not there: fixed power and sleep buttons, a real-time clock that wakes, a screen.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::Headless)
        // The WBINVD instruction is there, as on every x86 processor.
        .flag(Flags::Wbinvd);
    fadt.iapc_boot_arch = (VGA_NOT_PRESENT | CMOS_RTC_NOT_PRESENT).into();
    fadt.sleep_control_reg = register(0);
    fadt.sleep_status_reg = register(1);
    fadt.reset_reg = register(2);
    fadt.reset_value = sleep.reset_value;
    bytes(&fadt.finalize())
}

/// Multiple APIC Description Table (ACPI 6.5, 5.2.12). Its flags are 0: no PCAT_COMPAT, there is no 8259.
///
/// The crate's own is of revision 1 and has no x2APIC.
pub(super) fn madt(machine: &Machine) -> Result<Vec<u8>, Error> {
    const REVISION: u8 = 6;
    const FLAGS: u32 = 0;
    let mut entries = Vec::new();
    entries.dword(low("local APIC", machine.local_apic)?);
    entries.dword(FLAGS);
    for apic_id in &machine.cpus {
        match u8::try_from(*apic_id) {
            // 255 is every processor.
            Ok(id) if id < 255 => {
                ProcessorLocalApic::new(id, id, EnabledStatus::Enabled).to_aml_bytes(&mut entries);
            }
            _ => x2apic(&mut entries, *apic_id),
        }
    }
    let io_apic = low("I/O APIC", machine.io_apic.window)?;
    IoApic::new(0, io_apic, 0).to_aml_bytes(&mut entries);

    let mut table = Sdt::new(*b"APIC", 36, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&entries);
    Ok(bytes(&table))
}

/// Processor Local x2APIC Structure (ACPI 6.5, 5.2.12.12).
fn x2apic(entries: &mut Vec<u8>, apic_id: u32) {
    const TYPE: u8 = 9;
    const LENGTH: u8 = 16;
    const RESERVED: u16 = 0;
    const ENABLED: u32 = 1;
    entries.byte(TYPE);
    entries.byte(LENGTH);
    entries.word(RESERVED);
    entries.dword(apic_id);
    entries.dword(ENABLED);
    entries.dword(uid(apic_id));
}

/// The `_UID` of a processor: what ties its object in the DSDT to its entry in the MADT. Identifiers of local APICs fit
/// in the 8 bits that the MADT has for it wherever they fit themselves; positions would not.
pub(super) fn uid(apic_id: u32) -> u32 {
    apic_id
}

/// PCI Express memory-mapped configuration space (PCI Firmware Specification 3.3, 4.1.2): segment 0, bus 0.
pub(super) fn mcfg(host: &PciHost) -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(host.ecam.base(), 0, 0, 0);
    bytes(&mcfg)
}

/// Serial Port Console Redirection (Microsoft, revision 2): what `earlycon` without an address means to Linux.
///
/// The crate only has that of RISC-V.
pub(super) fn spcr(machine: &Machine) -> Vec<u8> {
    const LENGTH: u32 = 80;
    const REVISION: u8 = 2;
    const FULLY_16550_COMPATIBLE: u8 = 0;
    const IO_APIC_INTERRUPT: u8 = 1 << 1;
    const ONE_STOP_BIT: u8 = 1;
    const ANSI: u8 = 3;
    const NO_PCI_ID: u16 = 0xffff;
    let (window, Interrupt(gsi)) = machine.system.uart;
    let mut table = Sdt::new(*b"SPCR", LENGTH, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.write_u8(36, FULLY_16550_COMPATIBLE);
    // Registers of 8 bits: Linux reads the access size, and says `mmio`.
    table.write(40, GenericAddress::mmio_address::<u8>(window.base()));
    table.write_u8(52, IO_APIC_INTERRUPT);
    table.write_u32(54, gsi);
    // Baud rate 0, at 58: as it is.
    table.write_u8(60, ONE_STOP_BIT);
    table.write_u8(62, ANSI);
    table.write_u16(64, NO_PCI_ID);
    table.write_u16(66, NO_PCI_ID);
    bytes(&table)
}

fn low(what: &'static str, window: Range) -> Result<u32, Error> {
    u32::try_from(window.base()).map_err(|_| Error::High { what, window })
}
