// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver does, good and bad, in a form that a fuzzer can make up. Requests as they should be are one act, so that
//! it soon gets past the rings; every byte of the pool can be spoiled by others.

use arbitrary::Arbitrary;

use crate::memory::{BASE, Memory, SIZE, usize_of};
use crate::spec::queue::Layout;

/// Where things are that the driver places as it should: queues here, buffers and indirect tables after them.
const QUEUE_ROOM: u64 = 0x400;
const BUFFERS: u64 = 0x1800;
/// Acts of one run that count.
pub const MAX_ACTS: usize = 48;

/// An address that is worth trying.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Place {
    /// In the pool.
    Pool(u16),
    /// Around the start of the pool.
    Start(i8),
    /// Around its end.
    End(i8),
    /// In an area of a queue.
    Area(u8, u8),
    /// Among the buffers.
    Buffer(u8),
    /// Anywhere.
    Any(u64),
}

impl Place {
    /// The address.
    pub fn address(self, queues: &[Layout]) -> u64 {
        match self {
            Self::Pool(offset) => BASE + u64::from(offset) % SIZE,
            Self::Start(by) => BASE.wrapping_add_signed(by.into()),
            Self::End(by) => (BASE + SIZE).wrapping_add_signed(by.into()),
            Self::Area(area, offset) => {
                let area = usize::from(area);
                let queue = queues.get(area / 3 % queues.len().max(1)).copied().unwrap_or_default();
                queue.areas[area % 3].wrapping_add(offset.into())
            }
            Self::Buffer(slot) => BASE + BUFFERS + 16 * u64::from(slot),
            Self::Any(address) => address,
        }
    }
}

/// A length that is worth trying.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Length {
    /// Up to 255 bytes.
    Short(u8),
    /// That many descriptors.
    Table(u8),
    /// That many sectors.
    Sectors(u8),
    /// Up to the end of the pool, and so many more.
    UpToEnd(i8),
    /// Any.
    Any(u32),
}

impl Length {
    fn bytes(self, address: u64) -> u32 {
        match self {
            Self::Short(bytes) => bytes.into(),
            Self::Table(descriptors) => u32::from(descriptors) * 16,
            Self::Sectors(sectors) => u32::from(sectors) * 512,
            Self::UpToEnd(more) => {
                let len = (BASE + SIZE).wrapping_sub(address).wrapping_add_signed(more.into());
                u32::try_from(len & 0xffff_ffff).expect("32 bits")
            }
            Self::Any(bytes) => bytes,
        }
    }
}

/// How a driver sets a queue up.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Setup {
    /// As it should.
    Good(u8),
    /// Anyhow.
    Bad(u16, [Place; 3]),
}

impl Setup {
    /// What it writes for the queue with this `index`.
    pub fn layout(self, index: usize) -> Layout {
        let at = BASE + QUEUE_ROOM * index as u64;
        let areas = [at, at + 0x100, at + 0x180];
        match self {
            Self::Good(size) => Layout { size: 1 << (size % 5), areas },
            Self::Bad(size, places) => {
                let good = [Layout { size: 16, areas }];
                Layout { size, areas: places.map(|place| place.address(&good)) }
            }
        }
    }
}

/// One thing that a driver does, where requests begin with a `P`.
#[derive(Arbitrary, Clone, Debug)]
pub enum Act<P> {
    /// A request as it should be, as far as the queue has descriptors for it.
    Request {
        /// Queue.
        queue: u8,
        /// Bytes for the device to read.
        payload: P,
        /// Where they are cut into buffers.
        cut: u8,
        /// Lengths of the buffers for the device to write.
        writable: Vec<Length>,
        /// In an indirect table.
        indirect: bool,
    },
    /// A descriptor of a queue, or of what may be an indirect table.
    Descriptor {
        /// Queue; past the last: among the buffers.
        table: u8,
        /// Which.
        index: u8,
        /// Its buffer.
        address: Place,
        /// ... and how long that is.
        length: Length,
        /// NEXT, WRITE, INDIRECT and others.
        flags: u8,
        /// Next descriptor.
        next: u8,
    },
    /// Makes what is at `head` available.
    Offer {
        /// Queue.
        queue: u8,
        /// First descriptor.
        head: u8,
    },
    /// Writes a 16-bit field of the available ring.
    Available {
        /// Queue.
        queue: u8,
        /// Which: flags, idx, ring, used_event.
        field: u8,
        /// What.
        value: u16,
    },
    /// Writes something somewhere.
    Poke(Place, [u8; 4]),
    /// The device has a turn.
    Serve(u8),
    /// What is special about a device.
    Other(u8, u16),
    /// Reset, and another queue set-up.
    Restart(Start),
}

/// How a driver starts a device.
#[derive(Arbitrary, Clone, Debug)]
pub struct Start {
    /// Bits of the features that are up for choice.
    pub features: u8,
    /// How it sets queues up; those that are not here, as it should.
    pub queues: Vec<Setup>,
}

