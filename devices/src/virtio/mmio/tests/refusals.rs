// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Queues that are frozen, stopped or refused; DEVICE_NEEDS_RESET; reset.

use super::*;
use crate::pool::{Reason, Structure};
use crate::testing::{BASE, SIZE};

impl Bench {
    fn layouts(&self) -> [QueueLayout; 2] {
        self.transport.with_core(|core| [core.queue_layout(0), core.queue_layout(1)])
    }

    /// Tries to change everything about the queue that is selected.
    fn scribble(&self) {
        self.write(QUEUE_NUM, 2);
        for register in AREAS {
            self.write(register, 0x1000);
            self.write(register + 4, 0x1000);
        }
    }

    /// DEVICE_NEEDS_RESET, and the configuration change notification that goes with it (2.1.2).
    fn assert_needs_reset(&self, status: u32, refusals: u64) {
        assert_eq!(self.read(STATUS), status | 64);
        assert_eq!(self.read(INTERRUPT_STATUS) & 2, 2);
        assert!(self.edges() > 0);
        assert_eq!(self.memory.gate.audit().refusals().total, refusals);
    }

    /// 2.1.2, 4.2.2.1: what a reset clears; then everything works as on the first day.
    fn assert_works_after_reset(&mut self) {
        self.write(STATUS, 0);
        assert_eq!((self.read(STATUS), self.read(INTERRUPT_STATUS)), (0, 0));
        for queue in [0, 1] {
            self.write(QUEUE_SEL, queue);
            assert_eq!(self.read(QUEUE_READY), 0);
        }
        assert_eq!(self.layouts(), [QueueLayout::default(); 2]);
        assert_eq!(self.take_calls().last(), Some(&Call::Stop));
        self.initialise(15);
        assert_eq!(self.request(0), [(0, 4)]);
        assert_eq!(self.request(1), [(0, 4)]);
        assert_eq!((self.read(STATUS), self.read(INTERRUPT_STATUS)), (15, 1));
    }
}

/// 3.1.1, step 7: queues are set up after FEATURES_OK and before DRIVER_OK.
#[test]
fn a_queue_is_set_up_between_features_ok_and_driver_ok_only() {
    let mut bench = Bench::new();
    for status in [0, 1, 3] {
        bench.restart(status);
        bench.set_up_queue(0);
        bench.write(QUEUE_READY, 1);
        assert_eq!((bench.read(QUEUE_READY), bench.read(STATUS)), (0, status));
        assert_eq!(bench.layouts()[0], QueueLayout::default());
    }
    bench.restart(11);
    bench.write(STATUS, 15);
    bench.set_up_queue(0);
    bench.write(QUEUE_READY, 1);
    assert_eq!((bench.read(QUEUE_READY), bench.read(STATUS)), (0, 15));
    assert_eq!(bench.request(0), []);
}

/// 4.2.2.2: "When QueueReady is not zero, the driver MUST NOT access QueueNum, QueueDescLow, ..."
#[test]
fn an_enabled_queue_is_frozen() {
    let mut bench = Bench::new();
    bench.restart(11);
    bench.set_up_queue(0);
    bench.write(QUEUE_READY, 1);
    let before = bench.layouts();
    assert_eq!(before[0], bench.drivers[0].layout);
    bench.scribble();
    bench.write(QUEUE_READY, 1);
    assert_eq!((bench.layouts(), bench.read(QUEUE_READY)), (before, 1));
    // The other one is free still, and QueueSel tells them apart.
    bench.set_up_queue(1);
    bench.scribble();
    assert_eq!(bench.layouts()[1].size, 2);
    bench.write(STATUS, 15);
    for queue in [0, 1] {
        let before = bench.layouts();
        bench.write(QUEUE_SEL, queue);
        bench.scribble();
        assert_eq!(bench.layouts(), before);
    }
    assert_eq!(bench.request(0), [(0, 4)]);
}

