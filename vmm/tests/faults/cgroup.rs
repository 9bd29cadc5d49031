// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A control group whose processes have so much memory and no more, page cache and all (Linux,
//! Documentation/admin-guide/cgroup-v2.rst, "Memory"; cgroup-v1/memory.rst).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const ROOT: &str = "/sys/fs/cgroup";

/// A group of its own, below ours. It goes when its processes have gone and this is dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// With so many bytes. None, and a word about it, where that is not allowed.
    pub fn new(limit: u64) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let make = || {
            let group = Self(parent()?.join(format!("cvmm-test-{}-{number}", std::process::id())));
            fs::create_dir(&group.0)?;
            let file = ["memory.max", "memory.limit_in_bytes"].map(|file| group.0.join(file));
            let file = file.into_iter().find(|file| file.exists());
            fs::write(file.ok_or_else(|| std::io::Error::other("no limit of memory"))?, limit.to_string())?;
            // Where the host swaps, memory is not short.
            let swaps = fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
            if swaps {
                fs::write(group.0.join("memory.swap.max"), "0")?;
            }
            Ok(group)
        };
        make()
            .inspect_err(|error: &std::io::Error| {
                crate::common::not_tested(&format!("a group of its own: {error}"))
            })
            .ok()
    }

    /// `command` in the group. Its standard streams are to be set anew.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("sh");
        let script = "echo $$ > \"$0\" && exec \"$@\"";
        wrapped.args(["-c", script]).arg(self.0.join("cgroup.procs"));
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped
    }

    /// How often the limit was reached.
    pub fn reached(&self) -> u64 {
        let read = |file: &str| fs::read_to_string(self.0.join(file)).unwrap_or_default();
        let (v1, v2) = (read("memory.failcnt"), read("memory.events"));
        let v2 = v2.lines().find_map(|line| line.strip_prefix("max "));
        v2.unwrap_or(v1.trim()).parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Our own group, in the hierarchy that has memory.
fn parent() -> std::io::Result<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let ours = |prefix: &str| {
        let path = groups.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(prefix));
        path.map(|path| path.trim_start_matches('/').to_owned())
    };
    let group = match ours("memory:") {
        Some(path) => Path::new(ROOT).join("memory").join(path),
        None => Path::new(ROOT).join(ours(":").unwrap_or_default()),
    };
    // A container may see its group as the root.
    Ok(if group.exists() {
        group
    } else {
        group.ancestors().find(|group| group.exists()).unwrap_or(&group).into()
    })
}
