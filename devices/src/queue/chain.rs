// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Descriptor chains, walked and checked as a whole before the first byte moves.

use virtio_queue::desc::split::Descriptor;
use vm_memory::VolatileSlice;

use super::DESCRIPTOR_SIZE;
use super::descriptor::Table;
use crate::pool::{Gate, PoolRange, Reason, Refusal, Structure, Tally};

/// virtio 1.3, 2.7.5.2: "a descriptor chain \[no\] longer than 2^32 bytes in total".
const MAX_BYTES: u64 = 1 << 32;

/// The buffers of one chain, every one of them inside the pool.
///
/// One `Chain` is walked again and again, so that the data path does not allocate once it has grown to the longest
/// chain; a chain is never longer than its queue.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    head_address: u64,
    readable: Vec<PoolRange>,
    writable: Vec<PoolRange>,
}

impl Chain {
    /// Index of the first descriptor: what goes into the used ring.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Guest-physical address of the first descriptor.
    pub fn head_address(&self) -> u64 {
        self.head_address
    }

    /// Buffers that the device reads.
    pub fn readable(&self) -> &[PoolRange] {
        &self.readable
    }

    /// Buffers that the device writes.
    pub fn writable(&self) -> &[PoolRange] {
        &self.writable
    }

    /// Bytes that the device may read: at most 2^32.
    pub fn readable_len(&self) -> u64 {
        self.readable.iter().map(PoolRange::len).sum()
    }

    /// Bytes that the device may write: at most 2^32.
    pub fn writable_len(&self) -> u64 {
        self.writable.iter().map(PoolRange::len).sum()
    }

    /// Walks the chain that starts at `head` of `queue`'s table. Visits at most as many descriptors as the queue has.
    // As the gate's functions are.
    #[inline(always)]
    pub(super) fn walk(
        &mut self,
        gate: &Gate,
        queue: u16,
        queue_table: Table,
        head: u16,
        indirect_allowed: bool,
    ) -> Result<(), Refusal> {
        self.head = head;
        self.head_address = queue_table.address_of(head);
        self.readable.clear();
        self.writable.clear();

        let (mut table, mut in_indirect) = (queue_table, false);
        let (mut index, mut bytes, mut left) = (head, 0u64, queue_table.entries());
        loop {
            // Refusals that are about the descriptor itself, not about what it points at.
            let malformed = |reason| Refusal {
                queue,
                structure: Structure::Descriptor,
                address: table.address_of(index),
                length: DESCRIPTOR_SIZE,
                reason,
            };
            if left == 0 {
                return Err(malformed(Reason::ChainTooLong));
            }
            let descriptor = table.read(gate, index).map_err(malformed)?;

            if descriptor.refers_to_indirect_table() {
                if !indirect_allowed {
                    return Err(malformed(Reason::IndirectNotNegotiated));
                }
                if in_indirect {
                    return Err(malformed(Reason::NestedIndirect));
                }
                if descriptor.has_next() {
                    return Err(malformed(Reason::IndirectWithNext));
                }
                let refuse = |reason| points_at(queue, Structure::IndirectTable, &descriptor, reason);
                table = Table::indirect(gate, &descriptor).map_err(refuse)?;
                (in_indirect, index) = (true, 0);
                continue;
            }

            left -= 1;
            bytes += u64::from(descriptor.len());
            if bytes > MAX_BYTES {
                return Err(malformed(Reason::ChainTooLarge));
            }
            let (structure, buffers) = match (descriptor.is_write_only(), self.writable.is_empty()) {
                (true, _) => (Structure::WritableBuffer, &mut self.writable),
                (false, true) => (Structure::ReadableBuffer, &mut self.readable),
                (false, false) => return Err(malformed(Reason::ReadableAfterWritable)),
            };
            let range = gate
                .check(descriptor.addr().0, u64::from(descriptor.len()))
                .map_err(|reason| points_at(queue, structure, &descriptor, reason))?;
            buffers.push(range);

            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
        }
    }
}

fn points_at(queue: u16, structure: Structure, descriptor: &Descriptor, reason: Reason) -> Refusal {
    let (address, length) = (descriptor.addr().0, u64::from(descriptor.len()));
    Refusal { queue, structure, address, length, reason }
}

/// The bytes from `skip` to `skip + len` of a list of buffers: a driver may cut a request into buffers anywhere
/// (virtio 1.3, 2.7.4.1). Empty buffers are left out.
pub fn parts(buffers: &[PoolRange], skip: u64, len: u64) -> Parts<'_> {
    Parts { buffers: buffers.iter(), skip, len }
}

/// See [`parts`].
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    buffers: std::slice::Iter<'a, PoolRange>,
    skip: u64,
    len: u64,
}

impl Iterator for Parts<'_> {
    type Item = PoolRange;

    fn next(&mut self) -> Option<PoolRange> {
        while self.len > 0 {
            let buffer = self.buffers.next()?;
            let part = buffer.part(self.skip, self.len);
            self.skip -= self.skip.min(buffer.len());
            self.len -= part.len();
            if !part.is_empty() {
                return Some(part);
            }
        }
        None
    }
}

impl<'a> Parts<'a> {
    /// These bytes as slices of memory, for the host to fill or to take; each is counted in `tally` as it is handed
    /// out.
    pub fn slices(self, gate: &'a Gate, tally: &'a Tally) -> impl Iterator<Item = VolatileSlice<'a>> {
        self.uncounted(gate).inspect(|slice| tally.add(slice.len() as u64))
    }

    /// The same, for the host to fill in part. Whoever knows how many bytes that were [counts](Parts::count) them.
    pub fn uncounted(self, gate: &'a Gate) -> impl Iterator<Item = VolatileSlice<'a>> {
        // A part of a checked range is inside the pool: `slice` does not fail.
        self.map_while(|part| gate.slice(part).ok())
    }

    /// Counts these bytes in `tally`.
    pub fn count(self, tally: &Tally) {
        self.for_each(|part| tally.add(part.len()));
    }

    /// Copies these bytes from the pool into `to`, as far as both reach, and counts them.
    pub fn read(self, gate: &Gate, to: &mut [u8]) -> Result<usize, Reason> {
        let mut done = 0;
        for part in self {
            let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            let n = gate.slice(part)?.copy_to(rest);
            gate.account().read.add(n as u64);
            done += n;
        }
        Ok(done)
    }

    /// Copies `from` over these bytes of the pool, as far as both reach, and counts them.
    pub fn write(self, gate: &Gate, from: &[u8]) -> Result<usize, Reason> {
        let mut done = 0;
        for part in self {
            let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) else { break };
            let slice: VolatileSlice<'_> = gate.slice(part)?;
            let n = slice.len().min(rest.len());
            slice.copy_from(rest.get(..n).unwrap_or_default());
            gate.account().written.add(n as u64);
            done += n;
        }
        Ok(done)
    }
}
