// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pools are backed by memory while the guest boots. Linux clears a pool before the first device uses it; a pool is a memfd,
//! and where the host has no large pages for those by itself, each 4 KiB would be a fault that stops the guest.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use cvmm_devices::pool::Pool;

use crate::Result;
use crate::machine::LARGE_PAGE;
use crate::sandbox::{Sandbox, ThreadKind};

const LARGE: u64 = LARGE_PAGE as u64;
const SMALL: u64 = 4 << 10;

/// Linux, include/uapi/asm-generic/mman-common.h.
pub const MADV_COLLAPSE: libc::c_int = 25;

/// The thread that does it; it ends by itself.
#[derive(Debug)]
pub struct Prefault {
    go: Sender<()>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Prefault {
    /// Starts the thread, confined. It waits for [`Prefault::go`].
    pub fn start(pools: &[Pool], sandbox: &Sandbox) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (until, pools) = (Arc::clone(&stop), pools.to_vec());
        let (go, start) = mpsc::channel();
        let body = move || {
            // An error: the guest was not started.
            if start.recv().is_err() {
                return;
            }
            for pool in &pools {
                let (address, bytes) = pool.mapping();
                let pieces = (0..bytes / LARGE).map(|index| address + index * LARGE);
                for piece in pieces.take_while(|_| !until.load(Ordering::Relaxed)) {
                    if !back(piece) {
                        return;
                    }
                }
            }
        };
        let thread = sandbox.spawn("prefault", ThreadKind::Prefault, body)?;
        Ok(Self { go, stop, thread })
    }

    /// Begins. Not before the guest runs: other threads that start meanwhile would wait for the lock of this process's
    /// mappings.
    pub fn go(&self) {
        // It waits for nothing else.
        let _ = self.go.send(());
    }

    /// Returns when the thread has ended.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

/// Backs [`LARGE`] bytes from `address` of this process on: by a large page, or else by small ones. `false`: there is no
/// memory for it now; it comes when the guest asks for it.
fn back(address: u64) -> bool {
    // Pages that have none at all are not collapsed.
    let first = advise(address, SMALL, libc::MADV_POPULATE_WRITE);
    // Linux 6.1. Unlike a fault, it does not ask shmem_enabled, which is `never` by default.
    first && (advise(address, LARGE, MADV_COLLAPSE) || advise(address, LARGE, libc::MADV_POPULATE_WRITE))
}

fn advise(address: u64, bytes: u64, advice: libc::c_int) -> bool {
    let (Ok(address), Ok(bytes)) = (usize::try_from(address), usize::try_from(bytes)) else { return false };
    // SAFETY: the range is part of the mapping of a pool, which the caller holds; neither advice changes its contents.
    unsafe { libc::madvise(address as *mut libc::c_void, bytes, advice) == 0 }
}
