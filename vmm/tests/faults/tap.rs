// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A tap that goes down, one that goes away, one whose calls fail, and one whose frames are large.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use tempfile::TempDir;

use crate::guest::{Ended, Guest, blk, cvmm, kvm, wait_until};
use crate::inject::{Fault, inject_into};
use crate::place;

const TUN: &str = "/dev/net/tun";

/// A guest on the tap t0, with a disk.
fn start() -> Option<(Guest, TempDir)> {
    start_with_mtu("1500")
}

/// The same, where the tap's MTU is another one.
fn start_with_mtu(mtu: &str) -> Option<(Guest, TempDir)> {
    if !kvm() || !place::enter() {
        return None;
    }
    place::tap("t0");
    place::ip(&["link", "set", "t0", "mtu", mtu]);
    let folder = TempDir::new().unwrap();
    let mut command = cvmm(folder.path());
    command.args(["--net", "tap=t0"]).arg(blk(&place::image(folder.path(), 128)));
    Some((Guest::start(command, folder.path()), folder))
}

/// Frames that the host has had from the guest.
fn arrived() -> u64 {
    statistic("rx_packets")
}

/// Frames that cvmm has had from the host.
fn taken() -> u64 {
    statistic("tx_packets")
}

fn statistic(name: &str) -> u64 {
    fs::read_to_string(format!("/sys/class/net/t0/statistics/{name}")).unwrap().trim().parse().unwrap()
}

fn error(errno: Errno) -> Fault {
    Fault::Error(errno as i32)
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

/// The guest does not notice, in either direction.
#[test]
fn a_tap_that_is_interrupted_loses_no_frame() {
    let Some((mut guest, _folder)) = start() else { return };
    let (task, tap) = (guest.task("net0"), Some(guest.descriptor(TUN)));
    let twice = |call| [(call, error(Errno::EINTR)), (call, error(Errno::EINTR)), (call, Fault::None)];
    let tracer = inject_into(&task, tap, &twice(libc::SYS_writev));
    guest.orders(&[("send 100", "sent")]);
    // Before the wait for a plan that might never end.
    assert_eq!(arrived(), 1);
    tracer.join().unwrap();
    let (host, guests) = host();
    let tracer = inject_into(&task, tap, &twice(libc::SYS_readv));
    host.send_to(&[7; 10], guests).unwrap();
    wait_until("the frame", || taken() == 1);
    tracer.join().unwrap();
    received(guest, 1, &[]);
}

/// A frame that the tap does not take is lost, and counted; one that it does not give comes with the next.
#[test]
fn a_tap_that_fails_once_goes_on() {
    let Some((mut guest, _folder)) = start() else { return };
    let (task, tap) = (guest.task("net0"), Some(guest.descriptor(TUN)));
    for errno in [Errno::EIO, Errno::ENOMEM, Errno::EAGAIN] {
        let tracer = inject_into(&task, tap, &[(libc::SYS_writev, error(errno))]);
        guest.orders(&[("send 100", "sent"), ("send 100", "sent"), ("work 0 4", "all well")]);
        tracer.join().unwrap();
    }
    assert_eq!(arrived(), 3);
    let (host, guests) = host();
    // With nothing to say of one that is not there after all.
    for (errno, before) in [(Errno::EIO, 0), (Errno::EAGAIN, 2)] {
        let tracer = inject_into(&task, tap, &[(libc::SYS_readv, error(errno))]);
        host.send_to(&[7; 10], guests).unwrap();
        tracer.join().unwrap();
        guest.orders(&[("work 0 4", "all well")]);
        host.send_to(&[7; 10], guests).unwrap();
        wait_until("both frames", || taken() == before + 2);
    }
    let text = |errno: Errno| std::io::Error::from(errno).to_string();
    let [io, memory, full] = [Errno::EIO, Errno::ENOMEM, Errno::EAGAIN].map(text);
    let expected = [("send", &*io, 1), ("send", &*memory, 1), ("send", &*full, 1), ("receive", &*io, 1)];
    received(guest, 4, &expected);
}

/// Who sends to the guest, and where to.
fn host() -> (UdpSocket, SocketAddr) {
    let guests = place::neighbour("t0");
    (UdpSocket::bind("192.168.91.1:0").unwrap(), guests)
}

/// The guest has had so many frames of ten bytes, whole, and cvmm tells of these errors.
fn received(guest: Guest, frames: u64, errors: &[(&str, &str, u64)]) {
    received_bytes(guest, frames * written(10), errors);
}

/// What is written into the pool for a frame with so many bytes of UDP: the header of virtio_net, Ethernet's, IP's, UDP's,
/// the data; and num_buffers, which is written last.
fn written(bytes: u64) -> u64 {
    12 + 14 + 20 + 8 + bytes + 2
}

fn received_bytes(guest: Guest, bytes: u64, errors: &[(&str, &str, u64)]) {
    let ended = guest.end();
    ended.exit_code(0).host_errors("net0", errors);
    let devices = ended.report["devices"].as_array().unwrap();
    let net = devices.iter().find(|device| device["name"] == "net0").unwrap();
    assert_eq!(net["dma"]["written"]["bytes"], bytes, "{net:#}");
}

/// Packets of the MTU go both ways in one frame; the guest has no mergeable buffers.
#[test]
fn frames_of_9000_bytes_go_both_ways() {
    let Some((mut guest, _folder)) = start_with_mtu("9000") else { return };
    guest.orders(&[("mtu", "9000"), ("send 9026", "sent"), ("send 100", "sent")]);
    assert_eq!((arrived(), statistic("rx_bytes")), (2, 9014 + 88));
    let (host, guests) = host();
    // Without the headers of IP and UDP.
    const LARGEST: u16 = 9000 - 20 - 8;
    for bytes in [LARGEST, LARGEST - 1] {
        host.send_to(&vec![7; bytes.into()], guests).unwrap();
    }
    wait_until("both packets", || taken() == 2);
    let largest = written(LARGEST.into());
    received_bytes(guest, largest + largest - 1, &[]);
}

/// virtio 1.3, 5.1.4.1: the MTU that the driver knows stays, and it is given nothing that is larger. What is behind the headers
/// of a frame that is lost was in its buffers, which the next frame got.
#[test]
fn a_tap_whose_mtu_is_raised_gives_no_larger_frames() {
    let Some((mut guest, _folder)) = start() else { return };
    guest.orders(&[("mtu", "1500")]);
    place::ip(&["link", "set", "t0", "mtu", "9000"]);
    guest.orders(&[("mtu", "1500")]);
    let (host, guests) = host();
    for bytes in [1472, 1473, 8000, 10] {
        host.send_to(&vec![7; bytes], guests).unwrap();
    }
    wait_until("all packets", || taken() == 4);
    let lost = |bytes| written(bytes) - 2 - 12 - 14;
    received_bytes(guest, written(1472) + lost(1473) + lost(8000) + written(10), &[]);
}

/// Sysfs shows the network in which it was mounted; cvmm is in another one.
#[test]
fn a_tap_is_found_where_sysfs_does_not_show_it() {
    if !kvm() || !place::enter() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let on_t0 = || {
        let mut command = cvmm(folder.path());
        command.args(["--net", "tap=t0"]);
        command
    };
    let refused = on_t0().output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("there is no network device 't0'; make it with: ip tuntap add"), "{log}");
    place::tap_alone("t0");
    assert!(!Path::new("/sys/class/net/t0").exists());
    let mut guest = Guest::start(on_t0(), folder.path());
    guest.orders(&[("send 100", "sent")]);
    guest.end().exit_code(0).host_errors("net0", &[]);
}

