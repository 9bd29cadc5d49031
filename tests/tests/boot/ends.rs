// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ends that a run can come to, and their exit codes.

use cvmm_tests::host::Host;
use cvmm_tests::pattern;

use crate::disk::{self, Images};
use crate::guest::{Guest, MIB};

#[test]
fn poweroff_is_exit_code_0() {
    // The other CPU is stopped, too.
    let ended_by = by_itself(2, "cvmm.end=poweroff", 0, "powered-off");
    assert_eq!(ended_by, "the guest powered itself off (power control register)");
}

#[test]
fn reset_is_exit_code_5() {
    let ended_by = by_itself(1, "cvmm.end=reset", 5, "reset");
    assert_eq!(ended_by, "the guest asked for a reset (reset control register)");
}

#[test]
fn panic_is_exit_code_4() {
    let ended_by = by_itself(1, "cvmm.end=panic", 4, "guest-crashed");
    assert!(ended_by.contains("panicked"), "{ended_by}");
}

/// Linux resets the CPU by a triple fault when it is told to: an interrupt without an interrupt table.
#[test]
fn triple_fault_is_exit_code_4() {
    let ended_by = by_itself(1, "cvmm.end=reset reboot=t", 4, "guest-crashed");
    assert!(ended_by.contains("triple fault"), "{ended_by}");
}

/// Lets a guest end itself. Returns the outcome's detail.
fn by_itself(cpus: u64, word: &str, exit_code: i32, kind: &str) -> String {
    let host = Host::shared();
    let ended = Guest::new(&host, "none").cpus(cpus).option("--rng").word(word).run(exit_code, kind);
    ended.passed([]);
    ended.report.assert_honest(&[("rng0", 1)]);
    ended.report.outcome.detail.clone()
}

/// A guest that is stopped while it writes has lost nothing that it knew to be on the disk.
#[test]
fn sigterm_is_exit_code_6_and_the_disk_is_consistent() {
    const SEED: u64 = 40_000;
    let (host, images) = (Host::shared(), Images::new());
    let image = images.ext4("disk", 32 * MIB);
    let mut run = Guest::new(&host, "none")
        .word(format!("cvmm.seed={SEED} cvmm.blk=vda:rw cvmm.end=write"))
        .disk(&image, "disk", "")
        .start();
    run.wait_for("guest-init: safe-20 is on the disk");
    let ended = run.stop(libc::SIGTERM);
    assert!(ended.report.outcome.detail.contains("SIGTERM"), "{:?}", ended.report.outcome);
    ended.report.assert_honest(&[("blk0", 1)]);

    ended.get("disk", &image);
    disk::replay_journal(&image);
    disk::assert_consistent(&image);
    let (number, newest) = newest_safe_file(&ended.process.stdout());
    assert_eq!(newest, format!("65536 bytes, sha256 {}", pattern::sha256(&content(SEED, number))));
    // The guest keeps sixteen, and may have been about to remove the oldest of them.
    for number in number - 14..=number {
        let name = format!("safe-{number}");
        assert!(disk::file(&image, &name) == content(SEED, number), "{name}");
    }
}

#[test]
fn sigint_and_sighup_are_exit_code_6() {
    let host = Host::shared();
    for (signal, name) in [(libc::SIGINT, "SIGINT"), (libc::SIGHUP, "SIGHUP")] {
        let mut run = Guest::new(&host, "none").start();
        run.wait_for("Linux version");
        let ended = run.stop(signal);
        assert!(ended.report.outcome.detail.contains(name), "{:?}", ended.report.outcome);
    }
}

#[test]
fn the_quit_key_is_exit_code_6() {
    let host = Host::shared();
    let mut run = Guest::new(&host, "none").terminal().word("cvmm.end=idle").start();
    run.wait_for("guest-init: idle");
    // Ctrl-A alone does nothing; twice it is for the guest.
    run.process.control().input(b"x\x01\x01x").unwrap();
    run.process.control().input(b"\x01x").unwrap();
    let ended = run.end(6, "stopped");
    assert!(ended.report.outcome.detail.contains("quit key"), "{:?}", ended.report.outcome);
}

/// The file that `cvmm.end=write` writes as number `number`.
pub fn content(seed: u64, number: u64) -> Vec<u8> {
    pattern::bytes(seed + number, 64 * 1024)
}

/// The last file that the guest announced on its console: its number, its size and hash.
pub fn newest_safe_file(stdout: &str) -> (u64, String) {
    let announced = |line: &str| {
        let (number, rest) = line.strip_prefix("guest-init: safe-")?.split_once(" is on the disk, ")?;
        // The very last line may be cut off in the middle.
        (rest.len() == "65536 bytes, sha256 ".len() + 64).then(|| (number.parse().unwrap(), rest.to_owned()))
    };
    stdout.lines().filter_map(announced).next_back().unwrap()
}
