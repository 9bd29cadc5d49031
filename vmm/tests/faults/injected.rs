// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Calls of cvmm's threads that fail, are cut short, or are interrupted.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::guest::{Guest, blk, cvmm, kvm};
use crate::inject::{Fault, inject, inject_into};
use crate::place;

fn error(errno: Errno) -> Fault {
    Fault::Error(errno as i32)
}

/// The status byte of just that request says so; the next ones are served.
#[test]
fn a_call_that_fails_is_the_error_of_one_request() {
    let Some((mut guest, _folder)) = Guest::with_disk_without_io_uring() else { return };
    guest.orders(&[("write 0 0 64 7", "0"), ("flush 0", "0")]);
    let mut expected = Vec::new();
    for (operation, order, call, errno) in [
        ("read", "read 0 0 8", libc::SYS_preadv, Errno::EIO),
        ("write", "write 0 0 8 9", libc::SYS_pwritev, Errno::EIO),
        ("write", "write 0 8 8 9", libc::SYS_pwritev, Errno::ENOSPC),
        ("write", "write 0 16 8 9", libc::SYS_pwritev, Errno::EAGAIN),
        ("write zeroes", "zero 0 24 8", libc::SYS_fallocate, Errno::EIO),
        ("discard", "discard 0 32 8", libc::SYS_fallocate, Errno::ENOSPC),
    ] {
        let tracer = inject(&guest.task("blk0"), &[(call, error(errno))]);
        let answer = guest.order(order);
        assert!(answer == "1" || answer == "1 165", "{order}: {answer}");
        tracer.join().unwrap();
        // What was to be written was not, and the disk works.
        guest.orders(&[("read 0 0 64", "0 7"), ("write 0 0 8 7", "0")]);
        expected.push((operation, std::io::Error::from(errno).to_string()));
    }
    let expected: Vec<_> = expected.iter().map(|(operation, text)| (*operation, text.as_str(), 1)).collect();
    guest.end().exit_code(0).host_errors("blk0", &expected);
}

/// The report says which way it was. With io_uring, a look at the cache that comes short, is interrupted or is not possible is
/// no error: the ring reads. Nor is one of the kernel that takes no request from it now, or never again.
#[test]
fn reads_go_on_with_and_without_io_uring() {
    if io_uring::IoUring::new(1).is_err() {
        return crate::common::not_tested("there is no io_uring here");
    }
    let temporary = statfs(&std::env::temp_dir()).unwrap().filesystem_type();
    if temporary == TMPFS_MAGIC {
        return crate::common::not_tested("temporary files are in memory here");
    }
    for (with, expected) in [(true, "io_uring"), (false, "synchronous")] {
        let Some((mut guest, _folder)) =
            (if with { Guest::with_disk() } else { Guest::with_disk_without_io_uring() })
        else {
            return;
        };
        guest.orders(&[("write 0 0 64 9", "0"), ("read 0 0 64", "0 9")]);
        if with {
            let (look, enter) = (libc::SYS_preadv2, libc::SYS_io_uring_enter);
            for plan in [
                &[(look, error(Errno::EINTR)), (look, Fault::Short(100))][..],
                &[(look, error(Errno::EAGAIN)), (enter, error(Errno::EINTR)), (enter, error(Errno::EAGAIN))],
                &[(look, error(Errno::EAGAIN)), (enter, error(Errno::EBADF))],
                &[(look, error(Errno::EAGAIN))],
                &[(look, error(Errno::EOPNOTSUPP))],
            ] {
                let tracer = inject(&guest.task("blk0"), plan);
                guest.orders(&[("read 0 0 64", "0 9")]);
                tracer.join().unwrap();
            }
            guest.orders(&[("write 0 0 64 8", "0"), ("read 0 0 64", "0 8")]);
        }
        let ended = guest.end();
        ended.exit_code(0).host_errors("blk0", &[]);
        assert_eq!(ended.report["devices"][0]["host_io"], expected, "{}", ended.log);
        assert_eq!(ended.log.contains("io_uring takes no more requests"), with, "{}", ended.log);
    }
}

/// A write that can't be finished is an error, and not a shorter write.
#[test]
fn a_write_that_is_cut_short_and_then_fails_is_an_error() {
    let Some((mut guest, _folder)) = Guest::with_disk() else { return };
    let plan = [(libc::SYS_pwritev, Fault::Short(100)), (libc::SYS_pwritev, error(Errno::ENOSPC))];
    let tracer = inject(&guest.task("blk0"), &plan);
    guest.orders(&[("write 0 0 8 9", "1")]);
    tracer.join().unwrap();
    guest.orders(&[("write 0 0 8 9", "0"), ("read 0 0 8", "0 9")]);
    guest.end().exit_code(0).host_errors("blk0", &[("write", "No space left", 1)]);
}

