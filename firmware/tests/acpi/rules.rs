// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What ACPI asks of the tables of fixed form. One function, one rule: it takes what the guest finds and the machine
//! that it must describe, and panics if the rule is broken.

use cvmm_firmware::Machine;

use crate::guest::{Bytes, Guest, range};

/// A rule.
pub type Rule = fn(&Guest, &Machine);

/// Every rule.
pub const ALL: &[Rule] =
    &[apart, fadt_flags, fadt_registers, fadt_rest, headers, madt, mcfg, reached, rsdp, spcr, sums];

/// Byte-wide registers in memory, as a Generic Address Structure says it (ACPI 6.5, 5.2.3.2).
const BYTE_IN_MEMORY: [u8; 4] = [0, 8, 0, 1];

/// Tables share no byte, and are aligned as the RSDP must be (ACPI 6.5, 5.2.5.1).
pub fn apart(guest: &Guest, _: &Machine) {
    let tables = guest.written();
    for (index, table) in tables.iter().enumerate() {
        assert_eq!(table.address % 16, 0, "{} at {:#x}", table.name, table.address);
        for other in &tables[..index] {
            assert!(!range(table).overlaps(&range(other)), "{} and {} overlap", table.name, other.name);
        }
    }
    assert!(tables[1..].iter().all(|table| table.address > tables[0].address), "the RSDP comes first");
}

/// The tables that a guest finds are the tables that were written, under their names. The DSDT is not in the XSDT.
pub fn reached(guest: &Guest, _: &Machine) {
    let rsdp = guest.rsdp();
    let mut reached = vec![("RSDP".to_owned(), guest.written()[0].address, rsdp.0.len())];
    let mut add = |address| {
        let table = guest.table(address);
        reached.push((table.signature(), address, table.0.len()));
    };
    add(rsdp.u64(24));
    add(guest.the("FACP").u64(140));
    guest.listed().into_iter().for_each(add);

    let written = guest.written().iter();
    let mut written: Vec<_> =
        written.map(|table| (table.name.to_owned(), table.address, table.bytes.len())).collect();
    reached.sort();
    written.sort();
    assert_eq!(reached, written);
}

/// ACPI 6.5, 5.2.6: the sum of a table is 0. That of an RSDP also without its extension (5.2.5.3).
pub fn sums(guest: &Guest, _: &Machine) {
    for table in guest.written() {
        assert_eq!(Bytes(table.bytes.clone()).sum(), 0, "{}", table.name);
    }
    assert_eq!(Bytes(guest.rsdp().0[..20].to_vec()).sum(), 0, "the first part of the RSDP");
}

/// ACPI 6.5, 5.2.6: signature, revision, and one name of the vendor for all.
pub fn headers(guest: &Guest, machine: &Machine) {
    let mut signatures = vec!["FACP", "APIC", "SPCR"];
    signatures.extend(machine.pci.map(|_| "MCFG"));
    assert_eq!(guest.listed().len(), signatures.len());
    let mut tables: Vec<_> = signatures.into_iter().map(|name| (name, guest.the(name))).collect();
    tables.extend([("XSDT", guest.xsdt()), ("DSDT", guest.dsdt())]);
    for (name, table) in tables {
        assert_eq!(table.signature(), name);
        assert_eq!(&table.0[10..24], b"CVMM  CVMMVIRT", "{name}");
        // Of ACPI 6.5; MCFG: PCI Firmware Specification 3.3, table 4.2; SPCR: Microsoft's of 2007.
        let revision = match name {
            "FACP" | "APIC" => 6,
            "DSDT" | "SPCR" => 2,
            "XSDT" | "MCFG" => 1,
            _ => panic!("{name} is not known here"),
        };
        assert_eq!(table.u8(8), revision, "revision of {name}");
    }
}

/// ACPI 6.5, 5.2.5.3. There is no RSDT, and the reserved bytes are 0.
pub fn rsdp(guest: &Guest, _: &Machine) {
    let rsdp = guest.rsdp();
    assert_eq!(&rsdp.0[..8], b"RSD PTR ");
    assert_eq!(&rsdp.0[9..15], b"CVMM  ");
    assert_eq!((rsdp.u8(15), rsdp.u32(16), rsdp.u32(20)), (2, 0, 36), "revision, RSDT, length");
    assert_eq!(rsdp.0[33..36], [0; 3]);
}

/// ACPI 6.5, table 5.10: the one-bit features, and 5.11: the boot architecture flags of IA-PC.
pub fn fadt_flags(guest: &Guest, _: &Machine) {
    let fadt = guest.the("FACP");
    let set: Vec<u32> = (0..32).filter(|bit| fadt.u32(112) >> bit & 1 == 1).collect();
    // WBINVD, PWR_BUTTON, SLP_BUTTON, FIX_RTC, RESET_REG_SUP, HEADLESS, HW_REDUCED_ACPI.
    assert_eq!(set, [0, 4, 5, 6, 10, 12, 20]);
    let set: Vec<u32> = (0..16).filter(|bit| fadt.u16(109) >> bit & 1 == 1).collect();
    // VGA Not Present, CMOS RTC Not Present. Not LEGACY_DEVICES (0), not 8042 (1).
    assert_eq!(set, [2, 5]);
    assert_eq!(fadt.u8(131), 5, "minor version: ACPI 6.5");
}

