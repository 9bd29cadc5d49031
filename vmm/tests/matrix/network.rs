// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A network of its own for a run, with taps in it, and all that the guest sends into them.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cvmm_hostile::table::ANSWERS;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::{libc, setsockopt_impl, sockopt_impl};

/// Runs the rest of its arguments where sysfs shows this network, once there are taps t0, t1, ... The kernel answers ARP on
/// them, and says nothing by itself.
const WITH_TAPS: &str = "mount -t sysfs sysfs /sys && ip addr add \"$1/32\" dev lo && ip link set lo up && \
                         for all in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $all || exit 1; done && \
                         for tap in $(seq 0 $(($2 - 1))); do \
                         ip tuntap add dev t$tap mode tap $3 && ip link set t$tap up && \
                         ip route add 192.168.91.$tap dev t$tap && \
                         ip neigh replace 192.168.91.$tap lladdr 02:00:00:00:00:01 dev t$tap || exit 1; done && shift 3 && exec \"$@\"";

sockopt_impl!(
    /// Not what this machine sends itself (Linux 4.20, include/uapi/linux/if_packet.h).
    IgnoreOutgoing, SetOnly, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, bool
);

/// Room for what is sent between two looks at it.
const ROOM: usize = 16 << 20;

/// A command that runs `program` with `taps` taps, for the network that its caller is in.
pub fn with_taps(program: &Path, taps: usize, pairs: usize) -> Command {
    let address = ANSWERS.map(|part| part.to_string()).join(".");
    let several = if pairs > 1 { "multi_queue" } else { "" };
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", WITH_TAPS, "sh", &address, &taps.to_string(), several]).arg(program);
    command
}

/// Calls `run` with a network of its own, in which nothing is yet. None, if this process may not have one.
pub fn alone<T: Send + 'static>(run: impl FnOnce(Capture) -> T + Send + 'static) -> Option<T> {
    // A thread, because it is in that network for the rest of its life, and so is what it starts.
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).ok()?;
        let tries = with_taps(Path::new("true"), 1, 2).stderr(Stdio::null()).status();
        tries.is_ok_and(|status| status.success()).then_some(())?;
        unshare(CloneFlags::CLONE_NEWNET).ok()?;
        Some(run(Capture::start().unwrap()))
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Sends as many frames as it can to the first `taps` taps of the network that its caller is in, until it is dropped. Each
/// looks like the answer to a probe: it has its length, and is for the guest.
pub struct Flood(Arc<AtomicBool>);

impl Flood {
    pub fn start(taps: usize) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let flood = Self(Arc::clone(&ended));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // Nobody is there before the taps are, and a tap that is full takes no more.
                (0..taps).for_each(|tap| drop(socket.send_to(&[], format!("192.168.91.{tap}:9"))));
            }
        });
        flood
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Listens on all interfaces of a network.
pub struct Capture(OwnedFd);

impl Capture {
    fn start() -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
        setsockopt(&socket, IgnoreOutgoing, &true)?;
        Ok(Self(socket))
    }

    /// The frames that arrived since the last call, from the guest alone.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut frame = vec![0; 1 << 17];
        loop {
            match recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => frames.push(frame[..length].to_vec()),
                Err(Errno::EAGAIN) => return frames,
                Err(error) => panic!("the capture ended: {error}"),
            }
        }
    }
}
