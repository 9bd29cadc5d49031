// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Before the first request: features that must be accepted, and queues in places where no queue may be. For any device.

use anyhow::{Result, ensure};

use super::bench::{Bench, HONEST, Places};
use super::registers::{ACCESS_PLATFORM, QueuePlaces, Registers, VERSION_1};
use crate::guest::report::Report;

/// A queue that is wrong in one way.
type Wrong = fn(&Places, QueuePlaces, u32) -> QueuePlaces;

/// The parts of a queue of 8: 128 bytes of descriptors, 22 bytes of available ring, 70 bytes of used ring, the last two
/// bytes of either ring being its event field.
const CASES: [(&str, Wrong); 13] = [
    ("descriptors-in-private", |at, queue, _| QueuePlaces { descriptors: at.private, ..queue }),
    ("available-in-private", |at, queue, _| QueuePlaces { available: at.private, ..queue }),
    ("used-in-private", |at, queue, _| QueuePlaces { used: at.private, ..queue }),
    ("descriptors-past-end", |at, queue, _| QueuePlaces { descriptors: at.pool.end - 112, ..queue }),
    ("descriptors-before-start", |at, queue, _| QueuePlaces { descriptors: at.pool.start - 16, ..queue }),
    ("available-event-past-end", |at, queue, _| QueuePlaces { available: at.pool.end - 20, ..queue }),
    ("used-event-past-end", |at, queue, _| QueuePlaces { used: at.pool.end - 68, ..queue }),
    ("descriptors-wrap", |_, queue, _| QueuePlaces { descriptors: u64::MAX - 63, ..queue }),
    ("used-wraps", |_, queue, _| QueuePlaces { used: u64::MAX - 3, ..queue }),
    ("descriptors-misaligned", |_, queue, _| QueuePlaces { descriptors: queue.descriptors + 8, ..queue }),
    ("size-zero", |_, queue, _| QueuePlaces { size: 0, ..queue }),
    ("size-six", |_, queue, _| QueuePlaces { size: 6, ..queue }),
    ("size-too-large", |_, queue, max| QueuePlaces { size: 2 * max, ..queue }),
];

pub(super) fn run(label: &str, bench: &Bench, registers: &Registers, report: &Report) {
    let without = [("access-platform", ACCESS_PLATFORM), ("version-1", VERSION_1)];
    for (name, bit) in without {
        report.check(&format!("{label}-features-without-{name}"), || {
            let stuck = registers.negotiate(registers.offered() & HONEST & !bit)?;
            ensure!(!stuck, "the device set FEATURES_OK");
            Ok("no FEATURES_OK".into())
        });
    }
    report.check(&format!("{label}-features-not-offered"), || {
        // bit 45 is reserved by the standard
        let stuck = registers.negotiate(registers.offered() & HONEST | 1 << 45)?;
        ensure!(!stuck, "the device set FEATURES_OK");
        Ok("no FEATURES_OK".into())
    });
    for (name, wrong) in CASES {
        report.check(&format!("{label}-queue-{name}"), || refused(bench, registers, wrong));
    }
}

fn refused(bench: &Bench, registers: &Registers, wrong: Wrong) -> Result<String> {
    ensure!(
        registers.negotiate(registers.offered() & HONEST)?,
        "the device refused an honest driver's features"
    );
    let queue = wrong(&bench.places, bench.places.queue(), registers.queue_max(0));
    ensure!(!registers.enable_queue(0, &queue), "the device enabled the queue {queue:x?}");
    registers.wait_for_refusal()?;
    Ok("not enabled, NEEDS_RESET".into())
}
