// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Available and used ring: indices, elements, notifications in both directions.

use super::*;

/// 2.7.8: `ring` of (le32 id, le32 len) at offset 4, at the used index modulo the queue size; `idx` at offset 2.
#[test]
fn a_used_element_is_the_head_and_the_length_in_the_next_slot() {
    let memory = Memory::new();
    let driver = Driver::new(&memory, 4);
    let mut queue = queue(&memory, &driver, PLAIN);
    let used = driver.layout.used_ring;
    let mut expected = vec![0u8; 6 + 8 * 4];
    for (n, (head, len)) in
        [(3u8, 0u32), (1, 1), (2, 0x1234_5678), (0, u32::MAX), (1, 7), (3, 9)].iter().enumerate()
    {
        queue.push(u16::from(*head), *len).unwrap();
        let at = 4 + 8 * (n % 4);
        expected[at..at + 4].copy_from_slice(&[*head, 0, 0, 0]);
        expected[at + 4..at + 8].copy_from_slice(&len.to_le_bytes());
        expected[2] = u8::try_from(n + 1).unwrap();
        assert_eq!(memory.read(used, expected.len() as u64), expected);
    }
}

/// Staged elements are not seen before the index says so, and then all at once (2.7.8.2: "prior to updating the used
/// idx"; 5.1.6.4.1: buffers of one packet are used together).
#[test]
fn staged_elements_appear_together() {
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, 4);
    let mut queue = queue(&memory, &driver, PLAIN);
    for ahead in 0..3 {
        queue.stage(ahead, 3 - ahead, 10 + u32::from(ahead)).unwrap();
        assert_eq!(driver.take_used(), []);
    }
    queue.publish(3).unwrap();
    assert_eq!(driver.take_used(), [(3, 10), (2, 11), (1, 12)]);
}

/// 2.7.13.3: idx "wraps naturally at 65536".
#[test]
fn indices_wrap_at_65536() {
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, 4);
    let mut queue = queue(&memory, &driver, PLAIN);
    let mut chain = Chain::default();
    for (head, len) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
        driver.put(head, Desc::readable(BASE, len));
    }
    for n in 0..=0x1_0010u32 {
        let head = u16::try_from(n % 3).unwrap();
        driver.offer(head);
        if n % 2 == 0 {
            driver.offer(3);
        }
        assert!(queue.pop(&mut chain).unwrap());
        assert_eq!((chain.head(), chain.readable_len()), (head, u64::from(head) + 1));
        queue.push(chain.head(), n).unwrap();
        if n % 2 == 0 {
            assert!(queue.pop(&mut chain).unwrap());
            queue.push(chain.head(), 1).unwrap();
            assert_eq!(driver.take_used(), [(u32::from(head), n), (3, 1)]);
        } else {
            assert_eq!(driver.take_used(), [(u32::from(head), n)]);
        }
        assert!(!queue.pop(&mut chain).unwrap());
    }
    // A jump of the index is seen across the wrap, too.
    (queue.next_avail, driver.avail) = (0xfffe, 0xfffe);
    memory.write_u16(driver.layout.available_ring + 2, 3);
    assert_eq!(queue.pop(&mut chain).unwrap_err().reason, Reason::AvailableIndex);
    memory.write_u16(driver.layout.available_ring + 2, 2);
    assert!(queue.pop(&mut chain).unwrap());
}

/// Chains that were given back come again, checked again.
#[test]
fn a_chain_given_back_is_popped_again() {
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, 4);
    let mut queue = queue(&memory, &driver, PLAIN);
    driver.chain(&[Desc::writable(BASE, 1)]);
    driver.chain(&[Desc::writable(BASE + 1, 2)]);
    let first = pop(&memory, &mut queue).unwrap();
    let second = pop(&memory, &mut queue).unwrap();
    queue.undo_pop(2);
    assert_eq!(pop(&memory, &mut queue).unwrap(), first);
    assert_eq!(pop(&memory, &mut queue).unwrap(), second);
    assert_eq!(pop(&memory, &mut queue).unwrap(), None);
    queue.undo_pop(1);
    driver.put(1, Desc::writable(BASE - 1, 2));
    assert_eq!(queue.pop(&mut Chain::default()).unwrap_err().reason, Reason::CrossesStart);
}