/// A read that can't be finished is an error as well: so is one that finds the end of the disk too early.
#[test]
fn a_read_that_is_cut_short_and_then_fails_is_an_error() {
    let Some((mut guest, _folder)) = Guest::with_disk_without_io_uring() else { return };
    guest.orders(&[("write 0 0 8 9", "0")]);
    for then in [error(Errno::EIO), Fault::Short(0)] {
        let plan = [(libc::SYS_preadv, Fault::Short(100)), (libc::SYS_preadv, then)];
        let tracer = inject(&guest.task("blk0"), &plan);
        // What the buffer had is there, but for the bytes that came.
        guest.orders(&[("read 0 0 8", "1 mixed")]);
        tracer.join().unwrap();
        guest.orders(&[("read 0 0 8", "0 9")]);
    }
    let expected = [("read", "Input/output error", 1), ("read", "only 100 of 4096 bytes moved", 1)];
    guest.end().exit_code(0).host_errors("blk0", &expected);
}

/// Entropy that comes in pieces is all there; where it fails, the guest gets none, and is told so.
#[test]
fn entropy_is_whole_or_none() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut command = cvmm(folder.path());
    command.arg("--rng");
    let mut guest = Guest::start(command, folder.path());
    let (task, source) = (guest.task("rng0"), Some(guest.descriptor("/dev/urandom")));
    let (whole, none) = ("512 64", "0 0");
    guest.orders(&[("random 512", whole)]);
    let interrupted = error(Errno::EINTR);
    for (faults, answer) in [
        ([interrupted, Fault::Few(1), interrupted], whole),
        ([Fault::Few(8), Fault::Few(8), Fault::Few(100)], whole),
        ([Fault::Few(8), interrupted, error(Errno::EIO)], none),
        // The end of it.
        ([Fault::Few(8), Fault::Few(8), Fault::Few(0)], none),
    ] {
        let tracer = inject_into(&task, source, &faults.map(|fault| (libc::SYS_read, fault)));
        guest.orders(&[("random 512", answer)]);
        tracer.join().unwrap();
        guest.orders(&[("random 512", whole)]);
    }
    let expected = [("read", "Input/output error", 1), ("read", "failed to fill whole buffer", 1)];
    guest.end().exit_code(0).host_errors("rng0", &expected);
}

/// The guest does not notice.
#[test]
fn calls_that_are_interrupted_or_cut_short_go_on() {
    let Some((mut guest, folder)) = Guest::with_disk_without_io_uring() else { return };
    let interrupted = error(Errno::EINTR);
    for (order, answer, call, faults) in [
        ("write 0 0 64 3", "0", libc::SYS_pwritev, [Fault::Short(1), interrupted, Fault::Short(8193)]),
        ("read 0 0 64", "0 3", libc::SYS_preadv, [interrupted, Fault::Short(511), Fault::Short(20_000)]),
        ("flush 0", "0", libc::SYS_fdatasync, [interrupted, interrupted, Fault::None]),
        ("zero 0 64 8", "0", libc::SYS_fallocate, [interrupted, interrupted, Fault::None]),
        ("discard 0 72 8", "0", libc::SYS_fallocate, [interrupted, interrupted, Fault::None]),
    ] {
        let tracer = inject(&guest.task("blk0"), &faults.map(|fault| (call, fault)));
        guest.orders(&[(order, answer)]);
        tracer.join().unwrap();
    }
    let image = std::fs::read(folder.path().join("disk")).unwrap();
    assert!(image[..64 * 512].iter().all(|byte| *byte == 3));
    guest.end().exit_code(0).host_errors("blk0", &[]);
}

/// The waits of the event loops, and KVM_RUN.
#[test]
fn waits_that_are_interrupted_are_waited_again() {
    let Some((mut guest, _folder)) = Guest::with_disk() else { return };
    for (thread, call, errno) in [
        ("blk0", libc::SYS_epoll_wait, Errno::EINTR),
        ("vcpu0", libc::SYS_ioctl, Errno::EINTR),
        ("vcpu0", libc::SYS_ioctl, Errno::EAGAIN),
    ] {
        let tracer = inject(&guest.task(thread), &[(call, error(errno)); 5]);
        guest.orders(&[("work 0 16", "all well")]);
        tracer.join().unwrap();
    }
    // The main thread waits for input, and hands it on.
    let tracer = inject(&guest.task("cvmm"), &[(libc::SYS_epoll_wait, error(Errno::EINTR)); 2]);
    guest.orders(&[("read 0 100 1", "0 0"), ("read 0 101 1", "0 0")]);
    tracer.join().unwrap();
    guest.end().exit_code(0).host_errors("blk0", &[]);
}

