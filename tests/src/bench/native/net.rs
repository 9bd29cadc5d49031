// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A tap, and frames for the guest: as many as it takes, and few more.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use cvmm_hostile::frame::{self, HEADERS};

use crate::host::{Host, Tap};

/// The tap.
pub const TAP: &str = "cvmm-native";
/// For documentation (RFC 5737): nobody has it.
const ADDRESS: &str = "192.0.2.1/32";
/// Bytes of `struct virtio_net_hdr` before a frame on a packet socket (packet(7), linux/if_packet.h).
const HEADER: usize = 10;
const PACKET_VNET_HDR: libc::c_int = 15;
/// Frames between two looks at how many the guest took, and how many it may have to take: a tap has room for 1000.
const BATCH: u64 = 64;
const AHEAD: u64 = 512;

/// A tap that stays as long as this.
#[derive(Debug)]
pub struct Net {
    _tap: Tap,
}

impl Net {
    /// Makes it, as root.
    pub fn new(host: &Host) -> Result<Self> {
        let tap = host.tap(TAP, ADDRESS)?;
        // The host is to say nothing by itself.
        fs::write(format!("/proc/sys/net/ipv6/conf/{TAP}/disable_ipv6"), "1").context("disable_ipv6")?;
        Ok(Self { _tap: tap })
    }

    /// Frames that have come from the guest.
    pub fn sent(&self) -> Result<u64> {
        statistic("rx_packets")
    }

    /// Has always another frame of this length for the guest, until it is dropped.
    pub fn generate(&self, length: u32) -> Result<Frames> {
        let mut socket = socket()?;
        let (header, start) = frame::start(length);
        let mut frame = vec![0; HEADER + usize::try_from(length)?];
        frame[..HEADER].copy_from_slice(&header[..HEADER]);
        let start = &start[..HEADERS.min(frame.len() - HEADER)];
        frame[HEADER..HEADER + start.len()].copy_from_slice(start);
        let ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let _ = feed(&mut socket, &frame, &ends);
                // Nobody is at the other end, or its queue is full.
                thread::yield_now();
            }
        });
        Ok(Frames { ended, thread: Some(thread) })
    }
}

/// A thread that sends.
#[derive(Debug)]
pub struct Frames {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends until something fails or is dropped, no faster than the guest takes it.
fn feed(socket: &mut File, frame: &[u8], ended: &AtomicBool) -> Result<()> {
    let gone = || Ok::<_, anyhow::Error>(statistic("tx_packets")? + statistic("tx_dropped")?);
    let (start, mut sent) = (gone()?, 0);
    while !ended.load(Ordering::Relaxed) {
        if sent > AHEAD + (gone()? - start) {
            thread::yield_now();
            continue;
        }
        for _ in 0..BATCH {
            socket.write_all(frame)?;
            sent += 1;
        }
    }
    Ok(())
}

fn statistic(name: &str) -> Result<u64> {
    let path = format!("/sys/class/net/{TAP}/statistics/{name}");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    text.trim().parse().context(path)
}

/// A socket that sends frames into the tap, each after virtio's header.
fn socket() -> Result<File> {
    let name = CString::new(TAP)?;
    // SAFETY: the call reads the name.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    // Without a protocol it receives nothing.
    // SAFETY: the call reads no memory.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    check(socket).context("a packet socket")?;
    // SAFETY: the call has made this descriptor, and nobody else has it.
    let socket = unsafe { File::from_raw_fd(socket) };
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>())?;
    // SAFETY: the option is an integer, and this is one.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_VNET_HDR,
            (&raw const on).cast(),
            length,
        )
    })
    .context("PACKET_VNET_HDR")?;
    let address = libc::sockaddr_ll {
        sll_family: libc::sa_family_t::try_from(libc::AF_PACKET)?,
        sll_protocol: 0,
        sll_ifindex: index.try_into()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: the address has the length that is said.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })
        .context("cannot send to the tap")?;
    Ok(socket)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
