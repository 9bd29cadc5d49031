// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A crash of this process, in any of its threads, leaves the terminal as it was.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::termios::Termios;

/// Signals of faults, which can't wait for the control loop. Their other action is to kill the process.
const FAULTS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    // The sandbox has a handler of its own.
    Signal::SIGSYS,
];

struct Saved {
    terminal: RawFd,
    settings: libc::termios,
    /// Those that it was given instead.
    ours: libc::termios,
}

/// What the handler restores. Never freed: a handler on another thread may be looking at it.
static SAVED: AtomicPtr<Saved> = AtomicPtr::new(ptr::null_mut());

/// From now on a fault restores the terminal, if there is one then, and kills the process.
pub(super) fn watch() {
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        // On the alternative stack: the fault may be at the end of a stack.
        let action = SigAction::new(SigHandler::Handler(handle), SaFlags::SA_ONSTACK, SigSet::empty());
        for fault in FAULTS {
            // SAFETY: the handler makes system calls and reads what is never freed. If it can't be installed, a fault
            // kills at once.
            let before = unsafe { sigaction(fault, &action) };
            // What was ignored stays so; the kernel lets a fault itself kill all the same.
            if let Ok(before) = before
                && matches!(before.handler(), SigHandler::SigIgn)
            {
                // SAFETY: there is no handler.
                let _ = unsafe { sigaction(fault, &before) };
            }
        }
    });
}

/// From now on, that is to set `terminal` from `ours` to `settings`. It stays open until [`keep_terminal`].
pub(super) fn restore_terminal(terminal: &impl AsRawFd, settings: &Termios, ours: &Termios) {
    let [settings, ours] = [settings, ours].map(|settings| settings.clone().into());
    let saved = Saved { terminal: terminal.as_raw_fd(), settings, ours };
    SAVED.store(Box::leak(Box::new(saved)), Ordering::Release);
}

/// From now on a fault leaves the terminal alone.
pub(super) fn keep_terminal() {
    SAVED.store(ptr::null_mut(), Ordering::Release);
}

impl Saved {
    /// As `Terminal::give_back` does. Only makes calls that a handler of signals may make (signal-safety(7)), or ioctls.
    fn restore(&self) {
        // SAFETY: they take and return numbers.
        let (foreground, ours) = unsafe { (libc::tcgetpgrp(self.terminal), libc::getpgrp()) };
        // -1: a terminal that controls no session of ours has no job control.
        if foreground == -1 || foreground == ours || self.is_as_we_set_it() {
            // SAFETY: TCSETS reads one termios.
            unsafe { libc::tcsetattr(self.terminal, libc::TCSANOW, &self.settings) };
        }
    }

    /// Whether nobody has set it since. The flags of output were not ours to set.
    fn is_as_we_set_it(&self) -> bool {
        let mut now = self.ours;
        // SAFETY: TCGETS writes one termios.
        let result = unsafe { libc::tcgetattr(self.terminal, &mut now) };
        let flags = |of: &libc::termios| (of.c_iflag, of.c_cflag, of.c_lflag, of.c_cc);
        result == 0 && flags(&now) == flags(&self.ours)
    }
}

extern "C" fn handle(signal: libc::c_int) {
    // SAFETY: they return numbers.
    let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
    if thread != process {
        // Once confined, the main thread alone may set the terminal: it gets the signal, and this thread waits for the end.
        // SAFETY: tgkill takes numbers.
        while unsafe { libc::syscall(libc::SYS_tgkill, process, process, signal) } == 0 {
            std::thread::yield_now();
        }
    }
    // SAFETY: what was stored is never freed, nor changed.
    if let Some(saved) = unsafe { SAVED.load(Ordering::Acquire).as_ref() } {
        saved.restore();
    }
    // SAFETY: the default is no handler; the signal is for this thread, blocked until the handler returns, and then kills.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
