// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Chains and rings that lie in the right place and are wrong in themselves.

use super::case::{Record, Setup};
use super::subject::{Descriptor, INDIRECT, NEXT, WRITE};
use super::{DESCRIPTOR, Kind, Places, QUEUE_SIZE, Request};

/// Which structure the refusal names.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// The descriptor with this index in the table that has the buffers.
    Buffers(u64),
    /// The one after the last descriptor of an honest request, there.
    Behind,
    /// The descriptor with this index in the queue's table.
    Queue(u64),
    /// The index of the available ring.
    Index,
    /// The first entry of the available ring.
    Entry,
}

/// With which features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// With and without VIRTIO_F_INDIRECT_DESC.
    Both,
    /// With it only.
    Indirect,
    /// Without it only.
    Plain,
}

/// A way to be malformed.
#[derive(Debug)]
pub struct Malformed {
    /// In the name of a case.
    pub name: &'static str,
    /// For which device types.
    pub kinds: &'static [Kind],
    /// With which features.
    pub with: With,
    /// Spoils an honest request.
    pub spoil: fn(&Places, &mut Setup),
    /// What is refused.
    pub at: At,
    /// Why.
    pub reason: &'static str,
    /// From where that follows.
    pub clause: &'static str,
}

impl Malformed {
    pub(super) fn is_for(&self, kind: Kind, indirect: bool) -> bool {
        let features = match self.with {
            With::Both => true,
            With::Indirect => indirect,
            With::Plain => !indirect,
        };
        self.kinds.contains(&kind) && features
    }

    pub(super) fn setup(&self, kind: Kind, places: &Places, indirect: bool) -> Setup {
        let mut setup = Setup::honest(places, kind.request(), indirect);
        (self.spoil)(places, &mut setup);
        setup
    }

    pub(super) fn record(&self, kind: Kind, places: &Places, indirect: bool) -> Record {
        let buffers = if indirect { places.table() } else { places.descriptors() };
        let (structure, address, length) = match self.at {
            At::Buffers(index) => ("descriptor", buffers + DESCRIPTOR * index, DESCRIPTOR),
            At::Behind => {
                ("descriptor", buffers + DESCRIPTOR * u64::from(kind.request().buffers()), DESCRIPTOR)
            }
            At::Queue(index) => ("descriptor", places.descriptors() + DESCRIPTOR * index, DESCRIPTOR),
            // virtio 1.3, 2.7.6: flags, idx, ring[], each of 16 bits
            At::Index => ("available-ring", places.available() + 2, 2),
            At::Entry => ("available-ring", places.available() + 4, 2),
        };
        Record { structure, address, length, reason: self.reason }
    }
}

const ALL: &[Kind] = &[Kind::Blk, Kind::Rng, Kind::Net, Kind::Receive, Kind::Control];
/// Those whose requests have more than one buffer.
const CHAINS: &[Kind] = &[Kind::Blk, Kind::Net, Kind::Receive, Kind::Control];
const BLK: &[Kind] = &[Kind::Blk];
const RNG: &[Kind] = &[Kind::Rng];
const NET: &[Kind] = &[Kind::Net];
const RECEIVE: &[Kind] = &[Kind::Receive];
const CONTROL: &[Kind] = &[Kind::Control];

const TOO_LONG: &str = "the chain loops or is longer than the queue";
const NO_DESCRIPTOR: &str = "no such descriptor in its table";
const AHEAD: &str = "the available index is more than the queue size ahead";
const NESTED: &str = "INDIRECT inside an indirect table";
const OUT_OF_ORDER: &str = "a device-readable descriptor after a device-writable one";
const NOT_A_REQUEST: &str = "wrong direction, or too short for the request";

const LENGTH: &str = "virtio 1.3, 2.7.5.3.1: no chain is longer than the Queue Size";
const REQUEST: &str = "virtio 1.3, 5.2.6: header readable, then data, status writable and last";
const FRAME: &str = "virtio 1.3, 5.1.6.2: header and frame are device-readable, the header has 12 bytes";
const BUFFER: &str = "virtio 1.3, 5.1.6.3.1: a buffer is device-writable, and has room for the header";
const COMMAND: &str = "virtio 1.3, 5.1.6.5: class and command are device-readable, ack is device-writable";
const NO_NEST: &str = "virtio 1.3, 2.7.5.3.1: no INDIRECT within an indirect table, wherever it points";
const ORDER: &str = "virtio 1.3, 2.7.4.2: device-writable descriptors come after device-readable ones";
const INDEX: &str = "virtio 1.3, 2.7.13: idx counts entries, of which there are Queue Size";

