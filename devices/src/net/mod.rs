// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Network device (virtio 1.3, 5.1): pairs of queues, each on a queue of a tap, whose packets carry the same header as
//! ours, so that checksum and segmentation offloads cost nothing here.

mod ahead;
mod control;
mod pair;
mod receive;

use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
};
use vm_memory::VolatileSlice;

use crate::ErrorLog;
use crate::pool::Pool;
use crate::queue::Chain;
use crate::virtio::{BOUNCE_SLOT, DeviceType, Kind, Lane};
use pair::{Pair, PairLane, Pairs};

/// Queues of a pair (virtio 1.3, 5.1.2): receiveq, transmitq. The control queue comes after the last pair.
const PAIR: u16 = 2;
/// Descriptors of each queue.
const QUEUE_SIZE: u16 = 256;

/// Pairs of queues that a device has at most: as many queues as a tap of Linux has.
pub const MAX_PAIRS: usize = 256;

/// Bytes of `struct virtio_net_hdr_v1` (virtio 1.3, 5.1.6), before every packet in both directions.
pub const HEADER_LEN: usize = 12;
/// Destination, source and type of an Ethernet frame.
const ETHERNET_LEN: usize = 14;
/// Without header, addresses and type it is no frame, and no tap takes it.
const MIN_FRAME: usize = HEADER_LEN + ETHERNET_LEN;
/// Header and the largest packet (virtio 1.3, 5.1.6.3): Ethernet with a VLAN tag, IPv6, and IPv6's largest payload.
pub const MAX_FRAME: usize = HEADER_LEN + ETHERNET_LEN + 4 + 40 + 65535;
/// The MTU that a device has at least (virtio 1.3, 5.1.4.1).
pub const MIN_MTU: u16 = 68;

/// Feature bits of this type and their names.
pub(crate) const FEATURE_NAMES: &[(u64, &str)] = &[
    (1 << VIRTIO_NET_F_CSUM, "CSUM"),
    (1 << VIRTIO_NET_F_GUEST_CSUM, "GUEST_CSUM"),
    (1 << VIRTIO_NET_F_MTU, "MTU"),
    (1 << VIRTIO_NET_F_MAC, "MAC"),
    (1 << VIRTIO_NET_F_GUEST_TSO4, "GUEST_TSO4"),
    (1 << VIRTIO_NET_F_GUEST_TSO6, "GUEST_TSO6"),
    (1 << VIRTIO_NET_F_GUEST_ECN, "GUEST_ECN"),
    (1 << VIRTIO_NET_F_HOST_TSO4, "HOST_TSO4"),
    (1 << VIRTIO_NET_F_HOST_TSO6, "HOST_TSO6"),
    (1 << VIRTIO_NET_F_HOST_ECN, "HOST_ECN"),
    (1 << VIRTIO_NET_F_MRG_RXBUF, "MRG_RXBUF"),
    (1 << VIRTIO_NET_F_CTRL_VQ, "CTRL_VQ"),
    (1 << VIRTIO_NET_F_MQ, "MQ"),
];

/// What only a device with several pairs offers. With one pair there is nothing to control, and a driver whose control
/// queue is refused would wait for an answer for ever.
const MULTI_QUEUE: u64 = 1 << VIRTIO_NET_F_CTRL_VQ | 1 << VIRTIO_NET_F_MQ;

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

