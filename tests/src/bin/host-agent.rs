// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! /init of an emulated KVM host: sets it up and serves the lab.

use cvmm_tests::host::agent;

fn main() {
    // The lab reads this on the emulated host's console when something went wrong.
    if let Err(error) = agent::be_init().and_then(|port| agent::serve(port.try_clone()?, port)) {
        eprintln!("host-agent: {error:#}");
    }
    agent::power_off();
}
