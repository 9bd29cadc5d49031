// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! /init of an emulated KVM host: sets it up and serves the lab. With the word `measure` it is the benchmark's probe on a
//! KVM host.

use cvmm_tests::bench::probe;
use cvmm_tests::host::agent;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // A kernel gives /init those words of its command line that it does not know.
    if std::process::id() != 1 && arguments.first().is_some_and(|word| word == probe::WORD) {
        return probe::main(&arguments[1..]);
    }
    // The lab reads this on the emulated host's console when something went wrong.
    if let Err(error) = agent::be_init().and_then(|port| agent::serve(port.try_clone()?, port)) {
        eprintln!("host-agent: {error:#}");
    }
    agent::power_off();
}
