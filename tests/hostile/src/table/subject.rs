// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The structures that a driver can point a device at.

use super::{DATA, DESCRIPTOR, Places, QUEUE_SIZE};

/// A device type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// virtio 1.3, 5.2.
    Blk,
    /// virtio 1.3, 5.4.
    Rng,
    /// virtio 1.3, 5.1: transmitq1.
    Net,
    /// virtio 1.3, 5.1: receiveq1. Its buffers are looked at when a frame arrives.
    Receive,
    /// virtio 1.3, 5.1: controlq, of a device with two pairs of queues.
    Control,
}

impl Kind {
    /// An honest request that changes nothing.
    pub const fn request(self) -> Request {
        match self {
            Kind::Blk => Request::Read,
            Kind::Rng => Request::Random,
            Kind::Net => Request::Send,
            Kind::Receive => Request::Receive,
            Kind::Control => Request::Command,
        }
    }

    /// The device's number (virtio 1.3, 5), and the queue that is attacked.
    pub const fn id_and_queue(self) -> (u32, u16) {
        match self {
            Kind::Blk => (2, 0),
            Kind::Rng => (4, 0),
            Kind::Net => (1, 1),
            Kind::Receive => (1, 0),
            // It follows the last pair (virtio 1.3, 5.1.2).
            Kind::Control => (1, 4),
        }
    }

    /// What the driver accepts beside the features that all need.
    pub const fn features(self) -> u64 {
        match self {
            // VIRTIO_NET_F_CTRL_VQ and VIRTIO_NET_F_MQ.
            Kind::Control => 1 << 17 | 1 << 22,
            _ => 0,
        }
    }

    /// All of them, and what scenarios call them.
    pub const ALL: [(&str, Self); 5] = [
        ("blk", Kind::Blk),
        ("rng", Kind::Rng),
        ("net", Kind::Net),
        ("receive", Kind::Receive),
        ("control", Kind::Control),
    ];
}

/// What an honest driver asks for in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// blk: header, data that the device writes, status.
    Read,
    /// blk: header, data that the device reads, status.
    Write,
    /// rng: data that the device writes.
    Random,
    /// net: header and frame that the device reads.
    Send,
    /// net: header and frame that the device writes.
    Receive,
    /// net: class and command, their data, ack.
    Command,
}

/// Which part of a queue, or of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Descriptor table.
    Descriptors,
    /// Available ring.
    Available,
    /// Used ring.
    Used,
    /// Indirect table.
    Indirect,
    /// The buffer with this index in the chain.
    Buffer(u16),
}

/// A structure, as it is when all is well.
#[derive(Debug)]
pub struct Subject {
    /// In the name of a case.
    pub name: &'static str,
    /// Which device type has it.
    pub kind: Kind,
    /// Only with VIRTIO_F_INDIRECT_DESC.
    pub indirect: bool,
    /// What it is part of.
    pub request: Request,
    /// Which part.
    pub part: Part,
    /// The name of the structure in the report.
    pub record: &'static str,
    /// Bytes.
    pub length: u64,
    /// Alignment that the standard asks for.
    pub alignment: u64,
    /// Where the standard has it.
    pub clause: &'static str,
}

const N: u64 = QUEUE_SIZE as u64;

const fn area(kind: Kind, part: Part) -> Subject {
    let request = kind.request();
    // Lengths and alignments: the table of virtio 1.3, 2.7. Event fields are the last two bytes of their rings.
    let (name, record, length, alignment, clause) = match part {
        Part::Descriptors => {
            ("descriptors", "descriptor-table", DESCRIPTOR * N, 16, "virtio 1.3, 2.7 and 2.7.5")
        }
        Part::Available => ("available", "available-ring", 6 + 2 * N, 2, "virtio 1.3, 2.7 and 2.7.6"),
        Part::Used => ("used", "used-ring", 6 + 8 * N, 4, "virtio 1.3, 2.7 and 2.7.8"),
        Part::Indirect | Part::Buffer(_) => panic!("no area of a queue"),
    };
    Subject { name, kind, indirect: false, request, part, record, length, alignment, clause }
}

const fn buffer(
    name: &'static str,
    request: Request,
    index: u16,
    record: &'static str,
    length: u64,
    clause: &'static str,
) -> Subject {
    let kind = request.kind();
    let part = Part::Buffer(index);
    Subject { name, kind, indirect: false, request, part, record, length, alignment: 1, clause }
}

const fn table(request: Request) -> Subject {
    let kind = request.kind();
    let (length, clause) = (DESCRIPTOR * request.buffers() as u64, "virtio 1.3, 2.7.5.3");
    let (name, record, part) = ("indirect", "indirect-table", Part::Indirect);
    Subject { name, kind, indirect: true, request, part, record, length, alignment: 1, clause }
}

