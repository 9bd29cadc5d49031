// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Those who wait for a lock that a worker takes for each turn. A mutex alone is not fair, and a worker with much to do would
//! have it again before any of them has woken up. So they are counted: a turn ends after the request that is under way when
//! somebody waits, and no worker takes another before they had the lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Their number. Clones share it: all queues of a device do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiters(Arc<AtomicU32>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter<'a>(&'a AtomicU32);

impl Waiters {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.count() > 0
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub(crate) fn announce(&self) -> Waiter<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waiter(&self.0)
    }

    /// Takes a lock, and is counted for as long as that takes.
    pub(crate) fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        let _waiter = self.announce();
        lock(mutex)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a lock, for those who are not waited for.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
