// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The signal that interrupts a vCPU, in the one moment in which it comes to nothing: after the thread has looked whether it
//! is to stop, and before it is in KVM_RUN. A guest that never exits is stopped all the same.

#![cfg(target_arch = "x86_64")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use common::{LOOP, cvmm, elf, kvm, ran, wait_for_end, wait_until};

const KVM_RUN: u64 = 0xae80;
/// More than there are between two KVM_RUN.
const STEPS: usize = 1_000_000;

/// The vCPU's thread, once its guest runs.
fn vcpu(process: u32) -> Option<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let read = |task: &Path, name| fs::read_to_string(task.join(name)).unwrap_or_default();
    tasks.find(|task| {
        read(task, "comm").trim() == "vcpu0"
            // It has been in KVM_RUN: to step through all that comes before would take a minute.
            && ran(task)
            // In user mode, or in KVM_RUN (proc_pid_syscall(5)).
            && (read(task, "syscall").starts_with("running") || read(task, "syscall").contains("0xae80"))
    })
}

/// Stops a thread just before it calls KVM_RUN.
fn hold(thread: Pid) {
    ptrace::attach(thread).unwrap();
    for _ in 0..STEPS {
        match waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::Stopped(..) => {}
            status => panic!("{status:?}"),
        }
        let registers = ptrace::getregs(thread).unwrap();
        let code = ptrace::read(thread, registers.rip as ptrace::AddressType).unwrap();
        let call = (code & 0xffff, registers.rax, registers.rsi);
        if call == (0x050f, libc::SYS_ioctl.cast_unsigned(), KVM_RUN) {
            return;
        }
        ptrace::step(thread, None).unwrap();
    }
    panic!("it never calls KVM_RUN");
}

/// Whether the signal that interrupts vCPUs waits for the thread (proc_pid_status(5)).
fn pending(task: &Path) -> bool {
    let status = fs::read_to_string(task.join("status")).unwrap();
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:\t")).unwrap();
    u64::from_str_radix(pending, 16).unwrap() >> (libc::SIGRTMIN() - 1) & 1 != 0
}

#[test]
fn a_signal_just_before_kvm_run_is_not_the_last() {
    if !kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let kernel = dir.path().join("kernel");
    fs::write(&kernel, elf(LOOP)).unwrap();
    let mut child = cvmm("run")
        .args(["--console", "off", "--kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut task = None;
    wait_until("a guest that runs", || {
        task = vcpu(child.id());
        task.is_some()
    });
    let task = task.unwrap();
    let thread = Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
    hold(thread);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    wait_until("the signal to the vCPU", || pending(&task));
    ptrace::detach(thread, None).unwrap();
    assert_eq!(wait_for_end(&mut child).code(), Some(6));
}
