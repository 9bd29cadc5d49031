// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Message addresses in MSI-X table entries.

use core::fmt::Write;

use super::bench::{Bench, Result};
use super::device::Device;
use super::machine::Machine;
use super::pci;
use super::uart::Uart;
use crate::table::case::Setup;
use crate::table::{Kind, MESSAGES, Message, Request, VECTORS};

/// Puts the first device of this type on PCI through all of them. Returns how many there were.
pub(super) fn run(machine: &Machine, uart: &mut Uart, kind: Kind) -> core::result::Result<u32, &'static str> {
    let mut bench = Bench::new(machine)?;
    let device = bench.victims(machine, kind, true).next().ok_or("there is no device on PCI")?;
    let mut done = 0;
    for (message, vector) in MESSAGES.iter().zip(VECTORS.into_iter().cycle()) {
        let _ = match attempt(machine, &mut bench, &device, kind.request(), message, vector) {
            Ok(()) => writeln!(uart, "ok {done}"),
            Err(why) => writeln!(uart, "FAILED {}: {why}", message.name),
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
    message: &Message,
    vector: u16,
) -> Result {
    let hardware = machine.hardware;
    let structures = device.pci_structures().ok_or("no device on PCI")?;
    let places = bench.places(device);
    let honest = Setup::honest(&places, request, false);
    if !(device.reset() && device.negotiate(false)) {
        return Err("the device does not start");
    }
    bench.remember_pool();
    let [a, b, c, d, e, f, g, h] = (message.address)(&places).to_le_bytes();
    pci::enable_msix(hardware, &structures, true);
    // PCI 3.0, 6.8.2: entries of 16 bytes.
    let entry = structures.table + 16 * u64::from(vector);
    hardware.write(entry, u32::from_le_bytes([a, b, c, d]));
    hardware.write(entry + 4, u32::from_le_bytes([e, f, g, h]));
    hardware.write(entry + 8, 0x41u32);
    hardware.write(entry + 12, 0u32);
    let needs_reset = device.status() & 64 != 0;
    // The configuration bit of ISR status is set whether or not MSI-X is enabled (virtio 1.3, 4.1.4.5.1).
    let told = if needs_reset { device.wait_for_refusal() } else { Ok(()) };
    hardware.write(entry + 12, 1u32);
    pci::enable_msix(hardware, &structures, false);
    told?;
    if needs_reset != message.refused.is_some() {
        return Err(if needs_reset { "it was refused" } else { "it was not refused" });
    }
    bench.witness()?;
    bench.private_is_unchanged()?;
    bench.pool_is_unchanged(device)?;
    bench.serve(device, &honest, false)
}
