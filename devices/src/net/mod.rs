// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Network device (virtio 1.3, 5.1): one queue pair on a tap, whose packets carry the same header as ours, so that
//! checksum and segmentation offloads cost nothing here.

mod receive;

use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
};
use vm_memory::VolatileSlice;

use crate::log_limit::LimitedLog;
use crate::pool::{Gate, Refusal};
use crate::queue::{Chain, Queue, Turn, parts};
use crate::virtio::{DeviceType, Kind, Queues};
use receive::Receiver;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUE_SIZES: &[u16] = &[256, 256];

/// Bytes of `struct virtio_net_hdr_v1` (virtio 1.3, 5.1.6), before every packet in both directions.
pub const HEADER_LEN: usize = 12;
/// Header and the largest packet (virtio 1.3, 5.1.6.3): Ethernet with a VLAN tag, IPv6, and IPv6's largest payload.
pub const MAX_FRAME: usize = HEADER_LEN + 14 + 4 + 40 + 65535;

/// Feature bits of this type and their names.
pub(crate) const FEATURE_NAMES: &[(u64, &str)] = &[
    (1 << VIRTIO_NET_F_CSUM, "CSUM"),
    (1 << VIRTIO_NET_F_GUEST_CSUM, "GUEST_CSUM"),
    (1 << VIRTIO_NET_F_MAC, "MAC"),
    (1 << VIRTIO_NET_F_GUEST_TSO4, "GUEST_TSO4"),
    (1 << VIRTIO_NET_F_GUEST_TSO6, "GUEST_TSO6"),
    (1 << VIRTIO_NET_F_GUEST_ECN, "GUEST_ECN"),
    (1 << VIRTIO_NET_F_HOST_TSO4, "HOST_TSO4"),
    (1 << VIRTIO_NET_F_HOST_TSO6, "HOST_TSO6"),
    (1 << VIRTIO_NET_F_HOST_ECN, "HOST_ECN"),
    (1 << VIRTIO_NET_F_MRG_RXBUF, "MRG_RXBUF"),
];

/// Packets that the driver can take from us in this shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveOffloads {
    /// Partial checksums.
    pub csum: bool,
    /// TCP over IPv4, larger than the MTU.
    pub tso4: bool,
    /// TCP over IPv6, larger than the MTU.
    pub tso6: bool,
    /// ... also with ECN.
    pub ecn: bool,
}

/// The host's end of the wire. Frames begin with a [`HEADER_LEN`] byte header, little endian.
pub trait Tap: Debug + Send {
    /// Says what the guest can take.
    fn set_offloads(&mut self, offloads: ReceiveOffloads) -> io::Result<()>;
    /// The next frame, or `WouldBlock`. Returns its length.
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize>;
    /// Sends one frame, in parts.
    fn send(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<()>;
    /// Its file, to wait for frames.
    fn fd(&self) -> RawFd;
}

/// A network device on one tap.
#[derive(Debug)]
pub struct Net {
    tap: Box<dyn Tap>,
    mac: [u8; 6],
    receiver: Receiver,
    chain: Chain,
    log: LimitedLog,
}

/// Frames that are thrown away at most when a driver starts: what waits in a tap.
const STALE_FRAMES: usize = 4096;

impl Net {
    /// A network device on `tap`, with this MAC address.
    pub fn new(tap: Box<dyn Tap>, mac: [u8; 6]) -> Self {
        Self { tap, mac, receiver: Receiver::default(), chain: Chain::default(), log: LimitedLog::default() }
    }
}

impl DeviceType for Net {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn features(&self) -> u64 {
        FEATURE_NAMES.iter().map(|(bits, _)| bits).sum()
    }

    fn max_queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    /// `struct virtio_net_config` (virtio 1.3, 5.1.4): the MAC; no other field's feature is offered.
    fn config_space(&self) -> Vec<u8> {
        self.mac.to_vec()
    }

    fn start(&mut self, features: u64) {
        let has = |bit: u32| features & 1 << bit != 0;
        let csum = has(VIRTIO_NET_F_GUEST_CSUM);
        // virtio 1.3, 5.1.3.1: the segmentation features require GUEST_CSUM.
        let offloads = ReceiveOffloads {
            csum,
            tso4: csum && has(VIRTIO_NET_F_GUEST_TSO4),
            tso6: csum && has(VIRTIO_NET_F_GUEST_TSO6),
            ecn: csum && has(VIRTIO_NET_F_GUEST_ECN),
        };
        if let Err(error) = self.tap.set_offloads(offloads) {
            self.log.error(format_args!("net: the tap did not take the offloads of the guest: {error}"));
        }
        self.receiver.start(has(VIRTIO_NET_F_MRG_RXBUF), csum);
        // What arrived before has the shape that an earlier driver could take.
        for _ in 0..STALE_FRAMES {
            if !self.receiver.discard(self.tap.as_mut()) {
                break;
            }
        }
    }

    fn stop(&mut self) {
        self.receiver.stop();
    }

    fn serve(&mut self, index: u16, queues: &mut Queues) -> Result<Turn, Refusal> {
        let Self { tap, receiver, chain, log, .. } = self;
        let Some(queue) = queues.get(index) else { return Ok(Turn::default()) };
        match index {
            RECEIVE => receiver.turn(index, queue, chain, tap.as_mut(), log),
            TRANSMIT => {
                queue.suppress_notifications()?;
                queue.turn(chain, |gate, chain| transmit(gate, index, chain, tap.as_mut()))
            }
            _ => Ok(Turn::default()),
        }
    }

    fn host_fd(&self) -> Option<RawFd> {
        Some(self.tap.fd())
    }

    fn host_queue(&self) -> u16 {
        RECEIVE
    }
}

/// Sends one frame (virtio 1.3, 5.1.6.2). A frame that the host does not take is lost, as on a wire.
fn transmit(gate: &Gate, index: u16, chain: &Chain, tap: &mut dyn Tap) -> Result<u32, Refusal> {
    let refuse = || Queue::wrong_direction(index, chain);
    let len = chain.readable_len();
    if !chain.writable().is_empty() || len < HEADER_LEN as u64 {
        return Err(refuse());
    }
    if len > MAX_FRAME as u64 {
        log::debug!("net: a frame of {len} bytes is too long to send");
        return Ok(0);
    }
    if let Err(error) = tap.send(&mut parts(chain.readable(), 0, len).slices(gate, &gate.audit().read)) {
        log::debug!("net: frame lost: {error}");
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
