// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Console input through Linux's own driver and terminal, with the command line that cvmm gives by itself.

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::guest::Guest;

/// More than a pipe (64 KiB), cvmm and a terminal that nobody reads hold together.
const BYTES: usize = 96 << 10;

/// All of it is sent before the kernel runs. The guest reads late, and with pauses.
fn arrives_whole(firmware: &str) {
    let host = Host::shared();
    let guest = Guest::new(&host, "input").firmware(firmware);
    let run = guest.word(format!("cvmm.input={BYTES}")).start();
    run.process.control().input(&pattern::lines(pattern::SEED, BYTES)).unwrap();
    let ended = run.end(0, "powered-off");
    ended.passed(["input-held-back".into(), "input-whole".into()]);
}

#[test]
fn more_than_the_buffers_hold_arrives_whole() {
    arrives_whole("dt");
}

/// Here the driver finds out by itself what kind of UART it is, and empties it for that.
#[test]
fn more_than_the_buffers_hold_arrives_whole_by_acpi() {
    arrives_whole("acpi");
}
