// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames are read into the driver's buffers, and what becomes of those that are too long, or lost, after they were read.

use super::*;
use crate::testing::REQUIRED;

/// Header, addresses and type of Ethernet: the device decides on its own copy of them.
const FIRST: u64 = 12 + 14;

impl Bench {
    /// The parts of the last frame that are in the pool: guest-physical address and length.
    fn in_place(&self) -> Vec<(u64, u64)> {
        let (host, size) = self.rig.memory.gate.pool().mapping();
        let parts = self.wire.with(|wire| wire.parts.clone());
        let pool = parts.into_iter().filter(|(at, _)| (host..host + size).contains(at));
        pool.map(|(at, len)| (at - host + self.rig.memory.base, len)).collect()
    }

    /// Bytes that the device has read from buffers, and those that it has written.
    fn moved(&self) -> (u64, u64) {
        let audit = self.rig.memory.gate.audit();
        (audit.read().bytes, audit.written().bytes)
    }

    /// Buffers of 100 bytes.
    fn hundreds(&mut self, count: usize) -> Vec<(u64, u32)> {
        (0..count).flat_map(|_| self.buffers(&[100])).collect()
    }

    /// A frame of 250 bytes, which has taken three buffers of 100 bytes: the next may take as many.
    fn with_three_buffers_a_frame(features: u64) -> Self {
        let mut bench = Self::new(MRG_RXBUF | features);
        bench.hundreds(3);
        bench.arrives(&frame(250));
        assert_eq!(bench.receive(), [(0, 100), (1, 100), (2, 50)]);
        bench
    }
}

/// The bytes that the tap wrote there are those that the driver gets: nothing is copied but the first few, and
/// `num_buffers`.
#[test]
fn a_frame_is_read_into_its_buffer() {
    for features in [0, MRG_RXBUF] {
        for cut in [1, 12, 26, 30, 1000] {
            let mut bench = Bench::new(features);
            let places = bench.buffers(&[cut, 2048 - cut]);
            bench.arrives(&frame(1526));
            assert_eq!(bench.receive(), [(0, 1526)]);
            let mut expected: Vec<_> = places.iter().map(|&(at, len)| (at, u64::from(len))).collect();
            let mut skip = FIRST;
            for (at, len) in &mut expected {
                let skipped = skip.min(*len);
                (*at, *len, skip) = (*at + skipped, *len - skipped, skip - skipped);
            }
            expected.retain(|(_, len)| *len > 0);
            assert_eq!(bench.in_place(), expected, "{cut}");
            assert_eq!(bench.moved(), (0, 1526 + 2));
            assert_eq!(bench.rig.memory.gather(&places)[..1526], received(&frame(1526), 1));
        }
    }
}

/// As many buffers as the last frame took, or one less than were looked at. What it does not take is for the next.
#[test]
fn as_many_buffers_are_looked_at_as_frames_take() {
    let mut bench = Bench::with_three_buffers_a_frame(0);
    assert_eq!(bench.in_place().len(), 1, "nobody knew");
    let mut places = bench.hundreds(9);
    for (len, looked_at, used) in [
        (250, 3, &[100, 100, 50][..]),
        (60, 3, &[60]),
        (100, 2, &[100]),
        (101, 1, &[100, 1]),
        (150, 2, &[100, 50]),
    ] {
        let before = bench.moved();
        bench.arrives(&frame(len));
        let lens: Vec<_> = bench.receive().iter().map(|(_, len)| *len).collect();
        assert_eq!(lens, used);
        let buffers: Vec<_> = places.drain(..used.len()).zip(used).map(|((at, _), len)| (at, *len)).collect();
        let expected = received(&frame(len), u16::try_from(used.len()).unwrap());
        assert_eq!(bench.rig.memory.gather(&buffers), expected, "{len}");
        // A frame that is longer goes the long way.
        let fits = used.len() <= looked_at;
        assert_eq!(bench.moved().0 == before.0, fits, "{len}");
        if fits {
            assert_eq!(bench.moved().1, before.1 + len as u64 + 2);
        }
    }
}

/// Some of its bytes are in buffers that the driver does not get yet.
#[test]
fn a_frame_waits_for_more_buffers_than_it_was_read_into() {
    for buffers in [0, 1, 2] {
        for features in [0, EVENT_IDX] {
            let mut bench = Bench::with_three_buffers_a_frame(features);
            let mut places = bench.hundreds(buffers);
            let mut sent = frame(290);
            sent[0] = 2; // flags: DATA_VALID, which the driver has not asked for
            bench.arrives(&sent);
            sent[0] = 0;
            while places.len() < 3 {
                assert_eq!(bench.receive(), [], "{buffers}");
                assert_eq!(bench.in_place().len(), buffers);
                places.extend(bench.hundreds(1));
            }
            // More than it needs.
            let rest = bench.hundreds(1);
            assert_eq!(bench.receive(), [(3, 100), (4, 100), (5, 90)]);
            assert_eq!(bench.rig.memory.gather(&places)[..290], received(&sent, 3));
            bench.arrives(&frame(61));
            assert_eq!(bench.receive(), [(6, 61)]);
            assert_eq!(bench.rig.memory.gather(&rest)[..61], received(&frame(61), 1));
        }
    }
}

