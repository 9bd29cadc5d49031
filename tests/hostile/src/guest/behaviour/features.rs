// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Indirect tables and event indices, each without the other: the rows of [`crate::table`] have both or none.

use super::{Result, Row, Stage, ensure};
use crate::guest::device::{EVENT_IDX, INDIRECT_DESC, NEEDS_RESET, PATIENCE, USED};
use crate::table::QUEUE_SIZE;
use crate::table::case::Setup;

/// Flag of an available ring (virtio 1.3, 2.7.6).
const NO_INTERRUPT: u16 = 1;
/// A place in the used ring that is not the next one.
const LATER: u16 = 5;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "indirect-tables-alone",
        clause: "virtio 1.3, 2.7.7.2: without VIRTIO_F_EVENT_IDX, flags say whether to interrupt, and used_event says nothing",
        run: |stage| {
            let honest = Setup::honest(&stage.places(), stage.kind.request(), true);
            interrupted(stage, &honest, INDIRECT_DESC, (0, LATER), true)?;
            interrupted(stage, &honest, INDIRECT_DESC, (NO_INTERRUPT, 0), false)
        },
    },
    Row {
        name: "event-indices-alone",
        clause: "virtio 1.3, 2.7.7.2: with VIRTIO_F_EVENT_IDX, used_event says whether to interrupt, and flags say nothing",
        run: |stage| {
            let honest = stage.honest();
            interrupted(stage, &honest, EVENT_IDX, (NO_INTERRUPT, 0), true)?;
            interrupted(stage, &honest, EVENT_IDX, (0, LATER), false)
        },
    },
    Row {
        name: "no-tables-with-event-indices",
        clause: "virtio 1.3, 2.7.5.3.1: no INDIRECT unless VIRTIO_F_INDIRECT_DESC was negotiated",
        run: |stage| {
            let (device, honest) = (stage.device, Setup::honest(&stage.places(), stage.kind.request(), true));
            offer(stage, &honest, EVENT_IDX, (0, 0))?;
            device.wait_for_refusal()?;
            stage.bench.pool_is_unchanged(&device)
        },
    },
];

/// Serves a request with these features, flags and used_event of the available ring, and looks whether it interrupts.
fn interrupted(
    stage: &mut Stage<'_>,
    setup: &Setup,
    features: u64,
    event: (u16, u16),
    expected: bool,
) -> Result {
    let device = stage.device;
    offer(stage, setup, features, event)?;
    stage.bench.finish(&device, setup)?;
    ensure(device.status() & NEEDS_RESET == 0, "what may be served was refused")?;
    let has_come = || device.causes() & USED != 0;
    if expected {
        return ensure((0..PATIENCE).any(|_| has_come()), "no interrupt");
    }
    // Long enough for one.
    stage.bench.witness()?;
    stage.bench.witness()?;
    ensure(!has_come(), "an interrupt that was not asked for")
}

fn offer(stage: &Stage<'_>, setup: &Setup, features: u64, (flags, used_event): (u16, u16)) -> Result {
    let (device, hardware) = (stage.device, stage.machine.hardware);
    ensure(device.reset() && device.negotiate_with(features), "the device does not start")?;
    stage.bench.prepare(&device, setup);
    // The queue by which a frame is asked for has none.
    let asking = (stage.places().asking().available(), NO_INTERRUPT, LATER);
    for (available, flags, used_event) in [asking, (setup.available, flags, used_event)] {
        hardware.write(available, flags);
        hardware.write(available + 4 + 2 * u64::from(QUEUE_SIZE), used_event);
    }
    stage.bench.remember_pool();
    ensure(device.enable_queue(setup), "a queue in the pool was not enabled")?;
    stage.bench.start(&device, setup)
}
