// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A pair of queues on its thread, and the control queue, which takes pairs into use and out of it.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
};

use super::control::{self, Command};
use super::receive::Receiver;
use super::{HEADER_LEN, MAX_FRAME, MIN_FRAME, PAIR, ReceiveOffloads, Tap};
use crate::ErrorLog;
use crate::pool::{Gate, Refusal};
use crate::queue::{Chain, Queue, Turn, parts};
use crate::virtio::{Lane, Queues};
use crate::waiters::lock;

/// Frames that are thrown away at most when a driver starts: what waits in a tap.
const STALE_FRAMES: usize = 4096;

/// A queue of the tap, and a frame on its way from there. Its own lane takes the lock for a turn; the control queue takes it
/// for a command, and nobody holds two.
#[derive(Debug)]
pub(super) struct Pair {
    tap: Box<dyn Tap>,
    receiver: Receiver,
    in_use: bool,
}

impl Pair {
    /// The pair on this queue of a tap. The first is attached, and in use.
    pub(super) fn new(tap: Box<dyn Tap>, first: bool) -> Self {
        Self { tap, receiver: Receiver::default(), in_use: first }
    }
}

/// All pairs of a device, for the lane that has the control queue.
#[derive(Debug)]
pub(super) struct Pairs {
    all: Vec<Arc<Mutex<Pair>>>,
    /// The first so many are in use.
    enabled: usize,
}

impl Pairs {
    /// With only the first in use.
    pub(super) fn new(all: &[Arc<Mutex<Pair>>]) -> Self {
        Self { all: all.to_vec(), enabled: 1 }
    }

    /// Uses the first `count` pairs and no other. `false` if the tap did not agree: then nothing has changed.
    fn enable(&mut self, count: usize, errors: &ErrorLog) -> bool {
        let before = self.enabled;
        // First to last, and last to first when it goes back: the tap, too, numbers the queues that are attached.
        for pair in self.all.iter().take(count).skip(before) {
            let mut pair = lock(pair);
            if let Err(error) = pair.tap.attach(true) {
                drop(pair);
                errors.record("attach", &error, format_args!("one more queue of the tap"));
                self.disable_from(before, errors);
                return false;
            }
            pair.in_use = true;
            self.enabled += 1;
        }
        self.disable_from(count, errors);
        true
    }

    /// Uses no pair after the first `count`.
    fn disable_from(&mut self, count: usize, errors: &ErrorLog) {
        for pair in self.all.iter().take(self.enabled).skip(count).rev() {
            let mut pair = lock(pair);
            pair.in_use = false;
            pair.receiver.stop();
            if let Err(error) = pair.tap.attach(false) {
                errors.record("detach", &error, format_args!("a queue of the tap"));
            }
        }
        self.enabled = self.enabled.min(count);
    }
}

/// What serves a pair, and the control queue if it is among its queues.
#[derive(Debug)]
pub(super) struct PairLane {
    /// Indices of its queues begin here.
    pub(super) first_queue: u16,
    pub(super) pair: Arc<Mutex<Pair>>,
    /// With the first pair. Only there is a control queue that has anything to control.
    pub(super) pairs: Option<Pairs>,
    /// `max_virtqueue_pairs`.
    pub(super) max_pairs: u16,
    pub(super) mtu: u16,
    /// Index of the control queue, if the driver has accepted one.
    pub(super) control_queue: Option<u16>,
    /// VIRTIO_NET_F_MQ.
    pub(super) multi_queue: bool,
    pub(super) chain: Chain,
    pub(super) errors: ErrorLog,
}

