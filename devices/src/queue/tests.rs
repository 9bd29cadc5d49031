// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Expectations are from virtio 1.3, 2.7; the clause stands at each test.

mod arbitrary;
mod racing;
mod rings;

use virtio_queue::desc::{RawDescriptor, split};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::GuestAddress;

use super::*;
use crate::testing::{BASE, Desc, Driver, INDIRECT, Memory, NEXT, SIZE, WRITE, linked};

const PLAIN: QueueFeatures = QueueFeatures { indirect: false, event_idx: false };
const INDIRECT_DESC: QueueFeatures = QueueFeatures { indirect: true, event_idx: false };
const EVENT_IDX: QueueFeatures = QueueFeatures { indirect: false, event_idx: true };
const MAX_SIZE: u16 = 256;

fn queue(memory: &Memory, driver: &Driver, features: QueueFeatures) -> Queue {
    Queue::new(&memory.gate, 0, MAX_SIZE, driver.layout, features).unwrap()
}

/// Guest-physical address and length of ranges that were handed out, from where they are in the host's mapping.
fn places(memory: &Memory, ranges: &[PoolRange]) -> Vec<(u64, u64)> {
    let host = |range| memory.gate.slice(range).unwrap().ptr_guard().as_ptr().addr() as u64;
    let start = host(memory.gate.check(memory.base, 0).unwrap());
    ranges.iter().map(|&range| (host(range) - start + memory.base, range.len())).collect()
}

/// What the device was given: device-readable buffers, device-writable ones.
type Buffers = (Vec<(u64, u64)>, Vec<(u64, u64)>);

fn pop(memory: &Memory, queue: &mut Queue) -> Result<Option<(u16, Buffers)>, Refusal> {
    let mut chain = Chain::default();
    Ok(queue
        .pop(&mut chain)?
        .then(|| (chain.head(), (places(memory, chain.readable()), places(memory, chain.writable())))))
}

/// A driver of `size` descriptors makes something available, and the device refuses it: not a byte of the pool
/// changes, no buffer is touched, and the refusal stays.
fn refusal(size: u16, features: QueueFeatures, make: impl FnOnce(&Memory, &mut Driver)) -> Refusal {
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, size);
    refusal_in(&memory, &mut driver, features, make)
}

fn refusal_in(
    memory: &Memory,
    driver: &mut Driver,
    features: QueueFeatures,
    make: impl FnOnce(&Memory, &mut Driver),
) -> Refusal {
    let mut queue = queue(memory, driver, features);
    make(memory, driver);
    let before = memory.image();
    let refusal = pop(memory, &mut queue).unwrap_err();
    let turn = queue.turn::<u32>(&mut Chain::default(), |_, _| panic!("served a refused chain"));
    assert_eq!(turn.unwrap_err(), refusal);
    assert!(before == memory.image(), "the pool was changed");
    let audit = memory.gate.audit();
    assert_eq!((audit.read().accesses, audit.written().accesses), (0, 0));
    refusal
}

/// The same for a single descriptor.
fn refusal_of(descriptor: Desc) -> Refusal {
    refusal(8, INDIRECT_DESC, |_, driver| {
        driver.chain(&[descriptor]);
    })
}

// Queue set-up.

/// 2.7: "Queue Size value is always a power of 2"; 4.2.2.2: at most what the device offers.
#[test]
fn a_size_that_is_no_power_of_two_or_above_the_maximum_is_refused() {
    let memory = Memory::at(BASE, 0x20_0000);
    let layout = Driver::new(&memory, 32768).layout;
    let new = |size, max| Queue::new(&memory.gate, 3, max, QueueLayout { size, ..layout }, PLAIN);
    for (size, max) in [(0, 256), (3, 256), (255, 256), (512, 256), (32768, 256), (65535, 32768), (16, 8)] {
        let refusal = new(size, max).unwrap_err();
        assert_eq!((refusal.queue, refusal.reason), (3, Reason::QueueSize), "{size} of {max}");
    }
    for (size, max) in [(1, 256), (2, 256), (256, 256), (32768, 32768)] {
        assert_eq!(new(size, max).unwrap().size(), size);
    }
}

