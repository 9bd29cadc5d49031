// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A queue that is looked at again.

use std::rc::Rc;
use std::sync::atomic::AtomicU16;

use super::*;
use crate::pool::PoolRange;
use crate::queue::{Chain, QueueFeatures};
use crate::testing::{Desc, Driver};

/// Gives each buffer back as it is.
#[derive(Debug, Default)]
struct Echo(Chain);

impl DeviceType for Echo {
    fn kind(&self) -> Kind {
        Kind::Blk
    }
    fn features(&self) -> u64 {
        0
    }
    fn max_queue_sizes(&self) -> &[u16] {
        &[8]
    }
    fn buffers(&self) -> u64 {
        0
    }
    fn config_space(&self) -> Vec<u8> {
        Vec::new()
    }
    fn into_lanes(self: Box<Self>, _pool: &Pool) -> Vec<Box<dyn Lane>> {
        vec![self]
    }
}

impl Lane for Echo {
    fn start(&mut self, _features: u64) {}
    fn polls(&self) -> bool {
        true
    }
    fn serve(&mut self, index: u16, queues: &mut Queues) -> Result<Turn, Refusal> {
        let Some(queue) = queues.get(index) else { return Ok(Turn::default()) };
        queue.suppress_notifications()?;
        queue.turn(&mut self.0, |_, _| Ok(0))
    }
}

/// A driver that makes its next buffer available when it gets the last one back, and notifies nobody.
#[derive(Debug)]
struct Prompt {
    gate: Gate,
    avail: PoolRange,
    next: AtomicU16,
    buffers: u16,
}

impl Interrupt for Prompt {
    fn used_buffer(&self, _queue: u16) {
        let next = self.next.load(Ordering::SeqCst);
        if next < self.buffers {
            self.next.store(next + 1, Ordering::SeqCst);
            self.gate.store(self.avail, 2, (next + 1).to_le(), Ordering::SeqCst).unwrap();
        }
    }
    fn config_change(&self) {}
    fn reset(&self) {}
}

const BUFFERS: u16 = 5;

/// A device whose driver has one buffer available of five.
fn prompted(features: QueueFeatures) -> (Handle, Driver, Rc<Memory>) {
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, 8);
    for _ in 0..BUFFERS {
        let buffer = memory.alloc(16, 1);
        driver.chain(&[Desc::writable(buffer, 16)]);
    }
    memory.write_u16(driver.layout.available_ring + 2, 1);
    let gate = memory.gate.clone();
    let avail = gate.check(driver.layout.available_ring, 4).unwrap();
    let prompt = Prompt { gate: gate.clone(), avail, next: AtomicU16::new(1), buffers: BUFFERS };
    let handle = Handle::new("echo", Box::<Echo>::default(), &gate, Arc::new(prompt));
    let queue = Queue::new(&gate, 0, 8, driver.layout, features).unwrap();
    handle.start(0, vec![Some(queue)]);
    (handle, driver, memory)
}

/// What comes soon is served without a notification; then one is asked for.
#[test]
fn a_driver_that_goes_on_at_once_need_not_notify() {
    for event_idx in [false, true] {
        let (handle, mut driver, memory) = prompted(QueueFeatures { event_idx, indirect: false });
        if event_idx {
            // It wants an interrupt for each.
            memory.write_u16(driver.used_event(), 0);
        }
        handle.engines[0].engine.lock().unwrap().poll = Poll::certain();
        assert!(!handle.serve(0));
        let expected = if event_idx { 2 } else { BUFFERS };
        assert_eq!(driver.take_used().len(), usize::from(expected));
        if event_idx {
            assert_eq!(memory.read_u16(driver.avail_event()), expected);
        } else {
            assert_eq!(memory.read_u16(driver.layout.used_ring), 0, "no notification is wanted");
        }
    }
}

/// One that has not paid lately is not looked at again.
#[test]
fn a_driver_that_takes_its_time_notifies() {
    let (handle, mut driver, memory) = prompted(QueueFeatures::default());
    assert!(!handle.serve(0));
    assert_eq!((driver.take_used().len(), memory.read_u16(driver.layout.used_ring)), (1, 0));
}

/// Somebody who waits does not wait for the end of the look, and nothing is lost by it.
#[test]
fn a_look_gives_way() {
    let (handle, mut driver, _memory) = prompted(QueueFeatures::default());
    handle.engines[0].engine.lock().unwrap().poll = Poll::certain();
    let waiter = handle.waiters.announce();
    assert!(handle.serve(0), "there may be more to do");
    drop(waiter);
    assert!(!handle.serve(0));
    assert_eq!(driver.take_used().len(), usize::from(BUFFERS));
}
