// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames from the tap into the driver's buffers (virtio 1.3, 5.1.6.4).

use std::io;

use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE};

use super::{ETHERNET_LEN, HEADER_LEN, MAX_FRAME, Tap};
use crate::ErrorLog;
use crate::pool::{Gate, PoolRange, Refusal};
use crate::queue::{Chain, Queue, Turn, parts};

/// Frames of one turn.
const BUDGET: usize = 64;
/// Offset of `num_buffers` in the header.
const NUM_BUFFERS: u64 = 10;
/// Offset of `gso_type` in the header.
const GSO_TYPE: usize = 1;
/// Ethernet types of a VLAN tag (IEEE 802.1Q): the frame is this much longer.
const VLAN_TYPES: [&[u8]; 2] = [&[0x81, 0x00], &[0x88, 0xa8]];
const VLAN_LEN: usize = 4;

/// A frame on its way, and how buffers are used.
#[derive(Debug)]
pub(super) struct Receiver {
    /// A frame is read whole before a buffer is looked at: its length decides how many buffers it takes.
    frame: Box<[u8]>,
    /// Bytes of a frame that waits for buffers.
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
        Self { frame: vec![0; MAX_FRAME].into(), waiting: None, mergeable: false, csum: false, mtu: None }
    }
}

/// Where a frame went.
#[derive(Debug, PartialEq, Eq)]
enum Delivery {
    /// Into the driver's buffers.
    Done,
    /// Nowhere yet: there are too few buffers.
    NoBuffers,
    /// Nowhere: it fits no buffer that the driver can give.
    TooLarge,
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
        tap.receive(&mut self.frame).is_ok()
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
            let len = match self.waiting {
                Some(len) => len,
                None => match tap.receive(&mut self.frame) {
                    Ok(len) => {
                        // virtio 1.3, 5.1.6.4.1: without GUEST_CSUM, flags are zero.
                        if let (false, Some(flags)) = (self.csum, self.frame.first_mut()) {
                            *flags = 0;
                        }
                        if self.exceeds_mtu(len) {
                            log::debug!("net: a frame of {len} bytes exceeds the MTU: lost");
                            continue;
                        }
                        len
                    }
                    Err(error) => {
                        if error.kind() != io::ErrorKind::WouldBlock {
                            errors.record("receive", &error, format_args!("from the tap"));
                        }
                        more = false;
                        break;
                    }
                },
            };
            self.waiting = None;
            match self.deliver(&gate, index, queue, chain, len)? {
                Delivery::Done => {}
                Delivery::NoBuffers => {
                    self.waiting = Some(len);
                    more = false;
                    break;
                }
                Delivery::TooLarge => log::debug!("net: a frame of {len} bytes fits no buffer: lost"),
            }
            // A frame may have taken as many chains as there are descriptors.
            if queue.is_waited_for() {
                break;
            }
        }
        Ok(Turn { interrupt: queue.wants_interrupt()?, more })
    }

    /// Puts the frame into as many chains as it takes, or into none.
    fn deliver(
        &mut self,
        gate: &Gate,
        index: u16,
        queue: &mut Queue,
        chain: &mut Chain,
        len: usize,
    ) -> Result<Delivery, Refusal> {
        let frame = self.frame.get(..len).unwrap_or_default();
        let (mut done, mut used) = (0usize, 0u16);
        // The driver may have cut the first buffer inside num_buffers.
        let mut num_buffers = [PoolRange::default(); 2];
        while done < frame.len() {
            if !queue.pop(chain)? && !queue.rearm(chain)? {
                queue.undo_pop(used);
                // With all of its descriptors in use, the driver can't add another buffer.
                return Ok(if used < queue.size() { Delivery::NoBuffers } else { Delivery::TooLarge });
            }
            // Nor does one help that it makes available again meanwhile.
            if used == queue.size() {
                queue.undo_pop(used.saturating_add(1));
                return Ok(Delivery::TooLarge);
            }
            let refuse = || Queue::wrong_direction(index, chain);
            // virtio 1.3, 5.1.6.3.1: room for the header, all of it device-writable.
            if !chain.readable().is_empty() || chain.writable_len() < HEADER_LEN as u64 {
                return Err(refuse());
            }
            if used == 0 {
                for (to, part) in num_buffers.iter_mut().zip(parts(chain.writable(), NUM_BUFFERS, 2)) {
                    *to = part;
                }
            }
            let rest = frame.get(done..).unwrap_or_default();
            if !self.mergeable && chain.writable_len() < rest.len() as u64 {
                queue.undo_pop(1);
                return Ok(Delivery::TooLarge);
            }
            let written = parts(chain.writable(), 0, u64::MAX).write(gate, rest).map_err(|_| refuse())?;
            queue.stage(used, chain.head(), u32::try_from(written).unwrap_or(u32::MAX))?;
            done += written;
            used += 1;
        }
        // num_buffers is 1 without MRG_RXBUF, too (virtio 1.3, 5.1.6.4).
        parts(&num_buffers, 0, 2)
            .write(gate, &used.to_le_bytes())
            .map_err(|_| Queue::wrong_direction(index, chain))?;
        queue.publish(used)?;
        Ok(Delivery::Done)
    }
}