impl PairLane {
    /// One command. A turn has no more of them: each may have the host wait until nobody uses a queue of the tap.
    fn control(&mut self, index: u16, queue: &mut Queue) -> Result<Turn, Refusal> {
        if !queue.pop(&mut self.chain)? && !queue.rearm(&mut self.chain)? {
            return Ok(Turn { interrupt: queue.wants_interrupt()?, more: false });
        }
        let command = control::read(queue.gate(), index, &self.chain)?;
        let done = match (command, &mut self.pairs) {
            // virtio 1.3, 5.1.6.5.6.1: neither 0 nor more than max_virtqueue_pairs.
            (Command::SetPairs(count), Some(pairs))
                if self.multi_queue && (1..=self.max_pairs).contains(&count) =>
            {
                // The other lanes give way.
                let _waiter = queue.waiters().announce();
                pairs.enable(usize::from(count), &self.errors)
            }
            (Command::SetPairs(_) | Command::Unknown, _) => false,
        };
        let written = control::acknowledge(queue.gate(), index, &self.chain, done)?;
        queue.push(self.chain.head(), written)?;
        Ok(Turn { interrupt: queue.wants_interrupt()?, more: true })
    }
}

impl Lane for PairLane {
    fn start(&mut self, features: u64) {
        let has = |bit: u32| features & 1 << bit != 0;
        self.multi_queue = has(VIRTIO_NET_F_MQ);
        // virtio 1.3, 5.1.2: without VIRTIO_NET_F_MQ there is one pair, and the control queue follows it.
        let pairs = if self.multi_queue { self.max_pairs } else { 1 };
        self.control_queue = has(VIRTIO_NET_F_CTRL_VQ).then(|| PAIR.saturating_mul(pairs));
        let csum = has(VIRTIO_NET_F_GUEST_CSUM);
        let mut pair = lock(&self.pair);
        let Pair { tap, receiver, in_use } = &mut *pair;
        receiver.start(has(VIRTIO_NET_F_MRG_RXBUF), csum, has(VIRTIO_NET_F_MTU).then_some(self.mtu));
        // The others are not attached.
        if !*in_use {
            return;
        }
        // virtio 1.3, 5.1.3.1: the segmentation features require GUEST_CSUM.
        let offloads = ReceiveOffloads {
            csum,
            tso4: csum && has(VIRTIO_NET_F_GUEST_TSO4),
            tso6: csum && has(VIRTIO_NET_F_GUEST_TSO6),
            ecn: csum && has(VIRTIO_NET_F_GUEST_ECN),
        };
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
        if let Some(pairs) = &mut self.pairs {
            pairs.disable_from(1, &self.errors);
        }
        lock(&self.pair).receiver.stop();
    }

    fn serve(&mut self, index: u16, queues: &mut Queues) -> Result<Turn, Refusal> {
        let Some(queue) = queues.get(index) else { return Ok(Turn::default()) };
        if self.control_queue == Some(index) {
            return self.control(index, queue);
        }
        let Self { chain, errors, .. } = self;
        let mut pair = lock(&self.pair);
        let Pair { tap, receiver, in_use } = &mut *pair;
        match index.checked_sub(self.first_queue) {
            Some(0) if *in_use => receiver.turn(index, queue, chain, tap.as_mut(), errors),
            Some(1) => {
                queue.suppress_notifications()?;
                queue.turn(chain, |gate, chain| {
                    transmit(gate, index, chain, in_use.then_some(tap.as_mut()), errors)
                })
            }
            // Of a pair that is not in use, or a control queue that the driver has not accepted.
            _ => Ok(Turn::default()),
        }
    }

    fn host_fds(&self) -> Vec<(RawFd, u16)> {
        vec![(lock(&self.pair).tap.fd(), self.first_queue)]
    }
}

/// Sends one frame (virtio 1.3, 5.1.6.2). A frame that the host does not take is lost, as on a wire. So is one on a
/// pair that is not in use, where a driver "MUST NOT queue packets" (5.1.6.5.6.1): it gets its buffer back.
fn transmit(
    gate: &Gate,
    index: u16,
    chain: &Chain,
    tap: Option<&mut dyn Tap>,
    errors: &ErrorLog,
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
    match tap.send(&mut parts(chain.readable(), 0, len).slices(gate, &gate.account().read)) {
        // What the header says of checksum and segmentation is wrong: the driver's error, and not the host's.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            log::debug!("net: the host does not take a frame of {len} bytes: {error}");
        }
        Err(error) => errors.record("send", &error, format_args!("a frame of {len} bytes, which is lost")),
        Ok(()) => {}
    }
    Ok(0)
}
