// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest that has taken over a thread of cvmm can ask of the kernel. A running cvmm is made to call what it never
//! would, thread by thread, as such a guest could: by ptrace. So cvmm has no hook for it.

#![cfg(target_arch = "x86_64")]

mod captive;
#[path = "../common/mod.rs"]
mod common;
#[path = "../faults/inject.rs"]
#[allow(dead_code)]
mod inject;
#[path = "../faults/place.rs"]
#[allow(dead_code)]
mod place;
mod run;

use std::fs::{self, File};
use std::io::Seek;

use nix::libc::{self, c_long};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use captive::{Captive, Fate};
use common::{LOOP, kvm};
use inject::{Fault, inject};
use run::{Run, status};

/// As a cvmm that is not confined hears it: landlock_create_ruleset(2) with LANDLOCK_CREATE_RULESET_VERSION.
fn kernel_has_landlock() -> bool {
    let run = Run::start(LOOP, &["--no-sandbox"]).unwrap();
    run.wait_until_running();
    let captive = Captive::take(&run.task("cvmm").unwrap());
    let version = captive.call(libc::SYS_landlock_create_ruleset, [0, 0, 1]);
    captive.release();
    run.stop();
    matches!(version, Fate::Returned(1..))
}

#[test]
fn each_thread_is_confined() {
    let Some(run) = Run::with_all_kinds(&[], None) else { return };
    run.wait_until_running();
    for name in run.threads() {
        let task = run.task(name).unwrap();
        // 2: by filters (proc_pid_status(5)).
        assert_eq!(status(&task, "Seccomp"), "2", "{name}");
        assert_eq!(status(&task, "Seccomp_filters"), "2", "{name}");
        assert_eq!(status(&task, "NoNewPrivs"), "1", "{name}");
    }
    let (code, report, said) = run.stop();
    assert_eq!(code, Some(6), "{said}");
    assert_eq!(report["sandbox"]["seccomp"], true);
    assert_eq!(report["sandbox"]["landlock"].is_string(), kernel_has_landlock(), "{report}");
    assert!(!said.contains("no-sandbox"), "{said}");
}

/// Opening is what the filter forbids first, so a forbidden open says nothing about Landlock. This does: a domain of Landlock
/// keeps what is secret of processes outside of it from those inside (Linux, Documentation/userspace-api/landlock.rst, "Ptrace
/// restrictions"), also in a file that is open, which the kernel fills in for the thread that reads it. The 26th field
/// of proc_pid_stat(5) is where our code begins, or 1 for those who may not know.
#[test]
fn landlock_holds_in_each_thread() {
    if !kvm() || !kernel_has_landlock() {
        return common::not_tested("no KVM, or a kernel without Landlock");
    }
    let mut stat = File::open("/proc/self/stat").unwrap();
    for (options, confined) in
        [(&["--console=off"][..], true), (&["--console=off", "--no-sandbox"][..], false)]
    {
        let run = Run::with_all_kinds(options, Some(&stat)).unwrap();
        run.wait_until_running();
        for name in run.threads() {
            let captive = Captive::take(&run.task(name).unwrap());
            // The place in the file is ours, too.
            stat.rewind().unwrap();
            let text = String::from_utf8(captive.read(0)).unwrap();
            captive.release();
            let code = text.rsplit_once(") ").unwrap().1.split(' ').nth(26 - 3).unwrap();
            assert_eq!(code == "1", confined, "{name} sees {code}, {options:?}");
        }
        assert_eq!(run.stop().0, Some(6));
    }
}

#[test]
fn without_the_sandbox_there_is_a_warning() {
    let Some(run) = Run::start(LOOP, &["--no-sandbox"]) else { return };
    run.wait_until_running();
    for task in run.tasks() {
        assert_eq!((status(&task, "Seccomp"), status(&task, "NoNewPrivs")), ("0".into(), "0".into()));
    }
    let (code, report, said) = run.stop();
    assert_eq!(code, Some(6), "{said}");
    assert_eq!(report["sandbox"], serde_json::json!({ "seccomp": false, "landlock": null }));
    assert!(said.contains("--no-sandbox"), "{said}");
}

