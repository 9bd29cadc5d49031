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

/// Each round measures both, one after the other, first the one and then the other first.
const ROUNDS: usize = 201;
const WALKS: u32 = 100;
const TURNS: u32 = 10;

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
    let [walk, bare] = compare(|| with.walk(WALKS), || without.walk(WALKS)).map(|time| time / descriptors);
    println!(
        "gate: {:.2} ns a descriptor (a walk takes {walk:.2} ns a descriptor with the check, {bare:.2} without)",
        walk - bare
    );
    let requests = f64::from(TURNS) * f64::from(REQUESTS);
    let [read, bare] = compare(|| with.read(TURNS), || without.read(TURNS)).map(|time| time / requests);
    println!(
        "gate: {:.4} times the time of a 4 KiB read ({read:.1} ns with the check, {bare:.1} without; medians of {ROUNDS} \
         rounds, by turns)",
        read / bare
    );
}

/// Medians of both, in nanoseconds. The first round does not count.
fn compare(mut with: impl FnMut() -> Duration, mut without: impl FnMut() -> Duration) -> [f64; 2] {
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        let (a, b) = if round % 2 == 0 {
            let a = with();
            (a, without())
        } else {
            let b = without();
            (with(), b)
        };
        if round > 0 {
            samples[0].push(a);
            samples[1].push(b);
        }
    }
    samples.map(|mut samples| {
        samples.sort();
        samples[samples.len() / 2].as_secs_f64() * 1e9
    })
}
