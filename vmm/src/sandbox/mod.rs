// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What keeps a guest that has taken over this process from the rest of the host: each thread may make the system calls
//! that it needs (seccomp), and none may open a file or connect to anything (Landlock).
//!
//! Everything is opened before. From then on, opening a file fails with EACCES, as libc and a panic's backtrace expect
//! where there is no such file. Any other call that a thread has no use for is not made, and ends the run in order: see
//! [`Violation`].

mod calls;
mod files;
mod filter;
mod violation;

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use cvmm_devices::virtio::Kind;
use serde::Serialize;
use vmm_sys_util::eventfd::EventFd;

use crate::{Error, Result};
pub use violation::{Violation, violation};

/// Bytes of a thread's stack: far more than is used, and less than a large page, which the host might back it with.
const STACK: usize = 512 << 10;

/// What a thread does, and so what it may ask of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// Signals, console input, and the end of the run.
    Main,
    /// Runs a vCPU.
    Vcpu {
        /// A device's memory follows its BAR, which the guest moves.
        moves_memory: bool,
    },
    /// Serves a device of this kind.
    Device(Kind),
    /// Backs pools by memory while the guest boots.
    Prefault,
    /// Takes the page of the UART's registers away from the guest.
    RegisterPage,
}

/// All kinds, for tests.
#[cfg(test)]
const KINDS: [ThreadKind; 8] = [
    ThreadKind::Main,
    ThreadKind::Vcpu { moves_memory: false },
    ThreadKind::Vcpu { moves_memory: true },
    ThreadKind::Device(Kind::Blk),
    ThreadKind::Device(Kind::Net),
    ThreadKind::Device(Kind::Rng),
    ThreadKind::Prefault,
    ThreadKind::RegisterPage,
];

/// What confines this process while the guest runs.
#[derive(Clone, Debug, Serialize)]
pub struct Sandbox {
    /// Each thread has a filter of system calls.
    seccomp: bool,
    /// The Landlock ABI that is in force, if the kernel has one.
    landlock: Option<String>,
}

impl Sandbox {
    /// No confinement, for debugging.
    pub fn off() -> Self {
        log::warn!("--no-sandbox: a guest that takes over cvmm can do all that cvmm's user can");
        Self { seccomp: false, landlock: None }
    }

    /// Takes files, network and foreign processes away from this thread and the ones that it will start, and gets ready
    /// to confine them. A violation wakes whoever waits for `wake`.
    pub fn enter(wake: &EventFd) -> Result<Self> {
        violation::watch(wake).map_err(|error| failed(&error))?;
        let landlock = files::deny().map_err(|error| failed(&error))?;
        filter::fail_paths().map_err(|error| failed(&error))?;
        Ok(Self { seccomp: true, landlock })
    }

    /// Confines the calling thread.
    pub fn confine(&self, kind: ThreadKind) -> Result<()> {
        if self.seccomp {
            violation::prepare_thread(kind).map_err(|error| failed(&error))?;
            filter::install(kind).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Starts a thread that is confined before it does anything; it is when this returns.
    pub fn spawn(
        &self,
        name: &str,
        kind: ThreadKind,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>> {
        let sandbox = self.clone();
        let (confined, is_confined) = mpsc::sync_channel(1);
        let start = move || {
            let result = sandbox.confine(kind);
            let go = result.is_ok();
            if confined.send(result).is_ok() && go {
                body();
            }
        };
        let thread = thread::Builder::new().name(name.into()).stack_size(STACK).spawn(start);
        let thread =
            thread.map_err(|error| Error::Host(format!("the thread of {name} can't be started: {error}")))?;
        is_confined.recv().map_err(|error| Error::vmm(name, error))??;
        Ok(thread)
    }
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::Host(format!("cvmm can't confine itself: {error}; --no-sandbox runs without confinement"))
}

#[cfg(test)]
mod tests {
    use std::backtrace::Backtrace;
    use std::collections::HashMap;
    use std::fs::File;
    use std::io::{ErrorKind, Write};

    use super::*;

    /// What no line of ours asks for: libc and the standard library do, when memory is wanted, and when a thread panics.
    #[test]
    fn a_confined_thread_allocates_and_panics_like_another() {
        violation::watch(&EventFd::new(0).unwrap()).unwrap();
        // On a thread of its own: the other tests open files.
        thread::spawn(allocate_and_panic).join().unwrap();
        assert_eq!(violation(), None);
    }

    fn allocate_and_panic() {
        let sandbox = Sandbox { seccomp: true, landlock: None };
        filter::fail_paths().unwrap();
        for kind in KINDS {
            let body = move || {
                let mut memory: Vec<u8> = Vec::new();
                // Into a mapping of its own, which grows, is given back, and is had again.
                for size in [1 << 20, 64 << 20, 1 << 12, 8 << 20] {
                    memory.reserve_exact(size);
                    memory.shrink_to(size);
                }
                let pieces: Vec<_> = (0..10_000).map(|i| vec![0u8; i % 3000]).collect();
                drop(pieces);
                assert_eq!(HashMap::from([(1, memory.capacity())])[&1], 8 << 20);
                assert_eq!(File::open("/proc/self/exe").unwrap_err().kind(), ErrorKind::PermissionDenied);
                assert!(!Backtrace::force_capture().to_string().is_empty());
                writeln!(std::io::stderr(), "{kind:?}").unwrap();
                panic!("as expected, {kind:?}");
            };
            let thread = sandbox.spawn("confined", kind, body).unwrap();
            let panic = thread.join().unwrap_err();
            assert_eq!(*panic.downcast::<String>().unwrap(), format!("as expected, {kind:?}"));
        }
    }
}
