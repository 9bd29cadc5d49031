// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A split virtqueue (virtio 1.3, 2.7), device side, over a [`Gate`].
//!
//! Descriptors are those of the `virtio-queue` crate; the walk is ours. The crate's iterator ends a chain silently on a bad
//! descriptor, a bad `next` or an indirect table outside memory, which cannot be told from the chain's end. Here each of these
//! is a [`Refusal`]. (The crate's mock driver serves our tests as an independent other side. Its used element can't be made
//! outside the crate.)

mod chain;
mod descriptor;

use std::sync::atomic::{Ordering, fence};

pub use chain::{Chain, Parts, parts};
use descriptor::Table;

use crate::pool::{Gate, PoolRange, Reason, Refusal, Structure};
use crate::waiters::Waiters;

const DESCRIPTOR_SIZE: u64 = 16;
/// Offsets in the available ring: flags, idx, ring[] (virtio 1.3, 2.7.6).
const AVAIL_FLAGS: u64 = 0;
const AVAIL_IDX: u64 = 2;
const AVAIL_RING: u64 = 4;
/// Offsets in the used ring: flags, idx, ring[] of (id, len) (virtio 1.3, 2.7.8).
const USED_FLAGS: u64 = 0;
const USED_IDX: u64 = 2;
const USED_RING: u64 = 4;
const USED_ELEMENT_SIZE: u64 = 8;

/// What a chain came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Bytes written into it, from its first writable byte on.
    pub written: u32,
    /// Bytes on the host that were worked on without being in the chain's buffers; `TURN_BYTES` for what may take long.
    pub work: u64,
}

impl From<u32> for Served {
    fn from(written: u32) -> Self {
        Self { written, work: 0 }
    }
}

/// Bytes of buffers, and of other work, after which a turn ends, so that it is bounded in time, too.
pub(crate) const TURN_BYTES: u64 = 8 << 20;

const AVAIL_F_NO_INTERRUPT: u16 = 1;
const USED_F_NO_NOTIFY: u16 = 1;

/// Where a driver put a queue: its size in descriptors, and the guest-physical addresses of its three areas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLayout {
    /// Queue Size: number of descriptors.
    pub size: u16,
    /// Descriptor table ("Descriptor Area").
    pub descriptor_table: u64,
    /// Available ring ("Driver Area").
    pub available_ring: u64,
    /// Used ring ("Device Area").
    pub used_ring: u64,
}

/// Bytes of the descriptor table, the available ring and the used ring of a queue of `size` descriptors (virtio 1.3, 2.7).
/// The event fields are always counted in.
pub(crate) fn area_lengths(size: u16) -> [u64; 3] {
    let n = u64::from(size);
    [DESCRIPTOR_SIZE * n, 6 + 2 * n, 6 + USED_ELEMENT_SIZE * n]
}

/// The feature bits that change how a queue works.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueFeatures {
    /// VIRTIO_F_INDIRECT_DESC.
    pub indirect: bool,
    /// VIRTIO_F_EVENT_IDX.
    pub event_idx: bool,
}

/// What a turn at a queue left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Used buffers were added and the driver wants to hear of it.
    pub interrupt: bool,
    /// The turn was over before the queue was empty; there is more to do, without another notification.
    pub more: bool,
}

/// A queue that the driver has enabled, its three areas inside the pool.
#[derive(Debug)]
pub struct Queue {
    index: u16,
    size: u16,
    features: QueueFeatures,
    gate: Gate,
    descriptors: PoolRange,
    avail: PoolRange,
    used: PoolRange,
    layout: QueueLayout,
    next_avail: u16,
    next_used: u16,
    /// Used index when we last decided about an interrupt.
    signalled_used: u16,
    /// Those who wait for the end of a turn.
    waiters: Waiters,
}

