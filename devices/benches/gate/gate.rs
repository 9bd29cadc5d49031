// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What it costs that every address is checked: the device crate, and the same without the check, by turns.
//!
//! `cargo bench -p cvmm-gate-bench`. Checks: nothing else. Walks: a queue of 256 descriptors, in chains of 8; what the
//! compiler makes of the rest differs by more than the check, either way. Reads: 4 KiB from a file in the page
//! cache, three descriptors each, from the available ring to the used ring; no guest, and no interrupt.

#![allow(missing_docs, missing_debug_implementations)]

use std::fs::File;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use vmm_sys_util::tempfile::TempFile;

mod checked {
    use cvmm_devices as devices;
    include!("device.rs");
}

mod unchecked {
    use cvmm_devices_unchecked as devices;
    include!("device.rs");
}

/// The pool.
const BASE: u64 = 0x1000_0000;
const SIZE: u64 = 0x20_0000;
/// Descriptors of a queue, and of a chain.
const QUEUE: u16 = 256;
const CHAIN: u16 = 8;
/// Reads of a turn, and bytes of each.
const REQUESTS: u16 = 64;
const READ: u32 = 4096;

/// Where queues and buffers happen to lie makes more of a difference than the check: so there are many of each.
const PLACES: usize = 40;
/// Each round measures both, one after the other, first the one and then the other first: so short that whatever else happens
/// on the machine meets both.
const ROUNDS: usize = 200;
const CHECKS: u32 = 40;
const WALKS: u32 = 4;
const TURNS: u32 = 1;

/// What this thread has used of a CPU: other work on the machine does not count.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn shared_file() -> File {
    let file = TempFile::new().unwrap().into_file();
    file.set_len(SIZE).unwrap();
    file
}

fn disk_file() -> File {
    use std::io::{Seek, Write};
    let mut file = TempFile::new().unwrap().into_file();
    file.write_all(&vec![0x5d; usize::from(REQUESTS) * READ as usize]).unwrap();
    file.rewind().unwrap();
    file
}

fn main() {
    let mut places: Vec<_> =
        (0..PLACES).map(|_| (checked::Device::new(), unchecked::Device::new())).collect();
    let checks = f64::from(CHECKS) * f64::from(QUEUE);
    let check = compare(&mut places, |device| device.check(CHECKS), |device| device.check(CHECKS));
    println!(
        "gate: {:.2} ns a check ({:.2} ns with it, {:.2} for the same without)",
        check.difference / checks,
        check.with / checks,
        check.without / checks
    );
    let descriptors = f64::from(WALKS) * f64::from(QUEUE);
    let walk = compare(&mut places, |device| device.walk(WALKS), |device| device.walk(WALKS));
    println!(
        "gate: {:.2} ns a descriptor (a walk takes {:.2} ns a descriptor with the check, {:.2} without)",
        walk.difference / descriptors,
        walk.with / descriptors,
        walk.without / descriptors
    );
    let requests = f64::from(TURNS) * f64::from(REQUESTS);
    let read = compare(&mut places, |device| device.read(TURNS), |device| device.read(TURNS));
    println!(
        "gate: {:.4} times the time of a 4 KiB read ({:.1} ns with the check, {:.1} without; medians of {ROUNDS} rounds in \
         each of {PLACES} places, by turns)",
        read.ratio,
        read.with / requests,
        read.without / requests
    );
}

/// Medians, the times in nanoseconds. Difference and ratio are each round's: what it says of the machine falls out of them.
struct Compared {
    with: f64,
    without: f64,
    difference: f64,
    ratio: f64,
}

fn compare(
    places: &mut [(checked::Device, unchecked::Device)],
    with: impl Fn(&mut checked::Device) -> Duration,
    without: impl Fn(&mut unchecked::Device) -> Duration,
) -> Compared {
    let mut rounds = Vec::new();
    // The first round does not count.
    for round in 0..=ROUNDS {
        for (first, second) in places.iter_mut() {
            let both = if round % 2 == 0 {
                let with = with(first);
                [with, without(second)]
            } else {
                let without = without(second);
                [with(first), without]
            };
            if round > 0 {
                rounds.push(both.map(|time| time.as_secs_f64() * 1e9));
            }
        }
    }
    let median = |figure: fn(&[f64; 2]) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Compared {
        with: median(|[with, _]| *with),
        without: median(|[_, without]| *without),
        difference: median(|[with, without]| with - without),
        ratio: median(|[with, without]| with / without),
    }
}
