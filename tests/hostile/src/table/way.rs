// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ways to point wrongly.

use super::{Places, Subject};

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The device serves it: nothing is wrong.
    Served,
    /// The report says so, of the structure, where it was pointed and with the length it was given.
    Refused(&'static str),
}

/// For which structures a way is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// All.
    All,
    /// Those longer than their alignment: a single byte straddles nothing.
    Long,
    /// The areas of a queue, whose length follows from its size.
    Areas,
    /// What a descriptor points at, which says how long it is.
    Pointed,
    /// Buffers: not tables.
    Buffers,
    /// Indirect tables.
    Tables,
}

/// Address and length of a structure.
pub type Extent = (u64, u64);

/// A way to be wrong.
#[derive(Debug)]
pub struct Way {
    /// In the name of a case.
    pub name: &'static str,
    /// For which structures.
    pub of: For,
    /// Where the structure is then.
    pub place: fn(&Places, &Subject) -> Extent,
    /// What must come of it.
    pub expected: Expected,
    /// From where that follows.
    pub clause: &'static str,
}

/// What the device may not reach it must refuse, and an error that it can't recover from it must tell.
const POOL: &str =
    "virtio 1.3, 6 (VIRTIO_F_ACCESS_PLATFORM: the platform limits what a device reaches) and 2.1.2";

const OUTSIDE: Expected = Expected::Refused("outside the pool");
const START: Expected = Expected::Refused("crosses the start of the pool");
const END: Expected = Expected::Refused("crosses the end of the pool");
const WRAPS: Expected = Expected::Refused("wraps around the address space");

const fn way(name: &'static str, of: For, expected: Expected, place: fn(&Places, &Subject) -> Extent) -> Way {
    Way { name, of, place, expected, clause: POOL }
}

fn down(address: u64, subject: &Subject) -> u64 {
    address - address % subject.alignment
}

/// The step by which an address can be moved: one byte, or the alignment.
fn step(subject: &Subject) -> u64 {
    match subject.part {
        super::subject::Part::Indirect => 16,
        _ => subject.alignment,
    }
}

/// RAM ends far below 2 GiB here, and nothing else begins before 3 GiB.
const UNBACKED: u64 = 0xa000_0000;
/// Physical addresses that no memory of this guest has.
const UNBACKED_HIGH: u64 = 1 << 40;
const UART: u64 = 0xd100_0000;
/// Configuration space of PCI.
const ECAM: u64 = 0xe000_0000;
const IO_APIC: u64 = 0xfec0_0000;
const LOCAL_APIC: u64 = 0xfee0_0000;