/// ACPI 6.5, 4.8.3.6 and 4.8.3.7: how the guest ends, is in the three bytes that the machine has for it.
pub fn fadt_registers(guest: &Guest, machine: &Machine) {
    let fadt = guest.the("FACP");
    let sleep = machine.system.sleep;
    assert_eq!(fadt.generic_address(244), (BYTE_IN_MEMORY, sleep.window.base()), "SLEEP_CONTROL_REG");
    assert_eq!(fadt.generic_address(256), (BYTE_IN_MEMORY, sleep.window.base() + 1), "SLEEP_STATUS_REG");
    assert_eq!(fadt.generic_address(116), (BYTE_IN_MEMORY, sleep.window.base() + 2), "RESET_REG");
    assert_eq!(fadt.u8(128), sleep.reset_value, "RESET_VALUE");
}

/// ACPI 6.5, table 5.9: all else is 0, as there is no fixed hardware and no FACS, and the DSDT is named by X_DSDT only.
pub fn fadt_rest(guest: &Guest, _: &Machine) {
    let fadt = guest.the("FACP");
    assert_eq!(fadt.0.len(), 276);
    assert_eq!(fadt.u8(45), 7, "preferred profile: performance server");
    // Header, profile; IAPC_BOOT_ARCH; flags, reset; minor version; X_DSDT; sleep registers.
    let said = [0..36, 45..46, 109..111, 112..129, 131..132, 140..148, 244..268];
    for (at, byte) in fadt.0.iter().enumerate() {
        assert!(*byte == 0 || said.iter().any(|range| range.contains(&at)), "{byte:#x} at {at}");
    }
}

/// ACPI 6.5, 5.2.12: a local APIC for each CPU, the boot processor's first; one I/O APIC, whose pins are the interrupts.
/// No PCAT_COMPAT: there is no 8259.
pub fn madt(guest: &Guest, machine: &Machine) {
    let madt = guest.the("APIC");
    assert_eq!(u64::from(madt.u32(36)), machine.local_apic.base());
    assert_eq!(madt.u32(40), 0, "flags");
    let (mut cpus, mut io_apics) = (Vec::new(), Vec::new());
    let mut rest = &madt.0[44..];
    while !rest.is_empty() {
        let length = usize::from(rest[1]);
        let entry = Bytes(rest[..length].to_vec());
        rest = &rest[length..];
        match (entry.u8(0), length) {
            // Local APIC: UID, identifier, enabled (5.2.12.2).
            (0, 8) => {
                assert!(entry.u8(3) < 255, "255 is every processor");
                assert_eq!((entry.u8(2), entry.u32(4)), (entry.u8(3), 1));
                cpus.push(u32::from(entry.u8(3)));
            }
            // Local x2APIC: identifier, enabled, UID (5.2.12.12), for identifiers that the above can't say.
            (9, 16) => {
                assert!(entry.u32(4) >= 255, "a local APIC");
                assert_eq!((entry.u16(2), entry.u32(8), entry.u32(12)), (0, 1, entry.u32(4)));
                cpus.push(entry.u32(4));
            }
            // I/O APIC: identifier, address, first interrupt (5.2.12.3).
            (1, 12) => io_apics.push((entry.u16(2), u64::from(entry.u32(4)), entry.u32(8))),
            other => panic!("entry {other:?}"),
        }
    }
    assert_eq!(cpus, machine.cpus);
    assert_eq!(io_apics, [(0, machine.io_apic.window.base(), 0)]);
}

/// PCI Firmware Specification 3.3, 4.1.2: base, segment 0, buses 0 to 0. No table without PCI.
pub fn mcfg(guest: &Guest, machine: &Machine) {
    let mcfg = guest.find("MCFG");
    assert_eq!(mcfg.is_some(), machine.pci.is_some());
    if let (Some(mcfg), Some(host)) = (mcfg, machine.pci) {
        assert_eq!(mcfg.0.len(), 36 + 8 + 16, "one entry");
        assert_eq!((mcfg.u64(36), mcfg.u64(44), mcfg.u64(52)), (0, host.ecam.base(), 0));
    }
}

/// Serial Port Console Redirection Table: a 16550 in memory, whose interrupt is that of an I/O APIC. What is not there,
/// the line as it is.
pub fn spcr(guest: &Guest, machine: &Machine) {
    let spcr = guest.the("SPCR");
    let (window, interrupt) = machine.system.uart;
    assert_eq!(spcr.0.len(), 80);
    assert_eq!(spcr.u32(36), 0, "16550");
    assert_eq!(spcr.generic_address(40), (BYTE_IN_MEMORY, window.base()));
    assert_eq!((spcr.u8(52), spcr.u8(53), spcr.u32(54)), (2, 0, interrupt.0), "interrupt");
    assert_eq!(spcr.0[58..64], [0, 0, 1, 0, 3, 0], "no change of speed, no parity, 1 stop bit, ANSI");
    assert_eq!((spcr.u32(64), spcr.u64(68), spcr.u32(76)), (u32::MAX, 0, 0), "not on PCI");
}
