// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device did in its pool, and what it refused to do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Refusal;

/// Distinct refusals that are kept in full; later ones are only counted, so a hostile driver cannot grow the record.
const KEPT: usize = 16;

/// What a device did, on all of its threads, and what it refused.
#[derive(Debug, Default)]
pub struct Audit {
    accounts: Mutex<Vec<Arc<Account>>>,
    refusals: Mutex<Refusals>,
}

/// What one thread of a device did. The data path adds to plain counters: one thread writes them, others read at the end.
/// Each is in cache lines of its own, so that no thread slows down another by counting.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Account {
    /// Buffers read by the device.
    pub read: Tally,
    /// Buffers written by the device.
    pub written: Tally,
    /// Accesses to rings and descriptors.
    pub rings: Tally,
}

impl Audit {
    /// An account for one more thread.
    pub(super) fn open_account(&self) -> Arc<Account> {
        let account = Arc::<Account>::default();
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&account));
        account
    }

    /// Buffers read by the device.
    pub fn read(&self) -> Moved {
        self.sum(|account| &account.read)
    }

    /// Buffers written by the device.
    pub fn written(&self) -> Moved {
        self.sum(|account| &account.written)
    }

    /// Accesses to rings and descriptors.
    pub fn rings(&self) -> Moved {
        self.sum(|account| &account.rings)
    }

    fn sum(&self, tally: fn(&Account) -> &Tally) -> Moved {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.iter().map(|account| tally(account).moved()).fold(Moved::default(), |sum, one| Moved {
            accesses: sum.accesses.wrapping_add(one.accesses),
            bytes: sum.bytes.wrapping_add(one.bytes),
        })
    }

    /// Takes `refusal` into the record. `true` if it is kept there in full and was not there before.
    pub fn refuse(&self, refusal: Refusal) -> bool {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Number of accesses.
    pub accesses: u64,
    /// Bytes moved by them.
    pub bytes: u64,
}

/// Counts accesses and the bytes they moved.
#[derive(Debug, Default)]
pub struct Tally {
    accesses: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// Counts one access of `bytes`. For one thread at a time (a worker holds its lane's lock), hence no atomic
    /// read-modify-write on the data path.
    pub fn add(&self, bytes: u64) {
        for (counter, n) in [(&self.accesses, 1), (&self.bytes, bytes)] {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    fn moved(&self) -> Moved {
        Moved { accesses: self.accesses.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Reason, Structure};

    /// The report has one sum, however many threads a device has.
    #[test]
    fn accounts_add_up() {
        let audit = Audit::default();
        let accounts = [audit.open_account(), audit.open_account()];
        for (account, bytes) in accounts.iter().zip([3, 40]) {
            account.read.add(bytes);
            account.written.add(10 * bytes);
        }
        assert_eq!(audit.read(), Moved { accesses: 2, bytes: 43 });
        assert_eq!(audit.written(), Moved { accesses: 2, bytes: 430 });
        assert_eq!(audit.rings(), Moved::default());
    }

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
