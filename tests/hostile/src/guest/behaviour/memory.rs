// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that changes while the device reads it, and devices that are reset while they work.

use super::{Result, Row, Stage, ensure};
use crate::guest::bench::length;
use crate::guest::device::NEEDS_RESET;
use crate::table::case::Setup;
use crate::table::subject::{Descriptor, WRITE};
use crate::table::{DESCRIPTOR, QUEUE_SIZE};

/// How often each is tried: it depends on time what is met.
pub(super) const ROUNDS: u32 = 50;
/// How often at most, until both words were met.
const MOST_ROUNDS: u32 = 20 * ROUNDS;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "data-address-changes",
        clause: "virtio 1.3, 2.7.13: a device that reads a descriptor twice would check one and use another",
        run: |stage| {
            let (places, honest) = (stage.places(), stage.honest());
            let at = honest.descriptors + data(&honest);
            changing(stage, &honest, false, at, [places.data(), places.private()])
        },
    },
    Row {
        name: "indirect-table-changes",
        clause: "virtio 1.3, 2.7.5.3: likewise",
        run: |stage| {
            let places = stage.places();
            let honest = Setup::honest(&places, stage.kind.request(), true);
            changing(stage, &honest, true, honest.descriptors, [places.table(), places.private()])
        },
    },
    Row {
        name: "data-address-in-indirect-table-changes",
        clause: "virtio 1.3, 2.7.5.3: likewise",
        run: |stage| {
            let places = stage.places();
            let honest = Setup::honest(&places, stage.kind.request(), true);
            let at = places.table() + data(&honest);
            changing(stage, &honest, true, at, [places.data(), places.pool_end - 1])
        },
    },
    Row {
        name: "length-and-flags-change",
        clause: "virtio 1.3, 2.7.5: likewise; the second word of a descriptor is length, flags, next",
        run: |stage| {
            let honest = stage.honest();
            let Descriptor { length, flags, next, .. } = honest.chain()[usize::from(honest.request.data())];
            let word =
                |length: u32, flags: u16| u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48;
            let words = [word(length, flags), word(u32::MAX, flags ^ WRITE)];
            changing(stage, &honest, false, honest.descriptors + data(&honest) + 8, words)
        },
    },
    Row {
        name: "used-ring-overwritten",
        clause: "virtio 1.3, 2.7.8: the used ring is written by the device only, which knows where it is in it",
        run: |stage| {
            let (device, hardware, honest) = (stage.device, stage.machine.hardware, stage.honest());
            stage.bench.serve(&device, &honest, false)?;
            for round in 2..20u16 {
                (honest.used..honest.used + 70).step_by(2).for_each(|at| hardware.write(at, 0x7fffu16));
                stage.bench.again(&device, &honest, round);
                stage.bench.wait(honest.used, round)?;
                let slot = honest.used + 4 + 8 * u64::from((round - 1) % QUEUE_SIZE);
                ensure(hardware.read::<u32>(slot) == 0, "the used element is not in its place")?;
                let written = hardware.read::<u32>(slot + 4);
                ensure(written == length(honest.request), "the used element has another length")?;
            }
            Ok(())
        },
    },
    Row {
        name: "reset-in-the-middle",
        clause: "virtio 1.3, 2.4.1: after a reset the device neither writes memory nor completes requests",
        run: |stage| {
            let (device, honest) = (stage.device, stage.honest());
            for round in 0..ROUNDS {
                stage.bench.submit(&device, &honest, false)?;
                for _ in 0..round * 200 {
                    core::hint::spin_loop();
                }
                ensure(device.reset(), "not reset")?;
                stage.bench.remember_pool();
                for _ in 0..20 {
                    device.status();
                }
                stage.bench.pool_is_unchanged(&stage.device)?;
            }
            Ok(())
        },
    },
    Row {
        name: "notifications-of-a-dead-queue",
        clause: "virtio 1.3, 2.1.2 and 2.4: a device that needs a reset, or was reset, serves nothing",
        run: |stage| {
            let (device, hardware, mut wrong) = (stage.device, stage.machine.hardware, stage.honest());
            ensure(device.reset(), "not reset")?;
            for _ in 0..10 {
                (0..100).for_each(|_| device.notify());
                stage.bench.witness()?;
            }
            wrong.head = 65535;
            stage.bench.submit(&device, &wrong, false)?;
            device.wait_for_refusal()?;
            // It is a request now. Too late.
            (0..u64::from(QUEUE_SIZE)).for_each(|slot| hardware.write(wrong.available + 4 + 2 * slot, 0u16));
            for _ in 0..10 {
                (0..100).for_each(|_| device.notify());
                stage.bench.witness()?;
            }
            ensure(device.status() & NEEDS_RESET != 0, "NEEDS_RESET went by itself")?;
            ensure(hardware.read::<u16>(wrong.used + 2) == 0, "a device that needs a reset served a request")
        },
    },
];

/// Where in its table the descriptor of the data is.
fn data(setup: &Setup) -> u64 {
    DESCRIPTOR * u64::from(setup.request.data())
}

/// The second CPU writes one word of memory and then another, again and again while the device works. With the first one
/// the request is honest: then it is served whole. With the second one it points outside the pool: then it is refused, and
/// no byte of it moves. What began with the one and ended with the other is neither. Each must have come.
fn changing(stage: &mut Stage<'_>, honest: &Setup, indirect: bool, at: u64, words: [u64; 2]) -> Result {
    let (device, hardware, second) = (stage.device, stage.machine.hardware, stage.second);
    // Each stands for about as long as the other.
    let change = || {
        for word in words.into_iter().rev() {
            hardware.write(at, word);
            core::hint::spin_loop();
        }
    };
    second.during(&change, || {
        let (mut were_served, mut were_refused) = (0, 0);
        for _ in 0..MOST_ROUNDS {
            if were_served + were_refused >= ROUNDS && were_served > 0 && were_refused > 0 {
                return Ok(());
            }
            ensure(stage.bench.submit(&device, honest, indirect)?, "a queue in the pool was not enabled")?;
            let served = || hardware.read::<u16>(honest.used + 2) != 0;
            let ended = || served() || device.status() & NEEDS_RESET != 0;
            stage.bench.wait_until(ended).map_err(|_| "neither served nor refused")?;
            let refused = device.status() & NEEDS_RESET != 0;
            // From here on the device may touch nothing: what it did is done.
            ensure(device.reset(), "not reset")?;
            if refused {
                were_refused += 1;
                ensure(!served(), "it was refused, and completed")?;
                let fields = stage.bench.fields(&device, honest.used);
                let may = fields.into_iter().chain([(at, 8)]);
                stage.bench.pool_is_unchanged_but(|byte| {
                    may.clone().any(|(start, length)| byte.wrapping_sub(start) < length)
                })?;
            } else {
                were_served += 1;
                stage.bench.finish(&device, honest)?;
            }
            stage.bench.private_is_unchanged()?;
        }
        Err(if were_served == 0 { "it was never served" } else { "it was never refused" })
    })
}
