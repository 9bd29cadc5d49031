// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver puts on a queue: descriptors, and what the available ring says of them.

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A descriptor (virtio 1.3, 2.7.5).
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// A buffer that the device reads.
pub(super) fn readable(address: u64, length: u32) -> Descriptor {
    Descriptor { address, length, flags: 0, next: 0 }
}

/// A buffer that the device writes.
pub(super) fn writable(address: u64, length: u32) -> Descriptor {
    Descriptor { address, length, flags: WRITE, next: 0 }
}

/// A table of further descriptors.
pub(super) fn indirect(address: u64, length: u32) -> Descriptor {
    Descriptor { address, length, flags: INDIRECT, next: 0 }
}

impl Descriptor {
    pub(super) fn with_next(self, next: u16) -> Self {
        Self { flags: self.flags | NEXT, next, ..self }
    }
}

/// Each descriptor leads to the one after it, the last to none.
pub(super) fn chain(descriptors: &[Descriptor]) -> Vec<Descriptor> {
    let last = descriptors.len().saturating_sub(1);
    let linked = (1..).zip(descriptors).map(|(next, descriptor)| descriptor.with_next(next));
    linked.take(last).chain(descriptors.last().copied()).collect()
}

/// Descriptors for the queue's table, from its first entry on, perhaps an indirect table, and the available ring.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) descriptors: Vec<Descriptor>,
    /// Address and entries of an indirect table, in the pool or in private memory.
    pub(super) table: Option<(u64, Vec<Descriptor>)>,
    pub(super) head: u16,
    /// The index in the available ring after the request.
    pub(super) index: u16,
}

impl Request {
    pub(super) fn new(descriptors: Vec<Descriptor>) -> Self {
        Self { descriptors, table: None, head: 0, index: 1 }
    }

    pub(super) fn with_table(self, address: u64, entries: Vec<Descriptor>) -> Self {
        Self { table: Some((address, entries)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_linked_to_its_end() {
        let linked = chain(&[readable(1, 1), writable(2, 1), writable(3, 1)]);
        let seen: Vec<_> = linked.iter().map(|d| (d.address, d.flags, d.next)).collect();
        assert_eq!(seen, [(1, NEXT, 1), (2, NEXT | WRITE, 2), (3, WRITE, 0)]);
    }
}
