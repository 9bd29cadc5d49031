// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames from the tap into the driver's buffers (virtio 1.3, 5.1.6.4).

use std::{io, iter};

use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE};
use vm_memory::VolatileSlice;

use super::ahead::{Ahead, can_receive};
use super::{ETHERNET_LEN, HEADER_LEN, MAX_FRAME, MIN_FRAME, Tap};
use crate::ErrorLog;
use crate::pool::{Gate, PoolRange, Refusal};
use crate::queue::{Chain, Parts, Queue, Turn, parts};

/// Frames of one turn.
const BUDGET: usize = 64;
/// Offset of `num_buffers` in the header.
const NUM_BUFFERS: u64 = 10;
/// Offset of `gso_type` in the header.
const GSO_TYPE: usize = 1;
/// Ethernet types of a VLAN tag (IEEE 802.1Q): the frame is this much longer.
const VLAN_TYPES: [&[u8]; 2] = [&[0x81, 0x00], &[0x88, 0xa8]];
const VLAN_LEN: usize = 4;

/// How frames reach the driver.
///
/// A frame is read into the chains that frames of late have taken, without a copy. Only its first [`MIN_FRAME`] bytes are
/// read into memory of our own: on this copy it is decided whether the driver may have the frame. One that is longer than
/// these chains goes the long way: it is put together in memory of our own, and copied into as many chains as it takes.
#[derive(Debug)]
pub(super) struct Receiver {
    ahead: Ahead,
    /// What of a frame is not in the driver's buffers, in its place.
    frame: Box<[u8]>,
    /// Bytes of a frame that waits for buffers, all of them in `frame`.
    waiting: Option<usize>,
    /// VIRTIO_NET_F_MRG_RXBUF.
    mergeable: bool,
    /// VIRTIO_NET_F_GUEST_CSUM.
    csum: bool,
    /// The MTU, with VIRTIO_NET_F_MTU.
    mtu: Option<u16>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            ahead: Ahead::default(),
            frame: vec![0; MAX_FRAME].into(),
            waiting: None,
            mergeable: false,
            csum: false,
            mtu: None,
        }
    }
}

impl Receiver {
    pub(super) fn start(&mut self, mergeable: bool, csum: bool, mtu: Option<u16>) {
        self.mergeable = mergeable;
        self.csum = csum;
        self.mtu = mtu;
    }

    /// Whether the frame must not reach the driver (virtio 1.3, 5.1.4.1): larger than the MTU, and nothing to be cut into
    /// segments. The MTU of the tap may have been raised since it was told.
    fn exceeds_mtu(&self, len: usize) -> bool {
        let Some(mtu) = self.mtu else { return false };
        let gso = self.frame.get(GSO_TYPE).map_or(0, |gso| u32::from(*gso));
        let ethernet_type = self.frame.get(HEADER_LEN + ETHERNET_LEN - 2..HEADER_LEN + ETHERNET_LEN);
        let tagged = ethernet_type.is_some_and(|found| VLAN_TYPES.contains(&found));
        let tag = if tagged { VLAN_LEN } else { 0 };
        gso & !VIRTIO_NET_HDR_GSO_ECN == VIRTIO_NET_HDR_GSO_NONE
            && len > HEADER_LEN + ETHERNET_LEN + tag + usize::from(mtu)
    }

    /// Throws a frame away. `false` if there was none.
    pub(super) fn discard(&mut self, tap: &mut dyn Tap) -> bool {
        tap.receive(&mut iter::once(VolatileSlice::from(&mut *self.frame))).is_ok()
    }

    /// What waited was for the driver that is gone.
    pub(super) fn stop(&mut self) {
        self.waiting = None;
    }

    pub(super) fn turn(
        &mut self,
        index: u16,
        queue: &mut Queue,
        chain: &mut Chain,
        tap: &mut dyn Tap,
        errors: &ErrorLog,
    ) -> Result<Turn, Refusal> {
        let gate = queue.gate().clone();
        let mut more = true;
        for _ in 0..BUDGET {
            more = match self.waiting.take() {
                Some(len) => self.deliver(&gate, index, queue, chain, len)?,
                None => {
                    self.ahead.fill(queue, chain, self.mergeable);
                    match self.read(&gate, tap) {
                        Ok(len) => self.pass(&gate, index, queue, chain, len)?,
                        Err(error) => {
                            self.ahead.give_back_after(0, queue);
                            if error.kind() != io::ErrorKind::WouldBlock {
                                errors.record("receive", &error, format_args!("from the tap"));
                            }
                            false
                        }
                    }
                }
            };
            // A frame may have taken as many chains as there are descriptors.
            if !more || queue.is_waited_for() {
                break;
            }
        }
        Ok(Turn { interrupt: queue.wants_interrupt()?, more })
    }

