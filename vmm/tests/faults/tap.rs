// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A tap that goes down, and one that goes away.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::guest::{Guest, blk, cvmm, kvm, wait_until};
use crate::place;

/// A guest on the tap t0, with a disk.
fn start() -> Option<(Guest, TempDir)> {
    if !kvm() || !place::enter() {
        return None;
    }
    place::tap("t0");
    let folder = TempDir::new().unwrap();
    let mut command = cvmm(folder.path());
    command.args(["--net", "tap=t0"]).arg(blk(&place::image(folder.path(), 128)));
    Some((Guest::start(command, folder.path()), folder))
}

/// Frames that the host has had from the guest.
fn arrived() -> u64 {
    fs::read_to_string("/sys/class/net/t0/statistics/rx_packets").unwrap().trim().parse().unwrap()
}

/// How long a thread has run (Linux, Documentation/scheduler/sched-stats.rst).
fn time_on_cpu(task: &Path) -> Duration {
    let text = fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Frames are lost, as on a wire, and counted; when it is up again, the next ones arrive.
#[test]
fn a_tap_that_is_down_loses_frames_and_nothing_else() {
    let Some((mut guest, _folder)) = start() else { return };
    guest.orders(&[("send 100", "sent")]);
    assert_eq!(arrived(), 1);
    place::ip(&["link", "set", "t0", "down"]);
    guest.orders(&[("send 100", "sent"), ("send 1000", "sent"), ("work 0 8", "all well")]);
    place::ip(&["link", "set", "t0", "up"]);
    guest.orders(&[("send 100", "sent"), ("send 100", "sent")]);
    assert_eq!(arrived(), 3);
    guest.end().exit_code(0).host_errors("net0", &[("send", "Input/output error", 2)]);
}

/// Frames that are too short to be any are the guest's error: a tap would say EINVAL to them.
#[test]
fn a_frame_that_is_none_is_no_error_of_the_host() {
    let Some((mut guest, _folder)) = start() else { return };
    guest.orders(&[("send 12", "sent"), ("send 13", "sent"), ("send 25", "sent"), ("send 26", "sent")]);
    wait_until("the one that is a frame", || arrived() == 1);
    guest.end().exit_code(0).host_errors("net0", &[]);
}

/// The guest's frames go nowhere, its disk works, and nobody keeps asking the tap that is gone.
#[test]
fn a_tap_that_is_deleted_keeps_nobody_busy() {
    let Some((mut guest, _folder)) = start() else { return };
    guest.orders(&[("send 100", "sent")]);
    place::ip(&["link", "del", "t0"]);
    let task = guest.task("net0");
    wait_until("the thread of the tap rests", || {
        fs::read_to_string(task.join("stat")).unwrap().contains(") S ")
    });
    let (begin, before) = (Instant::now(), time_on_cpu(&task));
    guest.orders(&[("work 0 300", "all well")]);
    let (elapsed, busy) = (begin.elapsed(), time_on_cpu(&task) - before);
    assert!(busy < elapsed / 20, "{busy:?} of {elapsed:?}");
    guest.orders(&[("send 100", "sent"), ("send 100", "sent"), ("work 0 8", "all well")]);
    let ended = guest.end();
    let gone = "File descriptor in bad state";
    ended.exit_code(0).host_errors("net0", &[("receive", gone, 1), ("send", gone, 2)]);
}
