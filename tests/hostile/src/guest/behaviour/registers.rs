// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Accesses of all widths to all that is there, and BARs in all places.

use super::{NOT_PCI, Result, Row, Stage, ensure};
use crate::guest::bench::length;
use crate::guest::device::{ACKNOWLEDGE, Device, NEEDS_RESET};
use crate::guest::{Hardware, pci};
use crate::table::case::Setup;
use crate::table::{Kind, Request};

/// Where a BAR can be and no BAR is: below the memory of devices, which is at the end of the window.
pub(super) const FREE: u64 = 0xc800_0000;
/// Configuration space of PCI, as memory.
const ECAM: u64 = 0xe000_0000;
pub(super) const ROWS: &[Row] = &[Row {
    name: "all-widths-and-offsets",
    clause: "virtio 1.3, 4.2.2.2 and 4.1.3.1: a driver uses a field's own width, and some fields are read-only",
    run: |stage| {
        let (device, hardware) = (stage.device, stage.machine.hardware);
        ensure(device.reset(), "not reset")?;
        let before = device.constants();
        let pages: &[u64] = if device.is_pci() { &[0, 1, 2, 3, 4, 5, 6, 7] } else { &[0] };
        for page in pages {
            // On mmio the configuration is there, too, which begins at 0x100, and what is behind it.
            let length = if *page == 0 { 0x200 } else { 0x18 };
            for offset in (0..length).chain(0xff8..0x1000) {
                let at = device.registers + page * 0x1000 + offset;
                all_widths(hardware, at, offset);
            }
        }
        ensure(device.reset(), "not reset")?;
        ensure(device.constants() == before, "what is read-only has changed")?;
        other_widths(hardware, &device)?;
        // Its configuration has accesses of any width.
        let config = device.config();
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7].map(|at| hardware.read::<u8>(config + at));
        ensure(
            hardware.read::<u64>(config) == u64::from_le_bytes(bytes),
            "another configuration in 64 bits",
        )?;
        let [_, a, b, ..] = bytes;
        ensure(
            hardware.read::<u16>(config + 1) == u16::from_le_bytes([a, b]),
            "another configuration in 16 bits",
        )
    },
}];