/// All of them.
pub const WAYS: &[Way] = &[
    way("last-byte-before", For::All, OUTSIDE, |at, s| (down(at.pool - s.length, s), s.length)),
    way("first-byte-before", For::Long, START, |at, s| (at.pool - s.alignment, s.length)),
    way("last-byte-behind", For::Long, END, |at, s| {
        (down(at.pool_end - s.length, s) + s.alignment, s.length)
    }),
    way("first-byte-behind", For::All, OUTSIDE, |at, s| (at.pool_end, s.length)),
    way("in-other-pool", For::All, OUTSIDE, |at, s| (at.other + 0x1_0000, s.length)),
    way("both-pools", For::Pointed, START, |at, _| (at.other, at.pool_end - at.other)),
    way("in-private", For::All, OUTSIDE, |at, s| (at.private(), s.length)),
    way("in-private-below", For::All, OUTSIDE, |at, s| (at.private_below(), s.length)),
    way("in-own-registers", For::All, OUTSIDE, |at, s| (at.registers, s.length)),
    way("in-other-registers", For::All, OUTSIDE, |at, s| (at.window, s.length)),
    way("in-other-bar", For::All, OUTSIDE, |at, s| (at.bar, s.length)),
    way("in-configuration-space", For::All, OUTSIDE, |_, s| (ECAM, s.length)),
    way("in-uart", For::All, OUTSIDE, |_, s| (UART, s.length)),
    way("in-io-apic", For::All, OUTSIDE, |_, s| (IO_APIC, s.length)),
    way("in-local-apic", For::All, OUTSIDE, |_, s| (LOCAL_APIC, s.length)),
    way("unbacked", For::All, OUTSIDE, |_, s| (UNBACKED, s.length)),
    way("unbacked-high", For::All, OUTSIDE, |_, s| (UNBACKED_HIGH, s.length)),
    way("pool-with-high-bit", For::All, OUTSIDE, |at, s| (at.data() | 1 << 63, s.length)),
    way("at-0", For::All, OUTSIDE, |_, s| (0, s.length)),
    way("ends-at-2-64", For::All, OUTSIDE, |_, s| (down(u64::MAX - s.length + 1, s), s.length)),
    way("at-2-64-less-1", For::Long, WRAPS, |_, s| (down(u64::MAX, s), s.length)),
    way("wraps-into-pool", For::Pointed, WRAPS, |at, _| (0u64.wrapping_sub(16), at.pool + 32)),
    way("around-pool", For::Pointed, START, |at, _| (at.pool - 16, at.pool_end - at.pool + 32)),
    way("pool-and-more", For::Pointed, END, |at, s| (at.pool, at.pool_end - at.pool + step(s))),
    way("longest", For::Tables, END, |at, _| (at.pool, 0xffff_fff0)),
    Way {
        name: "longest",
        of: For::Buffers,
        place: |at, _| (at.pool, 0xffff_ffff),
        expected: END,
        clause: "virtio 1.3, 2.7.5.2: with any byte before it, the chain has more than 2^32",
    },
    way("no-bytes-before", For::Buffers, OUTSIDE, |at, _| (at.pool - 1, 0)),
    way("no-bytes-behind", For::Buffers, OUTSIDE, |at, _| (at.pool_end, 0)),
    way("no-bytes-in-other-pool", For::Buffers, OUTSIDE, |at, _| (at.other + 0x1_0000, 0)),
    way("no-bytes-in-private", For::Buffers, OUTSIDE, |at, _| (at.private(), 0)),
    way("no-bytes-in-own-registers", For::Buffers, OUTSIDE, |at, _| (at.registers, 0)),
    way("no-bytes-at-0", For::Buffers, OUTSIDE, |_, _| (0, 0)),
    way("no-bytes-at-2-64-less-1", For::Buffers, OUTSIDE, |_, _| (u64::MAX, 0)),
    Way {
        name: "no-bytes",
        of: For::Tables,
        place: |at, _| (at.table(), 0),
        expected: Expected::Refused("the length of the indirect table is not a positive multiple of 16"),
        clause: "virtio 1.3, 2.7.5.3: the table is descriptors of 16 bytes, the first of them is where it starts",
    },
    Way {
        name: "odd-length",
        of: For::Tables,
        place: |at, s| (at.table(), s.length - 1),
        expected: Expected::Refused("the length of the indirect table is not a positive multiple of 16"),
        clause: "virtio 1.3, 2.7.5.3: the table is descriptors of 16 bytes",
    },
    Way {
        name: "misaligned",
        of: For::Areas,
        place: |at, s| (at.data() + s.alignment / 2, s.length),
        expected: Expected::Refused("misaligned"),
        clause: "virtio 1.3, 2.7: alignment of the three areas",
    },
    Way {
        name: "odd-address",
        of: For::Pointed,
        place: |at, s| (at.data() + 0x201, s.length),
        expected: Expected::Served,
        clause: "virtio 1.3, 2.7: alignment is asked of the three areas alone",
    },
    Way {
        name: "first-of-pool",
        of: For::All,
        place: |at, s| (at.pool, s.length),
        expected: Expected::Served,
        clause: "the first byte of the pool is in it",
    },
    Way {
        name: "last-of-pool",
        of: For::All,
        place: |at, s| (down(at.pool_end - s.length, s), s.length),
        expected: Expected::Served,
        clause: "all of it is in the pool, up to the last byte that its alignment lets it have",
    },
];
