// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ICMP echo requests, each of which must be answered.
#![allow(unsafe_code)]

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::guest::machine;
use crate::pattern;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const TIMES: u8 = 3;
/// Header and payload; not so long that it needs fragments.
const LENGTH: usize = 1000;
/// How long an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(peer: Ipv4Addr, patience: Duration) -> Result<String> {
    echo(&open()?, peer, LENGTH, patience)
}

/// Packets of `mtu` bytes, which must not be fragments in either direction.
pub(super) fn run_whole(peer: Ipv4Addr, mtu: usize) -> Result<String> {
    const IP_HEADER: usize = 20;
    let socket = open()?;
    let never = libc::IP_PMTUDISC_DO;
    // SAFETY: the option is an int, which lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const never).cast(),
            libc::socklen_t::try_from(size_of_val(&never))?,
        )
    };
    ensure!(result == 0, "IP_MTU_DISCOVER: {}", std::io::Error::last_os_error());
    let seen =
        echo(&socket, peer, mtu.checked_sub(IP_HEADER).context("an MTU that is too small")?, PATIENCE)?;
    for name in ["FragCreates", "ReasmReqds"] {
        let fragments = ip_statistic(name)?;
        ensure!(fragments == 0, "{seen}; but there were fragments: {name} is {fragments}");
    }
    Ok(seen)
}

/// A counter of the guest's IP (RFC 4293), from /proc/net/snmp: a line of names, a line of numbers.
fn ip_statistic(name: &str) -> Result<u64> {
    let text = machine::text("/proc/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Ip: "));
    let (names, numbers) = lines.next().zip(lines.next()).context("/proc/net/snmp has no line of IP")?;
    let found = names.split(' ').zip(numbers.split(' ')).find(|(found, _)| *found == name);
    Ok(found.with_context(|| format!("/proc/net/snmp has no {name}"))?.1.parse()?)
}

fn open() -> Result<Socket> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("raw socket")
}

fn echo(socket: &Socket, peer: Ipv4Addr, length: usize, patience: Duration) -> Result<String> {
    socket.set_read_timeout(Some(patience))?;
    let mut slowest = Duration::ZERO;
    for number in 1..=TIMES {
        let request = message(ECHO_REQUEST, number, length);
        let sent = Instant::now();
        socket
            .send_to(&request, &SocketAddrV4::new(peer, 0).into())
            .with_context(|| format!("send to {peer}"))?;
        wait_for(socket, &message(ECHO_REPLY, number, length), sent + patience)
            .with_context(|| format!("echo request {number} of {TIMES} to {peer}"))?;
        slowest = slowest.max(sent.elapsed());
    }
    Ok(format!(
        "{TIMES} requests of {length} bytes answered by {peer}, the slowest in {} us",
        slowest.as_micros()
    ))
}

/// A raw socket gets all ICMP messages with their IP header; ours is the one with the right end.
fn wait_for(mut socket: &Socket, reply: &[u8], deadline: Instant) -> Result<()> {
    let mut packet = vec![0; 1 << 16];
    loop {
        let length = socket.read(&mut packet).context("no answer")?;
        if packet[..length].ends_with(reply) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no answer, only other messages");
    }
}

fn message(kind: u8, number: u8, length: usize) -> Vec<u8> {
    let mut message = pattern::bytes(u64::from(number), length);
    // type, code, checksum, identifier, sequence number
    message[..8].copy_from_slice(&[kind, 0, 0, 0, b'c', b'v', 0, number]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The Internet checksum of an even number of bytes.
fn checksum(data: &[u8]) -> u16 {
    let mut sum: u32 =
        data.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_its_checksum_sums_to_zero() {
        assert_eq!(checksum(&message(ECHO_REQUEST, 1, LENGTH)), 0);
        assert_eq!(checksum(&[8, 0, 0, 0, 0, 1, 0, 2]), !0x0803);
    }
}