/// On PCI alone.
pub(super) const PCI_ROWS: &[Row] = &[
    Row {
        name: "configuration-space",
        clause: "PCI 3.0, 6.1: read-only registers keep their values, reserved ones read as zeros",
        run: |stage| {
            let (device, hardware) = (stage.device, stage.machine.hardware);
            let structures = device.pci_structures().ok_or(NOT_PCI)?;
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
        clause: "PCI 3.0, 6.2.5.1: the function answers where its BAR is, and nowhere else",
        run: |stage| {
            let (device, hardware) = (stage.device, stage.machine.hardware);
            let structures = device.pci_structures().ok_or(NOT_PCI)?;
            for place in [FREE, FREE + 0x8000, FREE + 0x10_0000, FREE] {
                ensure(device.reset(), "not reset")?;
                let constants = device.constants();
                device.set_status(ACKNOWLEDGE);
                pci::move_bar(hardware, &structures, place, false);
                let there = device.moved(place);
                let is_there =
                    there.status() == ACKNOWLEDGE && there.reset() && there.constants() == constants;
                let is_here = device.status() != u8::MAX;
                // It serves where it is, with notifications there.
                let honest = stage.honest();
                let served = stage.bench.serve(&there, &honest, false);
                pci::move_bar(hardware, &structures, device.registers, false);
                ensure(is_there, "it does not answer where its BAR is")?;
                ensure(!is_here, "it answers where its BAR was")?;
                served?;
                ensure(there.status() == u8::MAX, "it answers where its BAR was last")?;
            }
            Ok(())
        },
    },
    Row {
        name: "bar-over-others",
        clause: "PCI 3.0, 6.2.5.1: the BAR is the driver's; RAM and fixed windows stay what they are",
        run: |stage| {
            let (device, hardware) = (stage.device, stage.machine.hardware);
            let structures = device.pci_structures().ok_or(NOT_PCI)?;
            let places = stage.places();
            // Where the BAR goes, and what is there that says whose it is.
            let fixed = [
                (0, 0x7000),
                (places.private(), places.private() + 0x14),
                (stage.machine.uart & !0x7fff, stage.machine.uart + 4),
                (ECAM, ECAM),
                (0xfec0_0000, 0xfec0_0010),
                (0xfee0_0000, 0xfee0_0030),
                (0xffff_8000, 0xffff_8014),
                (1 << 40, places.private()),
                (u64::MAX << 15, places.private()),
            ];
            let others = stage.machine.devices().filter(|other| !other.is_pci());
            let others = others.map(|other| (other.registers & !0x7fff, other.registers + 8));
            for (address, sign) in fixed.into_iter().chain(others) {
                for decoding in [false, true] {
                    ensure(device.reset(), "not reset")?;
                    device.set_status(ACKNOWLEDGE);
                    let before: u8 = hardware.read(sign);
                    pci::move_bar(hardware, &structures, address, decoding);
                    let same = hardware.read::<u8>(sign) == before || address == 0xffff_8000;
                    let went_on = stage.bench.witness();
                    pci::move_bar(hardware, &structures, device.registers, true);
                    ensure(same, "what was there does not answer")?;
                    went_on?;
                    ensure(device.status() == ACKNOWLEDGE, "the device was reached")?;
                    stage.bench.private_is_unchanged()?;
                }
            }
            Ok(())
        },
    },
    Row {
        name: "bar-over-another-bar",
        clause: "PCI 3.0, 6.2.5.1: a function answers where its BAR is; nothing says which of two, and each does once it is alone",
        run: |stage| {
            let mut others = stage.bench.victims(stage.machine, Kind::Rng, true);
            let (device, other) = (stage.device, others.next().ok_or("there is no other function")?);
            for (moves, stays) in [(device, other), (other, device)] {
                for decoding in [false, true] {
                    over_another(stage, &other, (&moves, &stays), decoding)?;
                }
            }
            Ok(())
        },
    },
    Row {
        name: "bar-over-the-pool",
        clause: "PCI 3.0, 6.2.5.1: the BAR is the driver's; RAM stays what it is",
        run: |stage| {
            let (device, hardware) = (stage.device, stage.machine.hardware);
            let structures = device.pci_structures().ok_or(NOT_PCI)?;
            let place = stage.places().data() & !0x7fff;
            for decoding in [false, true] {
                ensure(device.reset(), "not reset")?;
                device.set_status(ACKNOWLEDGE);
                pci::move_bar(hardware, &structures, place, decoding);
                // Registers there would be reset by this.
                (place..place + 0x40).for_each(|at| hardware.write(at, 0u8));
                let zeros = (place..place + 0x40).all(|at| hardware.read::<u8>(at) == 0);
                hardware.write(place, 0x1234_5678u32);
                let same = hardware.read::<u32>(place) == 0x1234_5678;
                pci::move_bar(hardware, &structures, device.registers, true);
                ensure(zeros && same, "the pool is no memory any more")?;
                ensure(device.status() == ACKNOWLEDGE, "the device was reached through memory")?;
            }
            Ok(())
        },
    },
];

/// Two functions with a request each, which one of them is told of while both are in one place, one once the other has left
/// it, and each once it is in its own.
fn over_another(
    stage: &mut Stage<'_>,
    other: &Device,
    (moves, stays): (&Device, &Device),
    decoding: bool,
) -> Result {
    let (device, hardware) = (stage.device, stage.machine.hardware);
    let structures = moves.pci_structures().ok_or(NOT_PCI)?;
    let left = stays.pci_structures().ok_or(NOT_PCI)?;
    // Nothing is available yet.
    let mine = Setup { index: 0, ..stage.honest() };
    let others = Setup::honest(&stage.places().asking(), Request::Random, false);
    ensure(other.reset() && other.negotiate(false), "the other device does not start")?;
    stage.begin(&mine)?;
    let bytes = others.queue_table[0].bytes();
    (others.descriptors..).zip(bytes).for_each(|(at, byte)| hardware.write(at, byte));
    for (device, setup) in [(&device, &mine), (other, &others)] {
        ensure(device.enable_queue(setup), "a queue in the pool was not enabled")?;
        device.start();
    }
    pci::move_bar(hardware, &structures, stays.registers, decoding);
    for setup in [&mine, &others] {
        hardware.write(setup.available + 2, 1u16);
    }
    (0..10).for_each(|_| stays.notify());
    let went_on = stage.bench.witness();
    // The one that was there leaves; the other one is alone in its place then.
    pci::move_bar(hardware, &left, FREE, decoding);
    moves.moved(stays.registers).notify();
    let used = if moves.id == other.id { others.used } else { mine.used };
    let served = stage.bench.wait(used, 1).map_err(|_| "not served where another one was");
    pci::move_bar(hardware, &structures, moves.registers, decoding);
    pci::move_bar(hardware, &left, stays.registers, decoding);
    went_on?;
    served?;
    device.notify();
    other.notify();
    stage.bench.finish(&device, &mine)?;
    stage.bench.wait(others.used, 1)?;
    let element: u64 = hardware.read(others.used + 4);
    ensure(element == u64::from(length(others.request)) << 32, "the other device's request is not whole")?;
    for device in [&device, other] {
        ensure(device.status() & NEEDS_RESET == 0, "what may be served was refused")?;
    }
    ensure(other.reset(), "not reset")?;
    stage.bench.private_is_unchanged()
}

/// Fields of the common configuration (virtio 1.3, 4.1.4.3): offset and width. Those of 64 bits are used in halves.
const COMMON: [(u64, u64); 19] = [
    (0x00, 4),
    (0x04, 4),
    (0x08, 4),
    (0x0c, 4),
    (0x10, 2),
    (0x12, 2),
    (0x14, 1),
    (0x15, 1),
    (0x16, 2),
    (0x18, 2),
    (0x1a, 2),
    (0x1c, 2),
    (0x1e, 2),
    (0x20, 4),
    (0x24, 4),
    (0x28, 4),
    (0x2c, 4),
    (0x30, 4),
    (0x34, 4),
];

/// What is no field reads as zeros: other widths, and what straddles two.
fn other_widths(hardware: Hardware, device: &Device) -> Result {
    let (base, end) = device.pci_structures().map_or((device.registers, 0xf8), |pci| (pci.common, 0x38));
    for offset in 0..end {
        let is_field = |width| {
            if device.is_pci() { COMMON.contains(&(offset, width)) } else { width == 4 && offset % 4 == 0 }
        };
        let at = base + offset;
        let zeros = (is_field(1) || hardware.read::<u8>(at) == 0)
            && (is_field(2) || hardware.read::<u16>(at) == 0)
            && (is_field(4) || hardware.read::<u32>(at) == 0)
            && hardware.read::<u64>(at) == 0;
        ensure(zeros, "what is no field has a value")?;
    }
    Ok(())
}

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
