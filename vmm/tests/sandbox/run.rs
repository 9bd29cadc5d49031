// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A cvmm that runs, and its threads.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::common::{LOOP, cvmm, elf, kvm, ran, wait_for_end, wait_until};
use crate::place;

/// cvmm with a disk of two queues, an entropy device and a terminal.
pub struct Run {
    pub child: Child,
    pty: OpenptyResult,
    dir: TempDir,
    threads: Vec<&'static str>,
}

impl Run {
    /// None, and a word about it, where there is no KVM.
    pub fn start(code: &[u8], options: &[&str]) -> Option<Self> {
        Self::with_input(code, options, None)
    }

    /// The same, with this file as standard input.
    pub fn with_input(code: &[u8], options: &[&str], input: Option<&File>) -> Option<Self> {
        if !kvm() {
            return None;
        }
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("kernel"), elf(code)).unwrap();
        fs::write(dir.path().join("disk"), [0; 4096]).unwrap();
        let pty = openpty(None, None).unwrap();
        let terminal = || Stdio::from(pty.slave.as_fd().try_clone_to_owned().unwrap());
        let child = cvmm("run")
            .current_dir(dir.path())
            .args(["--kernel", "kernel", "--blk", "path=disk,queues=2", "--rng"])
            .args(["--report", "report"])
            .args(options)
            .stdin(input.map_or_else(terminal, |input| Stdio::from(input.try_clone().unwrap())))
            .stdout(terminal())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self { child, pty, dir, threads: vec!["cvmm", "vcpu0", "blk0", "blk0.1", "rng0", "uart"] })
    }

    /// A guest that loops, and beside the above a network device, where a tap can be made.
    pub fn with_all_kinds(options: &[&str], input: Option<&File>) -> Option<Self> {
        let net = tap();
        let device: &[_] = if net { &["--net", "tap=t0"] } else { &[] };
        let mut run = Self::with_input(LOOP, &[options, device].concat(), input)?;
        run.threads.extend(net.then_some("net0"));
        Some(run)
    }

    /// A thread of each kind that there is, and one for each queue of the disk; the main thread has the name of the program.
    pub fn threads(&self) -> &[&'static str] {
        &self.threads
    }

    /// Waits until the guest has used up some time, and each other thread waits for work.
    pub fn wait_until_running(&self) {
        wait_until("a guest that runs", || self.task("vcpu0").is_some_and(|task| ran(&task)));
        let others = self.threads.iter().filter(|name| **name != "vcpu0");
        for name in others {
            wait_until("a thread that waits", || self.task(name).is_some_and(|task| waits(&task)));
        }
    }

    /// The folder of the thread with this name.
    pub fn task(&self, name: &str) -> Option<std::path::PathBuf> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let mut tasks = tasks.map(|task| task.unwrap().path());
        tasks.find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
    }

    pub fn tasks(&self) -> Vec<std::path::PathBuf> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks.map(|task| task.unwrap().path()).collect()
    }

    /// Whether this is the descriptor of the report's file.
    pub fn is_report(&self, descriptor: u64) -> bool {
        let file = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.child.id()));
        file.is_ok_and(|file| file.ends_with("report"))
    }

    /// Exit code, report and what was said on standard error.
    pub fn end(mut self) -> (Option<i32>, serde_json::Value, String) {
        let status = wait_for_end(&mut self.child);
        let raw = !tcgetattr(&self.pty.slave).unwrap().local_flags.contains(LocalFlags::ICANON);
        assert!(!raw, "the terminal is not as it was");
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let report = fs::read(self.dir.path().join("report")).unwrap();
        (status.code(), serde_json::from_slice(&report).unwrap(), said)
    }

    pub fn stop(self) -> (Option<i32>, serde_json::Value, String) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.end()
    }
}

impl Drop for Run {
    /// A test that fails leaves nothing behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a thread is in a system call (proc_pid_syscall(5)).
fn waits(task: &Path) -> bool {
    fs::read_to_string(task.join("syscall"))
        .is_ok_and(|call| call.starts_with(|first: char| first.is_ascii_digit()))
}

/// The value of `field` in the status of a thread.
pub fn status(task: &Path, field: &str) -> String {
    let text = fs::read_to_string(task.join("status")).unwrap();
    let prefix = format!("{field}:\t");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().to_owned()
}

/// Makes the tap t0, in a world of its own. `false`, and a word about it, where that can't be.
fn tap() -> bool {
    let there = File::options().read(true).write(true).open("/dev/net/tun").is_ok()
        && Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !there {
        crate::common::not_tested("the thread of a network device, without /dev/net/tun or ip");
    }
    if !there || !place::enter() {
        return false;
    }
    place::tap("t0");
    // So that no frame wakes the thread while it is taken.
    place::ip(&["link", "set", "t0", "down"]);
    true
}
