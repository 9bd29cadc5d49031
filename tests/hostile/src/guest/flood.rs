// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A queue that is never empty: the second CPU makes chains available as fast as the device uses them, or the device itself
//! does.

use super::bench::{Bench, Result};
use super::device::Device;
use super::machine::Machine;
use super::second::Second;
use super::uart::Uart;
use crate::table::case::Setup;
use crate::table::subject::{Descriptor, NEXT, WRITE};
use crate::table::{Kind, QUEUE_SIZE, feed};

/// So a device works in turns that have an end, whatever the driver does, and a reset comes between two of them.
pub(super) const CLAUSE: &str =
    "virtio 1.3, 2.4.1: a device that was reset does not use its queues; no clause lets it put a reset off";
/// Requests of the other device meanwhile, and writes to a register of this one between two of them. (Notifications are none:
/// KVM keeps them.)
const OTHERS: u32 = 20;
const WRITES: u32 = 100;
/// Resets in the middle of it.
const RESETS: u32 = 5;

/// Cases of a device type: one on either transport.
pub const FLOODS: usize = 2;

/// Floods a device of this type on either transport. Returns how many cases there were.
pub(super) fn run(
    machine: &Machine,
    uart: &mut Uart,
    second: Second,
    kind: Kind,
) -> core::result::Result<u32, &'static str> {
    use core::fmt::Write;
    let mut bench = Bench::new(machine)?;
    let mut done = 0;
    for pci in [false, true] {
        let device = bench.victims(machine, kind, pci).next().ok_or("there is no such device")?;
        let _ = match flood(machine, &mut bench, second, &device, kind) {
            Ok(()) => writeln!(uart, "ok {kind:?}"),
            Err(why) => writeln!(uart, "FAILED {kind:?} pci={pci}: {why} ({CLAUSE})"),
        };
        done += 1;
    }
    Ok(done)
}

/// While `device` has always more to do, another device goes on and a reset ends it all. Every entry of the ring is the same
/// chain.
pub(super) fn flood(
    machine: &Machine,
    bench: &mut Bench,
    second: Second,
    device: &Device,
    kind: Kind,
) -> Result {
    let hardware = machine.hardware;
    let honest = Setup::honest(&bench.places(device), kind.request(), false);
    let fill = || {
        let index = hardware.read::<u16>(honest.used + 2);
        hardware.write(honest.available + 2, index.wrapping_add(QUEUE_SIZE));
    };
    for round in 0..RESETS {
        if !bench.submit(device, &honest, false)? {
            return Err("a queue in the pool was not enabled");
        }
        second.during(&fill, || go_on_until_reset(machine, bench, device, honest.used, round))?;
        bench.private_is_unchanged()?;
    }
    bench.serve(device, &honest, false).map_err(|_| "not served after a reset")?;
    if device.reset() { Ok(()) } else { Err("not reset at the end") }
}

/// A ring whose entries are made available again by one of its requests: it reads the next available index from the disk,
/// into its place in the ring, and the sector that it will read the next time, into its own header.
pub(super) fn feed(machine: &Machine, bench: &mut Bench, device: &Device) -> Result {
    let (hardware, places) = (machine.hardware, bench.places(device));
    let mut honest = Setup::honest(&places, Kind::Blk.request(), false);
    let other = places.header() + 0x100;
    let to = |address, length, flags, next| Descriptor { address, length, flags, next };
    let chains = [
        to(places.header(), 16, NEXT, 1),
        to(places.available() + 2, 2, WRITE | NEXT, 2),
        to(places.header() + 8, 8, WRITE | NEXT, 3),
        to(places.data(), 502, WRITE | NEXT, 4),
        to(places.status(), 1, WRITE, 0),
        to(other, 16, NEXT, 6),
        to(places.data() + 0x200, 512, WRITE | NEXT, 7),
        to(places.status() + 1, 1, WRITE, 0),
    ];
    honest.queue_table[..chains.len()].copy_from_slice(&chains);
    for round in 0..RESETS {
        if !(device.reset() && device.negotiate(false)) {
            return Err("the device does not start");
        }
        bench.prepare(device, &honest);
        // A header is type (a read is 0) and sector (virtio 1.3, 5.2.6).
        hardware.write(places.header(), 0u64);
        hardware.write(places.header() + 8, feed::FIRST);
        for slot in 1..u64::from(QUEUE_SIZE) {
            hardware.write(honest.available + 4 + 2 * slot, 5u16);
        }
        if !device.enable_queue(&honest) {
            return Err("a queue in the pool was not enabled");
        }
        device.start();
        device.notify();
        go_on_until_reset(machine, bench, device, honest.used, round)?;
        bench.private_is_unchanged()?;
    }
    Ok(())
}

/// While the device has always more to do, another one goes on; a reset ends it.
fn go_on_until_reset(machine: &Machine, bench: &mut Bench, device: &Device, used: u64, round: u32) -> Result {
    let index = || machine.hardware.read::<u16>(used + 2);
    for _ in 0..if round == 0 { OTHERS } else { 1 } {
        let before = index();
        (0..WRITES).for_each(|_| device.select_queue());
        bench.witness()?;
        bench.wait_until(|| {
            device.notify();
            index() != before
        })?;
    }
    if !device.reset() {
        return Err("not reset");
    }
    let after = index();
    for _ in 0..10 {
        bench.witness()?;
    }
    if index() == after { Ok(()) } else { Err("a device that was reset goes on") }
}