impl Queue {
    /// Takes the queue that the driver described, if all three areas lie in the pool with their full length.
    ///
    /// # Errors
    /// The area that is misaligned or not in the pool, or a size that is not allowed.
    pub fn new(
        gate: &Gate,
        index: u16,
        max_size: u16,
        layout: QueueLayout,
        features: QueueFeatures,
    ) -> Result<Self, Refusal> {
        let QueueLayout { size, descriptor_table, available_ring, used_ring } = layout;
        let area = |structure, address: u64, length: u64, alignment: u64| {
            let refuse = |reason| Refusal { queue: index, structure, address, length, reason };
            if !size.is_power_of_two() || size > max_size {
                return Err(refuse(Reason::QueueSize));
            }
            if !address.is_multiple_of(alignment) {
                return Err(refuse(Reason::Misaligned));
            }
            gate.check(address, length).map_err(refuse)
        };
        let [descriptors, avail, used] = area_lengths(size);
        // Alignments: virtio 1.3, 2.7.
        Ok(Self {
            index,
            size,
            features,
            descriptors: area(Structure::DescriptorTable, descriptor_table, descriptors, 16)?,
            avail: area(Structure::AvailableRing, available_ring, avail, 2)?,
            used: area(Structure::UsedRing, used_ring, used, 4)?,
            gate: gate.clone(),
            layout,
            next_avail: 0,
            next_used: 0,
            signalled_used: 0,
            waiters: Waiters::default(),
        })
    }

    /// From now on, turns end after the request during which one of `waiters` began to wait.
    pub(crate) fn give_way_to(&mut self, waiters: &Waiters) {
        self.waiters = waiters.clone();
    }