/// 4.2.2: a queue size register is 32 bits wide, a queue size is 16.
#[test]
fn a_queue_size_is_not_cut_to_16_bits() {
    let mut bench = Bench::new();
    for size in [0x1_0000, 0x1_0008, 0x8000_0010, u32::MAX, 0, 3, 32] {
        bench.restart(11);
        bench.set_up_queue(0);
        bench.write(QUEUE_NUM, size);
        bench.write(QUEUE_READY, 1);
        assert_eq!((bench.read(QUEUE_READY), bench.read(STATUS)), (0, 11 | 64), "{size:#x}");
    }
}

/// No area outside the pool is ever used; the driver is told, and can start again.
#[test]
fn queue_ready_with_an_area_outside_the_pool_needs_a_reset() {
    let structures = [Structure::DescriptorTable, Structure::AvailableRing, Structure::UsedRing];
    for (register, structure) in AREAS.into_iter().zip(structures) {
        for address in [0, BASE - 16, BASE + SIZE - 16, BASE + SIZE, BASE + (1 << 32), u64::MAX - 15] {
            let mut bench = Bench::new();
            bench.restart(11);
            bench.set_up_queue(1);
            bench.write(register, u32::try_from(address & 0xffff_ffff).unwrap());
            bench.write(register + 4, u32::try_from(address >> 32).unwrap());
            let before = bench.memory.image();
            bench.write(QUEUE_READY, 1);
            assert_eq!(bench.read(QUEUE_READY), 0);
            bench.assert_needs_reset(11, 1);
            let (refusal, count) = bench.memory.gate.audit().refusals().first[0];
            assert_eq!(
                (refusal.queue, refusal.structure, refusal.address, count),
                (1, structure, address, 1)
            );
            // A driver that goes on nevertheless gets nothing, on no queue.
            bench.set_up_queue(0);
            bench.write(QUEUE_READY, 1);
            bench.write(STATUS, 15);
            assert_eq!(bench.read(STATUS), 15 | 64);
            assert_eq!((bench.request(0), bench.request(1)), (vec![], vec![]));
            assert!(!bench.take_calls().iter().any(|call| matches!(call, Call::Start(_))));
            let used = bench.drivers[0].layout.used_ring;
            let used = usize::try_from(used - BASE).unwrap();
            assert!(before[used..used + 134] == bench.memory.image()[used..used + 134]);
            bench.assert_works_after_reset();
            assert_eq!(bench.memory.gate.audit().refusals().total, 1);
        }
    }
}

/// 2.1.2: DEVICE_NEEDS_RESET, then a notification; what was served before the bad chain is used.
#[test]
fn a_refusal_during_service_stops_the_device_until_it_is_reset() {
    for queue in [0u16, 1] {
        let mut bench = Bench::started();
        let driver = &mut bench.drivers[usize::from(queue)];
        driver.request(&[], &[7]);
        driver.chain(&[Desc::writable(BASE + SIZE - 1, 2)]);
        driver.request(&[], &[9]);
        let last = bench.memory.read(BASE + SIZE - 1, 1);
        bench.notify(u32::from(queue));
        bench.assert_needs_reset(15, 1);
        assert_eq!(bench.drivers[usize::from(queue)].take_used(), [(0, 7)]);
        // The used buffer, too, is told.
        assert_eq!(bench.read(INTERRUPT_STATUS), 3);
        assert_eq!(bench.memory.read(BASE + SIZE - 1, 1), last);
        let (refusal, _) = bench.memory.gate.audit().refusals().first[0];
        let expected = (queue, Structure::WritableBuffer, BASE + SIZE - 1, 2, Reason::CrossesEnd);
        let Refusal { queue: q, structure, address, length, reason } = refusal;
        assert_eq!((q, structure, address, length, reason), expected);
        // No further service, on any queue; no further refusals either.
        bench.take_calls();
        assert_eq!((bench.request(0), bench.request(1)), (vec![], vec![]));
        assert_eq!(bench.take_calls(), []);
        assert_eq!(bench.memory.gate.audit().refusals().total, 1);
        bench.assert_works_after_reset();
        assert_eq!(bench.memory.gate.audit().refusals().total, 1, "the record outlives the reset");
    }
}

