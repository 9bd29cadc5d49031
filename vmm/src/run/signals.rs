// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals: which of them end a run or stop it, and how they reach the control loop.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use libc::c_int;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use vmm_sys_util::signal::{SIGRTMAX, SIGRTMIN, create_sigset, register_signal_handler};

use crate::{Error, Result};

/// Signals whose default is to end the process, but for those of faults and SIGKILL (signal(7)). The real-time signals are
/// others of this kind; vCPUs are interrupted by the first of them.
const ENDING: [c_int; 13] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGXCPU,
    libc::SIGPWR,
    libc::SIGIO,
    libc::SIGSTKFLT,
];

/// Blocked, and never looked at. A file that reaches RLIMIT_FSIZE is then an error, and not our death; and a terminal that a
/// shell has taken from us does not stop us: it is left alone, or its read fails.
const UNSEEN: [c_int; 3] = [libc::SIGXFSZ, libc::SIGTTOU, libc::SIGTTIN];

/// What a signal asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The end of the run, by the signal of this name.
    End(String),
    /// To stop, until somebody continues the process: Ctrl-Z of a shell's job control.
    Stop,
    /// The process has been stopped, and goes on.
    Continued,
}

/// The signals that a run is told of, blocked so that only the control loop sees them.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks them. Before any other thread starts, which would not inherit that otherwise; and before anything takes
    /// time: a signal that comes while the guest is loaded ends the run when that is done.
    ///
    /// What whoever started us ignores stays ignored: SIGHUP by nohup, SIGINT of a script's background command. Blocked, it
    /// would reach us all the same.
    pub fn block() -> Result<Self> {
        let ending = ENDING.into_iter().chain(SIGRTMIN() + 1..=SIGRTMAX());
        let seen = ending.chain([libc::SIGTSTP]).filter(|&signal| !is_ignored(signal)).chain([libc::SIGCONT]);
        let seen = set(&seen.collect::<Vec<_>>())?;
        seen.thread_block().map_err(failed)?;
        set(&UNSEEN)?.thread_block().map_err(failed)?;
        ignore_those_of_libc()?;
        // The signal does nothing but interrupt KVM_RUN. Now, since its default is to end the process, too.
        extern "C" fn interrupt(_: c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        register_signal_handler(SIGRTMIN(), interrupt).map_err(|error| Error::vmm("signals", error))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&seen, flags).map(Self).map_err(failed)
    }

    /// The next signal, if there is one.
    pub fn next(&self) -> Option<Event> {
        let number = c_int::try_from(self.0.read_signal().ok()??.ssi_signo).ok()?;
        Some(match number {
            libc::SIGTSTP => Event::Stop,
            libc::SIGCONT => Event::Continued,
            _ => Event::End(name(number)),
        })
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Stops the process as SIGTSTP does, all of its threads, and returns when somebody continues it. Where nobody could, the
/// kernel does not stop it (an orphaned process group, POSIX 2.4.3).
pub fn stop() {
    let stop = SigSet::from(Signal::SIGTSTP);
    // Neither fails with a signal that exists.
    let _ = raise(Signal::SIGTSTP);
    let _ = stop.thread_unblock();
    let _ = stop.thread_block();
}

/// Makes the real-time signals that libc keeps for itself do nothing (signal(7)). It uses them to cancel threads and to change
/// users, neither of which happens here; by default they end the process, and it has no way to block or to handle them.
fn ignore_those_of_libc() -> Result<()> {
    /// The first real-time signal of the kernel.
    const FIRST: c_int = 32;
    // The kernel's struct sigaction: handler, flags, restorer, mask.
    let ignore = [libc::SIG_IGN, 0, 0, 0];
    let none = ptr::null_mut::<libc::c_void>();
    for signal in FIRST..SIGRTMIN() {
        // SAFETY: the kernel reads one such struct, whose mask has eight bytes, and writes nothing. No handler is installed.
        let result =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, ignore.as_ptr(), none, size_of::<u64>()) };
        if result != 0 {
            return Err(Error::vmm("signals", io::Error::last_os_error()));
        }
    }
    Ok(())
}

fn set(signals: &[c_int]) -> Result<SigSet> {
    let set = create_sigset(signals).map_err(|error| Error::vmm("signals", error))?;
    // SAFETY: the set was initialised by sigemptyset and sigaddset.
    Ok(unsafe { SigSet::from_sigset_t_unchecked(set) })
}

fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction only writes the present one.
    match unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } {
        // SAFETY: it was written; zeros are a valid action, too.
        0 => unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN,
        _ => false,
    }
}

fn name(number: c_int) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().into(),
        Err(_) => format!("SIGRTMIN+{}", number - SIGRTMIN()),
    }
}

fn failed(error: nix::Error) -> Error {
    Error::vmm("signals", error)
}