/// The three areas of a layout, what each is called, its alignment and its size (2.7) for 8 descriptors.
#[allow(clippy::type_complexity)]
const AREAS: [(fn(&mut QueueLayout) -> &mut u64, Structure, u64, u64); 3] = [
    (|layout| &mut layout.descriptor_table, Structure::DescriptorTable, 16, 16 * 8),
    (|layout| &mut layout.available_ring, Structure::AvailableRing, 2, 6 + 2 * 8),
    (|layout| &mut layout.used_ring, Structure::UsedRing, 4, 6 + 8 * 8),
];

/// 2.7: each area has its alignment. The length includes the event field at its end, whatever was negotiated.
#[test]
fn each_area_must_be_aligned_and_inside_the_pool_to_its_last_byte() {
    // A pool whose end is not aligned, so that an area can reach past it by one byte.
    for (area, structure, alignment, length) in AREAS {
        for features in [PLAIN, EVENT_IDX] {
            for slack in 0..=alignment {
                let memory = Memory::at(BASE, 0x1_0000 - slack);
                let layout = Driver::new(&memory, 8).layout;
                let end = memory.end();
                let new = |address| {
                    let mut layout = layout;
                    *area(&mut layout) = address;
                    Queue::new(&memory.gate, 0, MAX_SIZE, layout, features)
                };
                let before = memory.image();
                let mut refused = vec![
                    (BASE - length, Reason::Outside),
                    (BASE - length.next_multiple_of(alignment), Reason::Outside),
                    (BASE - alignment, Reason::CrossesStart),
                    (0, Reason::Outside),
                    (end.next_multiple_of(alignment), Reason::Outside),
                    (u64::MAX - alignment + 1, Reason::Wraps),
                ];
                refused.retain(|(address, _)| address.is_multiple_of(alignment));
                refused.extend((1..alignment).map(|by| (BASE + by, Reason::Misaligned)));
                // All places near the end: only those with room for the whole area are good.
                let near = (end - length - 2 * alignment..end).filter(|at| at.is_multiple_of(alignment));
                for address in near {
                    if address + length <= end {
                        assert!(new(address).is_ok(), "{structure} at {address:#x}");
                    } else {
                        refused.push((address, Reason::CrossesEnd));
                    }
                }
                for (address, reason) in refused {
                    let expected = Refusal { queue: 0, structure, address, length, reason };
                    assert_eq!(new(address).unwrap_err(), expected);
                }
                assert!(before == memory.image());
            }
        }
    }
}

// Chains.

/// 2.7.5, with a driver from somebody else.
#[test]
fn a_plain_chain_from_the_mock_driver_is_taken_as_it_is() {
    let memory = Memory::new();
    let mock = MockSplitQueue::create(&memory.ram, GuestAddress(BASE), 16);
    let layout = QueueLayout {
        size: 16,
        descriptor_table: mock.desc_table_addr().0,
        available_ring: mock.avail_addr().0,
        used_ring: mock.used_addr().0,
    };
    let mut queue = Queue::new(&memory.gate, 0, 16, layout, PLAIN).unwrap();
    let at = BASE + 0x1000;
    let descriptor =
        |addr, len, flags, next| RawDescriptor::from(split::Descriptor::new(addr, len, flags, next));
    let chain = [
        descriptor(at, 16, NEXT, 6),
        descriptor(at + 100, 300, NEXT | WRITE, 7),
        descriptor(at + 500, 1, WRITE, 0),
        descriptor(at + 600, 5, 0, 0),
    ];
    mock.add_desc_chains(&chain, 5).unwrap();
    let expected = (vec![(at, 16)], vec![(at + 100, 300), (at + 500, 1)]);
    assert_eq!(pop(&memory, &mut queue), Ok(Some((5, expected))));
    assert_eq!(pop(&memory, &mut queue), Ok(Some((8, (vec![(at + 600, 5)], vec![])))));
    assert_eq!(pop(&memory, &mut queue), Ok(None));
    queue.push(5, 301).unwrap();
    let element = mock.used().ring().ref_at(0).unwrap().load();
    assert_eq!((mock.used().idx().load(), element.id(), element.len()), (1, 5, 301));
}

