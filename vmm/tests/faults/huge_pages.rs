// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pools of huge pages, which an administrator reserves.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::common::{kvm, not_tested, wait_for_end};
use crate::guest::{Guest, with_memory};

const COUNT: &str = "/proc/sys/vm/nr_hugepages";

/// More huge pages than there were. Dropped, they are given back.
struct Reserved(u64);

impl Reserved {
    fn new(pages: u64) -> Option<Self> {
        let before = count();
        let reserved = Self(before);
        match fs::write(COUNT, (before + pages).to_string()) {
            Ok(()) if count() == before + pages => Some(reserved),
            Ok(()) => {
                not_tested("there is no memory for huge pages here");
                None
            }
            Err(error) => {
                not_tested(&format!("huge pages can't be reserved here: {error}"));
                None
            }
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let _ = fs::write(COUNT, self.0.to_string());
    }
}

fn count() -> u64 {
    fs::read_to_string(COUNT).unwrap().trim().parse().unwrap()
}

fn run(folder: &TempDir, mem: &str, size: &str) -> Command {
    let mut run = with_memory(folder.path(), mem);
    run.arg(format!("--pool={size},name=huge,hugepages")).arg("--rng=pool=huge");
    run
}

/// `pages` of what is mapped from the file of this pool, in KiB.
fn page_size(pid: u32, pool: &str) -> String {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut lines = smaps.lines().skip_while(|line| !line.contains(&format!("memfd:cvmm-{pool} ")));
    lines.find_map(|line| line.strip_prefix("KernelPageSize:")).expect("mapped").trim().into()
}

#[test]
fn a_pool_has_the_huge_pages_that_were_reserved() {
    if !kvm() {
        return;
    }
    let Some(_reserved) = Reserved::new(2) else { return };
    let folder = TempDir::new().unwrap();
    let guest = Guest::start(run(&folder, "64M", "4M"), folder.path());
    let pid = guest.child.id();
    assert_eq!((page_size(pid, "huge"), page_size(pid, "pool")), ("2048 kB".into(), "4 kB".into()));
    assert_eq!(guest.end().status.code(), Some(0));
}

/// It does not start, and says how many it takes; touched later, a page that is not there would be a SIGBUS.
#[test]
fn huge_pages_that_are_not_there_are_told() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    // More than anybody has reserved.
    let mut child = run(&folder, "60G", "32G").spawn().unwrap();
    let status = wait_for_end(&mut child);
    let said = fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(status.code(), Some(3), "{said}");
    for part in ["--pool 32G,name=huge,hugepages", "it takes 16384 huge pages of 2 MiB", "nr_hugepages"] {
        assert!(said.contains(part), "no '{part}' in {said}");
    }
}
