// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A thread of another process, made to call what it would not.

use std::path::Path;

use nix::libc::{self, c_long};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// The filter stopped it, and its handler is told.
    Trapped,
    /// It returned this.
    Returned(i64),
}

/// A thread of a run, stopped.
pub struct Captive(Pid);

impl Captive {
    /// Stops the thread that has this folder in /proc.
    pub fn take(task: &Path) -> Self {
        let thread = Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
        ptrace::attach(thread).unwrap();
        let captive = Self(thread);
        assert_eq!(captive.wait(), Signal::SIGSTOP);
        captive
    }

    fn wait(&self) -> Signal {
        match waitpid(self.0, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::Stopped(_, signal) => signal,
            status => panic!("{status:?}"),
        }
    }

    /// Has the thread make a call. It is in one, so before the instruction to go on with there is `syscall`. The handler
    /// is not told of a trap.
    pub fn call(&self, number: c_long, arguments: [u64; 3]) -> Fate {
        let (before, fate) = self.step(number, arguments);
        if fate == Fate::Trapped {
            ptrace::step(self.0, None).unwrap();
            assert_eq!(self.wait(), Signal::SIGTRAP, "of the step before");
        }
        ptrace::setregs(self.0, before).unwrap();
        fate
    }

    /// Lets the thread go on until it has made a call with this number and a first argument that is `wanted`.
    pub fn go_on_until(&self, number: c_long, wanted: impl Fn(u64) -> bool) {
        loop {
            // Each call is a stop when it begins, and one when it ends.
            for _ in 0..2 {
                ptrace::syscall(self.0, None).unwrap();
                assert_eq!(self.wait(), Signal::SIGTRAP);
            }
            let registers = ptrace::getregs(self.0).unwrap();
            if registers.orig_rax == number.cast_unsigned() && wanted(registers.rdi) {
                return;
            }
        }
    }

    /// What the thread reads from a file that it has open: up to a KiB.
    pub fn read(&self, file: u64) -> Vec<u8> {
        const MOST: u64 = 1024;
        // Where the thread has no use of its stack yet: far below, and so below the red zone, too.
        let place = (ptrace::getregs(self.0).unwrap().rsp - 4 * MOST) & !7;
        let Fate::Returned(count @ 0..) = self.call(libc::SYS_read, [file, place, MOST]) else {
            panic!("it can't be read")
        };
        let word = |at: u64| ptrace::read(self.0, at as ptrace::AddressType).unwrap().to_le_bytes();
        let mut bytes: Vec<u8> = (place..place + MOST).step_by(8).flat_map(word).collect();
        bytes.truncate(usize::try_from(count).unwrap());
        bytes
    }

    /// Has the thread make a call that is trapped, and lets it go when the handler was told. If `forgotten`, it then goes
    /// on as before; else the call that it was in seems to have had the result.
    pub fn violate(self, number: c_long, arguments: [u64; 3], forgotten: bool) {
        let (before, fate) = self.step(number, arguments);
        assert_eq!(fate, Fate::Trapped);
        // The code around the call counts on all other registers.
        let now = ptrace::getregs(self.0).unwrap();
        let after = libc::user_regs_struct { rax: now.rax, orig_rax: now.orig_rax, ..before };
        ptrace::setregs(self.0, after).unwrap();
        ptrace::cont(self.0, Signal::SIGSYS).unwrap();
        assert_eq!(self.wait(), Signal::SIGTRAP, "of the step before");
        if forgotten {
            // Each call is a stop when it begins, and one when it ends.
            loop {
                ptrace::syscall(self.0, None).unwrap();
                assert_eq!(self.wait(), Signal::SIGTRAP);
                if ptrace::getregs(self.0).unwrap().orig_rax == libc::SYS_rt_sigreturn.cast_unsigned() {
                    break;
                }
            }
            ptrace::syscall(self.0, None).unwrap();
            assert_eq!(self.wait(), Signal::SIGTRAP);
            ptrace::setregs(self.0, before).unwrap();
        }
        self.release();
    }

    /// The registers before the call, and what became of it.
    fn step(&self, number: c_long, arguments: [u64; 3]) -> (libc::user_regs_struct, Fate) {
        let before = ptrace::getregs(self.0).unwrap();
        let mut registers = before;
        registers.rip -= 2;
        // Not a call that is to be restarted.
        registers.orig_rax = u64::MAX;
        registers.rax = number.cast_unsigned();
        [registers.rdi, registers.rsi, registers.rdx] = arguments;
        (registers.r10, registers.r8, registers.r9) = (0, 0, 0);
        ptrace::setregs(self.0, registers).unwrap();
        ptrace::step(self.0, None).unwrap();
        let fate = match self.wait() {
            Signal::SIGSYS => Fate::Trapped,
            Signal::SIGTRAP => Fate::Returned(ptrace::getregs(self.0).unwrap().rax.cast_signed()),
            signal => panic!("{signal}"),
        };
        (before, fate)
    }

    /// Lets it go on.
    pub fn release(self) {
        ptrace::detach(self.0, None).unwrap();
        std::mem::forget(self);
    }
}

impl Drop for Captive {
    /// A test that fails lets it go: held, it could not be waited for when it is killed.
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, Signal::SIGKILL);
    }
}