/// 2.7.5.3, with a driver from somebody else. It puts its tables at 768 MiB and its buffers at 4 KiB.
#[test]
fn an_indirect_chain_from_the_mock_driver_is_taken_as_it_is() {
    let memory = Memory::at(0, 0x3001_0000);
    let mut mock = MockSplitQueue::create(&memory.ram, GuestAddress(0x10_0000), 16);
    let layout = QueueLayout {
        size: 16,
        descriptor_table: mock.desc_table_addr().0,
        available_ring: mock.avail_addr().0,
        used_ring: mock.used_addr().0,
    };
    let mut queue = Queue::new(&memory.gate, 0, 16, layout, INDIRECT_DESC).unwrap();
    mock.add_indirect_chain(5).unwrap();
    let expected = (vec![(0x1000, 0x1000); 5], vec![]);
    assert_eq!(pop(&memory, &mut queue), Ok(Some((0, expected))));
}

/// 2.7.5.3.2: "zero or more normal chained descriptors followed by a single descriptor with INDIRECT", whose WRITE flag
/// is ignored; the first indirect descriptor is at index 0 and others are chained by `next`, in any order.
#[test]
fn direct_descriptors_may_be_followed_by_an_indirect_table() {
    for flags in [INDIRECT, INDIRECT | WRITE] {
        for direct in 0..3u16 {
            let memory = Memory::new();
            let mut driver = Driver::new(&memory, 8);
            let mut queue = queue(&memory, &driver, INDIRECT_DESC);
            // Not aligned: nothing asks for it.
            let (at, table) = (BASE + 0x8000, memory.alloc(16 * 3, 16) + 1);
            let indirect =
                [Desc::readable(at, 1).then(2), Desc::writable(at + 2, 3), Desc::writable(at + 1, 2).then(1)];
            memory.write_table(table, &indirect);
            let mut chain: Vec<_> = (0..direct).map(|i| Desc::readable(at + 64 * u64::from(i), 9)).collect();
            chain.push(Desc { flags, ..Desc::indirect(table, 48) });
            driver.chain(&chain);
            let mut readable: Vec<_> = (0..direct).map(|i| (at + 64 * u64::from(i), 9)).collect();
            readable.push((at, 1));
            let expected = (readable, vec![(at + 1, 2), (at + 2, 3)]);
            assert_eq!(pop(&memory, &mut queue), Ok(Some((0, expected))));
        }
    }
}

/// 2.7.5: "the maximum possible descriptor chain length" is the queue size; 2.7.5.3.1 says so for indirect ones.
#[test]
fn a_chain_is_as_long_as_the_queue_and_no_longer() {
    for (direct, indirect, good) in
        [(8, 0, true), (0, 8, true), (4, 4, true), (7, 1, true), (0, 9, false), (4, 5, false), (7, 2, false)]
    {
        let memory = Memory::new();
        let mut driver = Driver::new(&memory, 8);
        let buffer = Desc::readable(BASE + 0x8000, 1);
        let table = memory.alloc(16 * 9, 16);
        let mut chain = vec![buffer; direct];
        if indirect > 0 {
            memory.write_table(table, &linked(&vec![buffer; indirect], 0, 9));
            chain.push(Desc::indirect(table, u32::try_from(16 * indirect).unwrap()));
        }
        if good {
            let mut queue = queue(&memory, &driver, INDIRECT_DESC);
            driver.chain(&chain);
            let (_, (readable, _)) = pop(&memory, &mut queue).unwrap().unwrap();
            assert_eq!(readable.len(), 8);
        } else {
            let refusal = refusal_in(&memory, &mut driver, INDIRECT_DESC, |_, driver| {
                driver.chain(&chain);
            });
            assert_eq!(refusal.reason, Reason::ChainTooLong, "{direct} and {indirect}");
        }
    }
}

