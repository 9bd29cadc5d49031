// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A network device (virtio 1.3, 5.1) with two pairs of queues, and the wire behind it.

use std::collections::VecDeque;

use super::queue::{Broken, Chain, Queue, Turn, gather, scatter, total};
use crate::memory::Shadow;

/// Pairs of queues.
pub const PAIRS: usize = 2;
const HEADER: u64 = 12;
/// Header, two addresses and a type.
const MIN_FRAME: u64 = HEADER + 14;
/// Header and the largest packet, of IPv6 with a VLAN tag.
const MAX_FRAME: u64 = HEADER + 14 + 4 + 40 + 65535;
/// The device's MTU.
pub const MTU: u16 = 1000;
/// Frames of a turn.
const BUDGET: usize = 64;

/// VIRTIO_NET_F_GUEST_CSUM.
pub const GUEST_CSUM: u64 = 1 << 1;
/// VIRTIO_NET_F_MTU.
pub const F_MTU: u64 = 1 << 3;
/// VIRTIO_NET_F_MRG_RXBUF.
pub const MRG_RXBUF: u64 = 1 << 15;
/// VIRTIO_NET_F_CTRL_VQ.
pub const CTRL_VQ: u64 = 1 << 17;
/// VIRTIO_NET_F_MQ.
pub const MQ: u64 = 1 << 22;

/// A queue of the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Frames for the guest.
    pub arriving: VecDeque<Vec<u8>>,
    /// Frames from the guest.
    pub sent: Vec<Vec<u8>>,
    /// In use.
    pub attached: bool,
}

/// The device.
#[derive(Clone, Debug)]
pub struct Net {
    /// The host's side.
    pub wires: [Wire; PAIRS],
    waiting: [Option<Vec<u8>>; PAIRS],
    /// How many chains a frame is read into at most, before it is known how many it takes.
    ahead: [usize; PAIRS],
    enabled: usize,
    features: u64,
}

impl Net {
    /// Behind these wires.
    pub fn new(wires: [Wire; PAIRS]) -> Self {
        Self { wires, waiting: [None, None], ahead: [1; PAIRS], enabled: 1, features: 0 }
    }

    /// Reset, and DRIVER_OK after it; not the latter if a queue was refused.
    pub fn restart(&mut self, features: u64, runs: bool) {
        self.enable(1);
        self.waiting = [None, None];
        if runs {
            self.features = features;
            self.wires[0].arriving.clear();
        }
    }

    fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    fn enable(&mut self, pairs: usize) {
        self.enabled = pairs;
        for pair in 1..PAIRS {
            self.wires[pair].attached = pair < pairs;
            if pair >= pairs {
                self.waiting[pair] = None;
            }
        }
    }

    /// A turn at a queue: 5.1.2 says which is which.
    pub fn serve(&mut self, index: u16, queue: &mut Queue, shadow: &mut Shadow) -> Result<Turn, Broken> {
        let control = if self.has(MQ) { 4 } else { 2 };
        if self.has(CTRL_VQ) && index == control {
            return self.control(queue, shadow);
        }
        let pair = usize::from(index / 2);
        match (pair < PAIRS, index.is_multiple_of(2)) {
            (false, _) => Ok(Turn::default()),
            (true, true) if pair >= self.enabled => Ok(Turn::default()),
            (true, true) => self.receive(pair, queue, shadow),
            (true, false) => queue.turn(shadow, |shadow, chain| self.transmit(pair, shadow, chain)),
        }
    }

    /// 5.1.6.2.
    fn transmit(&mut self, pair: usize, shadow: &Shadow, chain: &Chain) -> Result<u64, Broken> {
        let len = total(&chain.readable);
        if !chain.writable.is_empty() || len < HEADER {
            return Err(Broken);
        }
        if (MIN_FRAME..=MAX_FRAME).contains(&len) && pair < self.enabled {
            self.wires[pair].sent.push(gather(shadow, &chain.readable, 0, len));
        }
        Ok(0)
    }

    /// 5.1.6.4.
    fn receive(&mut self, pair: usize, queue: &mut Queue, shadow: &mut Shadow) -> Result<Turn, Broken> {
        let mut more = true;
        for _ in 0..BUDGET {
            let frame = match self.waiting[pair].take() {
                Some(frame) => Some(frame),
                None => {
                    let chains = self.look_ahead(pair, queue, shadow);
                    let Some(frame) = self.wires[pair].arriving.pop_front() else {
                        queue.give_back(few(chains.len()));
                        more = false;
                        break;
                    };
                    self.read(pair, queue, shadow, &chains, frame)
                }
            };
            if let Some(frame) = frame
                && !self.deliver(pair, queue, shadow, &frame)?
            {
                self.waiting[pair] = Some(frame);
                more = false;
                break;
            }
        }
        Ok(Turn { interrupt: queue.wants_interrupt(shadow), more })
    }

    /// The chains that the next frame is read into. No rule is broken by a chain that no frame gets to.
    fn look_ahead(&self, pair: usize, queue: &mut Queue, shadow: &Shadow) -> Vec<Chain> {
        let mut chains = Vec::new();
        let most = if self.has(MRG_RXBUF) { self.ahead[pair].min(queue.layout.size.into()) } else { 1 };
        while chains.len() < most
            && let Ok(Some(chain)) = queue.pop(shadow)
        {
            if !chain.readable.is_empty() || total(&chain.writable) < HEADER {
                queue.give_back(1);
                break;
            }
            chains.push(chain);
        }
        chains
    }

