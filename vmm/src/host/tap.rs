// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Taps (Linux, Documentation/networking/tuntap.rst).

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cvmm_devices::net::{HEADER_LEN, ReceiveOffloads, Tap};
use vm_memory::VolatileSlice;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

use super::iovec::{count, transfer_once};

/// A tap that this process is attached to.
#[derive(Debug)]
pub struct HostTap(File);

impl HostTap {
    /// Attaches to the existing tap `name`. A name that does not exist is refused: the kernel would make a new,
    /// unconnected device of that name.
    ///
    /// # Errors
    /// What is wrong, for a message that names the option.
    pub fn open(name: &str) -> Result<Self, String> {
        if name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) || name.starts_with('.') {
            return Err(format!("'{name}' is no name of a network device"));
        }
        let device = Path::new("/sys/class/net").join(name);
        if !device.exists() {
            return Err(format!(
                "there is no network device '{name}'; make it with: ip tuntap add dev {name} mode tap && ip link \
                 set {name} up"
            ));
        }
        if !device.join("tun_flags").exists() {
            return Err(format!("the network device '{name}' is no tap"));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(|error| format!("/dev/net/tun can't be opened: {error}"))?;
        attach(&file, name).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => format!("the tap '{name}' is busy: another program is attached to it"),
            Some(libc::EPERM) => format!("the tap '{name}' belongs to another user: {error}"),
            Some(libc::EINVAL) => format!("'{name}' is no single-queue tap: {error}"),
            _ => format!("attaching to the tap '{name}': {error}"),
        })?;
        Ok(Self(file))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn attach(file: &File, name: &str) -> io::Result<()> {
    // SAFETY: an ifreq is plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    check(unsafe { ioctl_with_mut_ref(file, libc::TUNSETIFF, &mut request) })?;
    let header = libc::c_int::try_from(HEADER_LEN).map_err(io::Error::other)?;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    check(unsafe { ioctl_with_ref(file, libc::TUNSETVNETHDRSZ, &header) })
}

impl Tap for HostTap {
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
            usize::try_from(unsafe { libc::writev(fd, vectors.as_ptr(), count(vectors)) })
                .map_err(|_| io::Error::last_os_error())
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
        assert!(HostTap::open("cvmm-none0").unwrap_err().contains("ip tuntap add dev cvmm-none0"));
        assert!(HostTap::open("lo").unwrap_err().contains("is no tap"));
        assert!(HostTap::open("../lo").unwrap_err().contains("is no name"));
        assert!(HostTap::open("a-name-that-is-too-long").unwrap_err().contains("is no name"));
    }
}