/// 2.7.5.2: "loops in the descriptor chain are forbidden", to itself, back, in an indirect table, of empty buffers.
#[test]
fn a_loop_is_refused() {
    for len in [0, 1] {
        for to in 0..3 {
            let chain =
                [0, 1, 2].map(|i| Desc::readable(BASE + 0x8000, len).then(if i == 2 { to } else { i + 1 }));
            let direct = refusal(8, PLAIN, |_, driver| {
                (0..).zip(chain).for_each(|(i, d)| driver.put(i, d));
                driver.offer(0);
            });
            assert_eq!(direct.reason, Reason::ChainTooLong);
            let indirect = refusal(8, INDIRECT_DESC, |memory, driver| {
                memory.write_table(BASE + 0x9000, &chain);
                driver.chain(&[Desc::indirect(BASE + 0x9000, 48)]);
            });
            assert_eq!(indirect.reason, Reason::ChainTooLong);
        }
    }
}

/// 2.7.6: a ring entry is the index of a descriptor; 2.7.13.3: `idx` counts what was added, so at most the queue size.
#[test]
fn an_available_ring_that_makes_no_sense_is_refused() {
    for head in [8, 9, 0x8000, 0xffff] {
        let refusal = refusal(8, PLAIN, |_, driver| driver.offer(head));
        let expected = (Structure::AvailableRing, Reason::DescriptorIndex);
        assert_eq!((refusal.structure, refusal.reason), expected, "{head}");
    }
    for idx in [9, 10, 0x8000, 0xffff] {
        let refusal = refusal(8, PLAIN, |memory, driver| {
            memory.write_u16(driver.layout.available_ring + 2, idx);
        });
        let expected = (Structure::AvailableRing, Reason::AvailableIndex);
        assert_eq!((refusal.structure, refusal.reason), expected, "{idx}");
    }
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, 8);
    let mut queue = queue(&memory, &driver, PLAIN);
    driver.put(3, Desc::readable(BASE, 1));
    (0..8).for_each(|_| driver.offer(3));
    assert!((0..8).all(|_| pop(&memory, &mut queue).unwrap().is_some()), "a full ring is good");
}

/// 2.7.5: `next` is an index of the same table.
#[test]
fn next_outside_its_table_is_refused() {
    for next in [8, 9, 0xffff] {
        let buffer = Desc::readable(BASE + 0x8000, 1);
        let direct = refusal(8, INDIRECT_DESC, |_, driver| {
            driver.put(0, buffer.then(next));
            driver.offer(0);
        });
        assert_eq!((direct.structure, direct.reason), (Structure::Descriptor, Reason::DescriptorIndex));
        // In an indirect table its own length counts, not the queue's.
        for next in [2, 7, next] {
            let indirect = refusal(8, INDIRECT_DESC, |memory, driver| {
                memory.write_table(BASE + 0x9000, &[buffer.then(next), buffer, buffer]);
                driver.chain(&[Desc::indirect(BASE + 0x9000, 32)]);
            });
            assert_eq!(
                (indirect.structure, indirect.reason),
                (Structure::Descriptor, Reason::DescriptorIndex)
            );
        }
    }
}

