// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whatever stands in tables and rings, against a walk written from the specification in arithmetic that cannot
//! overflow.

use std::rc::Rc;

use proptest::prelude::*;

use super::*;

const TABLE: u64 = BASE + 0x8000;
/// Small, so that many of the drawn addresses are near its ends.
const POOL: u64 = 0x1_0000;

/// Addresses that are worth trying: around the pool's ends and the address space's, at the tables, anywhere.
fn address() -> impl Strategy<Value = u64> {
    let near = |at: u64| (-40i64..40).prop_map(move |by| at.wrapping_add_signed(by));
    prop_oneof![
        6 => (BASE..BASE + POOL).boxed(),
        2 => near(BASE),
        2 => near(BASE + POOL),
        1 => near(0),
        6 => (0u64..4).prop_map(|n| TABLE + 16 * n),
        1 => any::<u64>(),
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..100, 6 => (0u32..12).prop_map(|n| 16 * n), 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn descriptor() -> impl Strategy<Value = Desc> {
    let flags = prop_oneof![8 => 0u16..8, 4 => Just(NEXT), 4 => Just(NEXT | WRITE), 1 => any::<u16>()];
    let next = prop_oneof![8 => 0u16..9, 1 => any::<u16>()];
    (address(), length(), flags, next).prop_map(|(addr, len, flags, next)| Desc { addr, len, flags, next })
}

fn inside(memory: &Memory, address: u64, len: u64) -> bool {
    let (first, end) = (u128::from(address), u128::from(address) + u128::from(len.max(1)));
    first >= u128::from(memory.base) && end <= u128::from(memory.end())
}

/// The chain at `head` as 2.7.5 has it; `None` if the driver broke a rule.
fn walk(memory: &Memory, layout: &QueueLayout, head: u16, indirect_allowed: bool) -> Option<Buffers> {
    let (mut table, mut entries, mut in_indirect) = (layout.descriptor_table, u64::from(layout.size), false);
    let (mut index, mut buffers, mut bytes) = (head, Buffers::default(), 0u128);
    loop {
        if u64::from(index) >= entries {
            return None;
        }
        let raw = memory.read(table + 16 * u64::from(index), 16);
        let addr = u64::from_le_bytes(raw[0..8].try_into().unwrap());
        let len = u64::from(u32::from_le_bytes(raw[8..12].try_into().unwrap()));
        let flags = u16::from_le_bytes([raw[12], raw[13]]);
        let next = (flags & NEXT != 0).then(|| u16::from_le_bytes([raw[14], raw[15]]));
        if flags & INDIRECT != 0 {
            let good = indirect_allowed && !in_indirect && next.is_none() && len > 0 && len % 16 == 0;
            if !good || !inside(memory, addr, len) {
                return None;
            }
            (table, entries, in_indirect, index) = (addr, len / 16, true, 0);
            continue;
        }
        bytes += u128::from(len);
        let writable = flags & WRITE != 0;
        if !inside(memory, addr, len) || bytes > 1 << 32 || (!writable && !buffers.1.is_empty()) {
            return None;
        }
        if writable { &mut buffers.1 } else { &mut buffers.0 }.push((addr, len));
        if buffers.0.len() + buffers.1.len() > usize::from(layout.size) {
            return None;
        }
        match next {
            Some(next) => index = next,
            None => return Some(buffers),
        }
    }
}

/// Pops until there is nothing more or a refusal, and compares each with the walk above.
fn check(memory: &Rc<Memory>, driver: &Driver, features: QueueFeatures) {
    let mut queue = queue(memory, driver, features);
    let layout = driver.layout;
    let before = memory.image();
    let rings = || memory.gate.audit().rings().accesses;
    for n in 0..=u64::from(layout.size) {
        let accesses = rings();
        let popped = pop(memory, &mut queue);
        // idx, the ring entry, the descriptors, and one that points at an indirect table.
        assert!(rings() - accesses <= 3 + u64::from(layout.size), "steps are bounded");
        let idx = u64::from(memory.read_u16(layout.available_ring + 2));
        let head = memory.read_u16(layout.available_ring + 4 + 2 * (n % u64::from(layout.size)));
        if idx > n + u64::from(layout.size) {
            assert!(popped.is_err());
        } else if idx == n {
            assert_eq!(popped, Ok(None));
        } else {
            let expected = walk(memory, &layout, head, features.indirect).map(|buffers| (head, buffers));
            assert_eq!(popped.clone().ok(), expected.map(Some));
        }
        if !matches!(popped, Ok(Some(_))) {
            break;
        }
    }
    assert!(before == memory.image(), "looking at chains writes nothing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Tables of any descriptors, rings of any heads.
    #[test]
    fn any_tables_and_rings_give_buffers_inside_the_pool_or_a_refusal(
        table in prop::collection::vec(descriptor(), 8),
        indirect in prop::collection::vec(descriptor(), 12),
        heads in prop::collection::vec(prop_oneof![9 => 0u16..8, 1 => any::<u16>()], 8),
        idx in prop_oneof![9 => 1u16..9, 1 => any::<u16>()],
        allowed: bool,
    ) {
        let memory = Memory::at(BASE, POOL);
        let driver = Driver::new(&memory, 8);
        memory.write_table(driver.layout.descriptor_table, &table);
        memory.write_table(TABLE, &indirect);
        for (slot, head) in (0u64..).zip(&heads) {
            memory.write_u16(driver.layout.available_ring + 4 + 2 * slot, *head);
        }
        memory.write_u16(driver.layout.available_ring + 2, idx);
        check(&memory, &driver, if allowed { INDIRECT_DESC } else { PLAIN });
    }

    /// Plain noise in all three areas and wherever an indirect table may be.
    #[test]
    fn noise_in_the_pool_gives_buffers_inside_the_pool_or_a_refusal(
        noise in prop::collection::vec(any::<u8>(), 0x200),
        (idx, head) in (1u16..9, 0u16..8),
        allowed: bool,
    ) {
        let memory = Memory::at(BASE, POOL);
        let driver = Driver::new(&memory, 8);
        memory.write(BASE, &noise);
        // Pure noise would hardly ever get past the ring.
        memory.write_u16(driver.layout.available_ring + 2, idx);
        memory.write_u16(driver.layout.available_ring + 4, head);
        check(&memory, &driver, if allowed { INDIRECT_DESC } else { PLAIN });
    }
}
