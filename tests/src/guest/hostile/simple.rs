// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices whose requests are a single buffer: rng (the device writes) and the sending queue of net (the device reads).

use super::bench::{Bench, Places};
use super::registers::Registers;
use super::request::{Descriptor, Request, readable, writable};
use crate::guest::report::Report;

/// A device with such a queue.
#[derive(Debug)]
pub(super) struct Simple {
    queue: u32,
    /// A buffer in the right direction, and one in the wrong.
    right: fn(u64, u32) -> Descriptor,
    wrong: fn(u64, u32) -> Descriptor,
    length: u32,
}

pub(super) const RNG: Simple = Simple { queue: 0, right: writable, wrong: readable, length: 64 };

/// A header of 12 bytes and a frame of 60, here from and to nobody.
pub(super) const NET: Simple = Simple { queue: 1, right: readable, wrong: writable, length: 72 };

pub(super) fn run(label: &str, bench: &Bench, registers: &Registers, device: &Simple, report: &Report) {
    let Simple { queue, right, wrong, length } = *device;
    let honest = || {
        bench.start(registers, queue)?;
        let Places { data, .. } = bench.places;
        bench.at(data).paint(data, u64::from(length), 0);
        bench.serve(registers, queue, &Request::new(vec![right(data, length)]))?;
        Ok("a request was served".into())
    };
    report.check(&format!("{label}-honest"), honest);
    let Places { private, data, pool, .. } = &bench.places;
    let cases = [
        ("buffer-in-private", right(*private, length)),
        ("buffer-past-end", right(pool.end - 32, length)),
        ("buffer-wraps", right(u64::MAX - 31, length)),
        ("wrong-direction", wrong(*data, length)),
    ];
    for (name, buffer) in cases {
        report.check(&format!("{label}-{name}"), || {
            bench.start(registers, queue)?;
            bench.refuse(registers, queue, &Request::new(vec![buffer]))?;
            Ok("NEEDS_RESET, nothing moved".into())
        });
    }
    report.check(&format!("{label}-after-reset"), honest);
}
