// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Network devices of the network namespace that this process is in (Linux, rtnetlink(7)). Sysfs shows those of the
//! namespace that it was mounted in.

use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NlasIterator};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// Bytes of `struct nlmsghdr`, `struct ifinfomsg`, and of both; and where `ifi_index` and `ifi_flags` are in the second.
const HEADER: usize = 16;
const IF_INFO: usize = 16;
const ATTRIBUTES: usize = HEADER + IF_INFO;
const INDEX: usize = 4;
const FLAGS: usize = 8;
/// Room for the description of a device.
const ANSWER: usize = 64 << 10;

// Linux 4.17, include/uapi/linux/if_link.h.
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;

/// A network device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number, which no other one of the namespace has. It may have several names.
    pub(super) index: u32,
    /// Its MTU.
    pub(super) mtu: u32,
    /// Whether it is up (IFF_UP).
    pub(super) up: bool,
    /// If it is a tap.
    pub(super) tap: Option<TapLink>,
}

/// What a tap is beside a network device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TapLink {
    /// Whether it was made for several queues.
    pub(super) multi_queue: bool,
    /// Queues that programs have, in use or not. Only a tap that was made for several says so.
    pub(super) queues: u32,
}

impl Link {
    /// The device with this name; `None` if there is none.
    pub(super) fn find(name: &str) -> io::Result<Option<Self>> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        send(netlink.as_raw_fd(), &request(name), MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER];
        // The kernel has answered already.
        let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        Self::parse(answer.get(..length).unwrap_or_default())
    }

    /// Reads the kernel's answer.
    fn parse(answer: &[u8]) -> io::Result<Option<Self>> {
        let message = NetlinkBuffer::new_checked(answer).map_err(io::Error::other)?;
        let payload = message.payload();
        if i32::from(message.message_type()) == libc::NLMSG_ERROR {
            let code = number(payload).map_or(0, u32::cast_signed);
            return match Errno::from_raw(code.saturating_neg()) {
                Errno::ENODEV => Ok(None),
                errno => Err(errno.into()),
            };
        }
        let attributes = payload.get(IF_INFO..).ok_or(io::ErrorKind::UnexpectedEof)?;
        let field = |at: usize| payload.get(at..).and_then(number).unwrap_or_default();
        let up = field(FLAGS) & libc::IFF_UP.cast_unsigned() != 0;
        let mut link = Self { index: field(INDEX), up, ..Self::default() };
        for (kind, value) in each(attributes) {
            match kind {
                libc::IFLA_MTU => link.mtu = number(value).unwrap_or_default(),
                libc::IFLA_LINKINFO => link.tap = tap(value),
                _ => {}
            }
        }
        Ok(Some(link))
    }
}

/// Asks for one device by its name, or by one of its alternative names.
fn request(name: &str) -> Vec<u8> {
    let name = DefaultNla::new(libc::IFLA_IFNAME, [name.as_bytes(), &[0]].concat());
    let length = ATTRIBUTES + name.buffer_len();
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(length).unwrap_or(u32::MAX);
    header.message_type = libc::RTM_GETLINK;
    header.flags = NLM_F_REQUEST;
    let mut message = vec![0; length];
    header.emit(&mut message);
    name.emit(&mut message[ATTRIBUTES..]);
    message
}

/// The tap that `info`, an IFLA_LINKINFO, describes.
fn tap(info: &[u8]) -> Option<TapLink> {
    let find = |wanted| each(info).find_map(|(kind, value)| (kind == wanted).then_some(value));
    if !find(libc::IFLA_INFO_KIND)?.starts_with(b"tun\0") {
        return None;
    }
    let (mut is_tap, mut tap) = (false, TapLink::default());
    for (kind, value) in each(find(libc::IFLA_INFO_DATA)?) {
        let byte = value.first().copied().unwrap_or_default();
        match kind {
            IFLA_TUN_TYPE => is_tap = libc::c_int::from(byte) == libc::IFF_TAP,
            IFLA_TUN_MULTI_QUEUE => tap.multi_queue = byte != 0,
            IFLA_TUN_NUM_QUEUES | IFLA_TUN_NUM_DISABLED_QUEUES => {
                tap.queues = tap.queues.saturating_add(number(value).unwrap_or_default());
            }
            _ => {}
        }
    }
    is_tap.then_some(tap)
}

