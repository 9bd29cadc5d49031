// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device did in its pool, and what it refused to do.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Refusal;

/// Distinct refusals that are kept in full; later ones are only counted, so a hostile driver cannot grow the record.
const KEPT: usize = 16;

/// A device's account. The data path adds to plain counters: one thread writes them, others read at the end.
#[derive(Debug, Default)]
pub struct Audit {
    /// Buffers read by the device.
    pub read: Tally,
    /// Buffers written by the device.
    pub written: Tally,
    /// Accesses to rings and descriptors.
    pub rings: Tally,
    refusals: Mutex<Refusals>,
}

impl Audit {
    /// Takes `refusal` into the record. `true` if it is kept there in full and was not there before.
    pub fn refuse(&self, refusal: Refusal) -> bool {
        let mut refusals = self.refusals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        refusals.total = refusals.total.saturating_add(1);
        if let Some((_, count)) = refusals.first.iter_mut().find(|(kept, _)| *kept == refusal) {
            *count = count.saturating_add(1);
            return false;
        }
        let keep = refusals.first.len() < KEPT;
        if keep {
            refusals.first.push((refusal, 1));
        }
        keep
    }

    /// All that was refused so far.
    pub fn refusals(&self) -> Refusals {
        self.refusals.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// The record of refusals.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// How many there were.
    pub total: u64,
    /// The first distinct ones, and how often each came.
    pub first: Vec<(Refusal, u64)>,
}

/// Accesses and the bytes they moved.
#[derive(Debug, Default)]
pub struct Tally {
    accesses: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// Counts one access of `bytes`. For one thread at a time (the device's worker holds the device's lock), hence
    /// no atomic read-modify-write on the data path.
    pub fn add(&self, bytes: u64) {
        for (counter, n) in [(&self.accesses, 1), (&self.bytes, bytes)] {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// Number of accesses.
    pub fn accesses(&self) -> u64 {
        self.accesses.load(Ordering::Relaxed)
    }

    /// Bytes moved by them.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Reason, Structure};

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_kept() {
        let audit = Audit::default();
        let refusal = |address| Refusal {
            queue: 0,
            structure: Structure::WritableBuffer,
            address,
            length: 1,
            reason: Reason::Outside,
        };
        for address in 0..1000 {
            assert_eq!(audit.refuse(refusal(address)), address < KEPT as u64);
        }
        assert!(!audit.refuse(refusal(0)));
        let refusals = audit.refusals();
        assert_eq!((refusals.total, refusals.first.len()), (1001, KEPT));
        assert_eq!(refusals.first[0], (refusal(0), 2));
    }
}