const fn row(
    name: &'static str,
    kinds: &'static [Kind],
    with: With,
    (at, reason): (At, &'static str),
    clause: &'static str,
    spoil: fn(&Places, &mut Setup),
) -> Malformed {
    Malformed { name, kinds, with, spoil, at, reason, clause }
}

/// All of them.
pub const MALFORMED: &[Malformed] = &[
    // The ninth descriptor is one too many.
    row("loop-of-two", BLK, With::Both, (At::Buffers(2), TOO_LONG), LENGTH, |_, setup| {
        let last = &mut setup.buffers()[2];
        (last.flags, last.next) = (WRITE | NEXT, 1);
    }),
    row("loop-of-one", RNG, With::Both, (At::Buffers(0), TOO_LONG), LENGTH, |_, setup| {
        setup.buffers()[0].flags |= NEXT;
    }),
    // All after the first are as the last one is, so that no other clause is in the way.
    row("nine-descriptors", ALL, With::Indirect, (At::Buffers(8), TOO_LONG), LENGTH, |places, setup| {
        setup.queue_table[0].length = 9 * 16;
        let flags = setup.last().flags;
        (setup.buffers()[0].flags, setup.buffers()[0].next) = (setup.buffers()[0].flags | NEXT, 1);
        for (index, next) in (1..9).zip(2..) {
            setup.buffers()[index] =
                Descriptor { address: places.data(), length: 1, flags: flags | NEXT, next };
        }
        setup.buffers()[8].flags = flags;
    }),
    row(
        "next-behind-queue",
        ALL,
        With::Plain,
        (At::Buffers(QUEUE_SIZE as u64), NO_DESCRIPTOR),
        "virtio 1.3, 2.7.5: next is an index into the table",
        |_, setup| setup.go_on_at(QUEUE_SIZE),
    ),
    row(
        "next-behind-table",
        ALL,
        With::Indirect,
        (At::Behind, NO_DESCRIPTOR),
        "virtio 1.3, 2.7.5.3: next is an index into the indirect table",
        |_, setup| setup.go_on_at(setup.request.buffers()),
    ),
    row(
        "next-65535",
        ALL,
        With::Both,
        (At::Buffers(65535), NO_DESCRIPTOR),
        "virtio 1.3, 2.7.5: next is an index into the table",
        |_, setup| setup.go_on_at(65535),
    ),
    row(
        "head-behind-queue",
        ALL,
        With::Both,
        (At::Entry, NO_DESCRIPTOR),
        "virtio 1.3, 2.7.6: an entry is the index of a chain's head",
        |_, setup| setup.head = QUEUE_SIZE,
    ),
    row(
        "head-65535",
        ALL,
        With::Both,
        (At::Entry, NO_DESCRIPTOR),
        "virtio 1.3, 2.7.6: an entry is the index of a chain's head",
        |_, setup| setup.head = 65535,
    ),
    row("index-one-too-far", ALL, With::Both, (At::Index, AHEAD), INDEX, |_, setup| {
        setup.index = QUEUE_SIZE + 1;
    }),
    row("index-back", ALL, With::Both, (At::Index, AHEAD), INDEX, |_, setup| {
        setup.index = 65535;
    }),
    row(
        "indirect-not-negotiated",
        ALL,
        With::Plain,
        (At::Queue(0), "INDIRECT without the feature"),
        "virtio 1.3, 2.7.5.3.1: no INDIRECT unless VIRTIO_F_INDIRECT_DESC was negotiated",
        |places, setup| {
            setup.queue_table[0] =
                Descriptor { address: places.table(), length: 48, flags: INDIRECT, next: 0 };
        },
    ),
    row(
        "indirect-with-next",
        ALL,
        With::Indirect,
        (At::Queue(0), "INDIRECT together with NEXT"),
        "virtio 1.3, 2.7.5.3.1: not both INDIRECT and NEXT",
        |_, setup| setup.queue_table[0].flags |= NEXT,
    ),
    // What it points at would complete an honest request.
    row("nested-in-pool", CHAINS, With::Indirect, (At::Buffers(1), NESTED), NO_NEST, |places, setup| {
        let [_, second, third, ..] = *setup.buffers();
        (setup.buffers()[4], setup.buffers()[5]) = (Descriptor { next: 1, ..second }, third);
        let length = 16 * u32::from(setup.request.buffers() - 1);
        setup.buffers()[1] =
            Descriptor { address: places.table() + 4 * DESCRIPTOR, length, flags: INDIRECT, next: 0 };
    }),
    row("nested-in-private", CHAINS, With::Indirect, (At::Buffers(1), NESTED), NO_NEST, |places, setup| {
        setup.buffers()[1] = Descriptor { address: places.private(), length: 16, flags: INDIRECT, next: 0 };
    }),
    row("nested-in-itself", ALL, With::Indirect, (At::Buffers(0), NESTED), NO_NEST, |places, setup| {
        setup.buffers()[0] = Descriptor { address: places.table(), length: 16, flags: INDIRECT, next: 0 };
    }),
    row("readable-status", BLK, With::Both, (At::Buffers(2), OUT_OF_ORDER), ORDER, |_, setup| {
        setup.buffers()[2].flags = 0;
    }),
    row(
        "readable-after-writable",
        ALL,
        With::Both,
        (At::Buffers(1), OUT_OF_ORDER),
        ORDER,
        |places, setup| {
            if setup.indirect.is_some() {
                setup.queue_table[0].length = 2 * 16;
            }
            (setup.buffers()[0].flags, setup.buffers()[0].next) = (WRITE | NEXT, 1);
            setup.buffers()[1] = Descriptor { address: places.data(), length: 1, flags: 0, next: 0 };
        },
    ),
    row("nothing-writable", BLK, With::Both, (At::Queue(0), NOT_A_REQUEST), REQUEST, |_, setup| {
        for buffer in setup.buffers() {
            buffer.flags &= !WRITE;
        }
    }),
    row("nothing-readable", BLK, With::Both, (At::Queue(0), NOT_A_REQUEST), REQUEST, |_, setup| {
        setup.buffers()[0].flags |= WRITE;
    }),
    row("header-of-no-bytes", BLK, With::Both, (At::Queue(0), NOT_A_REQUEST), REQUEST, |_, setup| {
        setup.buffers()[0].length = 0;
    }),
    row("short-header", BLK, With::Both, (At::Queue(0), NOT_A_REQUEST), REQUEST, |_, setup| {
        setup.buffers()[0].length = 15;
    }),
    row("read-of-readable", BLK, With::Both, (At::Queue(0), NOT_A_REQUEST), REQUEST, |_, setup| {
        setup.buffers()[1].flags &= !WRITE;
    }),
    row("write-from-writable", BLK, With::Both, (At::Queue(0), NOT_A_REQUEST), REQUEST, |_, setup| {
        setup.request = Request::Write;
    }),
    row(
        "readable-buffer",
        RNG,
        With::Both,
        (At::Queue(0), NOT_A_REQUEST),
        "virtio 1.3, 5.4.6.1: no device-readable buffer is placed into the queue",
        |_, setup| setup.buffers()[0].flags &= !WRITE,
    ),
    row(
        "no-bytes-at-all",
        RNG,
        With::Both,
        (At::Queue(0), NOT_A_REQUEST),
        "virtio 1.3, 5.4.6.1: the device places one byte or more into a buffer, so it has one",
        |_, setup| setup.buffers()[0].length = 0,
    ),
    row("loop-back", NET, With::Both, (At::Buffers(0), TOO_LONG), LENGTH, |_, setup| {
        setup.buffers()[1].flags = NEXT;
    }),
    row("writable-frame", NET, With::Both, (At::Queue(0), NOT_A_REQUEST), FRAME, |_, setup| {
        setup.buffers()[1].flags = WRITE;
    }),
    row("all-writable", NET, With::Both, (At::Queue(0), NOT_A_REQUEST), FRAME, |_, setup| {
        setup.buffers()[0].flags |= WRITE;
        setup.buffers()[1].flags |= WRITE;
    }),
    row("less-than-a-header", NET, With::Both, (At::Queue(0), NOT_A_REQUEST), FRAME, |_, setup| {
        (setup.buffers()[0].flags, setup.buffers()[0].length) = (0, 11);
    }),
    row("loop-back", RECEIVE, With::Both, (At::Buffers(0), TOO_LONG), LENGTH, |_, setup| {
        setup.buffers()[1].flags |= NEXT;
    }),
    row("readable-header", RECEIVE, With::Both, (At::Queue(0), NOT_A_REQUEST), BUFFER, |_, setup| {
        setup.buffers()[0].flags &= !WRITE;
    }),
    row("less-than-a-header", RECEIVE, With::Both, (At::Queue(0), NOT_A_REQUEST), BUFFER, |_, setup| {
        (setup.buffers()[0].flags, setup.buffers()[0].length) = (WRITE, 11);
    }),
    row("no-ack", CONTROL, With::Both, (At::Queue(0), NOT_A_REQUEST), COMMAND, |_, setup| {
        setup.buffers()[2].flags &= !WRITE;
    }),
    row("ack-of-no-bytes", CONTROL, With::Both, (At::Queue(0), NOT_A_REQUEST), COMMAND, |_, setup| {
        setup.buffers()[2].length = 0;
    }),
    row("less-than-a-command", CONTROL, With::Both, (At::Queue(0), NOT_A_REQUEST), COMMAND, |_, setup| {
        (setup.buffers()[0].length, setup.buffers()[1].length) = (1, 0);
    }),
    row("loop-of-all", CONTROL, With::Both, (At::Buffers(2), TOO_LONG), LENGTH, |_, setup| {
        // The ninth descriptor, after the queue's eight: 0, 1, 2, 2, ...
        let last = &mut setup.buffers()[2];
        (last.flags, last.next) = (WRITE | NEXT, 2);
    }),
];
