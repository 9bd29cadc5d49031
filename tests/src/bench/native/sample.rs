// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One measurement.

use serde::Serialize;

use super::clock::double;
use super::threads::Threads;

/// What was measured.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Sample {
    /// Requests that were completed.
    pub requests: u64,
    /// In how many seconds, by the guest's clock.
    pub seconds: f64,
    /// How often the guest notified the device: an exit to KVM each.
    pub notifications: Option<u64>,
    /// Accesses to the device's registers that cvmm answered itself, in the whole run: those of the driver's first steps are
    /// some dozens.
    pub answered: Option<u64>,
    /// All exits that KVM counted meanwhile, if debugfs says.
    pub exits: Option<u64>,
    /// System calls of the devices' threads, in a round that is not measured.
    pub calls: Option<u64>,
    /// Bytes that the device says it wrote.
    pub written: u64,
    /// What the host's threads did.
    pub threads: Threads,
}

impl Sample {
    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        double(self.requests) / self.seconds
    }

    /// So many of something, for each request.
    pub fn each(&self, number: u64) -> f64 {
        double(number) / double(self.requests.max(1))
    }
}