    /// Reads a frame: its first bytes into `frame`, the others into the chains ahead, and what is longer into `frame`.
    fn read(&mut self, gate: &Gate, tap: &mut dyn Tap) -> io::Result<usize> {
        let room = self.ahead.room().min(MAX_FRAME as u64);
        let (first, rest) = self.frame.split_at_mut(MIN_FRAME);
        let tail = usize::try_from(room).unwrap_or(MAX_FRAME).saturating_sub(MIN_FRAME);
        let tail = rest.get_mut(tail..).unwrap_or_default();
        let chains = self.ahead.parts(MIN_FRAME as u64, room).uncounted(gate);
        let len = tap.receive(
            &mut iter::once(VolatileSlice::from(first))
                .chain(chains)
                .chain(iter::once(VolatileSlice::from(tail))),
        )?;
        self.ahead.parts(MIN_FRAME as u64, len as u64).count(&gate.account().written);
        // virtio 1.3, 5.1.6.4.1: without GUEST_CSUM, flags are zero.
        if let (false, Some(flags)) = (self.csum, self.frame.first_mut()) {
            *flags = 0;
        }
        Ok(len)
    }

    /// Gives the driver what was read, if it may have it. `false` if the frame waits.
    fn pass(
        &mut self,
        gate: &Gate,
        index: u16,
        queue: &mut Queue,
        chain: &mut Chain,
        len: usize,
    ) -> Result<bool, Refusal> {
        if self.exceeds_mtu(len) {
            log::debug!("net: a frame of {len} bytes exceeds the MTU: lost");
            self.ahead.give_back_after(0, queue);
            return Ok(true);
        }
        let room = self.ahead.room();
        if len as u64 > room {
            // The driver may have changed these bytes meanwhile: it gets what it wrote.
            if let Some(middle) = self.frame.get_mut(MIN_FRAME..) {
                let copied = self.ahead.parts(MIN_FRAME as u64, room).read(gate, middle);
                copied.map_err(|_| Queue::wrong_direction(index, chain))?;
            }
            self.ahead.give_back_after(0, queue);
            return self.deliver(gate, index, queue, chain, len);
        }
        let (mut rest, mut used) = (len as u64, 0u16);
        for &(head, room) in self.ahead.chains() {
            if rest == 0 {
                break;
            }
            let written = rest.min(room);
            queue.stage(used, head, u32::try_from(written).unwrap_or(u32::MAX))?;
            rest -= written;
            used += 1;
        }
        self.ahead.give_back_after(used, queue);
        let first = self.frame.get(..len.min(MIN_FRAME)).unwrap_or_default();
        let written = self.ahead.parts(0, MIN_FRAME as u64).write(gate, first);
        written.map_err(|_| Queue::wrong_direction(index, chain))?;
        let num_buffers = self.ahead.parts(NUM_BUFFERS, NUM_BUFFERS + 2);
        publish(gate, index, queue, chain, num_buffers, used)?;
        self.ahead.adapt(used);
        Ok(true)
    }

    /// Copies the frame into as many chains as it takes, or into none. `false` if there are too few, and it waits.
    fn deliver(
        &mut self,
        gate: &Gate,
        index: u16,
        queue: &mut Queue,
        chain: &mut Chain,
        len: usize,
    ) -> Result<bool, Refusal> {
        let frame = self.frame.get(..len).unwrap_or_default();
        let lost = || log::debug!("net: a frame of {len} bytes fits no buffer: lost");
        let (mut done, mut used) = (0usize, 0u16);
        // The driver may have cut the first buffer inside num_buffers.
        let mut num_buffers = [PoolRange::default(); 2];
        while done < frame.len() {
            if !queue.pop(chain)? && !queue.rearm(chain)? {
                queue.undo_pop(used);
                if used < queue.size() {
                    self.waiting = Some(len);
                    return Ok(false);
                }
                // With all of its descriptors in use, the driver can't add another buffer.
                lost();
                return Ok(true);
            }
            // Nor does one help that it makes available again meanwhile.
            if used == queue.size() {
                queue.undo_pop(used.saturating_add(1));
                lost();
                return Ok(true);
            }
            if !can_receive(chain) {
                return Err(Queue::wrong_direction(index, chain));
            }
            if used == 0 {
                for (to, part) in num_buffers.iter_mut().zip(parts(chain.writable(), NUM_BUFFERS, 2)) {
                    *to = part;
                }
            }
            let rest = frame.get(done..).unwrap_or_default();
            if !self.mergeable && chain.writable_len() < rest.len() as u64 {
                queue.undo_pop(1);
                lost();
                return Ok(true);
            }
            let written = parts(chain.writable(), 0, u64::MAX).write(gate, rest);
            let written = written.map_err(|_| Queue::wrong_direction(index, chain))?;
            queue.stage(used, chain.head(), u32::try_from(written).unwrap_or(u32::MAX))?;
            done += written;
            used += 1;
        }
        self.ahead.adapt(used);
        publish(gate, index, queue, chain, parts(&num_buffers, 0, 2), used)?;
        Ok(true)
    }
}

/// Shows the driver a frame in `used` chains, the used elements of which are written.
fn publish(
    gate: &Gate,
    index: u16,
    queue: &mut Queue,
    chain: &Chain,
    num_buffers: Parts<'_>,
    used: u16,
) -> Result<(), Refusal> {
    // num_buffers is 1 without MRG_RXBUF, too (virtio 1.3, 5.1.6.4).
    num_buffers.write(gate, &used.to_le_bytes()).map_err(|_| Queue::wrong_direction(index, chain))?;
    queue.publish(used)
}
