// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run of cvmm whose guest does what it is told.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::wait_for_end;
pub use crate::common::{LIMIT, kvm, wait_until};
use crate::{place, program};

/// cvmm with this guest, its files in `folder`, and no other options yet.
pub fn cvmm(folder: &Path) -> Command {
    with_memory(folder, "34M")
}

/// The same, with so much memory.
pub fn with_memory(folder: &Path, mem: &str) -> Command {
    let mut cvmm = Command::new(env!("CARGO_BIN_EXE_cvmm"));
    cvmm.args(["run", "--mem", mem, "--pool", "2M", "--cmdline", "matrix=orders", "--kernel"])
        .arg(program::guest())
        .arg("--report")
        .arg(folder.join("report"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(folder.join("log")).unwrap());
    cvmm
}

/// `--blk` for an image.
pub fn blk(image: &Path) -> String {
    format!("--blk=path={}", image.display())
}

/// A running guest that waits for orders. Dropped, it is killed.
pub struct Guest {
    pub child: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
    folder: PathBuf,
}

/// A run that is over.
pub struct Ended {
    pub status: ExitStatus,
    pub report: Value,
    pub log: String,
}

impl Guest {
    /// A guest with a disk of 128 sectors, which is the file `disk` in its folder. None, and a word about it, where there is no
    /// KVM.
    pub fn with_disk() -> Option<(Self, TempDir)> {
        Self::with_disk_and(|_| {})
    }

    /// The same, on a host that has no io_uring for us: each read is a call of the disk's thread.
    pub fn with_disk_without_io_uring() -> Option<(Self, TempDir)> {
        Self::with_disk_and(place::without_io_uring)
    }

    fn with_disk_and(prepare: impl FnOnce(&mut Command)) -> Option<(Self, TempDir)> {
        if !kvm() {
            return None;
        }
        let folder = TempDir::new().unwrap();
        let mut command = cvmm(folder.path());
        prepare(&mut command);
        command.arg(blk(&place::image(folder.path(), 128)));
        Some((Self::start(command, folder.path()), folder))
    }

    /// Starts what [`cvmm`] has begun.
    pub fn start(mut cvmm: Command, folder: &Path) -> Self {
        let mut guest = Self::spawn(&mut cvmm, folder);
        assert_eq!(guest.answer(), "ready");
        guest
    }

    /// The same, for a guest whose console is not ours.
    pub fn spawn(cvmm: &mut Command, folder: &Path) -> Self {
        let mut child = cvmm.spawn().unwrap();
        let (answer, answers) = channel();
        if let Some(console) = child.stdout.take() {
            // On a thread of its own, so that an answer can be waited for no longer than it should take.
            std::thread::spawn(move || {
                for line in BufReader::new(console).lines().map_while(Result::ok) {
                    if answer.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let orders = child.stdin.take();
        Self { child, orders, answers, folder: folder.into() }
    }

    /// The next answer, without the `= ` before it.
    pub fn answer(&mut self) -> String {
        match self.answers.recv_timeout(LIMIT) {
            Ok(line) => line.strip_prefix("= ").unwrap_or_else(|| panic!("the guest says {line}")).into(),
            Err(_) => panic!("no answer: {}", fs::read_to_string(self.folder.join("log")).unwrap()),
        }
    }

    /// All answers until the console is closed.
    pub fn last_answers(self) -> Vec<String> {
        self.answers.iter().collect()
    }

    /// Tells the guest what to do, and does not wait.
    pub fn tell(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    /// Tells the guest what to do, and returns its answer.
    pub fn order(&mut self, order: &str) -> String {
        self.tell(order);
        self.answer()
    }

    /// Whether each order has the answer that is beside it.
    pub fn orders(&mut self, orders: &[(&str, &str)]) {
        for (order, expected) in orders {
            assert_eq!(self.order(order), *expected, "{order}");
        }
    }

    /// The folders of all threads in /proc.
    pub fn tasks(&self) -> Vec<PathBuf> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks.map(|task| task.unwrap().path()).collect()
    }

    /// The folder of the thread with this name.
    pub fn task(&self, name: &str) -> PathBuf {
        self.find_task(name).unwrap_or_else(|| panic!("no thread {name}"))
    }

    /// The same, if there is such a thread.
    pub fn find_task(&self, name: &str) -> Option<PathBuf> {
        let named =
            |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
        self.tasks().into_iter().find(named)
    }

    /// The descriptor of this file in cvmm.
    pub fn descriptor(&self, path: &str) -> u64 {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let mut files = files.map(|file| file.unwrap().path());
        let file = files.find(|file| fs::read_link(file).is_ok_and(|target| target == Path::new(path)));
        file.unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// The guest powers off.
    pub fn end(mut self) -> Ended {
        self.tell("end");
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Ended {
        // Console output that nobody reads would hold up the guest: the thread reads on.
        let status = wait_for_end(&mut self.child);
        // Not /dev/full, which has no end.
        let report = Some(self.folder.join("report")).filter(|report| report.is_file());
        let report = report.map(|report| fs::read(report).unwrap()).unwrap_or_default();
        Ended {
            status,
            report: serde_json::from_slice(&report).unwrap_or_default(),
            log: fs::read_to_string(self.folder.join("log")).unwrap(),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub fn detail(&self) -> &str {
        self.report["outcome"]["detail"].as_str().unwrap_or_default()
    }

    /// The run came to this exit code.
    pub fn exit_code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{}: {}\n{}", self.status, self.detail(), self.log);
        self
    }

    /// The record of the device with this name has these errors, as operation, part of the text and count, and no
    /// others; the log tells each of them once.
    pub fn host_errors(&self, name: &str, expected: &[(&str, &str, u64)]) -> &Self {
        let mut devices = self.report["devices"].as_array().unwrap().iter();
        let errors = &devices.find(|device| device["name"] == name).unwrap()["host_errors"];
        assert_eq!(errors["total"], expected.iter().map(|(.., count)| count).sum::<u64>(), "{errors:#}");
        let first = errors["first"].as_array().unwrap();
        assert_eq!(first.len(), expected.len(), "{errors:#}");
        for ((operation, text, count), got) in expected.iter().zip(first) {
            assert_eq!(
                (&got["operation"], &got["count"]),
                (&(*operation).into(), &(*count).into()),
                "{errors:#}"
            );
            assert!(got["error"].as_str().unwrap().contains(text), "{errors:#}");
            let told = |line: &&str| line.contains(&format!("{name}: {operation}, ")) && line.contains(text);
            assert_eq!(self.log.lines().filter(told).count(), 1, "{operation}: {}", self.log);
        }
        self
    }
}
