// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a hostile driver does beside wrong addresses. After each of these private memory is as it was, another device
//! goes on, and the device serves once it is reset.

mod chains;
mod initialisation;
mod memory;
mod msix;
mod race;
mod registers;
mod unassigned;

use core::fmt::Write;

use super::bench::{Bench, Result};
use super::device::Device;
use super::machine::Machine;
use super::second::Second;
use super::uart::Uart;
use crate::table::case::Setup;
use crate::table::{Kind, Places, Request};

/// What a row works with.
struct Stage<'a> {
    machine: &'a Machine,
    bench: &'a mut Bench,
    /// A disk.
    device: Device,
    second: Second,
}

/// A row.
struct Row {
    name: &'static str,
    /// From where follows what must come of it.
    clause: &'static str,
    run: fn(&mut Stage<'_>) -> Result,
}

/// Those for a device on either transport.
const ROWS: [&[Row]; 6] =
    [chains::ROWS, initialisation::ROWS, memory::ROWS, race::ROWS, registers::ROWS, unassigned::ROWS];

/// Those for one on PCI alone: MSI-X, configuration space, BARs.
const PCI_ROWS: [&[Row]; 3] = [msix::PCI_ROWS, race::PCI_ROWS, registers::PCI_ROWS];
const NOT_PCI: &str = "the device is not on PCI";

/// How many cases they are.
pub const BEHAVIOURS: usize = 2 * count(&ROWS) + count(&PCI_ROWS);

/// Their names, from where follows what must come of each, and whether it is for PCI alone.
pub fn behaviours() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    let of = |rows: &'static [&'static [Row]], pci| {
        rows.iter().copied().flatten().map(move |row| (row.name, row.clause, pci))
    };
    of(&ROWS, false).chain(of(&PCI_ROWS, true))
}

const fn count(parts: &[&[Row]]) -> usize {
    let (mut total, mut part) = (0, 0);
    while part < parts.len() {
        total += parts[part].len();
        part += 1;
    }
    total
}

/// Puts the first disk on either transport through its rows. Returns how many cases there were.
pub(super) fn run(
    machine: &Machine,
    uart: &mut Uart,
    second: Second,
) -> core::result::Result<u32, &'static str> {
    let mut bench = Bench::new(machine)?;
    let mut done = 0;
    for pci in [false, true] {
        let device = bench.victims(machine, Kind::Blk, pci).next().ok_or("there is no disk")?;
        let pci_rows: &[&[Row]] = if pci { &PCI_ROWS } else { &[] };
        for row in ROWS.iter().chain(pci_rows).copied().flatten() {
            let mut stage = Stage { machine, bench: &mut bench, device, second };
            let _ = match (row.run)(&mut stage).and_then(|()| stage.recovers()) {
                Ok(()) => writeln!(uart, "ok {}", row.name),
                Err(why) => writeln!(uart, "FAILED {} pci={pci}: {why} ({})", row.name, row.clause),
            };
            done += 1;
        }
    }
    Ok(done)
}

impl Stage<'_> {
    fn places(&self) -> Places {
        self.bench.places(&self.device)
    }

    fn honest(&self) -> Setup {
        Setup::honest(&self.places(), Request::Read, false)
    }

    fn recovers(&mut self) -> Result {
        self.bench.private_is_unchanged()?;
        self.bench.witness()?;
        let honest = self.honest();
        self.bench.serve(&self.device, &honest, false).map_err(|_| "not served after a reset")?;
        if self.device.reset() { Ok(()) } else { Err("not reset at the end") }
    }
}

fn ensure(condition: bool, otherwise: &'static str) -> Result {
    if condition { Ok(()) } else { Err(otherwise) }
}
