// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Drivers that do not keep to the order of initialisation (virtio 1.3, 3.1.1).

use super::{Result, Row, Stage, ensure};
use crate::guest::device::{ACCESS_PLATFORM, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, VERSION_1};
use crate::table::QUEUE_SIZE;
use crate::table::case::Setup;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "features-not-offered",
        clause: "virtio 1.3, 2.2.1: no feature that the device did not offer; 3.1.1, step 6",
        run: |stage| refused(stage, &[VERSION_1 | ACCESS_PLATFORM | 1 << 45, u64::MAX]),
    },
    Row {
        name: "features-missing",
        clause: "virtio 1.3, 6.2: a device MAY refuse to go on without VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1",
        run: |stage| refused(stage, &[0, VERSION_1, ACCESS_PLATFORM]),
    },
    Row {
        name: "driver-ok-without-features-ok",
        clause: "virtio 1.3, 3.1.1: steps 5 and 6 come before step 8",
        run: |stage| {
            let device = stage.device;
            for skip in [
                ACKNOWLEDGE | DRIVER | DRIVER_OK,
                ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
                DRIVER_OK,
                0xff,
            ] {
                ensure(device.reset(), "not reset")?;
                device.set_status(ACKNOWLEDGE);
                device.set_status(ACKNOWLEDGE | DRIVER);
                device.set_status(skip);
                ensure(device.status() & DRIVER_OK == 0, "DRIVER_OK was taken")?;
            }
            Ok(())
        },
    },
    Row {
        name: "queue-before-features-ok",
        clause: "virtio 1.3, 3.1.1: queues are set up in step 7",
        run: |stage| {
            let (device, honest) = (stage.device, stage.honest());
            ensure(device.reset(), "not reset")?;
            device.set_status(ACKNOWLEDGE);
            device.set_status(ACKNOWLEDGE | DRIVER);
            ensure(!device.enable_queue(&honest), "a queue was enabled")
        },
    },
    Row {
        name: "queue-moved-while-enabled",
        clause: "virtio 1.3, 4.1.4.3.2 and 4.2.2.2: no change while the queue is enabled",
        run: |stage| moved(stage, false),
    },
    Row {
        name: "queue-moved-while-running",
        clause: "virtio 1.3, 4.1.4.3.2 and 4.2.2.2: no change while the queue is enabled",
        run: |stage| moved(stage, true),
    },
    Row {
        name: "queue-resized-while-enabled",
        clause: "virtio 1.3, 4.1.4.3.2 and 4.2.2.2: no change while the queue is enabled",
        run: |stage| resized(stage, false),
    },
    Row {
        name: "queue-resized-while-running",
        clause: "virtio 1.3, 4.1.4.3.2 and 4.2.2.2: no change while the queue is enabled",
        run: |stage| resized(stage, true),
    },
    Row {
        name: "queue-set-up-after-driver-ok",
        clause: "virtio 1.3, 3.1.1: queues are set up in step 7, before DRIVER_OK",
        run: |stage| {
            let (device, honest) = (stage.device, stage.honest());
            ensure(device.reset() && device.negotiate(false), "the device does not start")?;
            stage.bench.prepare(&device, &honest);
            device.start();
            ensure(!device.enable_queue(&honest), "a queue was enabled")?;
            device.notify();
            stage.bench.witness()?;
            stage.bench.pool_is_unchanged(&stage.device)
        },
    },
    Row {
        name: "queue-enabled-between-halves",
        clause: "virtio 1.3, 4.1.3.1 and 4.2.2: addresses are written in halves; 4.1.4.3.2: before the queue is enabled",
        run: |stage| {
            let (device, honest) = (stage.device, stage.honest());
            let areas = [honest.descriptors, honest.available, honest.used];
            for (area, address) in areas.into_iter().enumerate() {
                // The halves are those of one address in the pool, and of another at 2^40 and more.
                let far = address | 1 << 40;
                ensure(device.reset() && device.negotiate(false), "the device does not start")?;
                stage.bench.prepare(&device, &honest);
                device.place_queue(&honest);
                device.place_half(area, far, false);
                ensure(device.enable(), "a queue in the pool was not enabled")?;
                device.place_half(area, far, true);
                device.start();
                device.notify();
                stage.bench.finish(&device, &honest)?;
                // The other half first: where the queue is then is outside.
                ensure(device.reset() && device.negotiate(false), "the device does not start")?;
                stage.bench.prepare(&device, &honest);
                device.place_queue(&honest);
                device.place_half(area, far, true);
                ensure(!device.enable(), "a queue outside the pool was enabled")?;
                device.place_half(area, address, true);
                device.start();
                device.notify();
                device.wait_for_refusal()?;
                stage.bench.pool_is_unchanged(&stage.device)?;
            }
            Ok(())
        },
    },
];

fn refused(stage: &mut Stage<'_>, features: &[u64]) -> Result {
    let device = stage.device;
    for &features in features {
        ensure(device.reset(), "not reset")?;
        ensure(!device.accept(features), "FEATURES_OK stuck")?;
        device.start();
        ensure(device.status() & DRIVER_OK == 0, "DRIVER_OK was taken")?;
        ensure(!device.enable_queue(&stage.honest()), "a queue was enabled")?;
    }
    Ok(())
}

/// The queue keeps its size: none, smaller, no power of two, larger, larger than any.
fn resized(stage: &mut Stage<'_>, running: bool) -> Result {
    let (device, hardware, honest) = (stage.device, stage.machine.hardware, stage.honest());
    for size in [0, 1, 4, 7, 16, 256, 0x8000, u16::MAX] {
        ensure(device.reset() && device.negotiate(false), "the device does not start")?;
        stage.bench.prepare(&device, &honest);
        ensure(device.enable_queue(&honest), "a queue in the pool was not enabled")?;
        if running {
            device.start();
        }
        device.size_queue(size);
        ensure(device.queue_size().is_none_or(|size| size == QUEUE_SIZE), "the size was changed")?;
        device.enable();
        device.start();
        // More than once around a ring of any of these sizes that is a small one.
        for round in 1..=2 * QUEUE_SIZE + 1 {
            hardware.write(honest.available + 2, round);
            device.notify();
            stage.bench.wait(honest.used, round)?;
            let slot = honest.used + 4 + 8 * u64::from((round - 1) % QUEUE_SIZE);
            ensure(hardware.read::<u64>(slot) == 513 << 32, "the used element is not in its place")?;
            hardware.write(slot, u64::MAX);
        }
    }
    Ok(())
}

/// The queue stays where it was, and works.
fn moved(stage: &mut Stage<'_>, running: bool) -> Result {
    let (device, honest) = (stage.device, stage.honest());
    let private = stage.places().private();
    let elsewhere =
        Setup { descriptors: private, available: private + 0x1000, used: private + 0x2000, ..honest };
    ensure(device.reset() && device.negotiate(false), "the device does not start")?;
    stage.bench.prepare(&device, &honest);
    ensure(device.enable_queue(&honest), "a queue in the pool was not enabled")?;
    if running {
        device.start();
    }
    device.enable_queue(&elsewhere);
    device.start();
    device.notify();
    stage.bench.finish(&device, &honest)
}