    /// Those who wait for the end of a turn.
    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Whether somebody waits for the end of a turn.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiters.any()
    }

    /// The gate that this queue's buffers pass.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Queue Size, in descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Serves the chains that are available, up to one queue's worth and about `TURN_BYTES`, and one while somebody
    /// waits for the end, so that a turn is bounded: `serve` handles one and returns how many bytes it wrote into it, and
    /// what else it did.
    ///
    /// # Errors
    /// The first refusal, by the walk or by `serve`. Nothing was moved for that chain.
    pub fn turn<S: Into<Served>>(
        &mut self,
        chain: &mut Chain,
        mut serve: impl FnMut(&Gate, &Chain) -> Result<S, Refusal>,
    ) -> Result<Turn, Refusal> {
        let mut turn = Turn { interrupt: false, more: true };
        let mut bytes = 0u64;
        for _ in 0..self.size {
            if !self.pop(chain)? && !self.rearm(chain)? {
                turn.more = false;
                break;
            }
            bytes = bytes.saturating_add(chain.readable_len()).saturating_add(chain.writable_len());
            let Served { written, work } = serve(&self.gate, chain)?.into();
            bytes = bytes.saturating_add(work);
            self.push(chain.head(), written)?;
            // The host may take long over each, and a reset is waited for by a vCPU.
            if bytes >= TURN_BYTES || self.is_waited_for() {
                break;
            }
        }
        turn.interrupt = self.wants_interrupt()?;
        Ok(turn)
    }

    /// Takes the next available chain, checked from end to end. `false` if there is none.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, Refusal> {
        // Acquire: the driver wrote the ring entry and the descriptors before the index (virtio 1.3, 2.7.13.3).
        let idx = u16::from_le(self.load(Structure::AvailableRing, AVAIL_IDX, Ordering::Acquire)?);
        match idx.wrapping_sub(self.next_avail) {
            0 => return Ok(false),
            ahead if ahead > self.size => {
                return Err(self.refusal(Structure::AvailableRing, AVAIL_IDX, 2, Reason::AvailableIndex));
            }
            _ => {}
        }
        let slot = AVAIL_RING + 2 * u64::from(self.next_avail % self.size);
        let head: u16 = u16::from_le(self.load(Structure::AvailableRing, slot, Ordering::Relaxed)?);
        if head >= self.size {
            return Err(self.refusal(Structure::AvailableRing, slot, 2, Reason::DescriptorIndex));
        }
        let table = Table::of_queue(self.layout.descriptor_table, self.descriptors, self.size);
        chain.walk(&self.gate, self.index, table, head, self.features.indirect)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(true)
    }

    /// Gives the last `chains` popped chains back: they are available again.
    pub fn undo_pop(&mut self, chains: u16) {
        self.next_avail = self.next_avail.wrapping_sub(chains);
    }

    /// Adds a used element for the chain that starts at `head`, of which `written` bytes were written.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), Refusal> {
        self.stage(0, head, written)?;
        self.publish(1)
    }

    /// Writes a used element `ahead` of the used index without showing it yet.
    pub fn stage(&mut self, ahead: u16, head: u16, written: u32) -> Result<(), Refusal> {
        let slot = u64::from(self.next_used.wrapping_add(ahead) % self.size);
        let at = USED_RING + USED_ELEMENT_SIZE * slot;
        let element = u64::from(head) | u64::from(written) << 32;
        self.gate
            .write_obj(self.used, at, element.to_le())
            .map_err(|reason| self.refusal(Structure::UsedRing, at, USED_ELEMENT_SIZE, reason))
    }

    /// Shows `elements` staged elements to the driver.
    pub fn publish(&mut self, elements: u16) -> Result<(), Refusal> {
        self.next_used = self.next_used.wrapping_add(elements);
        // Release: the elements and the buffers are written before the index (virtio 1.3, 2.7.8.2).
        self.store(Structure::UsedRing, USED_IDX, self.next_used, Ordering::Release)
    }

    /// Asks for a notification of the next available chain, then looks once more: one may have come in between.
    /// `true` if one did, popped into `chain`.
    pub fn rearm(&mut self, chain: &mut Chain) -> Result<bool, Refusal> {
        if self.features.event_idx {
            let avail_event = USED_RING + USED_ELEMENT_SIZE * u64::from(self.size);
            self.store(Structure::UsedRing, avail_event, self.next_avail, Ordering::Relaxed)?;
        } else {
            self.store(Structure::UsedRing, USED_FLAGS, 0, Ordering::Relaxed)?;
        }
        // The driver writes the index, then reads our wish; we write the wish, then read the index.
        fence(Ordering::SeqCst);
        self.pop(chain)
    }

    /// Tells the driver that notifications are not needed: a hint, without effect when event indices are used.
    pub fn suppress_notifications(&mut self) -> Result<(), Refusal> {
        if self.features.event_idx {
            return Ok(());
        }
        self.store(Structure::UsedRing, USED_FLAGS, USED_F_NO_NOTIFY, Ordering::Relaxed)
    }

    /// Whether the driver wants an interrupt for the elements that were added since the last call
    /// (virtio 1.3, 2.7.7.2).
    pub fn wants_interrupt(&mut self) -> Result<bool, Refusal> {
        let (old, new) = (self.signalled_used, self.next_used);
        self.signalled_used = new;
        if old == new {
            return Ok(false);
        }
        // We wrote the used index, now we read the driver's wish; the driver does it the other way round.
        fence(Ordering::SeqCst);
        if self.features.event_idx {
            let at = AVAIL_RING + 2 * u64::from(self.size);
            let used_event = u16::from_le(self.load(Structure::AvailableRing, at, Ordering::Relaxed)?);
            // Did the used index pass used_event? `new - event - 1 < new - old`, modulo 2^16.
            Ok(new.wrapping_sub(used_event).wrapping_sub(1) < new.wrapping_sub(old))
        } else {
            let flags = u16::from_le(self.load(Structure::AvailableRing, AVAIL_FLAGS, Ordering::Relaxed)?);
            Ok(flags & AVAIL_F_NO_INTERRUPT == 0)
        }
    }

    fn load(&self, ring: Structure, at: u64, order: Ordering) -> Result<u16, Refusal> {
        let area = if ring == Structure::UsedRing { self.used } else { self.avail };
        self.gate.load(area, at, order).map_err(|reason| self.refusal(ring, at, 2, reason))
    }

    fn store(&self, ring: Structure, at: u64, value: u16, order: Ordering) -> Result<(), Refusal> {
        let area = if ring == Structure::UsedRing { self.used } else { self.avail };
        self.gate.store(area, at, value.to_le(), order).map_err(|reason| self.refusal(ring, at, 2, reason))
    }

    fn refusal(&self, ring: Structure, at: u64, length: u64, reason: Reason) -> Refusal {
        let area =
            if ring == Structure::UsedRing { self.layout.used_ring } else { self.layout.available_ring };
        Refusal { queue: self.index, structure: ring, address: area.wrapping_add(at), length, reason }
    }

    /// A refusal of the chain that `serve` was given: it does not fit the request.
    pub fn wrong_direction(index: u16, chain: &Chain) -> Refusal {
        Refusal {
            queue: index,
            structure: Structure::Descriptor,
            address: chain.head_address(),
            length: DESCRIPTOR_SIZE,
            reason: Reason::WrongDirection,
        }
    }
}

#[cfg(test)]
mod tests;