/// The kinds and values of attributes, up to one that is broken.
fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).map_while(Result::ok).filter_map(|attribute| {
        let kind = attribute.kind();
        Some((kind, attribute.into_inner().get(4..usize::from(attribute.length()))?))
    })
}

/// Four bytes of the kernel's.
fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_name() {
        let lo = Link::find("lo").unwrap().unwrap();
        assert_eq!((lo.index, lo.tap), (1, None));
        assert!(lo.mtu >= 1500);
        assert_eq!(Link::find("cvmm-none0").unwrap(), None);
        assert_eq!(Link::find("").unwrap(), None);
    }

    /// An answer of a device that is up, with attributes that may be nested.
    fn answer(attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(ATTRIBUTES + attributes.len()).unwrap();
        let mut message = [&length.to_ne_bytes()[..], &[0; 28], attributes].concat();
        message[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        message[HEADER + FLAGS..][..4].copy_from_slice(&libc::IFF_UP.to_ne_bytes());
        message
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let nla = DefaultNla::new(kind, value.to_vec());
        let mut bytes = vec![0; nla.buffer_len()];
        nla.emit(&mut bytes);
        bytes
    }

    #[test]
    fn a_tap_is_described_by_its_attributes() {
        let found = |kind: &[u8], own: &[Vec<u8>]| {
            let info =
                [attribute(libc::IFLA_INFO_KIND, kind), attribute(libc::IFLA_INFO_DATA, &own.concat())]
                    .concat();
            let mtu = attribute(libc::IFLA_MTU, &9000u32.to_ne_bytes());
            let all = [mtu, attribute(libc::IFLA_LINKINFO | 0x8000, &info)].concat();
            let link = Link::parse(&answer(&all)).unwrap().unwrap();
            assert_eq!((link.mtu, link.up), (9000, true));
            link.tap
        };
        let (tun, tap) = ([attribute(IFLA_TUN_TYPE, &[1])], [attribute(IFLA_TUN_TYPE, &[2])]);
        let [several, queues, detached] = [
            attribute(IFLA_TUN_MULTI_QUEUE, &[1]),
            attribute(IFLA_TUN_NUM_QUEUES, &2u32.to_ne_bytes()),
            attribute(IFLA_TUN_NUM_DISABLED_QUEUES, &3u32.to_ne_bytes()),
        ];
        assert_eq!(found(b"veth\0", &tap), None);
        assert_eq!(found(b"tun\0", &tun), None);
        assert_eq!(found(b"tun\0", &tap), Some(TapLink::default()));
        let all = [tap[0].clone(), several, queues, detached];
        assert_eq!(found(b"tun\0", &all), Some(TapLink { multi_queue: true, queues: 5 }));
    }

    /// No answer makes it panic.
    #[test]
    fn an_answer_that_is_cut_short_is_read_as_far_as_it_goes() {
        let mtu = attribute(libc::IFLA_MTU, &9000u32.to_ne_bytes());
        let whole = answer(&[mtu, attribute(libc::IFLA_LINKINFO, &[1, 0, 1, 0, 200, 0])].concat());
        for length in 0..whole.len() {
            assert!(Link::parse(&whole[..length]).is_err());
            let mut cut = whole[..length].to_vec();
            if let Some(field) = cut.first_chunk_mut() {
                *field = u32::try_from(length).unwrap().to_ne_bytes();
            }
            let link = Link::parse(&cut);
            assert_eq!(link.is_ok(), length >= ATTRIBUTES, "{length}");
        }
    }
}
