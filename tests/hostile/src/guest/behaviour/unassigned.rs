// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Accesses to where nothing is, and to more than what is there.

use super::{Result, Row, Stage, ensure};
use crate::guest::Hardware;

const MIB: u64 = 1 << 20;
/// Where this machine's registers are beside its devices': configuration space, I/O APIC, local APICs.
const OTHER_REGISTERS: [u64; 3] = [0xe000_0000, 0xfec0_0000, 0xfee0_0000];
/// Places between two windows of a MiB, and behind what is smaller than a page.
const GAPS: [u64; 6] = [0xcfff_f000, 0xd0ff_f000, 0xd100_0008, 0xd100_1020, 0xd100_3000, 0xfec0_1000];
/// Places above 4 GiB, the first and the last that this guest has mapped among them. RAM ends below.
const HIGH: [u64; 4] = [1 << 32, (1 << 32) + MIB, 0x1_2345_6000, (5 << 30) - 0x1000];
/// The register of pvpanic: 2 bytes, of which the first ends the run.
const PANIC: u64 = 0xd100_2000;

/// The command port of the keyboard controller and the reset control register, which reset the machine, and the configuration
/// ports of PCI.
const KEYBOARD: u16 = 0x64;
const RESET_CONTROL: u16 = 0xcf9;
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: core::ops::RangeInclusive<u16> = 0xcfc..=0xcff;

const ONES: &str = "PCI 3.0, 3.3.3.1: what nobody answers reads as ones, and writes are lost";

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "unassigned-memory",
        clause: ONES,
        run: |stage| {
            let machine = stage.machine;
            let registers = [machine.uart].into_iter().chain(OTHER_REGISTERS);
            let devices = || machine.devices().map(|device| device.registers);
            let steps = (machine.memory_end / MIB..4096).map(|number| number * MIB);
            let free =
                steps.filter(|at| registers.clone().chain(devices()).all(|other| other / MIB != *at / MIB));
            for at in free.chain(GAPS).chain(HIGH) {
                nobody_at(machine.hardware, at)?;
            }
            Ok(())
        },
    },
    Row {
        name: "unassigned-ports",
        clause: ONES,
        run: |stage| {
            let hardware = stage.machine.hardware;
            for port in (0..0x400)
                .chain(CONFIG_ADDRESS - 8..CONFIG_ADDRESS + 16)
                .chain((0x400..0xff00).step_by(0x100))
            {
                // An access is somebody's if all of it is: the address is one of 32 bits, its data any part of four ports.
                let data = |bytes| CONFIG_DATA.contains(&port) && CONFIG_DATA.contains(&(port + bytes - 1));
                if ![KEYBOARD, RESET_CONTROL].contains(&port) && !data(1) {
                    hardware.port_write(port, 0u8);
                    ensure(hardware.port_read::<u8>(port) == u8::MAX, "a port of 8 bits")?;
                }
                if !data(2) {
                    hardware.port_write(port, 0xfe_u16);
                    ensure(hardware.port_read::<u16>(port) == u16::MAX, "a port of 16 bits")?;
                }
                if port != CONFIG_ADDRESS && !data(4) {
                    hardware.port_write(port, 0xfe_u32);
                    ensure(hardware.port_read::<u32>(port) == u32::MAX, "a port of 32 bits")?;
                }
            }
            Ok(())
        },
    },
    Row {
        name: "more-than-a-register",
        clause: ONES,
        run: |stage| {
            let (hardware, uart) = (stage.machine.hardware, stage.machine.uart);
            // Until the guest asks for interrupts, it reads the UART's registers in memory, of any width.
            hardware.write(uart + 1, 1u8);
            hardware.write(uart + 1, 0u8);
            // Each of these would end the run if the part of it that is there were written. None crosses a page: KVM makes two
            // accesses of one that does.
            let (power, value) = stage.machine.power_off;
            hardware.write(power, u64::from(value));
            hardware.write(PANIC, 0x0101_0101u32);
            for at in [uart + 5, uart + 6, power + 1, power + 2, power + 3, PANIC, PANIC + 1] {
                ensure(hardware.read::<u32>(at) == u32::MAX, "an access that is more than a register")?;
            }
            ensure(hardware.read::<u64>(uart + 1) == u64::MAX, "8 bytes behind the first of eight")
        },
    },
    Row {
        name: "across-the-end-of-memory",
        clause: ONES,
        run: |stage| {
            let (hardware, end) = (stage.machine.hardware, stage.machine.memory_end);
            let last: u16 = hardware.read(end - 2);
            let expected = u32::from(last) | 0xffff_0000;
            ensure(hardware.read::<u32>(end - 2) == expected, "memory, and nothing behind it")?;
            hardware.write(end - 2, u32::from(last));
            ensure(hardware.read::<u32>(end - 2) == expected, "memory, and nothing behind it")
        },
    },
    Row {
        name: "across-the-end-of-registers",
        clause: "virtio 1.3, 4.2.2.2 and 4.1.3.1: what is no field has no effect; the part behind the end is nobody's",
        run: across_the_end,
    },
];

/// The page after the device's registers may be another device's, which has nothing at its start that 2 bytes reach.
fn across_the_end(stage: &mut Stage<'_>) -> Result {
    let (device, hardware) = (stage.device, stage.machine.hardware);
    let size = if device.is_pci() { 0x8000 } else { 0x1000 };
    let end = device.registers + size;
    let next = stage.machine.devices().any(|other| other.registers == end);
    ensure(device.reset(), "not reset")?;
    let before = device.constants();
    for value in [0u32, u32::MAX] {
        hardware.write(end - 2, value);
        let expected = if next { 0 } else { 0xffff_0000 };
        ensure(hardware.read::<u32>(end - 2) == expected, "an access across the end")?;
    }
    ensure(device.constants() == before && device.status() == 0, "the device is another one")
}

/// With each width; writes leave nothing behind.
fn nobody_at(hardware: Hardware, at: u64) -> Result {
    hardware.write(at, 0u64);
    hardware.write(at + 8, 0u8);
    ensure(hardware.read::<u8>(at + 1) == u8::MAX, "8 bits")?;
    ensure(hardware.read::<u16>(at + 2) == u16::MAX, "16 bits")?;
    ensure(hardware.read::<u32>(at) == u32::MAX, "32 bits")?;
    ensure(hardware.read::<u64>(at) == u64::MAX, "64 bits")
}
