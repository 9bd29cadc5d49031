// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A call that the filter of a thread does not know. To kill the process would be simplest, but leaves a raw terminal, disks
//! that are not flushed and no report. So the call is refused with EPERM, recorded, and the run is ended as after any
//! other error.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::OnceLock;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use vmm_sys_util::eventfd::EventFd;

use super::ThreadKind;
use crate::Outcome;

/// A call that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Who made it.
    pub thread: Option<ThreadKind>,
    /// Its number.
    pub call: libc::c_int,
}

static FIRST: OnceLock<Violation> = OnceLock::new();
/// The main thread waits for it.
static WAKE: OnceLock<EventFd> = OnceLock::new();

thread_local! {
    // Without a destructor and with a constant at first: so a signal handler can read it.
    static THREAD: Cell<Option<ThreadKind>> = const { Cell::new(None) };
}

/// The first violation of this process.
pub fn violation() -> Option<Violation> {
    FIRST.get().copied()
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sandbox: ")?;
        match self.thread {
            Some(ThreadKind::Main) => f.write_str("the main thread")?,
            Some(ThreadKind::Vcpu { .. }) => f.write_str("a vCPU thread")?,
            Some(ThreadKind::Device(kind)) => write!(f, "the thread of a device ({kind:?})")?,
            Some(ThreadKind::Prefault) => f.write_str("the thread that backs pools")?,
            Some(ThreadKind::RegisterPage) => f.write_str("the thread of the UART's page")?,
            None => f.write_str("a thread")?,
        }
        let call = self.call;
        write!(f, " tried system call {call}, which it never needs; has the guest taken over cvmm?")
    }
}

impl From<Violation> for Outcome {
    fn from(violation: Violation) -> Self {
        Outcome::VmmError(violation.to_string())
    }
}

/// Looks out for violations from now on.
pub(super) fn watch(wake: &EventFd) -> io::Result<()> {
    let wake = wake.try_clone()?;
    WAKE.get_or_init(|| wake);
    // On the alternative stack, in case a violation comes at the end of a stack.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(handle), flags, SigSet::empty());
    // SAFETY: the handler does nothing but store to atomics and write to an eventfd.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

/// Says who the calling thread is. The signal of a violation would kill the process if it were blocked, as it may be by
/// whoever started us.
pub(super) fn prepare_thread(kind: ThreadKind) -> io::Result<()> {
    THREAD.set(Some(kind));
    Ok(SigSet::from(Signal::SIGSYS).thread_unblock()?)
}

/// What of siginfo_t a SIGSYS fills in (Linux, include/uapi/asm-generic/siginfo.h).
#[repr(C)]
struct SigsysInfo {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    call_address: *const libc::c_void,
    call: libc::c_int,
    arch: libc::c_uint,
}

const SYS_SECCOMP: libc::c_int = 1;

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo_t, which is larger.
    let info = unsafe { &*info.cast::<SigsysInfo>() };
    if info.code != SYS_SECCOMP {
        return;
    }
    // Only plain data and atomics: nothing is allocated, and no lock that this thread may hold is waited for.
    let _ = FIRST.set(Violation { thread: THREAD.get(), call: info.call });
    if let Some(wake) = WAKE.get() {
        let _ = wake.write(1);
    }
    // SAFETY: the kernel passes the thread's registers, which are restored from here when the handler returns.
    unsafe { set_result(&mut *context.cast(), -i64::from(libc::EPERM)) };
}

/// What the call returns.
#[cfg(target_arch = "x86_64")]
fn set_result(context: &mut libc::ucontext_t, result: i64) {
    const RAX: usize = libc::REG_RAX.cast_unsigned() as usize;
    context.uc_mcontext.gregs[RAX] = result;
}

/// What the call returns.
#[cfg(target_arch = "aarch64")]
fn set_result(context: &mut libc::ucontext_t, result: i64) {
    context.uc_mcontext.regs[0] = result.cast_unsigned();
}
