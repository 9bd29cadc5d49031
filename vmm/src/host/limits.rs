// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the host allows this process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process open as many files as it may: each queue and each interrupt of a device is one, and a machine with
/// many devices needs more than the 1024 that shells allow by habit (for programs that use select).
pub fn raise_open_files() {
    // If it does not work, whatever can't be opened says so.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
