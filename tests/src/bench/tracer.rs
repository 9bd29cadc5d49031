// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stops a VMM at its first entry into a guest: at ioctl(KVM_RUN), on whichever thread.
//!
//! A seccomp filter hands this one call to the tracer; all other calls run at full speed. Beyond that only exec and the
//! creation of threads stop the VMM, for some microseconds each.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

const KVM_RUN: u64 = 0xae80;

/// Lets the program stop at its first entry, to be waited for with [`wait_for_entry`] on this thread.
pub fn stop_at_entry(command: &mut Command) -> Result<()> {
    let filter = filter()?;
    let prepare = move || {
        ptrace::traceme()?;
        seccompiler::apply_filter(&filter).map_err(|_| io::Error::last_os_error())
    };
    // SAFETY: the closure makes system calls only (the filter is ready), and those are allowed between fork and exec.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

fn filter() -> Result<BpfProgram> {
    let request = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, KVM_RUN)?;
    let rules = [(libc::SYS_ioctl, vec![SeccompRule::new(vec![request])?])].into();
    let (otherwise, at_entry) = (SeccompAction::Allow, SeccompAction::Trace(0));
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, at_entry, architecture)?.try_into()?)
}

/// Returns while the program stands before its first entry.
pub fn wait_for_entry(child: &Child) -> Result<()> {
    let program = Pid::from_raw(i32::try_from(child.id())?);
    // A traced program stops when exec is done, before its first instruction.
    match waitpid(program, None)? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
        other => bail!("it did not start: {other:?}"),
    }
    let options = Options::PTRACE_O_TRACESECCOMP | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(program, options).context("cannot trace it")?;
    ptrace::cont(program, None)?;
    // Threads too, but no other thread's children.
    let mine = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        let stopped = match waitpid(None, Some(mine))? {
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_SECCOMP) => return Ok(()),
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == program => {
                bail!("it ended and never entered a guest")
            }
            // A thread's creation, and the new thread's own first stop.
            WaitStatus::PtraceEvent(pid, ..) | WaitStatus::Stopped(pid, Signal::SIGSTOP) => (pid, None),
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => continue,
        };
        match ptrace::cont(stopped.0, stopped.1) {
            // Killed in between: its end is the next to be told.
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(error) => bail!("cannot continue it: {error}"),
        }
    }
}