/// 2.7.5.3.1.
#[test]
fn indirect_descriptors_where_they_must_not_be_are_refused() {
    let buffer = Desc::readable(BASE + 0x8000, 1);
    let table = BASE + 0x9000;
    let reason = |features, in_table: &[Desc], chain: &[Desc]| {
        let make = |memory: &Memory, driver: &mut Driver| {
            memory.write_table(table, in_table);
            (0..).zip(chain).for_each(|(i, d)| driver.put(i, *d));
            driver.offer(0);
        };
        refusal(8, features, make).reason
    };
    let pointer = Desc::indirect(table, 32);
    assert_eq!(reason(PLAIN, &[buffer], &[pointer]), Reason::IndirectNotNegotiated);
    assert_eq!(reason(INDIRECT_DESC, &[buffer], &[pointer.then(1), buffer]), Reason::IndirectWithNext);
    assert_eq!(
        reason(INDIRECT_DESC, &[Desc::indirect(table + 0x100, 16)], &[pointer]),
        Reason::NestedIndirect
    );
    let nested = [buffer.then(1), Desc::indirect(table + 0x100, 16)];
    assert_eq!(reason(INDIRECT_DESC, &nested, &[pointer]), Reason::NestedIndirect);
    assert_eq!(reason(INDIRECT_DESC, &nested, &[buffer.then(1), pointer]), Reason::NestedIndirect);
}

/// 2.7.5.3: `len` is the table's length in bytes, of whole descriptors.
#[test]
fn an_indirect_table_of_no_sensible_length_is_refused() {
    for len in [0, 1, 15, 17, 31, 0xffff_fff1, u32::MAX] {
        let refusal = refusal_of(Desc::indirect(BASE + 0x9000, len));
        let expected = (Structure::IndirectTable, BASE + 0x9000, u64::from(len), Reason::IndirectLength);
        assert_eq!((refusal.structure, refusal.address, refusal.length, refusal.reason), expected);
    }
}

/// Where a range must not be, and why.
fn bad_places(len: u64) -> Vec<(u64, Reason)> {
    let end = BASE + SIZE;
    let mut places = vec![
        (0, Reason::Outside),
        (BASE - len, Reason::Outside),
        (end, Reason::Outside),
        (end + 0x10_0000, Reason::Outside),
        (u64::MAX - (len - 1), Reason::Outside),
    ];
    if len > 1 {
        places.extend([
            (BASE - 1, Reason::CrossesStart),
            (BASE - (len - 1), Reason::CrossesStart),
            (end - (len - 1), Reason::CrossesEnd),
            (end - 1, Reason::CrossesEnd),
            (u64::MAX, Reason::Wraps),
            (u64::MAX - (len - 2), Reason::Wraps),
        ]);
    }
    places
}

#[test]
fn an_indirect_table_that_is_not_in_the_pool_is_refused() {
    for len in [16, 32, 128] {
        for (address, reason) in bad_places(len) {
            let refusal = refusal_of(Desc::indirect(address, u32::try_from(len).unwrap()));
            let structure = Structure::IndirectTable;
            assert_eq!(refusal, Refusal { queue: 0, structure, address, length: len, reason });
        }
    }
    // The walk needs one descriptor of it only: it is the whole table that counts.
    let refusal = refusal_of(Desc::indirect(BASE + SIZE - 16, 0xffff_fff0));
    assert_eq!(refusal.reason, Reason::CrossesEnd);
}

/// Every placement, in both directions, directly and from an indirect table, as the first and as a later buffer.
#[test]
fn a_buffer_that_is_not_in_the_pool_is_refused() {
    let mut cases = Vec::new();
    for len in [1, 2, 512, 0x1000] {
        cases.extend(bad_places(len).into_iter().map(|(address, reason)| (address, len, reason)));
    }
    let huge = u64::from(u32::MAX);
    cases.extend([
        (BASE, huge, Reason::CrossesEnd),
        (BASE + SIZE - 1, huge, Reason::CrossesEnd),
        (0, huge, Reason::CrossesStart),
        (u64::MAX - 5, huge, Reason::Wraps),
        // An empty buffer names an address, too.
        (0, 0, Reason::Outside),
        (BASE - 1, 0, Reason::Outside),
        (BASE + SIZE, 0, Reason::Outside),
        (u64::MAX, 0, Reason::Outside),
    ]);
    let good = BASE + 0x8000;
    for (address, length, reason) in cases {
        let len = u32::try_from(length).unwrap();
        for (bad, structure) in [
            (Desc::readable(address, len), Structure::ReadableBuffer),
            (Desc::writable(address, len), Structure::WritableBuffer),
        ] {
            let expected = Refusal { queue: 0, structure, address, length, reason };
            for chain in [vec![bad], vec![Desc::readable(good, 1), bad, Desc::writable(good, 1)]] {
                let direct = refusal(8, INDIRECT_DESC, |_, driver| {
                    driver.chain(&chain);
                });
                assert_eq!(direct, expected);
                let indirect = refusal(8, INDIRECT_DESC, |memory, driver| {
                    memory.write_table(BASE + 0x9000, &linked(&chain, 0, 8));
                    driver.chain(&[Desc::indirect(BASE + 0x9000, 16 * u32::try_from(chain.len()).unwrap())]);
                });
                assert_eq!(indirect, expected);
            }
        }
    }
}