/// Calls that would lead out, each with the arguments that make it dangerous.
const FORBIDDEN: &[(&str, c_long, [u64; 3])] = &[
    ("execve", libc::SYS_execve, [0; 3]),
    ("fork", libc::SYS_fork, [0; 3]),
    ("clone", libc::SYS_clone, [0; 3]),
    ("clone3", libc::SYS_clone3, [0; 3]),
    ("socket", libc::SYS_socket, [1, 1, 0]),
    ("connect", libc::SYS_connect, [u64::MAX, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [16, 1, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0]),
    ("process_vm_writev", libc::SYS_process_vm_writev, [1, 0, 0]),
    ("kill", libc::SYS_kill, [1, 0, 0]),
    ("tgkill of another process", libc::SYS_tgkill, [1, 1, 0]),
    ("openat2", libc::SYS_openat2, [0; 3]),
    ("creat", libc::SYS_creat, [0; 3]),
    ("unlink", libc::SYS_unlink, [0; 3]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]),
    ("IORING_REGISTER_FILES", libc::SYS_io_uring_register, [0, 2, 0]),
    ("bpf", libc::SYS_bpf, [0; 3]),
    ("prctl", libc::SYS_prctl, [38, 1, 0]),
    ("seccomp", libc::SYS_seccomp, [1, 0, 0]),
    ("memory that can be run", libc::SYS_mmap, [0, 4096, 7]),
    ("memory that becomes code", libc::SYS_mprotect, [0, 0, 5]),
    ("memory into core dumps", libc::SYS_madvise, [0, 0, 17]),
    ("no more handler of violations", libc::SYS_rt_sigaction, [31, 0, 0]),
    // A terminal would take what it is told as typed by the user.
    ("TIOCSTI", libc::SYS_ioctl, [0, 0x5412, 0]),
    ("TUNSETIFF", libc::SYS_ioctl, [0, 0x4004_54ca, 0]),
    // The x32 table of calls, and one that is in no table.
    ("x32 read", 0x4000_0000, [0; 3]),
    ("none", 9999, [0; 3]),
];

#[test]
fn a_thread_that_is_taken_over_gets_nowhere() {
    let Some(run) = Run::with_all_kinds(&[], None) else { return };
    run.wait_until_running();
    for name in run.threads() {
        let captive = Captive::take(&run.task(name).unwrap());
        // A harmless one, to see that calls are made at all.
        let pid = i64::from(run.child.id());
        assert_eq!(captive.call(libc::SYS_getpid, [0; 3]), Fate::Returned(pid), "{name}");
        for (what, number, arguments) in FORBIDDEN {
            assert_eq!(captive.call(*number, *arguments), Fate::Trapped, "{what} by {name}");
        }
        // An open fails before the path is looked at: here, there is none.
        let refused = Fate::Returned(-i64::from(libc::EACCES));
        for number in [libc::SYS_open, libc::SYS_openat, libc::SYS_stat, libc::SYS_readlink, libc::SYS_statx]
        {
            assert_eq!(captive.call(number, [0; 3]), refused, "{number} by {name}");
        }
        captive.release();
    }
    // Trapped, and not yet told to the handler: the run goes on.
    let (code, _, said) = run.stop();
    assert_eq!(code, Some(6), "{said}");
}

/// What one kind of thread needs is not for the others.
#[test]
fn each_thread_has_the_calls_of_its_kind_only() {
    const KVM_RUN: u64 = 0xae80;
    const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
    const TCSETS: u64 = 0x5402;
    const TUNSETQUEUE: u64 = 0x4004_54d9;
    let Some(run) = Run::with_all_kinds(&[], None) else { return };
    run.wait_until_running();
    // A file that is none: a call that is made says so.
    let none = u64::MAX;
    for (what, number, arguments, allowed) in [
        ("KVM_RUN", libc::SYS_ioctl, [none, KVM_RUN, 0], ["vcpu0"].as_slice()),
        ("KVM_SET_USER_MEMORY_REGION", libc::SYS_ioctl, [none, KVM_SET_USER_MEMORY_REGION, 0], &["uart"]),
        ("TUNSETQUEUE", libc::SYS_ioctl, [none, TUNSETQUEUE, 0], &["vcpu0", "net0"]),
        ("TCSETS", libc::SYS_ioctl, [none, TCSETS, 0], &["cvmm"]),
        ("pwritev", libc::SYS_pwritev, [none, 0, 0], &["blk0", "blk0.1"]),
        ("preadv2", libc::SYS_preadv2, [none, 0, 0], &["blk0", "blk0.1"]),
        // -1 would mean something there.
        ("IORING_REGISTER_BUFFERS", libc::SYS_io_uring_register, [9999, 0, 0], &["blk0", "blk0.1"]),
        ("io_uring_enter", libc::SYS_io_uring_enter, [none, 0, 0], &["blk0", "blk0.1"]),
        ("fallocate", libc::SYS_fallocate, [none, 0, 0], &["blk0", "blk0.1"]),
        ("fdatasync", libc::SYS_fdatasync, [none, 0, 0], &["blk0", "blk0.1", "cvmm"]),
        ("epoll_ctl", libc::SYS_epoll_ctl, [none, 0, 0], &["cvmm"]),
    ] {
        for name in run.threads() {
            let captive = Captive::take(&run.task(name).unwrap());
            let expected = match allowed.contains(name) {
                true => Fate::Returned(-i64::from(libc::EBADF)),
                false => Fate::Trapped,
            };
            let fate = captive.call(number, arguments);
            // epoll_ctl looks at the event first.
            let fate =
                if fate == Fate::Returned(-i64::from(libc::EFAULT)) { Fate::Returned(-9) } else { fate };
            assert_eq!(fate, expected, "{what} by {name}");
            captive.release();
        }
    }
    assert_eq!(run.stop().0, Some(6));
}

