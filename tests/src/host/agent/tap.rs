// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tap interfaces by the kernel's own calls, so that an emulated host needs no tools for them.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use libc::{c_char, c_short, c_ulong, ifreq, in_addr, sockaddr, sockaddr_in};

/// Requests of linux/if_tun.h.
const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNSETPERSIST: c_ulong = 0x4004_54cb;

/// Whether there is an interface of this name.
pub fn exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Makes a tap interface that stays, and brings it up with `address` (192.168.77.1/24).
/// With `multi_queue`, several queues may be opened; without `mtu` it has the kernel's, 1500.
pub fn make(name: &str, address: Option<&str>, multi_queue: bool, mtu: Option<u16>) -> Result<()> {
    set_persistent(name, true, multi_queue)?;
    let address = address.map(parse_address).transpose()?;
    bring_up(name, address, mtu).with_context(|| format!("cannot set up the tap interface {name}"))
}

/// Removes a tap interface.
pub fn remove(name: &str) -> Result<()> {
    if exists(name) { set_persistent(name, false, is_multi_queue(name)?) } else { Ok(()) }
}

/// Brings the loopback interface up.
pub fn bring_up_loopback() -> Result<()> {
    bring_up("lo", None, None)
}

/// Whether the tap interface `name` was made for several queues: it can be opened in that way only.
fn is_multi_queue(name: &str) -> Result<bool> {
    let path = Path::new("/sys/class/net").join(name).join("tun_flags");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let flags = libc::c_int::from_str_radix(text.trim().trim_start_matches("0x"), 16);
    Ok(flags.with_context(|| path.display().to_string())? & libc::IFF_MULTI_QUEUE != 0)
}

fn set_persistent(name: &str, persistent: bool, multi_queue: bool) -> Result<()> {
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let tun = tun.context("cannot open /dev/net/tun (taps need the module tun, and root)")?;
    let mut request = request(name)?;
    let queues = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | queues;
    request.ifr_ifru.ifru_flags = c_short::try_from(flags)?;
    // SAFETY: TUNSETIFF reads and writes an ifreq, and this is one.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) })
        .with_context(|| format!("cannot attach to the tap interface {name} (in use, or not root?)"))?;
    // SAFETY: TUNSETPERSIST takes an integer.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETPERSIST, c_ulong::from(persistent)) })
        .with_context(|| format!("cannot change whether the tap interface {name} stays"))
}

fn bring_up(name: &str, address: Option<(Ipv4Addr, Ipv4Addr)>, mtu: Option<u16>) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let control = |request: c_ulong, argument: &mut ifreq| {
        // SAFETY: each of the requests below reads or writes an ifreq, and this is one.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut *argument) })
    };
    if let Some((address, mask)) = address {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_addr = socket_address(address);
        control(libc::SIOCSIFADDR, &mut request).context("cannot set the address")?;
        request.ifr_ifru.ifru_netmask = socket_address(mask);
        control(libc::SIOCSIFNETMASK, &mut request).context("cannot set the network mask")?;
    }
    if let Some(mtu) = mtu {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_mtu = mtu.into();
        control(libc::SIOCSIFMTU, &mut request).context("cannot set the MTU")?;
    }
    let mut request = request(name)?;
    control(libc::SIOCGIFFLAGS, &mut request).context("cannot read the flags")?;
    // SAFETY: SIOCGIFFLAGS has just written this member.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | c_short::try_from(libc::IFF_UP)?;
    control(libc::SIOCSIFFLAGS, &mut request).context("cannot bring it up")
}

/// A request about the interface `name`.
fn request(name: &str) -> Result<ifreq> {
    // SAFETY: an ifreq is integers, arrays of integers and pointers that may be null; all zeros is one.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        bail!("'{name}' is no name for an interface: it must have 1 to 15 characters");
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn socket_address(address: Ipv4Addr) -> sockaddr {
    let address = sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: 0,
        sin_addr: in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain structures of 16 bytes, and the kernel's interface is to use one for the other.
    unsafe { std::mem::transmute::<sockaddr_in, sockaddr>(address) }
}

/// Splits 192.168.77.1/24 into the address and the mask.
fn parse_address(text: &str) -> Result<(Ipv4Addr, Ipv4Addr)> {
    let parsed = text.split_once('/').and_then(|(address, bits)| {
        let bits: u32 = bits.parse().ok().filter(|bits| (1..=32).contains(bits))?;
        Some((address.parse().ok()?, Ipv4Addr::from(u32::MAX << (32 - bits))))
    });
    parsed.with_context(|| format!("'{text}' is no interface address: it must look like 192.168.77.1/24"))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_address_has_a_mask() {
        let (address, mask) = parse_address("10.1.2.3/20").unwrap();
        assert_eq!(address, Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(mask, Ipv4Addr::new(255, 255, 240, 0));
        for wrong in ["10.1.2.3", "10.1.2.3/0", "10.1.2.3/33", "10.1.2/24", "host/24"] {
            let error = parse_address(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_name_must_fit() {
        assert!(request("tap0").is_ok());
        assert!(request("a-name-that-is-too-long").is_err());
        assert!(request("").is_err());
    }
}
