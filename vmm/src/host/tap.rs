// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Taps (Linux, Documentation/networking/tuntap.rst).

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use cvmm_devices::net::{HEADER_LEN, MIN_MTU, ReceiveOffloads, Tap};
use vm_memory::VolatileSlice;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

use super::iovec::{count, retry, transfer_once};
use super::link::{Link, TapLink};

/// The index of lo, in each network namespace.
const LOOPBACK: libc::c_int = 1;

/// A tap that this process is attached to, or one queue of it.
#[derive(Debug)]
pub struct HostTap(File);

/// All that is needed of a tap.
#[derive(Debug)]
pub struct Opened {
    /// Its queues: the first is attached, the others wait for the driver.
    pub queues: Vec<HostTap>,
    /// Its MTU now.
    pub mtu: u16,
    /// Whether it is up now.
    pub up: bool,
}

impl HostTap {
    /// Attaches to the existing tap `name` of this process's network namespace, with this number of queues. A name that
    /// does not exist is refused, and no device of that name is made.
    ///
    /// # Errors
    /// What is wrong, for a message that names the option.
    pub fn open(name: &str, queues: u16) -> Result<Opened, String> {
        if !is_name(name) {
            return Err(format!("'{name}' can't be the name of a network device"));
        }
        let (_, tap) = find(name, queues)?;
        if queues > 1 && !tap.multi_queue {
            return Err(format!(
                "the tap '{name}' can have one queue only, not {queues}; make it again with: ip tuntap del dev {name} \
                 mode tap && {}",
                how_to_make(name, queues)
            ));
        }
        let mut opened = (0..queues)
            .map(|_| Self::open_queue(name, queues, tap.multi_queue))
            .collect::<Result<Vec<_>, String>>()?;
        // As it is now that it is ours: another one may have had the name before.
        let (link, tap) = find(name, queues)?;
        let mtu = mtu(name, link.mtu)?;
        // A tap of several queues takes several programs, and gives each of them some of the frames.
        if tap.queues > u32::from(queues) {
            return Err(busy(name));
        }
        for queue in opened.iter_mut().skip(1).rev() {
            queue
                .attach(false)
                .map_err(|error| format!("a queue of the tap '{name}' can't be detached: {error}"))?;
        }
        Ok(Opened { queues: opened, mtu, up: link.up })
    }

    /// What makes the network device `name` the same one by each of its names; `None` if there is none.
    pub fn index(name: &str) -> Option<u32> {
        // An error is told when it is attached to.
        if is_name(name) { Link::find(name).ok().flatten().map(|link| link.index) } else { None }
    }

    /// Attaches one of so many queues.
    fn open_queue(name: &str, queues: u16, multi_queue: bool) -> Result<Self, String> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(|error| format!("/dev/net/tun can't be opened: {error}"))?;
        // The kernel wants to hear what the tap is, also for one queue of a tap of several.
        let flags = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
        match attach(&file, name, flags) {
            Ok(()) => Ok(Self(file)),
            Err(error) => {
                // It may be gone by now.
                find(name, queues)?;
                Err(match error.raw_os_error() {
                    Some(libc::EBUSY) => busy(name),
                    Some(libc::EPERM) => format!("the tap '{name}' belongs to another user: {error}"),
                    _ => format!("cvmm can't attach to the tap '{name}': {error}"),
                })
            }
        }
    }
}

/// Whether the kernel lets a network device have this name.
fn is_name(name: &str) -> bool {
    let letter = |c: char| !matches!(c, '/' | ':' | '\0') && !c.is_whitespace();
    (1..libc::IFNAMSIZ).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(letter)
}

/// The tap `name`, for so many queues.
fn find(name: &str, queues: u16) -> Result<(Link, TapLink), String> {
    let mut link = Link::find(name)
        .map_err(|error| format!("the kernel can't be asked for the network device '{name}': {error}"))?
        .ok_or_else(|| {
            format!("there is no network device '{name}'; make it with: {}", how_to_make(name, queues))
        })?;
    let tap = link.tap.take().ok_or_else(|| format!("the network device '{name}' is not a tap"))?;
    Ok((link, tap))
}

fn how_to_make(name: &str, queues: u16) -> String {
    let multi_queue = if queues > 1 { " multi_queue" } else { "" };
    format!("ip tuntap add dev {name} mode tap{multi_queue} && ip link set {name} up")
}

fn busy(name: &str) -> String {
    format!("the tap '{name}' is busy: another program is attached to it")
}

/// The MTU that the guest is told of.
fn mtu(name: &str, of_tap: u32) -> Result<u16, String> {
    u16::try_from(of_tap).ok().filter(|mtu| *mtu >= MIN_MTU).ok_or_else(|| {
        format!(
            "the tap '{name}' has an MTU of {of_tap} bytes, and the device has {MIN_MTU} to {}; set it with: \
             ip link set {name} mtu 1500",
            u16::MAX
        )
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request to the device `name`, or, without a name, to the one that a file is attached to.
fn request(name: &str, flags: libc::c_int) -> io::Result<libc::ifreq> {
    // SAFETY: an ifreq is plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    Ok(request)
}

/// Attaches `file` to a tap that exists.
fn attach(file: &File, name: &str, multi_queue: libc::c_int) -> io::Result<()> {
    // TUNSETIFF would make a tap that is gone. A new device with the index of another one can't be made.
    // SAFETY: TUNSETIFINDEX reads one int.
    check(unsafe { ioctl_with_ref(file, libc::TUNSETIFINDEX, &LOOPBACK) })?;
    let mut request = request(name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | multi_queue)?;
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    check(unsafe { ioctl_with_mut_ref(file, libc::TUNSETIFF, &mut request) })?;
    let header = libc::c_int::try_from(HEADER_LEN).map_err(io::Error::other)?;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    check(unsafe { ioctl_with_ref(file, libc::TUNSETVNETHDRSZ, &header) })
}

impl Tap for HostTap {
    fn attach(&mut self, attached: bool) -> io::Result<()> {
        let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        let request = request("", flag)?;
        // SAFETY: TUNSETQUEUE reads one ifreq.
        check(unsafe { ioctl_with_ref(&self.0, libc::TUNSETQUEUE, &request) })
    }

    fn set_offloads(&mut self, offloads: ReceiveOffloads) -> io::Result<()> {
        let ReceiveOffloads { csum, tso4, tso6, ecn } = offloads;
        let flags = [
            (csum, libc::TUN_F_CSUM),
            (tso4, libc::TUN_F_TSO4),
            (tso6, libc::TUN_F_TSO6),
            (ecn && (tso4 || tso6), libc::TUN_F_TSO_ECN),
        ];
        let flags = flags.into_iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag);
        // SAFETY: TUNSETOFFLOAD takes flags by value.
        check(unsafe { ioctl_with_val(&self.0, libc::TUNSETOFFLOAD, flags.into()) })
    }

    fn receive(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<usize> {
        let fd = self.0.as_raw_fd();
        transfer_once(frame, |vectors| {
            // SAFETY: the vectors are slices of pool memory and of the device's own, mapped for as long as they live.
            retry(|| unsafe { libc::readv(fd, vectors.as_ptr(), count(vectors)) })
        })
    }

    fn send(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<()> {
        let fd = self.0.as_raw_fd();
        transfer_once(frame, |vectors| {
            // SAFETY: the vectors are slices of pool memory, mapped for as long as they live; the kernel only reads.
            retry(|| unsafe { libc::writev(fd, vectors.as_ptr(), count(vectors)) })
        })
        .map(|_| ())
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
