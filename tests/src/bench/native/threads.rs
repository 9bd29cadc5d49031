// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the threads of a VMM did, as the kernel counts it: those that run the guest, and all others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

/// What some threads did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Nanoseconds on a CPU, and in the guest.
    pub nanoseconds: u64,
    /// Voluntary context switches: a thread had nothing to do, and slept.
    pub sleeps: u64,
    /// Involuntary ones: another thread took its CPU.
    pub preempted: u64,
}

/// The threads of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Threads {
    /// Those that run the guest.
    pub vcpus: Work,
    /// All others: of the devices, of io_uring.
    pub devices: Work,
}

impl Threads {
    /// What all threads of the process have done so far.
    pub fn of(pid: u32) -> Result<Self> {
        let mut all = Self::default();
        for task in tasks(pid)? {
            // A thread may have ended meanwhile.
            let Some(work) = Work::of(&task) else { continue };
            let sum = if is_vcpu(&task) { &mut all.vcpus } else { &mut all.devices };
            *sum = sum.and(work);
        }
        Ok(all)
    }

    /// What they did since `before`.
    pub fn since(self, before: Self) -> Self {
        Self { vcpus: self.vcpus.since(before.vcpus), devices: self.devices.since(before.devices) }
    }
}

impl Work {
    fn of(task: &Path) -> Option<Self> {
        let status = fs::read_to_string(task.join("status")).ok()?;
        let schedule = fs::read_to_string(task.join("schedstat")).ok()?;
        Self::parse(&status, &schedule)
    }

    /// proc_pid_status(5), and Linux, Documentation/scheduler/sched-stats.rst: the first number is the time on a CPU.
    fn parse(status: &str, schedule: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Some(Self {
            nanoseconds: schedule.split_whitespace().next()?.parse().ok()?,
            sleeps: field("voluntary_ctxt_switches:")?,
            preempted: field("nonvoluntary_ctxt_switches:")?,
        })
    }

    fn and(self, other: Self) -> Self {
        Self {
            nanoseconds: self.nanoseconds + other.nanoseconds,
            sleeps: self.sleeps + other.sleeps,
            preempted: self.preempted + other.preempted,
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            nanoseconds: self.nanoseconds.saturating_sub(before.nanoseconds),
            sleeps: self.sleeps.saturating_sub(before.sleeps),
            preempted: self.preempted.saturating_sub(before.preempted),
        }
    }
}

/// The folders of a process's threads.
fn tasks(pid: u32) -> Result<Vec<PathBuf>> {
    let folder = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    Ok(tasks.filter_map(|task| Some(task.ok()?.path())).collect())
}

/// Thread IDs of those that do not run the guest.
pub fn of_devices(pid: u32) -> Result<Vec<i32>> {
    let others = tasks(pid)?.into_iter().filter(|task| !is_vcpu(task));
    Ok(others.filter_map(|task| task.file_name()?.to_str()?.parse().ok()).collect())
}

/// cvmm calls them `vcpu0`, Firecracker `fc_vcpu 0`, and QEMU with `debug-threads=on` `CPU 0/KVM`.
fn is_vcpu(task: &Path) -> bool {
    let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
    name.contains("vcpu") || name.trim_end().ends_with("/KVM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_read_from_proc() {
        let status = "Name:\tblk0\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        let expected = Work { nanoseconds: 77, sleeps: 12, preempted: 3 };
        assert_eq!(Work::parse(status, "77 5 2\n"), Some(expected));
        assert_eq!(Work::parse("", "77 5 2\n"), None);
    }

    #[test]
    fn a_process_that_sleeps_is_seen_to() {
        let pid = std::process::id();
        let before = Threads::of(pid).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        let after = Threads::of(pid).unwrap().since(before);
        assert!(after.devices.sleeps > 0 && after.vcpus == Work::default(), "{after:?}");
    }
}