/// 5.1.4.1: it is not passed, and its buffers are for the next.
#[test]
fn a_frame_that_is_lost_after_it_was_read_takes_no_buffer() {
    const F_MTU: u64 = 1 << 3;
    for features in [F_MTU, F_MTU | MRG_RXBUF, F_MTU | EVENT_IDX] {
        let mut bench = Bench::new(features);
        let places = bench.buffers(&[2000]);
        let mut large = frame(12 + 14 + usize::from(MTU) + 1);
        large[1] = 0; // gso_type: NONE
        bench.arrives(&large);
        assert_eq!(bench.receive(), []);
        assert_eq!(bench.in_place(), [(places[0].0 + FIRST, 2000 - FIRST)]);
        assert_eq!(bench.rig.interrupts.take(), (0, 0));
        // Nor do the headers stand there, without which the rest is no frame.
        assert!(bench.rig.memory.gather(&places)[..26].iter().all(|byte| *byte == 0xee));
        bench.arrives(&frame(61));
        assert_eq!(bench.receive(), [(0, 61)]);
        assert_eq!(bench.rig.memory.gather(&places)[..61], received(&frame(61), 1));
    }
}

/// 5.1.6.3.2: one buffer without VIRTIO_NET_F_MRG_RXBUF, whatever the driver before had.
#[test]
fn only_mergeable_buffers_share_a_frame() {
    let mut bench = Bench::with_three_buffers_a_frame(0);
    bench.rig.initialise(REQUIRED);
    let places = bench.hundreds(3);
    bench.arrives(&frame(101));
    assert_eq!(bench.receive(), []);
    assert_eq!(bench.in_place(), [(places[0].0 + FIRST, 100 - FIRST)]);
    bench.arrives(&frame(100));
    assert_eq!(bench.receive(), [(0, 100)]);
    assert_eq!(bench.rig.memory.gather(&places[..1]), received(&frame(100), 1));
}

/// No byte goes where it may not, and the frames before it are not held up by it.
#[test]
fn a_bad_buffer_is_refused_when_a_frame_gets_to_it() {
    let end = Memory::new().end();
    for bad in [Desc::writable(end - 99, 100), Desc::readable(end - 100, 100), Desc::writable(end - 11, 11)] {
        let mut bench = Bench::with_three_buffers_a_frame(0);
        let places = bench.hundreds(1);
        bench.rig.drivers[0].chain(&[bad]);
        // Without a frame, too.
        assert_eq!(bench.receive(), []);
        bench.arrives(&frame(60));
        assert_eq!(bench.receive(), [(3, 60)]);
        assert_eq!(bench.in_place(), [(places[0].0 + FIRST, 100 - FIRST)]);
        assert_eq!(bench.rig.refusals().total, 0);
        bench.arrives(&frame(61));
        bench.rig.assert_refused(0);
        assert_eq!(bench.rig.memory.read(end - 99, 99), [0; 99]);
    }
}

/// The tap takes so many parts and no more, which are asserted there.
#[test]
fn a_frame_is_read_into_no_more_buffers_than_one_call_takes() {
    let mut bench = Bench::new(MRG_RXBUF | INDIRECT_DESC);
    let memory = bench.rig.memory.clone();
    let mut places = Vec::new();
    for round in 0..2 {
        for descriptors in [256, 100, 156, 1, 100] {
            let table = memory.alloc(16 * descriptors, 16);
            let at = memory.alloc(40 * descriptors, 1);
            let buffers: Vec<_> = (0..descriptors).map(|n| Desc::writable(at + 40 * n, 40)).collect();
            memory.write_table(table, &crate::testing::linked(&buffers, 0, u16::MAX));
            let len = u32::try_from(16 * descriptors).unwrap();
            bench.rig.drivers[0].chain(&[Desc::indirect(table, len)]);
            places.push((at, u32::try_from(40 * descriptors).unwrap()));
        }
        let bytes: usize = places.iter().map(|(_, len)| *len as usize).sum();
        bench.arrives(&frame(bytes));
        assert_eq!(bench.receive().len(), 5, "{round}");
        assert_eq!(bench.in_place().len(), 256, "all of the first, behind its first bytes");
        assert!(memory.gather(&places) == received(&frame(bytes), 5));
        places.clear();
    }
}

/// What the driver does while the tap fills its buffers changes nothing about where the frame goes.
#[test]
fn a_chain_that_changes_meanwhile_is_the_one_that_was_checked() {
    for (len, refused) in [(100, false), (150, true)] {
        let mut bench = Bench::new(MRG_RXBUF);
        let places = bench.hundreds(2);
        let (table, end) = (bench.rig.drivers[0].layout.descriptor_table, bench.rig.memory.end());
        // The buffer's address, in its descriptor.
        bench.wire.with(|wire| {
            wire.meanwhile = Some((bench.rig.memory.ram.clone(), table, (end - 50).to_le_bytes().to_vec()));
        });
        bench.arrives(&frame(len));
        let used = bench.receive();
        assert_eq!(bench.in_place(), [(places[0].0 + FIRST, 100 - FIRST)]);
        assert_eq!(bench.rig.memory.read(end - 50, 50), [0; 50]);
        if refused {
            // The frame was longer than the chain, which was looked at once more.
            assert_eq!(used, []);
            assert_eq!(bench.rig.refusals().first[0].0.reason, Reason::CrossesEnd);
        } else {
            assert_eq!(used, [(0, 100)]);
            assert_eq!(bench.rig.memory.gather(&places[..1]), received(&frame(100), 1));
            assert_eq!(bench.rig.refusals().total, 0);
        }
    }
}
