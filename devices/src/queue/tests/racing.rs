// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver that rewrites descriptors while the device walks them, as another vCPU can (virtio 1.3, 2.7.13). What was
//! checked is not read again to be used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vm_memory::Bytes;

use super::*;

/// How often shared memory is read: the index, the entry, and each descriptor, once.
#[test]
fn everything_is_read_once() {
    for indirect in [false, true] {
        let memory = Memory::new();
        let mut driver = Driver::new(&memory, 8);
        let mut queue = queue(&memory, &driver, INDIRECT_DESC);
        let buffers = [0; 4].map(|_| Desc::writable(memory.alloc(64, 1), 64));
        if indirect {
            let table = memory.alloc(64, 1);
            memory.write_table(table, &linked(&buffers, 0, 4));
            driver.chain(&[Desc::indirect(table, 64)]);
        } else {
            driver.chain(&buffers);
        }
        let rings = || memory.gate.audit().rings().accesses;
        let before = rings();
        let (_, (_, writable)) = pop(&memory, &mut queue).unwrap().unwrap();
        assert_eq!(writable, buffers.map(|buffer| (buffer.addr, 64)));
        // With an indirect table there is one descriptor more: the one that points at it.
        assert_eq!(rings() - before, 1 + 1 + 4 + u64::from(indirect));
    }
}

struct Finally<F: Fn()>(F);

impl<F: Fn()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The one descriptor has two words, and each of them changes all the time: some of what they make together is in the pool
/// and some is not. What is taken can be written, and no other byte of the pool is.
#[test]
fn a_descriptor_that_changes_all_the_time_is_one_or_another() {
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, 8);
    let places = [memory.alloc(64, 1), memory.alloc(64, 1)];
    let addresses = [places[0], BASE - 8, places[1], BASE + SIZE - 32, u64::MAX - 63];
    let second = |len: u64, flags: u16| len | u64::from(flags) << 32;
    let words = [second(64, WRITE), second(64, 0), second(0x7fff_ffff, WRITE), second(64, WRITE | NEXT)];
    let before = memory.image();
    let (descriptor, ram) = (GuestAddress(driver.layout.descriptor_table), memory.ram.clone());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // However this ends, the writer does, too.
        let _over = Finally(|| over.store(true, Ordering::Relaxed));
        scope.spawn(|| {
            for (address, word) in addresses.iter().cycle().zip(words.iter().cycle()) {
                // Each word changes as a whole: only the two together are ever a mixture.
                ram.store(*address, descriptor, Ordering::Relaxed).unwrap();
                ram.store(*word, GuestAddress(descriptor.0 + 8), Ordering::Relaxed).unwrap();
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let (mut taken, mut refused) = (0, 0);
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut queue = queue(&memory, &driver, PLAIN);
        let mut chain = Chain::default();
        // On one CPU thousands are taken while the writer does not run: a count alone says nothing about what it wrote.
        let seen = || places.iter().all(|place| memory.read(*place, 64) == [0x5a; 64]);
        while taken < 5_000 || refused < 5_000 || !seen() {
            driver.offer(0);
            match queue.pop(&mut chain) {
                Ok(popped) => {
                    assert!(popped);
                    // A chain that loops may be found to end, and then has the buffer several times.
                    let len = usize::try_from(chain.writable_len().min(64)).unwrap();
                    let written = parts(chain.writable(), 0, u64::MAX).write(&memory.gate, &[0x5a; 64]);
                    assert_eq!(written, Ok(len), "what has passed the gate is in the pool");
                    queue.push(chain.head(), 0).unwrap();
                    taken += 1;
                }
                // As after a reset.
                Err(_) => {
                    driver.avail = 0;
                    memory.write_u16(driver.layout.available_ring + 2, 0);
                    queue = super::queue(&memory, &driver, PLAIN);
                    refused += 1;
                }
            }
            if Instant::now() > deadline {
                panic!("{taken} taken and {refused} refused, each place was written: {}; no race", seen());
            }
        }
    });
    let QueueLayout { descriptor_table, available_ring, used_ring, .. } = driver.layout;
    let areas =
        [(descriptor_table, 128), (available_ring, 22), (used_ring, 70), (places[0], 64), (places[1], 64)];
    for (at, (was, is)) in (BASE..).zip(before.iter().zip(memory.image())) {
        let ours = areas.iter().any(|(area, len)| (*area..area + len).contains(&at));
        assert!(ours || *was == is, "{at:#x} was written");
    }
}
