// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Accesses of all widths to all that is there, and to what is not.

use super::{Row, ensure};
use crate::guest::{Hardware, pci};

/// Where no device is, whatever the machine has: above RAM, between windows, above the last one.
const UNASSIGNED: [u64; 7] =
    [0x0300_0000, 0xa000_0000, 0xbfff_f000, 0xcfff_f000, 0xd0ff_f000, 0xd100_3000, 0xfed0_0000];
/// Where a BAR can be and no BAR is: below the memory of devices, which is at the end of the window.
pub(super) const FREE: u64 = 0xc800_0000;
/// Configuration space of PCI, as memory.
const ECAM: u64 = 0xe000_0000;
/// The keyboard controller, which resets the machine, and the configuration ports of PCI.
const PORTS_IN_USE: [u16; 3] = [0x64, 0xcf8, 0xcfc];

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "unassigned-memory",
        clause: "PCI 3.0, 3.3.3.1: what nobody answers reads as ones, and writes are lost",
        run: |stage| {
            let hardware = stage.machine.hardware;
            for at in UNASSIGNED {
                hardware.write(at, 0u64);
                hardware.write(at + 8, 0u8);
                ensure(hardware.read::<u8>(at + 1) == u8::MAX, "8 bits")?;
                ensure(hardware.read::<u16>(at + 2) == u16::MAX, "16 bits")?;
                ensure(hardware.read::<u32>(at) == u32::MAX, "32 bits")?;
                ensure(hardware.read::<u64>(at) == u64::MAX, "64 bits")?;
            }
            Ok(())
        },
    },
    Row {
        name: "unassigned-ports",
        clause: "PCI 3.0, 3.3.3.1: what nobody answers reads as ones, and writes are lost",
        run: |stage| {
            let hardware = stage.machine.hardware;
            for port in (0..0x400).step_by(4).chain((0x400..=0xfffc).step_by(0x100)) {
                if !PORTS_IN_USE.contains(&port) {
                    hardware.port_write(port, 0);
                    ensure(hardware.port_read(port) == u32::MAX, "a port")?;
                }
            }
            Ok(())
        },
    },
    Row {
        name: "all-widths-and-offsets",
        clause: "virtio 1.3, 4.2.2.2 and 4.1.3.1: other widths than a field's mean nothing",
        run: |stage| {
            let (device, hardware) = (stage.device, stage.machine.hardware);
            let pages: &[u64] = if device.is_pci() { &[0, 1, 2, 3, 4, 5, 6, 7] } else { &[0] };
            for page in pages {
                let length = if *page == 0 { 0x110 } else { 0x18 };
                for offset in (0..length).chain(0xff8..0x1000) {
                    let at = device.registers + page * 0x1000 + offset;
                    all_widths(hardware, at, offset);
                }
            }
            Ok(())
        },
    },
    Row {
        name: "configuration-space",
        clause: "PCI 3.0, 6.1: read-only registers keep their values, reserved ones read as zeros",
        run: |stage| {
            let (device, hardware) = (stage.device, stage.machine.hardware);
            let Some(structures) = device.pci_structures() else { return Ok(()) };
            let space = ECAM + (u64::from(structures.function) << 4);
            let before: [u32; 3] = [0, 8, 0x2c].map(|offset| hardware.read(space + offset));
            ensure(before[0] & 0xffff == 0x1af4, "there is no virtio function")?;
            (0..0x108).chain(0xff0..0xff8).for_each(|offset| all_widths(hardware, space + offset, offset));
            pci::enable_msix(hardware, &structures, false);
            pci::move_bar(hardware, &structures, device.registers, false);
            let after: [u32; 3] = [0, 8, 0x2c].map(|offset| hardware.read(space + offset));
            ensure(before == after, "the device is another one")
        },
    },
    Row {
        name: "bar-moved",
        clause: "PCI 3.0, 6.2.5.1: the BAR is the driver's; RAM and fixed windows stay what they are",
        run: |stage| {
            let (device, hardware) = (stage.device, stage.machine.hardware);
            let Some(structures) = device.pci_structures() else { return Ok(()) };
            let places = stage.places();
            let others = stage.machine.devices().filter(|other| other.registers != device.registers);
            let others = others.map(|other| other.registers);
            let fixed = [
                0,
                places.private(),
                places.data(),
                stage.machine.uart & !0x7fff,
                0xe000_0000,
                0xfec0_0000,
                0xfee0_0000,
                0xffff_8000,
                1 << 40,
                u64::MAX << 15,
            ];
            for address in fixed.into_iter().chain(others) {
                for decoding in [false, true] {
                    pci::move_bar(hardware, &structures, address, decoding);
                    hardware.write(places.data(), 0x1234_5678u32);
                    let same = hardware.read::<u32>(places.data()) == 0x1234_5678;
                    let went_on = stage.bench.witness();
                    pci::move_bar(hardware, &structures, device.registers, true);
                    ensure(same, "the pool is no memory any more")?;
                    went_on?;
                    stage.bench.private_is_unchanged()?;
                }
            }
            Ok(())
        },
    },
];

/// Writes a pattern with each width, and reads what came of it.
fn all_widths(hardware: Hardware, at: u64, seed: u64) {
    let pattern = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
    let [a, b, c, d, ..] = pattern.to_le_bytes();
    hardware.write(at, pattern);
    hardware.read::<u64>(at);
    hardware.write(at, u32::from_le_bytes([a, b, c, d]));
    hardware.read::<u32>(at);
    hardware.write(at, u16::from_le_bytes([a, b]));
    hardware.read::<u16>(at);
    hardware.write(at, a);
    hardware.read::<u8>(at);
}
