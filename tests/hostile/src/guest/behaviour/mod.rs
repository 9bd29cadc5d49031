// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a hostile driver does beside wrong addresses. After each of these private memory is as it was, another device
//! goes on, and the device serves once it is reset.

mod chains;
mod features;
mod initialisation;
mod memory;
mod msix;
mod queues;
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
use crate::table::{Kind, Places};

/// What a row works with.
struct Stage<'a> {
    machine: &'a Machine,
    bench: &'a mut Bench,
    device: Device,
    /// What the device is, and which of its queues is used.
    kind: Kind,
    second: Second,
}

/// A row.
struct Row {
    name: &'static str,
    /// From where follows what must come of it.
    clause: &'static str,
    run: fn(&mut Stage<'_>) -> Result,
}

/// Rows, and what they are for.
struct Part {
    rows: &'static [Row],
    /// For a queue of each type, or for a disk alone.
    of_each: bool,
    /// For PCI alone: MSI-X, configuration space, BARs.
    on_pci: bool,
}

const fn part(rows: &'static [Row], of_each: bool, on_pci: bool) -> Part {
    Part { rows, of_each, on_pci }
}

const PARTS: [Part; 12] = [
    part(chains::ROWS, false, false),
    part(chains::ROWS_OF_EACH, true, false),
    part(features::ROWS, true, false),
    part(queues::ROWS, true, false),
    part(initialisation::ROWS, false, false),
    part(memory::ROWS, true, false),
    part(race::ROWS, false, false),
    part(registers::ROWS, false, false),
    part(unassigned::ROWS, false, false),
    part(msix::PCI_ROWS, true, true),
    part(race::PCI_ROWS, false, true),
    part(registers::PCI_ROWS, false, true),
];
const NOT_PCI: &str = "the device is not on PCI";

/// A row, for those who tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// Its name.
    pub name: &'static str,
    /// From where follows what must come of it.
    pub clause: &'static str,
    /// It is for PCI alone.
    pub on_pci: bool,
}

/// The rows for a type of queue.
pub fn behaviours(kind: Kind) -> impl Iterator<Item = Behaviour> {
    let of = |Part { rows, on_pci, .. }: &'static Part| {
        let on_pci = *on_pci;
        rows.iter().map(move |row| Behaviour { name: row.name, clause: row.clause, on_pci })
    };
    parts(kind).flat_map(of)
}

fn parts(kind: Kind) -> impl Iterator<Item = &'static Part> {
    const { &PARTS }.iter().filter(move |part| part.of_each || kind == Kind::Blk)
}

/// Puts the first device of a type on either transport through its rows. Returns how many cases there were.
pub(super) fn run(
    machine: &Machine,
    uart: &mut Uart,
    second: Second,
    kind: Kind,
) -> core::result::Result<u32, &'static str> {
    let mut bench = Bench::new(machine)?;
    let mut done = 0;
    for pci in [false, true] {
        let device = bench.victims(machine, kind, pci).next().ok_or("there is no such device")?;
        for row in parts(kind).filter(|part| pci || !part.on_pci).flat_map(|part| part.rows) {
            let mut stage = Stage { machine, bench: &mut bench, device, kind, second };
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
        Setup::honest(&self.places(), self.kind.request(), false)
    }

    /// Starts anew, up to where queues are set up, with memory as `setup` has it.
    fn begin(&self, setup: &Setup) -> Result {
        ensure(self.device.reset() && self.device.negotiate(false), "the device does not start")?;
        self.bench.prepare(&self.device, setup);
        Ok(())
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