/// A turn is bounded in bytes as well as in chains; what is left has its turn later.
#[test]
fn a_turn_ends_after_so_many_bytes() {
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, 128);
    let mut queue = queue(&memory, &driver, PLAIN);
    let size = u32::try_from(SIZE).unwrap();
    let chains = 70u64;
    for _ in 0..chains {
        driver.chain(&[Desc::readable(BASE, size)]);
    }
    let mut chain = Chain::default();
    let (mut turns, mut served) = (0u64, 0u64);
    loop {
        let turn = queue.turn(&mut chain, |_, _| {
            served += 1;
            Ok(0u32)
        });
        turns += 1;
        if !turn.unwrap().more {
            break;
        }
    }
    let a_turn = TURN_BYTES.div_ceil(SIZE);
    assert_eq!((served, turns), (chains, chains.div_ceil(a_turn)));
}

/// The nearest places that are good: the first bytes of the pool, the last ones, all of them, none of them.
#[test]
fn a_buffer_in_the_pool_is_taken() {
    let size = u32::try_from(SIZE).unwrap();
    for (address, len) in
        [(BASE, 1), (BASE, size), (BASE + SIZE - 1, 1), (BASE + 1, size - 1), (BASE, 0), (BASE + SIZE - 1, 0)]
    {
        let memory = Memory::new();
        let mut driver = Driver::new(&memory, 8);
        let mut queue = queue(&memory, &driver, PLAIN);
        driver.chain(&[Desc::readable(address, len), Desc::writable(address, len)]);
        let expected = (vec![(address, u64::from(len))], vec![(address, u64::from(len))]);
        assert_eq!(pop(&memory, &mut queue), Ok(Some((0, expected))));
    }
}

/// 2.7.4.2.
#[test]
fn a_readable_buffer_after_a_writable_one_is_refused() {
    let (readable, writable) = (Desc::readable(BASE, 1), Desc::writable(BASE, 1));
    for chain in [vec![writable, readable], vec![readable, writable, writable, readable, writable]] {
        let refusal = refusal(8, PLAIN, |_, driver| {
            driver.chain(&chain);
        });
        assert_eq!(refusal.reason, Reason::ReadableAfterWritable);
    }
}

/// 2.7.5.2: "MUST NOT add a descriptor chain longer than 2^32 bytes in total", both directions together.
#[test]
fn a_chain_of_2_to_the_32_bytes_is_taken_and_one_byte_more_is_refused() {
    let memory = Memory::at(BASE, 1 << 28);
    let buffer = |i: usize| {
        let kind = if i < 8 { Desc::readable } else { Desc::writable };
        kind(BASE, 1 << 28)
    };
    let mut chain: Vec<_> = (0..16).map(buffer).collect();
    let mut driver = Driver::new(&memory, 32);
    let mut queue = queue(&memory, &driver, PLAIN);
    driver.chain(&chain);
    let (_, (readable, writable)) = pop(&memory, &mut queue).unwrap().unwrap();
    assert_eq!((readable.len(), writable.len()), (8, 8));
    chain.push(Desc::writable(BASE, 1));
    driver.chain(&chain);
    let refusal = pop(&memory, &mut queue).unwrap_err();
    assert_eq!(refusal.reason, Reason::ChainTooLarge);
}