/// 4.2.2.1: "The device MUST NOT access virtual queue contents when QueueReady is zero".
#[test]
fn a_stopped_queue_is_left_alone_and_the_other_goes_on() {
    let mut bench = Bench::started();
    bench.drivers[0].request(&[], &[4]);
    bench.write(QUEUE_SEL, 0);
    bench.write(QUEUE_READY, 0);
    assert_eq!(bench.read(QUEUE_READY), 0);
    let rings = bench.memory.gate.audit().rings.accesses();
    assert_eq!(bench.request(0), []);
    assert_eq!(bench.memory.gate.audit().rings.accesses(), rings);
    assert_eq!(bench.request(1), [(0, 4)]);
    assert_eq!(bench.read(STATUS), 15);
    bench.assert_works_after_reset();
}

/// The same before DRIVER_OK: a queue that was enabled and disabled again is not served.
#[test]
fn a_queue_that_was_disabled_before_driver_ok_is_not_served() {
    let mut bench = Bench::new();
    bench.restart(11);
    bench.set_up_queue(0);
    bench.write(QUEUE_READY, 1);
    bench.write(QUEUE_READY, 0);
    assert_eq!(bench.read(QUEUE_READY), 0);
    bench.write(STATUS, 15);
    assert_eq!(bench.request(0), []);
}

/// 2.1.2: "MUST NOT consume buffers or send any used buffer notifications to the driver before DRIVER_OK".
#[test]
fn nothing_is_used_before_driver_ok() {
    let mut bench = Bench::new();
    bench.restart(11);
    bench.set_up_queue(0);
    bench.write(QUEUE_READY, 1);
    assert_eq!(bench.request(0), []);
    assert_eq!((bench.read(INTERRUPT_STATUS), bench.edges()), (0, 0));
    bench.write(STATUS, 15);
    bench.notify(0);
    assert_eq!(bench.drivers[0].take_used(), [(0, 4)]);
}

/// 2.7.7.2 at the register: no interrupt that the driver does not want.
#[test]
fn a_suppressed_interrupt_does_not_come() {
    let mut bench = Bench::started();
    bench.memory.write_u16(bench.drivers[0].layout.available_ring, 1);
    assert_eq!(bench.request(0), [(0, 4)]);
    assert_eq!((bench.read(INTERRUPT_STATUS), bench.edges()), (0, 0));
}

/// 4.2.2.1: an event is shown "until the driver acknowledges the interrupt by writing a corresponding bit mask".
#[test]
fn an_acknowledged_interrupt_is_cleared_and_no_other() {
    let mut bench = Bench::started();
    bench.drivers[0].request(&[], &[4]);
    bench.drivers[0].offer(0xffff);
    bench.notify(0);
    for (ack, left) in [(0, 3), (4, 3), (0x8000_0000, 3), (1, 2), (1, 2), (2, 0)] {
        bench.write(INTERRUPT_ACK, ack);
        assert_eq!(bench.read(INTERRUPT_STATUS), left);
    }
    assert_eq!(bench.read(STATUS), 15 | 64, "acknowledging does not repair");
    bench.assert_works_after_reset();
}

/// 4.2.2.1, 2.1.2, with everything set that can be.
#[test]
fn a_reset_clears_everything() {
    let mut bench = Bench::started();
    for _ in 0..3 {
        assert_eq!(bench.request(0), [(u32::from(bench.drivers[0].avail - 1), 4)]);
        bench.drivers[1].offer(9);
        bench.notify(1);
        bench.write(STATUS, 15 | 64 | 128);
        assert_eq!(bench.read(STATUS), 15 | 64 | 128);
        bench.assert_works_after_reset();
    }
    // When a reset is over the device has let go: buffers that were available are not used.
    bench.drivers[0].request(&[], &[4]);
    bench.write(STATUS, 0);
    bench.take_calls();
    bench.notify(0);
    assert_eq!((bench.drivers[0].take_used(), bench.take_calls()), (vec![], vec![]));
}