/// All of them.
pub const SUBJECTS: &[Subject] = &[
    area(Kind::Blk, Part::Descriptors),
    area(Kind::Blk, Part::Available),
    area(Kind::Blk, Part::Used),
    table(Request::Read),
    buffer("header", Request::Read, 0, "readable-buffer", 16, "virtio 1.3, 5.2.6"),
    buffer("data-read", Request::Read, 1, "writable-buffer", DATA, "virtio 1.3, 5.2.6"),
    buffer("data-written", Request::Write, 1, "readable-buffer", DATA, "virtio 1.3, 5.2.6"),
    buffer("status", Request::Read, 2, "writable-buffer", 1, "virtio 1.3, 5.2.6"),
    area(Kind::Rng, Part::Descriptors),
    area(Kind::Rng, Part::Available),
    area(Kind::Rng, Part::Used),
    table(Request::Random),
    buffer("data", Request::Random, 0, "writable-buffer", DATA, "virtio 1.3, 5.4.6"),
    area(Kind::Net, Part::Descriptors),
    area(Kind::Net, Part::Available),
    area(Kind::Net, Part::Used),
    table(Request::Send),
    buffer("header", Request::Send, 0, "readable-buffer", 12, "virtio 1.3, 5.1.6"),
    buffer("frame", Request::Send, 1, "readable-buffer", DATA, "virtio 1.3, 5.1.6.2"),
    area(Kind::Receive, Part::Descriptors),
    area(Kind::Receive, Part::Available),
    area(Kind::Receive, Part::Used),
    table(Request::Receive),
    buffer("header", Request::Receive, 0, "writable-buffer", 12, "virtio 1.3, 5.1.6.3.1"),
    buffer("frame", Request::Receive, 1, "writable-buffer", DATA, "virtio 1.3, 5.1.6.3"),
    area(Kind::Control, Part::Descriptors),
    area(Kind::Control, Part::Available),
    area(Kind::Control, Part::Used),
    table(Request::Command),
    buffer("command", Request::Command, 0, "readable-buffer", 2, "virtio 1.3, 5.1.6.5"),
    buffer("command-data", Request::Command, 1, "readable-buffer", 2, "virtio 1.3, 5.1.6.5"),
    buffer("ack", Request::Command, 2, "writable-buffer", 1, "virtio 1.3, 5.1.6.5"),
];

/// A descriptor as the driver writes it (virtio 1.3, 2.7.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// NEXT, WRITE, INDIRECT.
    pub flags: u16,
    /// Index of the next one.
    pub next: u16,
}

impl Descriptor {
    /// As it is in memory.
    pub fn bytes(&self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.address.to_le_bytes();
        let ([i, j, k, l], [m, n], [o, p]) =
            (self.length.to_le_bytes(), self.flags.to_le_bytes(), self.next.to_le_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }
}

/// virtio 1.3, 2.7.5.
pub const NEXT: u16 = 1;
/// virtio 1.3, 2.7.5.
pub const WRITE: u16 = 2;
/// virtio 1.3, 2.7.5.
pub const INDIRECT: u16 = 4;

/// A table of descriptors: room for more than a queue has.
pub type Table = [Descriptor; 16];

impl Request {
    const fn kind(self) -> Kind {
        match self {
            Request::Read | Request::Write => Kind::Blk,
            Request::Random => Kind::Rng,
            Request::Send => Kind::Net,
            Request::Receive => Kind::Receive,
            Request::Command => Kind::Control,
        }
    }

    /// Whether its last buffer is a byte that says how it went: 0 is well.
    pub const fn has_status(self) -> bool {
        matches!(self, Request::Read | Request::Write | Request::Command)
    }

    /// Which of its buffers has the data.
    pub const fn data(self) -> u16 {
        match self {
            Request::Random => 0,
            _ => 1,
        }
    }

    /// Number of buffers of an honest request.
    pub const fn buffers(self) -> u16 {
        match self {
            Request::Random => 1,
            Request::Send | Request::Receive => 2,
            Request::Read | Request::Write | Request::Command => 3,
        }
    }

    /// The chain of an honest request.
    pub fn chain(self, places: &Places) -> Table {
        let to = |address, length, flags, next| Descriptor { address, length, flags, next };
        let mut chain = Table::default();
        let data = (places.data(), 512);
        let direction = if self == Request::Write { 0 } else { WRITE };
        match self {
            Request::Random => chain[0] = to(data.0, data.1, WRITE, 0),
            Request::Send => {
                chain[0] = to(places.header(), 12, NEXT, 1);
                chain[1] = to(data.0, data.1, 0, 0);
            }
            Request::Receive => {
                chain[0] = to(places.header(), 12, WRITE | NEXT, 1);
                chain[1] = to(data.0, data.1, WRITE, 0);
            }
            Request::Command => {
                chain[0] = to(places.header(), 2, NEXT, 1);
                chain[1] = to(data.0, 2, NEXT, 2);
                chain[2] = to(places.status(), 1, WRITE, 0);
            }
            Request::Read | Request::Write => {
                chain[0] = to(places.header(), 16, NEXT, 1);
                chain[1] = to(data.0, data.1, direction | NEXT, 2);
                chain[2] = to(places.status(), 1, WRITE, 0);
            }
        }
        chain
    }
}