/// The host's end of the wire, or one queue of it. Frames begin with a [`HEADER_LEN`] byte header, little endian.
pub trait Tap: Debug + Send {
    /// Takes this queue of several into use, or out of it: then nothing arrives here, and what has arrived is lost.
    fn attach(&mut self, attached: bool) -> io::Result<()>;
    /// Says what the guest can take, on any queue.
    fn set_offloads(&mut self, offloads: ReceiveOffloads) -> io::Result<()>;
    /// The next frame, or `WouldBlock`: fills these parts, in their order, as far as it goes. Returns its length, or that of
    /// all parts if it does not fit. There are as many parts at most as a queue has descriptors, and two more.
    fn receive(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<usize>;
    /// Sends one frame, in parts.
    fn send(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<()>;
    /// Its file, to wait for frames.
    fn fd(&self) -> RawFd;
}

/// A network device on a tap.
#[derive(Debug)]
pub struct Net {
    mac: [u8; 6],
    mtu: u16,
    pairs: Vec<Arc<Mutex<Pair>>>,
    queue_sizes: Vec<u16>,
    errors: ErrorLog,
}

impl Net {
    /// A network device with this MAC address and MTU ([`MIN_MTU`] at least), and a pair of queues for each of `taps`,
    /// the queues of one tap: one at least, [`MAX_PAIRS`] at most. The first is attached, the others are not.
    pub fn new(taps: Vec<Box<dyn Tap>>, mac: [u8; 6], mtu: u16) -> Self {
        let pair = |(index, tap)| Arc::new(Mutex::new(Pair::new(tap, index == 0)));
        let pairs: Vec<_> = taps.into_iter().take(MAX_PAIRS).enumerate().map(pair).collect();
        let control_queues = usize::from(pairs.len() > 1);
        Self {
            mac,
            mtu,
            queue_sizes: vec![QUEUE_SIZE; usize::from(PAIR) * pairs.len() + control_queues],
            pairs,
            errors: ErrorLog::default(),
        }
    }

    /// `max_virtqueue_pairs` (virtio 1.3, 5.1.4).
    fn max_pairs(&self) -> u16 {
        u16::try_from(self.pairs.len()).unwrap_or(u16::MAX)
    }
}

impl DeviceType for Net {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn features(&self) -> u64 {
        let all: u64 = FEATURE_NAMES.iter().map(|(bits, _)| bits).sum();
        if self.pairs.len() > 1 { all } else { all & !MULTI_QUEUE }
    }

    fn max_queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn buffers(&self) -> u64 {
        // Linux fills the receive queue when the interface goes up, a frame of the usual size to a buffer.
        let received = u64::from(QUEUE_SIZE).saturating_mul(BOUNCE_SLOT);
        let sent = (MAX_FRAME as u64).next_multiple_of(BOUNCE_SLOT);
        u64::from(self.max_pairs()).saturating_mul(received.saturating_add(sent))
    }

    /// `struct virtio_net_config` (virtio 1.3, 5.1.4): the fields whose features are offered, and those before them.
    fn config_space(&self) -> Vec<u8> {
        let mut config = self.mac.to_vec(); // 0: mac
        config.extend([0; 2]); // 6: status
        config.extend(self.max_pairs().to_le_bytes()); // 8: max_virtqueue_pairs
        config.extend(self.mtu.to_le_bytes()); // 10: mtu
        config
    }

    /// A pair has a lane. The control queue, which follows the last pair, is served with the first.
    fn lane_of(&self, queue: u16) -> usize {
        let pair = usize::from(queue / PAIR);
        if pair < self.pairs.len() { pair } else { 0 }
    }

    fn host_errors(&self) -> ErrorLog {
        self.errors.clone()
    }

    fn into_lanes(self: Box<Self>, _pool: &Pool) -> Vec<Box<dyn Lane>> {
        let lane = |(first_queue, pair): (u16, &Arc<Mutex<Pair>>)| {
            Box::new(PairLane {
                first_queue,
                pair: Arc::clone(pair),
                pairs: (first_queue == 0).then(|| Pairs::new(&self.pairs)),
                max_pairs: self.max_pairs(),
                mtu: self.mtu,
                control_queue: None,
                multi_queue: false,
                chain: Chain::default(),
                errors: self.errors.clone(),
            }) as _
        };
        (0..).step_by(usize::from(PAIR)).zip(&self.pairs).map(lane).collect()
    }
}

#[cfg(test)]
mod tests;
