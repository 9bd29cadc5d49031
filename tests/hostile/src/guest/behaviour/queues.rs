// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of a queue, written late, in halves, or while it is enabled.

use super::{Result, Row, Stage, ensure};
use crate::guest::bench::length;
use crate::table::case::Setup;
use crate::table::{Places, QUEUE_SIZE};

/// Where none of a queue's areas may be, each of which is longer than 16 bytes, and aligned there.
fn elsewhere(places: &Places) -> [u64; 7] {
    let Places { pool, pool_end, other, .. } = *places;
    let far = places.data() | 1 << 40;
    [pool - 16, pool_end - 16, other + 0x1_0000, places.private(), places.private_below(), 0, far]
}

/// The three of a queue, in the order of their registers.
fn areas(setup: &Setup) -> impl Iterator<Item = (usize, u64)> + use<> {
    [setup.descriptors, setup.available, setup.used].into_iter().enumerate()
}

const NO_CHANGE: &str = "virtio 1.3, 4.1.4.3.2 and 4.2.2.2: no change while the queue is enabled";

pub(super) const ROWS: &[Row] = &[
    Row { name: "queue-moved-while-enabled", clause: NO_CHANGE, run: |stage| moved(stage, false) },
    Row { name: "queue-moved-while-running", clause: NO_CHANGE, run: |stage| moved(stage, true) },
    Row { name: "queue-resized-while-enabled", clause: NO_CHANGE, run: |stage| resized(stage, false) },
    Row { name: "queue-resized-while-running", clause: NO_CHANGE, run: |stage| resized(stage, true) },
    Row {
        name: "queue-set-up-after-driver-ok",
        clause: "virtio 1.3, 3.1.1: queues are set up in step 7, before DRIVER_OK",
        run: |stage| {
            let (device, honest) = (stage.device, stage.honest());
            stage.begin(&honest)?;
            device.start();
            ensure(!device.enable_queue(&honest), "a queue was enabled")?;
            device.notify();
            stage.bench.witness()?;
            stage.bench.pool_is_unchanged(&device)
        },
    },
    Row {
        name: "half-of-an-address-late",
        clause: NO_CHANGE,
        run: |stage| {
            let (device, honest) = (stage.device, stage.honest());
            for place in elsewhere(&stage.places()) {
                for (area, address) in areas(&honest) {
                    stage.begin(&honest)?;
                    ensure(device.enable_queue(&honest), "a queue in the pool was not enabled")?;
                    device.place_half(area, place, differs_in_its_high_half(place, address));
                    stage.bench.start(&device, &honest)?;
                    stage.bench.finish(&device, &honest)?;
                }
            }
            Ok(())
        },
    },
    Row {
        name: "queue-enabled-between-halves",
        clause: "virtio 1.3, 4.1.3.1 and 4.2.2: addresses are written in halves; 4.1.4.3.2: before the queue is enabled",
        run: |stage| {
            let (device, honest) = (stage.device, stage.honest());
            for place in elsewhere(&stage.places()) {
                for (area, address) in areas(&honest) {
                    let high = differs_in_its_high_half(place, address);
                    stage.begin(&honest)?;
                    device.place_queue(&honest);
                    // Where the queue is now is outside.
                    device.place_half(area, place, high);
                    ensure(!device.enable(), "a queue outside the pool was enabled")?;
                    device.place_half(area, address, high);
                    device.start();
                    device.notify();
                    device.wait_for_refusal()?;
                    stage.bench.pool_is_unchanged(&device)?;
                    stage.bench.private_is_unchanged()?;
                }
            }
            Ok(())
        },
    },
];

/// Whether only the second half of an address says that it is not `address`: both are below 4 GiB, or it is far away.
fn differs_in_its_high_half(place: u64, address: u64) -> bool {
    place >> 32 != address >> 32
}

/// The queue keeps its size: none, smaller, no power of two, larger, larger than any.
fn resized(stage: &mut Stage<'_>, running: bool) -> Result {
    let (device, hardware, honest) = (stage.device, stage.machine.hardware, stage.honest());
    for size in [0, 1, 4, 7, 16, 256, 0x8000, u16::MAX] {
        stage.begin(&honest)?;
        ensure(device.enable_queue(&honest), "a queue in the pool was not enabled")?;
        if running {
            stage.bench.start(&device, &honest)?;
        }
        device.select_queue();
        device.size_queue(size);
        ensure(device.queue_size().is_none_or(|size| size == QUEUE_SIZE), "the size was changed")?;
        device.enable();
        if !running {
            stage.bench.start(&device, &honest)?;
        }
        // More than once around a ring of any of these sizes that is a small one.
        for round in 1..=2 * QUEUE_SIZE + 1 {
            if round > 1 {
                stage.bench.again(&device, &honest, round);
            }
            stage.bench.wait(honest.used, round)?;
            let slot = honest.used + 4 + 8 * u64::from((round - 1) % QUEUE_SIZE);
            let element = u64::from(length(honest.request)) << 32;
            ensure(hardware.read::<u64>(slot) == element, "the used element is not in its place")?;
            hardware.write(slot, u64::MAX);
        }
    }
    Ok(())
}

/// The queue stays where it was, and works.
fn moved(stage: &mut Stage<'_>, running: bool) -> Result {
    let (device, honest) = (stage.device, stage.honest());
    for place in elsewhere(&stage.places()) {
        let there = Setup { descriptors: place, available: place, used: place, ..honest };
        stage.begin(&honest)?;
        ensure(device.enable_queue(&honest), "a queue in the pool was not enabled")?;
        if running {
            stage.bench.start(&device, &honest)?;
            stage.bench.finish(&device, &honest)?;
        }
        device.enable_queue(&there);
        if running {
            stage.bench.again(&device, &honest, 2);
            stage.bench.wait(honest.used, 2)?;
        } else {
            stage.bench.start(&device, &honest)?;
            stage.bench.finish(&device, &honest)?;
        }
    }
    Ok(())
}
