// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Console input through Linux's own driver and terminal, with the command line that cvmm gives by itself.

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::guest::Guest;

/// More than a pipe (64 KiB), cvmm and a terminal that nobody reads hold together.
const BYTES: usize = 96 << 10;

/// All of it is sent before the kernel runs. The guest reads late, and with pauses.
#[test]
fn more_than_the_buffers_hold_arrives_whole() {
    let host = Host::shared();
    let run = Guest::new(&host, "input").word(format!("cvmm.input={BYTES}")).start();
    run.process.control().input(&pattern::lines(pattern::SEED, BYTES)).unwrap();
    let ended = run.end(0, "powered-off");
    ended.passed(["input-held-back".into(), "input-whole".into()]);
}
