// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals at any time: to every thread, while disks are at work.

#![allow(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::guest::{Guest, blk, cvmm, kvm, wait_until};
use crate::place;

/// Signals without end.
struct Storm {
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    sender: Option<JoinHandle<()>>,
}

impl Storm {
    /// Over all threads of a process: the one that interrupts vCPUs, which has a handler and so interrupts every call;
    /// such as are ignored; and now and then a stop, after which many calls are made anew.
    fn over(process: u32, tasks: &[PathBuf]) -> Self {
        let over = Arc::<AtomicBool>::default();
        let sent = Arc::<AtomicU64>::default();
        let process = process.cast_signed();
        let number = |task: &PathBuf| task.file_name().unwrap().to_str().unwrap().parse::<i32>().unwrap();
        let threads: Vec<_> = tasks.iter().map(number).collect();
        let (until, count) = (Arc::clone(&over), Arc::clone(&sent));
        let send = move || {
            while !until.load(Ordering::Relaxed) {
                for thread in &threads {
                    for signal in
                        [libc::SIGRTMIN(), libc::SIGCHLD, libc::SIGWINCH, libc::SIGURG, libc::SIGRTMIN()]
                    {
                        // SAFETY: the call takes three numbers. It fails once the thread has ended.
                        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    // So that the guest has some time in between, also on two CPUs.
                    std::thread::sleep(std::time::Duration::from_micros(50));
                }
                let _ = kill(Pid::from_raw(process), Signal::SIGSTOP);
                let _ = kill(Pid::from_raw(process), Signal::SIGCONT);
            }
        };
        Self { over, sent, sender: Some(std::thread::spawn(send)) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.sender.take().unwrap().join().unwrap();
    }
}

/// Two disks, an entropy device and two CPUs.
fn start(folder: &TempDir) -> Guest {
    let mut command = cvmm(folder.path());
    let other = folder.path().join("other");
    std::fs::copy(place::image(folder.path(), 128), &other).unwrap();
    command.args(["--cpus", "2", "--rng"]).arg(blk(&folder.path().join("disk")));
    command.arg(format!("{},transport=pci", blk(&other)));
    Guest::start(command, folder.path())
}

#[test]
fn a_storm_of_signals_disturbs_nothing() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut guest = start(&folder);
    let storm = Storm::over(guest.child.id(), &guest.tasks());
    for _ in 0..4 {
        guest.orders(&[("work 0 64", "all well"), ("work 1 64", "all well")]);
    }
    let sent = storm.sent.load(Ordering::Relaxed);
    assert!(sent > 1000, "{sent} signals are no storm");
    guest.tell("end");
    let ended = guest.wait();
    drop(storm);
    ended.exit_code(0);
    for device in ["blk0", "blk1", "rng0"] {
        ended.host_errors(device, &[]);
    }
}

/// Neither the signal that stops cvmm nor the ones that stop its vCPUs get lost among others.
#[test]
fn the_end_comes_through_a_storm_of_signals() {
    if !kvm() {
        return;
    }
    for _ in 0..5 {
        let folder = TempDir::new().unwrap();
        let mut guest = start(&folder);
        guest.tell("work 0 1000000");
        let storm = Storm::over(guest.child.id(), &guest.tasks());
        wait_until("a storm", || storm.sent.load(Ordering::Relaxed) > 200);
        guest.signal(Signal::SIGTERM);
        let ended = guest.wait();
        drop(storm);
        ended.exit_code(6);
        assert_eq!(ended.detail(), "stopped by SIGTERM");
    }
}