/// Input that is not there after all comes later, and has not ended.
#[test]
fn a_read_of_the_console_that_is_interrupted_is_read_again() {
    let Some((mut guest, _folder)) = Guest::with_disk() else { return };
    for errno in [Errno::EINTR, Errno::EAGAIN] {
        let tracer = inject(&guest.task("cvmm"), &[(libc::SYS_read, error(errno)); 2]);
        guest.orders(&[("read 0 0 1", "0 0"), ("read 0 1 1", "0 0")]);
        tracer.join().unwrap();
    }
    guest.end().exit_code(0);
}

/// The last flush, and the report into a pipe that is full for a while: it is all there.
#[test]
fn the_end_of_a_run_that_is_interrupted_is_an_end_in_order() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let report = folder.path().join("report");
    mkfifo(&report, Mode::S_IRWXU).unwrap();
    let mut reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&report).unwrap();
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut command = cvmm(folder.path());
    // Devices, so that the report is longer than the pipe.
    command.arg(blk(&place::image(folder.path(), 128))).args(["--rng"; 4]);
    let mut guest = Guest::start(command, folder.path());
    let interrupted = error(Errno::EINTR);
    let plan = [
        (libc::SYS_fdatasync, interrupted),
        (libc::SYS_fdatasync, Fault::None),
        (libc::SYS_write, interrupted),
        (libc::SYS_write, Fault::Few(100)),
        (libc::SYS_poll, interrupted),
        (libc::SYS_poll, error(Errno::EAGAIN)),
    ];
    let tracer = inject(&guest.task("cvmm"), &plan);
    guest.tell("end");
    tracer.join().unwrap();
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    guest.wait().exit_code(0);
    assert!(text.len() > 4096, "the pipe was never full: {text}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["outcome"]["exit_code"], 0, "{report:#}");
}

/// A flush is fdatasync, and nothing is fdatasync but a flush: before it, writes are in the page cache only. Without this,
/// no test that kills cvmm and then looks at the image could fail, since the page cache outlives a process.
#[test]
fn a_flush_is_an_fdatasync() {
    let Some((mut guest, _folder)) = Guest::with_disk() else { return };
    let tracer = inject(&guest.task("blk0"), &[(libc::SYS_fdatasync, Fault::None); 2]);
    guest.orders(&[("write 0 0 8 1", "0"), ("write 0 8 8 2", "0"), ("flush 0", "0")]);
    guest.orders(&[("write 0 0 8 3", "0"), ("flush 0", "0")]);
    let seen = tracer.join().unwrap().into_iter();
    let data: Vec<_> = seen.filter(|call| [libc::SYS_pwritev, libc::SYS_fdatasync].contains(call)).collect();
    let (write, flush) = (libc::SYS_pwritev, libc::SYS_fdatasync);
    assert_eq!(data, [write, write, flush, write, flush]);
    guest.end().exit_code(0);
}

/// What Linux could not write back once, it takes for written: the next fdatasync succeeds. So a flush that has failed
/// fails from then on, the one at the end of the run too, and cvmm says so. The other disk is flushed all the same.
#[test]
fn after_a_flush_that_failed_no_flush_succeeds() {
    if !kvm() {
        return;
    }
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut command = cvmm(folder.path());
    command.arg(blk(&place::image(folder.path(), 128))).arg(blk(&place::image(other.path(), 128)));
    let mut guest = Guest::start(command, folder.path());
    let tracer = inject(&guest.task("blk0"), &[(libc::SYS_fdatasync, error(Errno::EIO))]);
    guest.orders(&[("write 0 0 8 1", "0"), ("flush 0", "1")]);
    tracer.join().unwrap();
    guest.orders(&[("flush 0", "1"), ("write 0 0 8 1", "0"), ("flush 0", "1"), ("read 0 0 8", "0 1")]);
    guest.orders(&[("write 1 0 8 1", "0"), ("flush 1", "0")]);
    let tracer = inject(&guest.task("cvmm"), &[(libc::SYS_fdatasync, Fault::None)]);
    guest.tell("end");
    // Before the wait for the end, which would take the tracer's events.
    tracer.join().unwrap();
    let ended = guest.wait();
    ended.exit_code(1).host_errors("blk0", &[("flush", "Input/output error", 3)]).host_errors("blk1", &[]);
    let detail = ended.detail();
    assert!(detail.contains("disk can't be flushed: Input/output error"), "{detail}");
    assert!(detail.ends_with("the guest powered itself off (power control register)"), "{detail}");
}

/// The flush at the end of the run that fails for the first time.
#[test]
fn the_last_flush_is_not_silent_either() {
    let Some((mut guest, _folder)) = Guest::with_disk() else { return };
    guest.orders(&[("write 0 0 8 1", "0")]);
    let tracer = inject(&guest.task("cvmm"), &[(libc::SYS_fdatasync, error(Errno::EIO))]);
    guest.tell("end");
    // Before the wait for the end, which would take the tracer's events.
    tracer.join().unwrap();
    let ended = guest.wait();
    ended.exit_code(1);
    assert!(ended.detail().contains("disk can't be flushed: Input/output error"), "{}", ended.detail());
}