/// The driver's memory of what it did; addresses are [homes](crate::memory).
#[derive(Debug, Default)]
pub struct Driver {
    /// The queues as it set them up.
    pub layouts: Vec<Layout>,
    avail: Vec<u16>,
    next_descriptor: Vec<u16>,
    next_buffer: u64,
}

impl Driver {
    /// After a reset.
    pub fn new(layouts: Vec<Layout>) -> Self {
        let zeros = vec![0; layouts.len()];
        Self { avail: zeros.clone(), next_descriptor: zeros, layouts, next_buffer: 0 }
    }

    fn queue(&self, queue: u8) -> usize {
        usize::from(queue) % self.layouts.len().max(1)
    }

    /// Does what is done in the pool.
    pub fn act<P: Clone + Into<Vec<u8>>>(&mut self, memory: &mut Memory, act: &Act<P>) {
        match act {
            Act::Request { queue, payload, cut, writable, indirect } => {
                let payload: Vec<u8> = payload.clone().into();
                self.request(memory, self.queue(*queue), &payload, *cut, writable, *indirect);
            }
            Act::Descriptor { table, index, address, length, flags, next } => {
                let at = match self.layouts.get(usize::from(*table)) {
                    Some(layout) => layout.areas[0],
                    None => BASE + BUFFERS + 0x100 * u64::from(*table % 4),
                };
                let address = address.address(&self.layouts);
                let flags = u16::from(*flags & 7) | u16::from(*flags & 0xf8) << 6;
                let length = length.bytes(address);
                let descriptor = bytes(memory.now(address), length, flags, (*next).into());
                memory.write(at.wrapping_add(16 * u64::from(*index % 32)), &descriptor);
            }
            Act::Offer { queue, head } => self.offer(memory, self.queue(*queue), (*head).into()),
            Act::Available { queue, field, value } => {
                let queue = self.queue(*queue);
                let layout = self.layouts[queue];
                if field % 40 == 1 {
                    self.avail[queue] = *value;
                }
                memory.write(layout.areas[1].wrapping_add(2 * u64::from(field % 40)), &value.to_le_bytes());
            }
            Act::Poke(place, bytes) => memory.write(place.address(&self.layouts), bytes),
            Act::Serve(_) | Act::Other(..) | Act::Restart(_) => {}
        }
    }

    fn request(
        &mut self,
        memory: &mut Memory,
        queue: usize,
        payload: &[u8],
        cut: u8,
        writable: &[Length],
        indirect: bool,
    ) {
        let (first, second) = payload.split_at(usize::from(cut).min(payload.len()));
        let mut table = Vec::new();
        for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
            let address = self.buffer(part.len() as u64);
            memory.write(address, part);
            table.push((address, u32::try_from(part.len()).expect("short"), 0));
        }
        for length in writable.iter().take(6) {
            let bytes = length.bytes(BASE) % 0x1000;
            table.push((self.buffer(bytes.into()), bytes, 2));
        }
        let size = self.layouts[queue].size.max(1);
        let (at, first, modulus) = match indirect {
            true => (self.buffer(16 * table.len() as u64), 0, u16::MAX),
            false => (self.layouts[queue].areas[0], self.next_descriptor[queue], size),
        };
        let last = table.len().saturating_sub(1);
        let index = |number: usize| (first % modulus + u16::try_from(number).expect("few")) % modulus;
        for (number, (address, len, flags)) in table.iter().enumerate() {
            let next = u16::from(number < last);
            let descriptor = bytes(memory.now(*address), *len, flags | next, index(number + 1));
            memory.write(at.wrapping_add(16 * u64::from(index(number))), &descriptor);
        }
        let head = self.next_descriptor[queue] % size;
        if indirect {
            let len = u32::try_from(16 * table.len()).expect("few");
            let at_head = self.layouts[queue].areas[0].wrapping_add(16 * u64::from(head));
            memory.write(at_head, &bytes(memory.now(at), len, 4, 0));
        }
        let taken = if indirect { 1 } else { u16::try_from(table.len()).expect("few") };
        self.next_descriptor[queue] = head.wrapping_add(taken) % size;
        self.offer(memory, queue, head);
    }

    /// Bytes that are used in turn; the last of them is sometimes the pool's last.
    fn buffer(&mut self, len: u64) -> u64 {
        let room = SIZE - BUFFERS;
        if self.next_buffer + len > room {
            self.next_buffer = if self.next_buffer < room { room - len.min(room) } else { 0 };
        }
        let at = BASE + BUFFERS + self.next_buffer;
        self.next_buffer += len;
        at
    }

    fn offer(&mut self, memory: &mut Memory, queue: usize, head: u16) {
        let layout = self.layouts[queue];
        let slot = u64::from(self.avail[queue] % layout.size.max(1));
        memory.write(layout.areas[1].wrapping_add(4 + 2 * slot), &head.to_le_bytes());
        self.avail[queue] = self.avail[queue].wrapping_add(1);
        memory.write(layout.areas[1].wrapping_add(2), &self.avail[queue].to_le_bytes());
    }
}

/// `struct virtq_desc` (virtio 1.3, 2.7.5).
fn bytes(address: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    let mut bytes = address.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    debug_assert_eq!(bytes.len(), usize_of(16));
    bytes
}
