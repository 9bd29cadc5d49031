// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes system calls of a running thread fail, by ptrace, so that cvmm has no hook for it.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use nix::libc::{self, c_long, user_regs_struct};
use nix::sys::ptrace::{self, AddressType, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is made as it is.
    None,
    /// It is not made, and fails with this error.
    Error(i32),
    /// A vectored transfer moves no more than so many bytes.
    Short(u64),
    /// The same, of a transfer with one buffer.
    Few(u64),
}

/// From now on, the thread with this folder in /proc makes the calls of `plan` as the plan says, one after the other; calls
/// of other numbers in between are made as they are. Ends with the plan, and returns all calls that were seen.
pub fn inject(task: &Path, plan: &[(c_long, Fault)]) -> JoinHandle<Vec<c_long>> {
    inject_into(task, None, plan)
}

/// The same, where the plan is for calls with this file.
pub fn inject_into(task: &Path, file: Option<u64>, plan: &[(c_long, Fault)]) -> JoinHandle<Vec<c_long>> {
    let thread = Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
    let plan = plan.to_vec();
    let (attached, is_attached) = sync_channel(1);
    // Only the thread that has attached itself may do the rest.
    let tracer = std::thread::spawn(move || {
        ptrace::attach(thread).unwrap();
        assert!(matches!(wait(thread), WaitStatus::Stopped(_, Signal::SIGSTOP)));
        ptrace::setoptions(thread, Options::PTRACE_O_TRACESYSGOOD).unwrap();
        attached.send(()).unwrap();
        let mut seen = Vec::new();
        for (number, fault) in plan {
            while !next_call(thread, (number, file), fault, &mut seen) {}
        }
        ptrace::detach(thread, None).unwrap();
        seen
    });
    is_attached.recv().unwrap();
    tracer
}

fn wait(thread: Pid) -> WaitStatus {
    waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap()
}

/// Runs the thread until its next call begins or ends. Signals that come meanwhile are its own.
fn until_call(thread: Pid) -> user_regs_struct {
    let mut signal = None;
    loop {
        ptrace::syscall(thread, signal).unwrap();
        match wait(thread) {
            WaitStatus::PtraceSyscall(_) => return ptrace::getregs(thread).unwrap(),
            WaitStatus::Stopped(_, other) => signal = Some(other),
            status => panic!("{status:?}"),
        }
    }
}

/// Lets the next call happen: as `fault` says if it has this number, and this file, if there is one. Whether it had.
fn next_call(
    thread: Pid,
    (number, file): (c_long, Option<u64>),
    fault: Fault,
    seen: &mut Vec<c_long>,
) -> bool {
    let begin = until_call(thread);
    let call = begin.orig_rax.cast_signed();
    seen.push(call);
    if call != number || file.is_some_and(|file| file != begin.rdi) {
        until_call(thread);
        return false;
    }
    match fault {
        Fault::None => drop(until_call(thread)),
        Fault::Error(code) => {
            // A call that each thread may make, and that does nothing.
            let instead = user_regs_struct { orig_rax: libc::SYS_getpid.cast_unsigned(), ..begin };
            ptrace::setregs(thread, instead).unwrap();
            let end = until_call(thread);
            let failed = user_regs_struct { rax: i64::from(-code).cast_unsigned(), ..end };
            ptrace::setregs(thread, failed).unwrap();
        }
        Fault::Short(most) => {
            // The second word of the first `struct iovec`.
            let place = (begin.rsi + 8) as AddressType;
            let length = ptrace::read(thread, place).unwrap();
            let most = length.min(most.cast_signed());
            ptrace::write(thread, place, most).unwrap();
            ptrace::setregs(thread, user_regs_struct { rdx: 1, ..begin }).unwrap();
            let end = until_call(thread);
            assert_eq!(end.rax.cast_signed(), most, "the short transfer");
            ptrace::write(thread, place, length).unwrap();
            // The kernel leaves the arguments in their registers, and compilers may count on it.
            ptrace::setregs(thread, user_regs_struct { rdx: begin.rdx, ..end }).unwrap();
        }
        Fault::Few(most) => {
            let most = begin.rdx.min(most);
            ptrace::setregs(thread, user_regs_struct { rdx: most, ..begin }).unwrap();
            let end = until_call(thread);
            assert_eq!(end.rax, most, "the short transfer");
            ptrace::setregs(thread, user_regs_struct { rdx: begin.rdx, ..end }).unwrap();
        }
    }
    true
}
