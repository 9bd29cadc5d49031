// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that can't be had. What a device needs to serve requests it has from the start (devices/src/no_allocation.rs), so
//! this is about guest memory, and about the start of the run.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use tempfile::TempDir;

use crate::common::wait_for_end;
use crate::guest::{Guest, blk, cvmm, kvm};
use crate::inject::{Fault, inject};
use crate::place;

/// With less and less address space, the run ends with a word about what could not be had, and exit code 3; it never hangs
/// and never crashes. (Where not even some bytes are left, Rust's and C's libraries abort, and say why.)
#[test]
fn memory_that_can_not_be_had_is_told() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let image = place::image(folder.path(), 128);
    let mut seen = BTreeSet::new();
    for kib in (20_480..=57_344).step_by(1024) {
        let cvmm = cvmm(folder.path());
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -v $0 && exec \"$@\"", &kib.to_string()]).arg(cvmm.get_program());
        limited
            .args(cvmm.get_args())
            .arg(blk(&image))
            .arg("--rng")
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        // With it, Rust's own word about an allocation that failed waits for itself when it can't be printed.
        limited.env_remove("RUST_BACKTRACE");
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
            _ => panic!("{kib} KiB: {status}: {said}"),
        };
        seen.insert(why);
    }
    for expected in ["guest memory", "none"] {
        assert!(seen.contains(expected), "{expected} is not in {seen:?}");
    }
}

/// The host can't give a page of guest memory while the guest runs.
#[test]
fn guest_memory_that_is_gone_ends_the_run_with_exit_code_1() {
    for (errno, text) in
        [(Errno::EFAULT, "guest memory could not be had"), (Errno::ENOMEM, "Cannot allocate memory")]
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
