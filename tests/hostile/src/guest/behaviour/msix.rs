// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The MSI-X table and the pending bits, as registers. Where messages go is in the rows of `table::message`.

use super::{NOT_PCI, Row, ensure};
use crate::guest::device::{PATIENCE, Pci};
use crate::guest::{Hardware, pci};

/// Bytes of an entry: address, data, vector control (PCI 3.0, 6.8.2).
const ENTRY: u64 = 16;
/// Both tables have pages of their own.
const PAGE: u64 = 0x1000;

pub(super) const PCI_ROWS: &[Row] = &[
    Row {
        name: "pending-bits-are-written",
        clause: "PCI 3.0, 6.8.2.10: pending bits are for software to read; 6.8.3.5: a masked vector is pending",
        run: |stage| {
            let (device, hardware) = (stage.device, stage.machine.hardware);
            let pci = device.pci_structures().ok_or(NOT_PCI)?;
            let honest = stage.honest();
            stage.begin(&honest)?;
            mask_all(hardware, &pci);
            device.use_vector(0);
            ensure(device.enable_queue(&honest), "a queue in the pool was not enabled")?;
            stage.bench.start(&device, &honest)?;
            stage.bench.finish(&device, &honest)?;
            let is_pending = || hardware.read::<u64>(pci.pending) == 1;
            ensure((0..PATIENCE).any(|_| is_pending()), "the vector is not pending")?;
            for at in (pci.pending..pci.pending + 16).chain(pci.pending + PAGE - 16..pci.pending + PAGE - 8) {
                for value in [0, u64::MAX] {
                    write_all(hardware, at, value);
                    ensure(is_pending(), "pending bits were written")?;
                }
            }
            ensure(device.reset() && !is_pending(), "it is pending after a reset")?;
            pci::enable_msix(hardware, &pci, false);
            Ok(())
        },
    },
    Row {
        name: "table-is-written-past-its-end",
        clause: "PCI 3.0, 6.8.2: the table has as many entries as it says",
        run: |stage| {
            let hardware = stage.machine.hardware;
            let pci = stage.device.pci_structures().ok_or(NOT_PCI)?;
            ensure(stage.device.reset(), "not reset")?;
            mask_all(hardware, &pci);
            let end = pci.table + ENTRY * pci.vectors;
            let before = contents(hardware, pci.table, end);
            for at in (end..end + 4 * ENTRY).chain(pci.table + PAGE - 16..pci.table + PAGE + 16) {
                write_all(hardware, at, u64::MAX);
                ensure(hardware.read::<u32>(at & !3) == 0, "there is a register past the last entry")?;
            }
            ensure(contents(hardware, pci.table, end) == before, "an entry has changed")?;
            pci::enable_msix(hardware, &pci, false);
            Ok(())
        },
    },
    Row {
        name: "table-is-written-in-parts",
        clause: "PCI 3.0, 6.8.2: aligned accesses of 4 or 8 bytes",
        run: |stage| {
            let hardware = stage.machine.hardware;
            let pci = stage.device.pci_structures().ok_or(NOT_PCI)?;
            ensure(stage.device.reset(), "not reset")?;
            mask_all(hardware, &pci);
            let before = contents(hardware, pci.table, pci.table + ENTRY);
            for at in pci.table..pci.table + ENTRY {
                hardware.write(at, 0x5au8);
                hardware.write(at, 0x5a5au16);
                if !at.is_multiple_of(4) {
                    hardware.write(at, u32::MAX);
                }
                if !at.is_multiple_of(8) {
                    hardware.write(at, u64::MAX);
                }
            }
            ensure(contents(hardware, pci.table, pci.table + ENTRY) == before, "the entry has changed")?;
            pci::enable_msix(hardware, &pci, false);
            Ok(())
        },
    },
];

/// Enables MSI-X with every vector masked, and messages that may be sent.
fn mask_all(hardware: Hardware, pci: &Pci) {
    for entry in (pci.table..).step_by(16).zip(0..pci.vectors).map(|(entry, _)| entry) {
        hardware.write(entry + 12, 1u32);
        hardware.write(entry, 0xfee0_0000u32);
        hardware.write(entry + 4, 0u32);
        hardware.write(entry + 8, 0x41u32);
    }
    pci::enable_msix(hardware, pci, true);
}

/// What stands in a range of registers: a sum over them.
fn contents(hardware: Hardware, start: u64, end: u64) -> u64 {
    let words = (start..end).step_by(4).map(|at| u64::from(hardware.read::<u32>(at)));
    words.fold(0, |sum, word| sum.rotate_left(7) ^ word)
}

/// Writes with each width.
fn write_all(hardware: Hardware, at: u64, value: u64) {
    let [a, b, c, d, ..] = value.to_le_bytes();
    hardware.write(at, value);
    hardware.write(at, u32::from_le_bytes([a, b, c, d]));
    hardware.write(at, u16::from_le_bytes([a, b]));
    hardware.write(at, a);
}
