// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Network device (virtio 1.3, 5.1): pairs of queues, each on a queue of a tap, whose packets carry the same header as
//! ours, so that checksum and segmentation offloads cost nothing here.

mod control;
mod receive;

use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
};
use vm_memory::VolatileSlice;

use crate::HostErrors;
use crate::pool::{Gate, Refusal};
use crate::queue::{Chain, Queue, Turn, parts};
use crate::virtio::{BOUNCE_SLOT, DeviceType, Kind, Queues};
use control::Command;
use receive::Receiver;

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
    /// The next frame, or `WouldBlock`. Returns its length.
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize>;
    /// Sends one frame, in parts.
    fn send(&mut self, frame: &mut dyn Iterator<Item = VolatileSlice<'_>>) -> io::Result<()>;
    /// Its file, to wait for frames.
    fn fd(&self) -> RawFd;
}

/// A queue of the tap, and a frame on its way from there.
#[derive(Debug)]
struct Pair {
    tap: Box<dyn Tap>,
    receiver: Receiver,
}

/// A network device on a tap.
#[derive(Debug)]
pub struct Net {
    mac: [u8; 6],
    mtu: u16,
    pairs: Vec<Pair>,
    /// Pairs that are in use, the first ones.
    enabled: usize,
    queue_sizes: Vec<u16>,
    /// Index of the control queue, if the driver has accepted one.
    control_queue: Option<u16>,
    /// VIRTIO_NET_F_MQ.
    multi_queue: bool,
    chain: Chain,
    errors: HostErrors,
}

/// Frames that are thrown away at most when a driver starts: what waits in a tap.
const STALE_FRAMES: usize = 4096;

impl Net {
    /// A network device with this MAC address and MTU ([`MIN_MTU`] at least), and a pair of queues for each of `taps`,
    /// the queues of one tap: one at least, [`MAX_PAIRS`] at most. The first is attached, the others are not.
    pub fn new(taps: Vec<Box<dyn Tap>>, mac: [u8; 6], mtu: u16) -> Self {
        let pair = |tap| Pair { tap, receiver: Receiver::default() };
        let pairs: Vec<_> = taps.into_iter().take(MAX_PAIRS).map(pair).collect();
        let control_queues = usize::from(pairs.len() > 1);
        Self {
            mac,
            mtu,
            enabled: 1,
            queue_sizes: vec![QUEUE_SIZE; usize::from(PAIR) * pairs.len() + control_queues],
            pairs,
            control_queue: None,
            multi_queue: false,
            chain: Chain::default(),
            errors: HostErrors::default(),
        }
    }

    /// `max_virtqueue_pairs` (virtio 1.3, 5.1.4).
    fn max_pairs(&self) -> u16 {
        u16::try_from(self.pairs.len()).unwrap_or(u16::MAX)
    }

    /// Uses the first `count` pairs and no other. `false` if the tap did not agree: then nothing has changed.
    fn enable(&mut self, count: usize) -> bool {
        let before = self.enabled;
        // First to last, and last to first when it goes back: the tap, too, numbers the queues that are attached.
        for pair in self.pairs.iter_mut().take(count).skip(before) {
            if let Err(error) = pair.tap.attach(true) {
                self.errors.record("attach", &error, format_args!("one more queue of the tap"));
                self.disable_from(before);
                return false;
            }
            self.enabled += 1;
        }
        self.disable_from(count);
        true
    }

    /// Uses no pair after the first `count`.
    fn disable_from(&mut self, count: usize) {
        for pair in self.pairs.iter_mut().take(self.enabled).skip(count).rev() {
            pair.receiver.stop();
            if let Err(error) = pair.tap.attach(false) {
                self.errors.record("detach", &error, format_args!("a queue of the tap"));
            }
        }
        self.enabled = self.enabled.min(count);
    }

