// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Message addresses in MSI-X table entries.

use core::fmt::Write;

use super::bench::{Bench, Result};
use super::device::{Device, NEEDS_RESET};
use super::machine::Machine;
use super::pci;
use super::uart::Uart;
use crate::table::case::Setup;
use crate::table::{CASES_PER_DEVICE, Kind, Message, Request, Use, messages};

/// Puts devices of this type on PCI through all of them; each gets its share. Returns how many there were.
pub(super) fn run(machine: &Machine, uart: &mut Uart, kind: Kind) -> core::result::Result<u32, &'static str> {
    let mut bench = Bench::new(machine)?;
    let (mut devices, mut device) = (bench.victims(machine, kind, true), None);
    let mut done = 0;
    for (number, (message, use_, entry)) in messages().enumerate() {
        if number % CASES_PER_DEVICE == 0 {
            device = devices.next();
        }
        let device = device.ok_or("there are too few devices on PCI")?;
        let _ = match attempt(machine, &mut bench, &device, kind.request(), (message, use_, entry)) {
            Ok(()) => writeln!(uart, "ok {done}"),
            Err(why) => writeln!(uart, "FAILED {} {use_:?}: {why}", message.name),
        };
        done += 1;
    }
    Ok(done)
}

fn attempt(
    machine: &Machine,
    bench: &mut Bench,
    device: &Device,
    request: Request,
    (message, use_, entry): (&Message, Use, u16),
) -> Result {
    let hardware = machine.hardware;
    let structures = device.pci_structures().ok_or("no device on PCI")?;
    let places = bench.places(device);
    let honest = Setup::honest(&places, request, false);
    if !(device.reset() && device.negotiate(false)) {
        return Err("the device does not start");
    }
    bench.prepare(device, &honest);
    match use_ {
        Use::None => {}
        Use::Queue => device.use_vector(entry),
        Use::Configuration => device.use_vector_for_configuration(entry),
    }
    let [a, b, c, d, e, f, g, h] = (message.address)(&places).to_le_bytes();
    let at = structures.table + 16 * u64::from(entry);
    pci::enable_msix(hardware, &structures, true);
    hardware.write(at, u32::from_le_bytes([a, b, c, d]));
    hardware.write(at + 4, u32::from_le_bytes([e, f, g, h]));
    hardware.write(at + 8, 0x41u32);
    hardware.write(at + 12, 0u32);
    let needs_reset = device.status() & NEEDS_RESET != 0;
    let result = match message.refused {
        Some(_) if !needs_reset => Err("it was not refused"),
        // The configuration bit of ISR status is set whether or not MSI-X is enabled (virtio 1.3, 4.1.4.5.1).
        Some(_) => device.wait_for_refusal(),
        None if needs_reset => Err("it was refused"),
        None if use_ == Use::Queue => use_it(bench, device, &honest),
        None => bench.pool_is_unchanged(device),
    };
    hardware.write(at + 12, 1u32);
    pci::enable_msix(hardware, &structures, false);
    result?;
    bench.witness()?;
    bench.private_is_unchanged()?;
    if needs_reset {
        bench.pool_is_unchanged(device)?;
    }
    bench.serve(device, &honest, false)
}

/// Serves a request, of which the message tells.
fn use_it(bench: &Bench, device: &Device, honest: &Setup) -> Result {
    if !device.enable_queue(honest) {
        return Err("a queue in the pool was not enabled");
    }
    bench.start(device, honest)?;
    bench.finish(device, honest)
}
