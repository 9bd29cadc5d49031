// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a child process gets from the lab beyond what the standard library offers.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;

/// Kills the child when the thread that starts it ends, and so also when the process ends.
pub fn die_with_parent(command: &mut Command) {
    let die = || Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?);
    // SAFETY: the closure makes one system call, and that is allowed between fork and exec.
    unsafe { command.pre_exec(die) };
}

/// Leaves `files` open in the child, under the same numbers. No other child gets them.
pub fn inherit(command: &mut Command, files: Vec<OwnedFd>) {
    let keep_open = move || {
        for file in &files {
            fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: the closure makes a system call per file, and those are allowed between fork and exec.
    unsafe { command.pre_exec(keep_open) };
}
