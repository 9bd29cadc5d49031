// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A network interface: address, state and offloads, by ioctl.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};

use crate::guest::machine;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GET_RECEIVE_CHECKSUM: u32 = 0x14;
const GET_TRANSMIT_CHECKSUM: u32 = 0x16;
const GET_SEGMENTATION: u32 = 0x1e;

/// The kernel's struct ethtool_value.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// An interface by its name, `eth0`.
#[derive(Debug)]
pub(super) struct Interface {
    name: String,
    /// Any socket does; the ioctls only need a way into the network code.
    socket: UdpSocket,
}

impl Interface {
    pub(super) fn new(name: &str) -> Result<Self> {
        ensure!(name.len() < libc::IFNAMSIZ, "'{name}' is too long for an interface's name");
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("socket")?;
        Ok(Self { name: name.to_owned(), socket })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn set_address(&self, address: Ipv4Addr, bits: u32) -> Result<()> {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        self.set(libc::SIOCSIFADDR, internet(address)).context("SIOCSIFADDR")?;
        self.set(libc::SIOCSIFNETMASK, internet(mask.into())).context("SIOCSIFNETMASK")
    }

    pub(super) fn set_up(&self) -> Result<()> {
        let flags = libc::c_short::try_from(libc::IFF_UP)?;
        self.set(libc::SIOCSIFFLAGS, libc::__c_anonymous_ifr_ifru { ifru_flags: flags })
            .context("SIOCSIFFLAGS")
    }

    pub(super) fn transmit_checksum(&self) -> Result<bool> {
        self.ethtool(GET_TRANSMIT_CHECKSUM).context("ETHTOOL_GTXCSUM")
    }

    pub(super) fn receive_checksum(&self) -> Result<bool> {
        self.ethtool(GET_RECEIVE_CHECKSUM).context("ETHTOOL_GRXCSUM")
    }

    pub(super) fn segmentation(&self) -> Result<bool> {
        self.ethtool(GET_SEGMENTATION).context("ETHTOOL_GTSO")
    }

    /// Packets and bytes that the driver gave to the device (`tx`) or got from it (`rx`) so far.
    pub(super) fn packets(&self, way: &str) -> Result<(u64, u64)> {
        let statistic =
            |what| machine::number(format!("/sys/class/net/{}/statistics/{way}_{what}", self.name));
        Ok((statistic("packets")?, statistic("bytes")?))
    }

    fn ethtool(&self, command: u32) -> Result<bool> {
        let mut value = EthtoolValue { command, data: 0 };
        let pointer = (&raw mut value).cast();
        self.set(SIOCETHTOOL, libc::__c_anonymous_ifr_ifru { ifru_data: pointer })?;
        Ok(value.data != 0)
    }

    fn set(&self, request: libc::Ioctl, data: libc::__c_anonymous_ifr_ifru) -> Result<()> {
        let mut name = [0; libc::IFNAMSIZ];
        for (place, byte) in name.iter_mut().zip(self.name.bytes()) {
            *place = libc::c_char::from_ne_bytes([byte]);
        }
        let mut message = libc::ifreq { ifr_name: name, ifr_ifru: data };
        // SAFETY: `message` lives across the call, and so does what it points at in the case of SIOCETHTOOL; the kernel
        // keeps neither.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), request, &raw mut message) };
        ensure!(result == 0, "{}: {}", self.name, std::io::Error::last_os_error());
        Ok(())
    }
}

/// An address as the ioctls want it: a generic socket address that begins with port and address.
fn internet(address: Ipv4Addr) -> libc::__c_anonymous_ifr_ifru {
    let mut data = [0; 14];
    for (place, byte) in data[2..].iter_mut().zip(address.octets()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    let family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    libc::__c_anonymous_ifr_ifru { ifru_addr: libc::sockaddr { sa_family: family, sa_data: data } }
}