    /// One command. A turn has no more of them: each may have the host wait until nobody uses a queue of the tap.
    fn control(&mut self, index: u16, queue: &mut Queue) -> Result<Turn, Refusal> {
        if !queue.pop(&mut self.chain)? && !queue.rearm(&mut self.chain)? {
            return Ok(Turn { interrupt: queue.wants_interrupt()?, more: false });
        }
        let command = control::read(queue.gate(), index, &self.chain)?;
        let done = match command {
            // virtio 1.3, 5.1.6.5.6.1: neither 0 nor more than max_virtqueue_pairs.
            Command::SetPairs(pairs) if self.multi_queue && (1..=self.max_pairs()).contains(&pairs) => {
                self.enable(usize::from(pairs))
            }
            Command::SetPairs(_) | Command::Unknown => false,
        };
        let written = control::acknowledge(queue.gate(), index, &self.chain, done)?;
        queue.push(self.chain.head(), written)?;
        Ok(Turn { interrupt: queue.wants_interrupt()?, more: true })
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

    fn start(&mut self, features: u64) {
        let has = |bit: u32| features & 1 << bit != 0;
        self.multi_queue = has(VIRTIO_NET_F_MQ);
        // virtio 1.3, 5.1.2: without VIRTIO_NET_F_MQ there is one pair, and the control queue follows it.
        let pairs = if self.multi_queue { self.max_pairs() } else { 1 };
        self.control_queue = has(VIRTIO_NET_F_CTRL_VQ).then(|| PAIR.saturating_mul(pairs));
        let csum = has(VIRTIO_NET_F_GUEST_CSUM);
        // virtio 1.3, 5.1.3.1: the segmentation features require GUEST_CSUM.
        let offloads = ReceiveOffloads {
            csum,
            tso4: csum && has(VIRTIO_NET_F_GUEST_TSO4),
            tso6: csum && has(VIRTIO_NET_F_GUEST_TSO6),
            ecn: csum && has(VIRTIO_NET_F_GUEST_ECN),
        };
        let mtu = has(VIRTIO_NET_F_MTU).then_some(self.mtu);
        for pair in &mut self.pairs {
            pair.receiver.start(has(VIRTIO_NET_F_MRG_RXBUF), csum, mtu);
        }
        // Only the first queue is attached.
        let Some(Pair { tap, receiver }) = self.pairs.first_mut() else { return };
        if let Err(error) = tap.set_offloads(offloads) {
            self.errors.record("set offloads", &error, format_args!("what the guest can take"));
        }
        // What arrived before has the shape that an earlier driver could take.
        for _ in 0..STALE_FRAMES {
            if !receiver.discard(tap.as_mut()) {
                break;
            }
        }
    }

    fn stop(&mut self) {
        // virtio 1.3, 5.1.6.5.6.2: after a reset, packets are for receiveq1 only.
        self.disable_from(1);
        self.pairs.iter_mut().for_each(|pair| pair.receiver.stop());
    }

    fn serve(&mut self, index: u16, queues: &mut Queues) -> Result<Turn, Refusal> {
        let Some(queue) = queues.get(index) else { return Ok(Turn::default()) };
        if self.control_queue == Some(index) {
            return self.control(index, queue);
        }
        let number = usize::from(index / PAIR);
        let enabled = number < self.enabled;
        let Self { pairs, chain, errors, .. } = self;
        let Some(Pair { tap, receiver }) = pairs.get_mut(number) else { return Ok(Turn::default()) };
        if index.is_multiple_of(PAIR) {
            return if enabled {
                receiver.turn(index, queue, chain, tap.as_mut(), errors)
            } else {
                Ok(Turn::default())
            };
        }
        queue.suppress_notifications()?;
        queue.turn(chain, |gate, chain| transmit(gate, index, chain, enabled.then_some(tap.as_mut()), errors))
    }

    fn host_errors(&mut self) -> Option<&mut HostErrors> {
        Some(&mut self.errors)
    }

    fn host_fds(&self) -> Vec<(RawFd, u16)> {
        (0..)
            .step_by(usize::from(PAIR))
            .zip(&self.pairs)
            .map(|(index, pair)| (pair.tap.fd(), index))
            .collect()
    }
}

/// Sends one frame (virtio 1.3, 5.1.6.2). A frame that the host does not take is lost, as on a wire. So is one on a
/// pair that is not in use, where a driver "MUST NOT queue packets" (5.1.6.5.6.1): it gets its buffer back.
fn transmit(
    gate: &Gate,
    index: u16,
    chain: &Chain,
    tap: Option<&mut dyn Tap>,
    errors: &mut HostErrors,
) -> Result<u32, Refusal> {
    let refuse = || Queue::wrong_direction(index, chain);
    let len = chain.readable_len();
    if !chain.writable().is_empty() || len < HEADER_LEN as u64 {
        return Err(refuse());
    }
    if !(MIN_FRAME as u64..=MAX_FRAME as u64).contains(&len) {
        log::debug!("net: a frame of {len} bytes is too short or too long to send");
        return Ok(0);
    }
    let Some(tap) = tap else {
        log::debug!("net: a frame on transmit queue {index}, which is not in use");
        return Ok(0);
    };
    match tap.send(&mut parts(chain.readable(), 0, len).slices(gate, &gate.audit().read)) {
        // What the header says of checksum and segmentation is wrong: the driver's error, and not the host's.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            log::debug!("net: the host does not take a frame of {len} bytes: {error}");
        }
        Err(error) => errors.record("send", &error, format_args!("a frame of {len} bytes, which is lost")),
        Ok(()) => {}
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
