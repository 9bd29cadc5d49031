// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tables that are data, field by field in the order of the specification (ACPI 6.5, 5.2; PCI Firmware Specification
//! 3.3, 4.1.2; Microsoft, Serial Port Console Redirection Table).

use super::bytes::{Bytes, sums_to_zero};
use crate::model::Window;

/// Address of the XSDT (5.2.5.3).
pub fn rsdp(bytes: &[u8]) -> u64 {
    sums_to_zero("RSDP, first 20 bytes", &bytes[..20]);
    sums_to_zero("RSDP", bytes);
    let mut table = Bytes::new("RSDP", bytes);
    table.expect("signature", b"RSD PTR ");
    table.u8();
    table.expect("OEM ID", b"CVMM  ");
    table.expect("revision", &[2]);
    table.zero::<4>("RSDT address");
    assert_eq!(usize::try_from(table.u32()), Ok(bytes.len()), "length of RSDP");
    let xsdt = table.u64();
    table.u8();
    table.zero::<3>("reserved");
    table.done();
    xsdt
}

/// Addresses of tables (5.2.8).
pub fn xsdt(bytes: &[u8]) -> Vec<u64> {
    let mut table = Bytes::with_header("XSDT", 1, bytes);
    let mut tables = Vec::new();
    while !table.is_empty() {
        tables.push(table.u64());
    }
    tables
}

/// What the FADT says.
pub struct Fadt {
    pub dsdt: u64,
    pub reset_register: u64,
    pub reset_value: u8,
    pub sleep_control: u64,
    pub sleep_status: u64,
}

/// 5.2.9, for hardware-reduced ACPI (4.1): nothing of a PC's fixed hardware.
pub fn fadt(bytes: &[u8]) -> Fadt {
    const VGA_NOT_PRESENT: u16 = 1 << 2;
    const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;
    const RESET_REG_SUP: u32 = 1 << 10;
    const HW_REDUCED_ACPI: u32 = 1 << 20;
    // WBINVD works (0); no power button (4), sleep button (5) or clock that wakes (6) in fixed hardware; no screen (12).
    const ABSENT_OR_USUAL: u32 = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 12;
    const PERFORMANCE_SERVER: u8 = 7;

    let mut table = Bytes::with_header("FACP", 6, bytes);
    table.zero::<4>("FIRMWARE_CTRL");
    table.zero::<4>("DSDT");
    table.zero::<1>("reserved");
    assert_eq!(table.u8(), PERFORMANCE_SERVER, "Preferred_PM_Profile");
    table.zero::<63>("SCI_INT to CENTURY");
    assert_eq!(table.u16(), VGA_NOT_PRESENT | CMOS_RTC_NOT_PRESENT, "IAPC_BOOT_ARCH");
    table.zero::<1>("reserved");
    assert_eq!(table.u32(), HW_REDUCED_ACPI | RESET_REG_SUP | ABSENT_OR_USUAL, "flags of FACP");
    let reset_register = table.register("RESET_REG");
    let reset_value = table.u8();
    table.zero::<2>("ARM_BOOT_ARCH");
    assert_eq!(table.u8(), 5, "minor revision: 6.5");
    table.zero::<8>("X_FIRMWARE_CTRL");
    let dsdt = table.u64();
    table.zero::<96>("X_PM1a_EVT_BLK to X_GPE1_BLK");
    let sleep_control = table.register("SLEEP_CONTROL_REG");
    let sleep_status = table.register("SLEEP_STATUS_REG");
    table.zero::<8>("Hypervisor Vendor Identity");
    table.done();
    Fadt { dsdt, reset_register, reset_value, sleep_control, sleep_status }
}

/// What the MADT says.
pub struct Madt {
    pub local_apic: u64,
    pub io_apic: u64,
    /// Local APIC identifier and ACPI processor UID of each CPU.
    pub cpus: Vec<(u32, u32)>,
}

/// 5.2.12: no 8259 (PCAT_COMPAT), all CPUs enabled, one I/O APIC from global system interrupt 0 on.
pub fn madt(bytes: &[u8]) -> Madt {
    let mut table = Bytes::with_header("APIC", 6, bytes);
    let mut local_apic = u64::from(table.u32());
    table.zero::<4>("flags");
    let (mut cpus, mut io_apics, mut overridden) = (Vec::new(), Vec::new(), false);
    while !table.is_empty() {
        match (table.u8(), table.u8()) {
            (0, 8) => {
                let [uid, apic_id] = table.array();
                table.expect("flags of a local APIC: enabled", &[1, 0, 0, 0]);
                assert_ne!(apic_id, 0xff, "an identifier of xAPIC that means all CPUs");
                cpus.push((apic_id.into(), uid.into()));
            }
            (9, 16) => {
                table.zero::<2>("reserved");
                let apic_id = table.u32();
                table.expect("flags of a local x2APIC: enabled", &[1, 0, 0, 0]);
                assert!(apic_id >= 0xff, "an identifier that has room in a local APIC entry: {apic_id}");
                cpus.push((apic_id, table.u32()));
            }
            (1, 12) => {
                table.zero::<2>("I/O APIC ID, reserved");
                io_apics.push(u64::from(table.u32()));
                table.zero::<4>("global system interrupt base");
            }
            (5, 12) => {
                table.zero::<2>("reserved");
                assert!(!std::mem::replace(&mut overridden, true), "two addresses of the local APIC");
                local_apic = table.u64();
            }
            other => panic!("APIC: an entry (type, length) that the reader does not know: {other:?}"),
        }
    }
    let [io_apic] = io_apics[..] else { panic!("I/O APICs: {io_apics:x?}") };
    Madt { local_apic, io_apic, cpus }
}

/// Configuration space and bus numbers. One range in segment 0.
pub fn mcfg(bytes: &[u8]) -> (Window, (u8, u8)) {
    let mut table = Bytes::with_header("MCFG", 1, bytes);
    table.zero::<8>("reserved");
    // The address is that of bus 0, wherever the range begins.
    let base = table.u64();
    table.zero::<2>("PCI segment group");
    let buses = (table.u8(), table.u8());
    table.zero::<4>("reserved");
    table.done();
    assert!(buses.0 <= buses.1, "buses of MCFG: {buses:?}");
    let window = |bus: u8| Window::new(base + (u64::from(bus) << 20), 1 << 20);
    (Window::from_bounds(window(buses.0).base, window(buses.1).last()), buses)
}

/// Address and global system interrupt of the console's UART.
pub fn spcr(bytes: &[u8]) -> (u64, u32) {
    let mut table = Bytes::with_header("SPCR", 2, bytes);
    table.expect("interface: 16550", &[0]);
    table.zero::<3>("reserved");
    let address = table.register("base address");
    table.expect("interrupt type: I/O APIC", &[2]);
    table.zero::<1>("IRQ");
    let interrupt = table.u32();
    table.expect("baud rate as it is, no parity, 1 stop bit, no flow control", &[0, 0, 1, 0]);
    table.expect("terminal type: ANSI", &[3]);
    table.zero::<1>("language");
    table.expect("no PCI device", &[0xff; 4]);
    table.zero::<8>("PCI bus, device, function, flags, segment");
    table.zero::<4>("clock frequency: not given");
    table.done();
    (address, interrupt)
}
