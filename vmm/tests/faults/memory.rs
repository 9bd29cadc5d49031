// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that can't be had. What a device needs to serve requests it has from the start (devices/src/no_allocation.rs), so
//! this is about guest memory, and about the start of the run.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_thp_disable;
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::common::{no_more_memory, wait_for_end};
use crate::guest::{Guest, blk, cvmm, kvm};
use crate::inject::{Fault, inject};
use crate::place;

/// With more and more address space, or memory for data, the run ends with a word about what could not be had, and exit code
/// 3; it never hangs and never crashes. (Where not even some bytes are left, Rust's and C's libraries abort, and say why.)
#[test]
fn memory_that_can_not_be_had_is_told() {
    if kvm() {
        starts_with_a_limit("-v", 20_480..=57_344);
        starts_with_a_limit("-d", 1024..=40_960);
    }
}

/// `limit` is an option of the shell's ulimit.
fn starts_with_a_limit(limit: &str, kib: RangeInclusive<usize>) {
    let folder = TempDir::new().unwrap();
    let image = place::image(folder.path(), 128);
    let temporary = folder.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let mut seen = BTreeSet::new();
    for kib in kib.step_by(1024) {
        let cvmm = cvmm(folder.path());
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit {limit} {kib} && exec \"$@\""), "sh"]).arg(cvmm.get_program());
        limited
            .args(cvmm.get_args())
            .arg(blk(&image))
            .arg("--rng")
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        // With it, Rust's own word about an allocation that failed waits for itself when it can't be printed.
        limited.env_remove("RUST_BACKTRACE").env("TMPDIR", &temporary);
        let mut child = limited.stderr(Stdio::piped()).spawn().unwrap();
        // There is nobody who tells it to end where the run does not get that far.
        let _ = child.stdin.take().unwrap().write_all(b"end\n");
        let (status, mut said) = (wait_for_end(&mut child), String::new());
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let why = match (status.code(), status.signal()) {
            (Some(0), _) => "none",
            (_, Some(libc::SIGABRT)) if said.contains("memory") => "some bytes",
            (Some(3), _) if said.contains("guest memory can't be mapped") => "guest memory",
            (Some(3), _) if said.contains("pool") => "the pool",
            (Some(3), _) if said.contains("can't be started") => "a thread",
            // A file, a queue, a vCPU, ...
            (Some(1..=3), _) if said.contains("os error 12") || said.contains("annot allocate") => {
                "something else"
            }
            _ => panic!("{limit} {kib} KiB: {status}: {said}"),
        };
        seen.insert(why);
        nothing_is_left(folder.path());
    }
    for expected in ["guest memory", "none"] {
        assert!(seen.contains(expected), "{expected} is not in {seen:?}");
    }
}

/// There is no file but the ones that were there or asked for.
fn nothing_is_left(folder: &Path) {
    for (folder, expected) in
        [(folder.to_owned(), &["disk", "log", "report", "temporary"][..]), (folder.join("temporary"), &[])]
    {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = entries.filter(|name| !expected.iter().any(|expected| name == expected)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Linux gives memory that it does not have, and kills who then touches it: cvmm works, or is killed like by anybody else, and
/// leaves nothing behind.
#[test]
fn a_group_with_too_little_memory_is_a_kill() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let image = place::image(folder.path(), 128);
    std::fs::create_dir(folder.path().join("temporary")).unwrap();
    let mut seen = BTreeSet::new();
    for kib in (256..=4096).step_by(256).chain([32 << 10]) {
        let Some(group) = Cgroup::new(kib << 10) else { return };
        let mut command = group.wrap(cvmm(folder.path()).arg(blk(&image)));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.env("TMPDIR", folder.path().join("temporary")).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"work 0 64\nend\n");
        let (status, mut said) = (wait_for_end(&mut child), String::new());
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        // KVM's own memory is the group's, too: the kernel may refuse it instead.
        let refused = status.code() == Some(3) && said.contains("Cannot allocate memory");
        let killed = status.signal() == Some(libc::SIGKILL);
        assert!(status.success() || refused || killed, "{kib} KiB: {status}: {said}");
        seen.insert(status.success());
        nothing_is_left(folder.path());
    }
    assert_eq!(seen.len(), 2, "it always works: {seen:?}");
}

/// A disk that is larger than all memory that there is for it.
#[test]
fn a_guest_goes_on_where_memory_is_short() {
    const LIMIT: u64 = 8 << 20;
    const SECTORS: u64 = LIMIT * 3 / 2 / 512;
    if !kvm() {
        return;
    }
    let Some(group) = Cgroup::new(LIMIT) else { return };
    // A huge page for each place that the guest touches would be most of it.
    set_thp_disable(true).unwrap();
    // Not in memory, as /tmp may be, which would count.
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = place::image(folder.path(), SECTORS);
    let mut command = group.wrap(cvmm(folder.path()).arg(blk(&image)).arg("--rng"));
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut guest = Guest::start(command, folder.path());
    for sector in (0..SECTORS).step_by(128) {
        guest.orders(&[(&format!("write 0 {sector} 128 {}", sector / 128 % 251), "0")]);
    }
    guest.orders(&[("flush 0", "0")]);
    for sector in (0..SECTORS).step_by(128 * 16) {
        guest.orders(&[(&format!("read 0 {sector} 128"), &format!("0 {}", sector / 128 % 251))]);
    }
    guest.end().exit_code(0).host_errors("blk0", &[]);
    assert!(group.reached() > 0, "there was memory enough");
    let bytes = std::fs::read(image).unwrap();
    for (number, piece) in bytes.chunks(128 * 512).enumerate() {
        assert!(piece.iter().all(|byte| usize::from(*byte) == number % 251), "piece {number}");
    }
}

/// A host that has no more memory to give while the guest runs: the guest goes on, all of it, and ends in order.
#[test]
fn a_running_guest_needs_no_more_memory() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let other = folder.path().join("other");
    std::fs::copy(place::image(folder.path(), 128), &other).unwrap();
    let mut command = cvmm(folder.path());
    command.arg(blk(&folder.path().join("disk"))).arg(format!("{},transport=pci,queues=2", blk(&other)));
    command.args(["--rng", "--cpus", "2"]);
    let mut guest = Guest::start(command, folder.path());
    no_more_memory(guest.child.id());
    guest.orders(&[("work 0 64", "all well"), ("work 1 64", "all well"), ("flush 0", "0")]);
    // Errors of the host are kept, too.
    guest.orders(&[("write 0 64 64 7", "0")]);
    std::fs::File::options().write(true).open(folder.path().join("disk")).unwrap().set_len(64 * 512).unwrap();
    guest.orders(&[("read 0 64 8", "1 165"), ("work 1 64", "all well")]);
    guest.end().exit_code(0).host_errors("blk0", &[("read", "truncated", 1)]);
}

/// The host can't give a page of guest memory while the guest runs.
#[test]
fn guest_memory_that_is_gone_ends_the_run_with_exit_code_1() {
    for (errno, text) in
        [(Errno::EFAULT, "the host has no memory for the guest"), (Errno::ENOMEM, "Cannot allocate memory")]
    {
        if !kvm() {
            return;
        }
        let folder = TempDir::new().unwrap();
        let guest = Guest::start(cvmm(folder.path()), folder.path());
        inject(&guest.task("vcpu0"), &[(libc::SYS_ioctl, Fault::Error(errno as i32))]).join().unwrap();
        let ended = guest.wait();
        ended.exit_code(1);
        assert!(ended.detail().contains("KVM_RUN") && ended.detail().contains(text), "{}", ended.detail());
    }
}
