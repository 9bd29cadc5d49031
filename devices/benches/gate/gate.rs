// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What it costs that every address is checked: the device crate, and the same without the check, by turns.
//!
//! `cargo bench -p cvmm-gate-bench`. Walks: a queue of 256 descriptors, in chains of 8. Reads: 4 KiB from a file in the page
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

/// Each round measures both, one after the other, first the one and then the other first: so short that whatever else happens
/// on the machine meets both.
const ROUNDS: usize = 4001;
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
    let (mut with, mut without) = (checked::Device::new(), unchecked::Device::new());
    let descriptors = f64::from(WALKS) * f64::from(QUEUE);
    let walk = compare(|| with.walk(WALKS), || without.walk(WALKS));
    println!(
        "gate: {:.2} ns a descriptor (a walk takes {:.2} ns a descriptor with the check, {:.2} without)",
        walk.difference / descriptors,
        walk.with / descriptors,
        walk.without / descriptors
    );
    let requests = f64::from(TURNS) * f64::from(REQUESTS);
    let read = compare(|| with.read(TURNS), || without.read(TURNS));
    println!(
        "gate: {:.4} times the time of a 4 KiB read ({:.1} ns with the check, {:.1} without; medians of {ROUNDS} rounds, by \
         turns)",
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

/// The first rounds do not count.
fn compare(mut with: impl FnMut() -> Duration, mut without: impl FnMut() -> Duration) -> Compared {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS + ROUNDS / 10 {
        let both = if round % 2 == 0 {
            let with = with();
            [with, without()]
        } else {
            let without = without();
            [with(), without]
        };
        if round >= ROUNDS / 10 {
            rounds.push(both.map(|time| time.as_secs_f64() * 1e9));
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
