// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Taps (Linux, Documentation/networking/tuntap.rst).

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cvmm_devices::net::{HEADER_LEN, ReceiveOffloads, Tap};
use vm_memory::VolatileSlice;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

use super::iovec::{count, retry, transfer_once};

/// A tap that this process is attached to, or one queue of it.
#[derive(Debug)]
pub struct HostTap(File);

impl HostTap {
    /// Attaches to the existing tap `name` with this number of queues; then the first stays attached, and the others
    /// wait for the driver. A name that does not exist is refused: the kernel would make a new, unconnected device of
    /// that name.
    ///
    /// # Errors
    /// What is wrong, for a message that names the option.
    pub fn open(name: &str, queues: u16) -> Result<Vec<Self>, String> {
        if name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) || name.starts_with('.') {
            return Err(format!("'{name}' is no name of a network device"));
        }
        let device = Path::new("/sys/class/net").join(name);
        let multi_queue = if queues > 1 { " multi_queue" } else { "" };
        let make = format!("ip tuntap add dev {name} mode tap{multi_queue} && ip link set {name} up");
        if !device.exists() {
            return Err(format!("there is no network device '{name}'; make it with: {make}"));
        }
        let flags = tun_flags(&device)
            .filter(|flags| flags & libc::IFF_TAP != 0)
            .ok_or_else(|| format!("the network device '{name}' is no tap"))?;
        if queues > 1 && flags & libc::IFF_MULTI_QUEUE == 0 {
            return Err(format!(
                "the tap '{name}' can have one queue only, not {queues}; make it anew with: ip tuntap del dev {name} \
                 mode tap && {make}"
            ));
        }
        let mut taps =
            (0..queues).map(|_| Self::open_queue(name, flags)).collect::<Result<Vec<_>, String>>()?;
        // A tap of several queues takes several programs, and gives each of them some of the frames.
        if attached_queues(&device).is_some_and(|attached| attached > taps.len()) {
            return Err(busy(name));
        }
        for tap in taps.iter_mut().skip(1).rev() {
            tap.attach(false).map_err(|error| format!("detaching a queue from the tap '{name}': {error}"))?;
        }
        Ok(taps)
    }

    /// Attaches one queue. `flags` are those of the tap.
    fn open_queue(name: &str, flags: libc::c_int) -> Result<Self, String> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(|error| format!("/dev/net/tun can't be opened: {error}"))?;
        // The kernel wants to hear what the tap is, also for one queue of a tap of several.
        attach(&file, name, flags & libc::IFF_MULTI_QUEUE).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => busy(name),
            Some(libc::EPERM) => format!("the tap '{name}' belongs to another user: {error}"),
            _ => format!("attaching to the tap '{name}': {error}"),
        })?;
        Ok(Self(file))
    }
}

fn busy(name: &str) -> String {
    format!("the tap '{name}' is busy: another program is attached to it")
}

/// Flags with which a tun or tap was made; `None` for another device.
fn tun_flags(device: &Path) -> Option<libc::c_int> {
    let text = fs::read_to_string(device.join("tun_flags")).ok()?;
    libc::c_int::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

/// Queues in use, if sysfs has them.
fn attached_queues(device: &Path) -> Option<usize> {
    let queues = fs::read_dir(device.join("queues")).ok()?.flatten();
    Some(queues.filter(|queue| queue.file_name().as_encoded_bytes().starts_with(b"tx-")).count())
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

fn attach(file: &File, name: &str, multi_queue: libc::c_int) -> io::Result<()> {
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

    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(frame) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
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
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tap_is_named() {
        let error = |name, queues| HostTap::open(name, queues).unwrap_err();
        assert!(error("cvmm-none0", 1).contains("ip tuntap add dev cvmm-none0 mode tap &&"));
        assert!(error("cvmm-none0", 2).contains("ip tuntap add dev cvmm-none0 mode tap multi_queue &&"));
        assert!(error("lo", 1).contains("is no tap"));
        assert!(error("../lo", 1).contains("is no name"));
        assert!(error("a-name-that-is-too-long", 1).contains("is no name"));
    }
}
