// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All cases of a device type, with and over either transport.

use core::fmt::Write;

use super::bench::{Bench, Result};
use super::device::Device;
use super::machine::Machine;
use super::uart::Uart;
use crate::table::case::Setup;
use crate::table::{CASES_PER_DEVICE, Case, Kind, cases};

/// A failure may take seconds, until patience is at its end: so many say enough.
const MOST_FAILURES: u32 = 4;

/// Puts the devices through the cases; each gets its share. Returns how many there were.
pub(super) fn run(
    machine: &Machine,
    uart: &mut Uart,
    kind: Kind,
    indirect: bool,
) -> core::result::Result<u32, &'static str> {
    let mut bench = Bench::new(machine)?;
    let (mut done, mut failed) = (0, 0);
    for pci in [false, true] {
        let mut devices = bench.victims(machine, kind, pci);
        let mut device = None;
        for (number, case) in cases(kind, indirect).enumerate() {
            if number % CASES_PER_DEVICE == 0 {
                device = devices.next();
            }
            let device = device.ok_or("there are too few devices")?;
            let (subject, way) = case.name();
            let _ = match attempt(&mut bench, &device, &case, kind, indirect) {
                Ok(()) => writeln!(uart, "ok {number}"),
                Err(why) => {
                    failed += 1;
                    writeln!(uart, "FAILED {number} pci={pci} {subject} {way}: {why}")
                }
            };
            done += 1;
            if failed > MOST_FAILURES {
                return Err("no more is tried");
            }
        }
    }
    Ok(done)
}

fn attempt(bench: &mut Bench, device: &Device, case: &Case, kind: Kind, indirect: bool) -> Result {
    let places = bench.places(device);
    let setup = case.setup(&places, indirect);
    match case.record(&places, indirect) {
        Some(_) => bench.refuse(device, &setup, indirect)?,
        None => {
            bench.serve(device, &setup, indirect)?;
            bench.witness()?;
        }
    }
    bench.private_is_unchanged()?;
    let request = kind.request();
    bench
        .serve(device, &Setup::honest(&places, request, indirect), indirect)
        .map_err(|_| "not served after a reset")?;
    if device.reset() { Ok(()) } else { Err("not reset at the end") }
}
