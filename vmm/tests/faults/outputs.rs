// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Console and report that can't be written: the guest runs on, and the exit code tells.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::guest::{Guest, blk, cvmm, kvm, wait_until};
use crate::place;

/// A console that nobody will ever read again.
#[test]
fn a_closed_console_does_not_stop_the_guest_and_is_told() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let image = place::image(folder.path(), 128);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = cvmm(folder.path());
    let mut guest = Guest::spawn(command.arg(blk(&image)).stdout(writer), folder.path());
    guest.tell("write 0 0 8 7");
    let ended = guest.end();
    ended.exit_code(1);
    let expected = "some console output was lost: Broken pipe (os error 32); before that: \
                    the guest powered itself off (power control register)";
    assert_eq!(ended.detail(), expected);
    assert_eq!(
        ended.log.lines().filter(|line| line.contains("the console can't be written: Broken pipe")).count(),
        1,
        "{}",
        ended.log
    );
    assert!(fs::read(image).unwrap()[..8 * 512].iter().all(|byte| *byte == 7));
}

#[test]
fn a_console_on_a_full_disk_is_told() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut command = cvmm(folder.path());
    let guest = Guest::spawn(command.args(["--console", "file=/dev/full"]), folder.path());
    wait_until("a word of it in the log", || {
        fs::read_to_string(folder.path().join("log")).unwrap().contains("the console can't be written")
    });
    guest.signal(Signal::SIGTERM);
    let ended = guest.wait();
    ended.exit_code(1);
    let detail = ended.detail();
    assert!(detail.contains("No space left on device") && detail.ends_with("stopped by SIGTERM"), "{detail}");
}

/// A pipe that takes no more and does not wait, as a parent may have made it: the guest waits, and not a byte is lost.
#[test]
fn a_console_that_would_block_is_waited_for() {
    const ORDERS: usize = 800;
    if !kvm() {
        return;
    }
    for stopped in [false, true] {
        let folder = TempDir::new().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut command = cvmm(folder.path());
        command.arg(blk(&place::image(folder.path(), 128))).stdout(OwnedFd::from(writer));
        let mut guest = Guest::spawn(&mut command, folder.path());
        drop(command);
        for _ in 0..ORDERS {
            guest.tell("read 0 0 1");
        }
        // It waits in poll (Linux, proc_pid_syscall(5)).
        let call = format!("{} ", libc::SYS_poll);
        let in_poll =
            |task: std::path::PathBuf| fs::read_to_string(task.join("syscall")).unwrap().starts_with(&call);
        wait_until("a full pipe", || guest.find_task("vcpu0").is_some_and(in_poll));
        if stopped {
            guest.signal(Signal::SIGTERM);
            guest.wait().exit_code(6);
            continue;
        }
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "= ready");
        for number in 0..ORDERS {
            assert_eq!(lines.next().unwrap(), "= 0 0", "answer {number}");
        }
        guest.end().exit_code(0);
    }
}

#[test]
fn a_report_on_a_full_disk_is_exit_code_1() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("report")).unwrap();
    let ended = Guest::start(cvmm(folder.path()), folder.path()).end();
    ended.exit_code(1);
    assert!(ended.log.contains("--report: it can't be written: No space left on device"), "{}", ended.log);
}

/// RLIMIT_FSIZE is no death by SIGXFSZ: a request behind the limit is an error like others. It is lowered while the guest
/// runs: at the start, the image would be refused.
#[test]
fn a_limit_of_file_sizes_is_an_io_error() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let image = place::image(folder.path(), 16384);
    let mut cvmm = cvmm(folder.path());
    cvmm.arg(blk(&image)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log(folder.path()));
    let mut guest = Guest::start(cvmm, folder.path());
    limit_files(guest.child.id(), 8192 * 512);
    // The last one is cut short by the limit, and the rest of it is refused.
    guest.orders(&[("write 0 8191 1 7", "0"), ("write 0 8192 8 7", "1"), ("write 0 8188 8 7", "1")]);
    guest.orders(&[("read 0 8191 1", "0 7"), ("read 0 8192 8", "0 0"), ("flush 0", "0")]);
    guest.end().exit_code(0).host_errors("blk0", &[("write", "File too large", 2)]);
}

/// A pool is a file, too.
#[test]
fn a_pool_that_is_larger_than_a_file_may_be_is_told() {
    if !kvm() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let cvmm = cvmm(folder.path());
    let mut limited = Command::new("sh");
    // Blocks of 512 bytes.
    limited.args(["-c", "ulimit -f 2048; exec \"$@\"", "sh"]).arg(cvmm.get_program()).args(cvmm.get_args());
    let output = limited.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let expected = "can't be made: File too large (os error 27): it has 2097152 bytes, and 1048576 are the limit of this \
                    process for a file (see ulimit -f)\n";
    assert!(said.ends_with(expected), "{said}");
}

/// From now on, files of `process` may have so many bytes.
#[allow(unsafe_code)]
fn limit_files(process: u32, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the call reads the limit and writes none.
    let result =
        unsafe { libc::prlimit(process.cast_signed(), libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn log(folder: &Path) -> File {
    File::create(folder.join("log")).unwrap()
}