/// `ended` has this one warning, in the log and in the report.
fn warned(ended: &Ended, begins: &str) {
    let [warning] = &ended.report["warnings"].as_array().unwrap()[..] else { panic!("{:#}", ended.report) };
    let warning = warning.as_str().unwrap();
    assert!(warning.starts_with(begins), "{warning}");
    assert!(ended.log.contains(warning), "{}", ended.log);
}

/// The end of a guest on the taps t0 and t1, which are up until `prepare` is done; each has these options, too.
fn on_two_taps(options: &str, prepare: impl FnOnce()) -> Option<Ended> {
    if !kvm() || !place::enter() {
        return None;
    }
    let folder = TempDir::new().unwrap();
    let mut command = cvmm(folder.path());
    for tap in ["t0", "t1"] {
        place::tap_alone(tap);
        command.args(["--net", &format!("tap={tap}{options}")]);
    }
    prepare();
    Some(Guest::start(command, folder.path()).end())
}

#[test]
fn two_devices_with_one_mac_are_warned_of() {
    let Some(ended) = on_two_taps(",mac=02:00:00:00:00:01", || {}) else { return };
    warned(&ended, "net0 and net1 have the same MAC address, 02:00:00:00:00:01: ");
}

#[test]
fn a_tap_that_is_down_at_the_start_is_warned_of() {
    let Some(ended) = on_two_taps("", || place::ip(&["link", "set", "t1", "down"])) else { return };
    warned(&ended, "the tap 't1' of net1 is down, and passes no frames; set it up with: ip link set t1 up");
}
