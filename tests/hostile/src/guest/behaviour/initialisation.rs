// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Drivers that do not keep to the order of initialisation (virtio 1.3, 3.1.1).

use super::{Result, Row, Stage, ensure};
use crate::guest::device::{ACCESS_PLATFORM, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, VERSION_1};

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