/// A violation ends the run, and in order: the report says why, and the terminal is restored. Whoever started us may have
/// blocked its signal.
#[test]
fn a_violation_ends_the_run_in_order() {
    for (name, thread, forgotten) in [
        // The call of the event loop seems to have failed: another reason to end, which came later.
        ("cvmm", "the main thread", false),
        ("vcpu0", "a vCPU thread", false),
        // Nothing but the violation ends the run.
        ("blk0", "the thread of a device (Blk)", true),
    ] {
        // The mask of this thread is the child's.
        SigSet::from(Signal::SIGSYS).thread_block().unwrap();
        let Some(run) = Run::start(LOOP, &[]) else { return };
        run.wait_until_running();
        let captive = Captive::take(&run.task(name).unwrap());
        captive.violate(libc::SYS_socket, [1, 1, 0], forgotten);
        let (code, report, said) = run.end();
        let expected = format!("sandbox: {thread} tried system call {}", libc::SYS_socket);
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(report["outcome"]["kind"], "vmm-error");
        assert!(report["outcome"]["detail"].as_str().unwrap().starts_with(&expected), "{report}");
        assert!(said.contains(&expected), "{said}");
    }
}

/// One that comes when the run is about to end is told by the report, and by the exit code where the report is written.
#[test]
fn a_violation_on_the_way_out_is_told() {
    for reported in [true, false] {
        let Some(run) = Run::start(LOOP, &[]) else { return };
        run.wait_until_running();
        let captive = Captive::take(&run.task("cvmm").unwrap());
        kill(Pid::from_raw(run.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        match reported {
            // The flush of the disk.
            true => captive.go_on_until(libc::SYS_fdatasync, |_| true),
            false => captive.go_on_until(libc::SYS_write, |file| run.is_report(file)),
        }
        captive.violate(libc::SYS_socket, [1, 1, 0], true);
        let (code, report, said) = run.end();
        let expected = format!("sandbox: the main thread tried system call {}", libc::SYS_socket);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&expected) && said.contains("before that: stopped by SIGTERM"), "{said}");
        let outcome = &report["outcome"];
        let (kind, told) = (&outcome["kind"], outcome["detail"].as_str().unwrap().starts_with(&expected));
        let expected = if reported { ("vmm-error", true) } else { ("stopped", false) };
        assert_eq!((kind.as_str().unwrap(), told), expected, "{report}");
    }
}

/// The guest's data that was lost by it is told as well.
#[test]
fn a_violation_does_not_hide_a_flush_that_failed() {
    let Some(run) = Run::start(LOOP, &[]) else { return };
    run.wait_until_running();
    let captive = Captive::take(&run.task("blk0").unwrap());
    let tracer = inject(&run.task("cvmm").unwrap(), &[(libc::SYS_fdatasync, Fault::Error(libc::EIO))]);
    captive.violate(libc::SYS_socket, [1, 1, 0], true);
    // Before the wait for the end, which would take the tracer's events.
    tracer.join().unwrap();
    let (code, report, said) = run.end();
    assert_eq!(code, Some(1), "{said}");
    let detail = report["outcome"]["detail"].as_str().unwrap();
    assert!(detail.contains("disk can't be flushed: Input/output error"), "{detail}");
    assert!(detail.contains("before that: sandbox: the thread of a device (Blk) tried"), "{detail}");
    assert!(said.contains(detail), "{said}");
}

/// A KVM that emulates guest kernels gives up on popcnt (or, one day, not). What is then said takes a look at the vCPU and
/// at the host, which is no violation.
#[test]
fn an_instruction_that_kvm_can_not_emulate_is_told_of_the_host() {
    // popcnt eax, eax; mov eax, 0xd1001000; mov dword [rax], 0x5555
    let power_off = [0xb8, 0x00, 0x10, 0x00, 0xd1, 0xc7, 0x00, 0x55, 0x55, 0, 0];
    let Some(run) = Run::start(&[&[0xf3, 0x0f, 0xb8, 0xc0], &power_off[..], LOOP].concat(), &[]) else {
        return;
    };
    let (code, report, said) = run.end();
    let detail = report["outcome"]["detail"].as_str().unwrap();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    match cpuinfo.split_whitespace().any(|word| word == "vmx" || word == "svm") {
        true => assert_eq!(code, Some(0), "{said}"),
        false => assert!(code == Some(0) || detail.contains("neither vmx nor svm"), "{detail}"),
    }
}