/// 2.7.7.2: a notification is due when an element was written at an index equal to `used_event`, and not otherwise;
/// the lower bit of `flags` is ignored.
#[test]
fn with_event_idx_an_interrupt_is_due_when_used_event_was_passed() {
    let memory = Memory::new();
    let driver = Driver::new(&memory, 8);
    let mut queue = queue(&memory, &driver, EVENT_IDX);
    let starts = (0..10u16).chain(0x7ff8..0x8008).chain(0xfff4..=0xffff);
    for old in starts {
        for count in 0..=8u16 {
            for near in -10i16..=20 {
                let event = old.wrapping_add_signed(near);
                let due = (0..count).any(|i| old.wrapping_add(i) == event);
                for flags in [0, 1] {
                    (queue.next_used, queue.signalled_used) = (old, old);
                    memory.write_u16(driver.used_event(), event);
                    memory.write_u16(driver.layout.available_ring, flags);
                    (0..count).for_each(|i| queue.push(i, 0).unwrap());
                    assert_eq!(queue.wants_interrupt(), Ok(due), "{old} + {count}, event {event}");
                    assert_eq!(queue.wants_interrupt(), Ok(false), "nothing was added since");
                }
            }
        }
    }
}

/// 2.7.7.2: "MUST ignore the used_event value"; "If flags is 1, the device SHOULD NOT send a notification".
#[test]
fn without_event_idx_the_flag_alone_suppresses_interrupts() {
    let memory = Memory::new();
    let driver = Driver::new(&memory, 8);
    let mut queue = queue(&memory, &driver, PLAIN);
    assert_eq!(queue.wants_interrupt(), Ok(false), "nothing was added");
    for event in [0, 1, 2, 3, 4, 0xffff] {
        for (flags, due) in [(0, true), (1, false)] {
            memory.write_u16(driver.used_event(), event);
            memory.write_u16(driver.layout.available_ring, flags);
            queue.push(0, 0).unwrap();
            assert_eq!(queue.wants_interrupt(), Ok(due));
        }
    }
}

/// 2.7.10.2: without EVENT_IDX `flags` says whether to notify, and nothing is written to `avail_event`.
#[test]
fn without_event_idx_notifications_are_asked_for_by_flag() {
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, 4);
    let mut queue = queue(&memory, &driver, PLAIN);
    let mut chain = Chain::default();
    memory.write_u16(driver.avail_event(), 0xabcd);
    queue.suppress_notifications().unwrap();
    assert_eq!(memory.read_u16(driver.layout.used_ring), 1);
    assert!(!queue.rearm(&mut chain).unwrap());
    assert_eq!(memory.read_u16(driver.layout.used_ring), 0);
    // One that came before the wish was written is not missed.
    driver.chain(&[Desc::readable(BASE, 1)]);
    assert!(queue.rearm(&mut chain).unwrap());
    assert_eq!(memory.read_u16(driver.avail_event()), 0xabcd);
}

/// 2.7.10.2: with EVENT_IDX `flags` stays 0, and `avail_event` is the index whose writing is to be told.
#[test]
fn with_event_idx_notifications_are_asked_for_by_index() {
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, 4);
    let mut queue = queue(&memory, &driver, EVENT_IDX);
    let mut chain = Chain::default();
    for start in [0, 0x7fff, 0xffff] {
        (queue.next_avail, driver.avail) = (start, start);
        memory.write_u16(driver.layout.available_ring + 2, start);
        queue.suppress_notifications().unwrap();
        assert!(!queue.rearm(&mut chain).unwrap());
        assert_eq!(memory.read_u16(driver.avail_event()), start);
        driver.chain(&[Desc::readable(BASE, 1)]);
        assert!(queue.rearm(&mut chain).unwrap());
        assert!(!queue.rearm(&mut chain).unwrap());
        assert_eq!(memory.read_u16(driver.avail_event()), start.wrapping_add(1));
        assert_eq!(memory.read_u16(driver.layout.used_ring), 0);
    }
}

/// A turn is bounded by the queue size, asks for notifications when the queue is empty, and stops at a refusal with
/// what was served before it used.
#[test]
fn a_turn_serves_what_is_there_up_to_a_refusal() {
    for (good, bad, more) in [(0, 0, false), (3, 0, false), (8, 0, true), (3, 1, false), (0, 1, false)] {
        let memory = Memory::new();
        let mut driver = Driver::new(&memory, 8);
        let mut queue = queue(&memory, &driver, PLAIN);
        for _ in 0..good {
            driver.chain(&[Desc::writable(BASE, 4)]);
        }
        for _ in 0..bad {
            driver.chain(&[Desc::writable(BASE - 4, 4)]);
        }
        let turn = queue.turn(&mut Chain::default(), |_, chain| Ok(10 + u32::from(chain.head())));
        let served: Vec<_> = (0..good).map(|head| (head, 10 + head)).collect();
        assert_eq!(driver.take_used(), served);
        match turn {
            Ok(turn) => {
                assert_eq!((bad, turn), (0, Turn { interrupt: good > 0, more }));
            }
            Err(refusal) => assert_eq!((bad, refusal.reason), (1, Reason::Outside)),
        }
    }
}