    /// What is behind the headers is written at once, whatever becomes of the frame: until they are used, the buffers are
    /// the device's. Returns the frame if these chains are too small for it.
    fn read(
        &mut self,
        pair: usize,
        queue: &mut Queue,
        shadow: &mut Shadow,
        chains: &[Chain],
        mut frame: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let buffers: Vec<_> = chains.iter().flat_map(|chain| chain.writable.clone()).collect();
        let behind = crate::memory::usize_of(MIN_FRAME).min(frame.len());
        let written = scatter(shadow, &buffers, MIN_FRAME, &frame[behind..]);
        if self.has(F_MTU) && exceeds_mtu(&frame) {
            queue.give_back(few(chains.len()));
            return None;
        }
        if !self.has(GUEST_CSUM) {
            frame[0] = 0;
        }
        let mut rest = frame.len() as u64;
        if rest > total(&buffers) {
            // Buffers may overlap.
            let bytes = gather(shadow, &buffers, MIN_FRAME, written);
            frame[behind..][..bytes.len()].copy_from_slice(&bytes);
            queue.give_back(few(chains.len()));
            return Some(frame);
        }
        let mut used = 0;
        for chain in chains {
            if rest == 0 {
                break;
            }
            let written = rest.min(total(&chain.writable));
            queue.stage(shadow, used, chain.head, written);
            (rest, used) = (rest - written, used + 1);
        }
        queue.give_back(few(chains.len()) - used);
        scatter(shadow, &buffers, 0, &frame[..behind]);
        self.use_chains(pair, queue, shadow, &buffers, used);
        None
    }

    /// `num_buffers` is the last that is written.
    fn use_chains(
        &mut self,
        pair: usize,
        queue: &mut Queue,
        shadow: &mut Shadow,
        first: &[(u64, u64)],
        used: u16,
    ) {
        scatter(shadow, first, 10, &used.to_le_bytes());
        queue.publish(shadow, used);
        self.ahead[pair] = usize::from(used).max(self.ahead[pair] - 1).max(1);
    }

    /// `false` if the frame has to wait for buffers. One that fits nowhere is lost.
    fn deliver(
        &mut self,
        pair: usize,
        queue: &mut Queue,
        shadow: &mut Shadow,
        frame: &[u8],
    ) -> Result<bool, Broken> {
        let (mut rest, mut used, mut first) = (frame, 0u16, Vec::new());
        while !rest.is_empty() {
            let Some(chain) = queue.pop_or_wait(shadow)? else {
                queue.give_back(used);
                return Ok(used == queue.layout.size);
            };
            let room = total(&chain.writable);
            if !chain.readable.is_empty() || room < HEADER {
                return Err(Broken);
            }
            if used == 0 {
                first.clone_from(&chain.writable);
            }
            if !self.has(MRG_RXBUF) && room < rest.len() as u64 {
                queue.give_back(1);
                return Ok(true);
            }
            let written = scatter(shadow, &chain.writable, 0, rest);
            queue.stage(shadow, used, chain.head, written);
            rest = &rest[crate::memory::usize_of(written)..];
            used += 1;
        }
        self.use_chains(pair, queue, shadow, &first, used);
        Ok(true)
    }

    /// 5.1.6.5: one command.
    fn control(&mut self, queue: &mut Queue, shadow: &mut Shadow) -> Result<Turn, Broken> {
        let Some(chain) = queue.pop_or_wait(shadow)? else {
            return Ok(Turn { interrupt: queue.wants_interrupt(shadow), more: false });
        };
        let len = total(&chain.readable);
        if len < 2 || total(&chain.writable) == 0 {
            return Err(Broken);
        }
        let command = gather(shadow, &chain.readable, 0, 4);
        // VIRTIO_NET_CTRL_MQ, VQ_PAIRS_SET.
        let pairs = match command[..] {
            [4, 0, low, high] if len == 4 => u16::from_le_bytes([low, high]).into(),
            _ => 0,
        };
        let done = self.has(MQ) && (1..=PAIRS).contains(&pairs);
        if done {
            self.enable(pairs);
        }
        scatter(shadow, &chain.writable, 0, &[u8::from(!done)]);
        queue.stage(shadow, 0, chain.head, 1);
        queue.publish(shadow, 1);
        Ok(Turn { interrupt: queue.wants_interrupt(shadow), more: true })
    }
}

fn few(chains: usize) -> u16 {
    u16::try_from(chains).expect("no more than a queue has")
}

/// 5.1.4.1: larger than a packet of the MTU, with or without a VLAN tag, and with no segments (NONE, ECN).
fn exceeds_mtu(frame: &[u8]) -> bool {
    let mut most = usize::from(MTU) + 12 + 14;
    if let Some([0x81, 0] | [0x88, 0xa8]) = frame.get(24..26) {
        most += 4;
    }
    matches!(frame[1], 0 | 0x80) && frame.len() > most
}
