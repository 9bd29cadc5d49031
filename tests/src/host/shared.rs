// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The hosts of a test process: each is started when a test finds none free, and kept for the next test.

use std::ops::Deref;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use super::{Host, Kind, best_kind};

struct Pool {
    free: Vec<Host>,
    /// Hosts that are free or lent.
    started: usize,
    /// Why there is none. The next test would only wait for the same.
    obstacle: Option<String>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), started: 0, obstacle: None });
static RETURNED: Condvar = Condvar::new();

/// A host that is this test's alone until it is dropped.
#[derive(Debug)]
pub struct Lent(Option<Host>);

impl Deref for Lent {
    type Target = Host;

    fn deref(&self) -> &Host {
        self.0.as_ref().expect("it is given back in drop alone")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A test that failed while it had the host has cleaned up in its unwinding, unless it was the host that failed: the
        // next test gets another one.
        let host = self.0.take().filter(Host::answers);
        let mut pool = pool();
        match host {
            Some(host) => pool.free.push(host),
            None => pool.started -= 1,
        }
        RETURNED.notify_one();
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An emulated host takes up to 4 GB of memory.
const MOST_EMULATED: usize = 4;

/// This machine is one host. An emulated one keeps one CPU busy, so there are as many as CPUs.
fn most(kind: Kind) -> usize {
    match kind {
        Kind::Kvm => 1,
        Kind::Emulated => available_parallelism().map_or(1, usize::from).min(MOST_EMULATED),
    }
}

fn take(mut pool: MutexGuard<'_, Pool>) -> Result<Host, String> {
    let (kind, why) = best_kind(None).map_err(|error| format!("{error:#}"))?;
    loop {
        if let Some(host) = pool.free.pop() {
            return Ok(host);
        }
        if let Some(obstacle) = &pool.obstacle {
            return Err(obstacle.clone());
        }
        if pool.started < most(kind) {
            break;
        }
        pool = RETURNED.wait(pool).unwrap_or_else(PoisonError::into_inner);
    }
    eprintln!("lab: {why}; using {kind}");
    // Others wait at the lock meanwhile: programs are built and packages installed once.
    let host = Host::of_kind(kind).map_err(|error| pool.obstacle.insert(format!("{error:#}")).clone())?;
    pool.started += 1;
    Ok(host)
}

impl Host {
    /// A host of this test process that no other test uses meanwhile.
    ///
    /// # Panics
    /// When there is no host.
    pub fn shared() -> Lent {
        match take(pool()) {
            Ok(host) => Lent(Some(host)),
            Err(error) => panic!("there is no KVM host: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::host;

    /// The only test here that lends: all of a process share the pool.
    #[test]
    fn a_host_that_is_gone_is_not_lent_again() {
        let lent = |host: Host| {
            pool().started += 1;
            drop(Lent(Some(host)));
            let mut pool = pool();
            pool.started -= pool.free.len();
            (std::mem::take(&mut pool.free).len(), pool.started)
        };
        assert_eq!(lent(host()), (1, 0));
        let gone = host();
        gone.client.close();
        assert_eq!(lent(gone), (0, 0));
    }
}
