// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When queues are set up, and when they are served.

use super::*;

over_each_transport! {
    a_queue_is_set_up_between_features_ok_and_driver_ok_only,
    an_enabled_queue_is_frozen,
    a_queue_may_be_smaller_and_not_all_need_be_enabled,
    queues_that_are_not_there_can_not_be_set_up,
    nothing_is_used_before_driver_ok,
    a_suppressed_interrupt_does_not_come,
    after_a_reset_buffers_are_not_used,
}

impl<T: Transport> Bench<T> {
    /// Tries to change everything about a queue.
    fn scribble(&self, queue: u16) {
        let everywhere = 0x1000_0000_1000;
        self.transport.set_queue(
            queue,
            QueueLayout {
                size: 2,
                descriptor_table: everywhere,
                available_ring: everywhere,
                used_ring: everywhere,
            },
        );
    }
}

/// 3.1.1, step 7: queues are set up after FEATURES_OK and before DRIVER_OK.
fn a_queue_is_set_up_between_features_ok_and_driver_ok_only<T: Transport>() {
    let mut bench = Bench::<T>::new();
    for status in [0, 1, 3] {
        bench.restart(status);
        bench.set_up_queue(0);
        bench.transport.enable_queue(0);
        assert_eq!((bench.transport.queue_enabled(0), bench.transport.status()), (false, status));
        assert_eq!(bench.layouts(), Bench::<T>::fresh_layouts());
    }
    bench.restart(11);
    bench.transport.set_status(15);
    bench.set_up_queue(0);
    bench.transport.enable_queue(0);
    assert_eq!((bench.transport.queue_enabled(0), bench.transport.status()), (false, 15));
    assert_eq!(bench.request(0), []);
    // FAILED: the driver has given up.
    bench.restart(11);
    bench.transport.set_status(11 | 128);
    bench.set_up_queue(0);
    bench.transport.enable_queue(0);
    assert!(!bench.transport.queue_enabled(0));
}

/// 4.2.2.2: "When QueueReady is not zero, the driver MUST NOT access QueueNum, QueueDescLow, ..."; 4.1.4.3.2: "MUST
/// configure the other virtqueue fields before enabling the virtqueue".
fn an_enabled_queue_is_frozen<T: Transport>() {
    let mut bench = Bench::<T>::new();
    bench.restart(11);
    bench.set_up_queue(0);
    bench.transport.enable_queue(0);
    let before = bench.layouts();
    assert_eq!(before[0], bench.drivers[0].layout);
    bench.scribble(0);
    bench.transport.enable_queue(0);
    assert_eq!((bench.layouts(), bench.transport.queue_enabled(0)), (before, true));
    // The other one is free still, and the selector tells them apart.
    bench.set_up_queue(1);
    assert_eq!(bench.layouts()[1], bench.drivers[1].layout);
    bench.scribble(1);
    assert_eq!((bench.layouts()[0], bench.layouts()[1].size), (before[0], 2));
    bench.transport.set_status(15);
    for queue in [0, 1] {
        let before = bench.layouts();
        bench.scribble(queue);
        assert_eq!(bench.layouts(), before);
    }
    assert_eq!(bench.request(0), [(0, 4)]);
}

/// 4.1.5.1.3, 4.2.3.2: "Optionally, select a smaller virtqueue size"; a driver enables the queues that it uses. The
/// size that stands there after a reset may be left alone (4.1.4.3: "On reset, specifies the maximum").
fn a_queue_may_be_smaller_and_not_all_need_be_enabled<T: Transport>() {
    for size in [1, 2, 8] {
        let mut bench = Bench::<T>::new();
        bench.initialise(11);
        bench.drivers[1] = Driver::new(&bench.memory, size);
        if size < 8 {
            bench.set_up_queue(1);
        } else {
            let layout = bench.drivers[1].layout;
            let areas = [layout.descriptor_table, layout.available_ring, layout.used_ring];
            (0..).zip(areas).for_each(|(area, address)| bench.transport.set_area(1, area, address));
        }
        bench.transport.enable_queue(1);
        bench.transport.set_status(15);
        for round in 0..20u32 {
            assert_eq!(bench.request(1), [(round % u32::from(size), 4)]);
        }
        assert_eq!(bench.request(0), []);
        assert_eq!((bench.transport.status(), bench.refusals().total), (15, 0));
    }
}

fn queues_that_are_not_there_can_not_be_set_up<T: Transport>() {
    for queue in [2, 3, 0x100, 0xffff] {
        let mut bench = Bench::<T>::new();
        bench.initialise(11);
        bench.scribble(queue);
        bench.transport.enable_queue(queue);
        assert!(!bench.transport.queue_enabled(queue));
        assert_eq!(bench.transport.max_queue_size(queue), 0);
        assert_eq!((bench.layouts(), bench.transport.status()), (Bench::<T>::fresh_layouts(), 11));
    }
}

/// 2.1.2: "MUST NOT consume buffers or send any used buffer notifications to the driver before DRIVER_OK".
fn nothing_is_used_before_driver_ok<T: Transport>() {
    let mut bench = Bench::<T>::new();
    bench.restart(11);
    bench.set_up_queue(0);
    bench.transport.enable_queue(0);
    assert_eq!(bench.request(0), []);
    assert_eq!(bench.transport.take_interrupts(), (false, false));
    bench.transport.set_status(15);
    bench.notify(0);
    assert_eq!(bench.drivers[0].take_used(), [(0, 4)]);
}

/// 2.7.7.2 at the register: no interrupt that the driver does not want.
fn a_suppressed_interrupt_does_not_come<T: Transport>() {
    let mut bench = Bench::<T>::started();
    bench.memory.write_u16(bench.drivers[0].layout.available_ring, 1);
    assert_eq!(bench.request(0), [(0, 4)]);
    assert_eq!(bench.transport.take_interrupts(), (false, false));
    assert_eq!(bench.request(1), [(0, 4)]);
    assert_eq!(bench.transport.take_interrupts(), (true, false));
}

/// When a reset is over the device has let go: buffers that were available are not used.
fn after_a_reset_buffers_are_not_used<T: Transport>() {
    let mut bench = Bench::<T>::started();
    bench.drivers[0].request(&[], &[4]);
    bench.transport.reset();
    bench.take_calls();
    bench.notify(0);
    assert_eq!((bench.drivers[0].take_used(), bench.take_calls()), (vec![], vec![]));
    assert_eq!(bench.transport.take_interrupts(), (false, false));
}
