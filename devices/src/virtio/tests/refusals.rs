// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is refused, DEVICE_NEEDS_RESET, and the reset after it.

use super::*;
use crate::pool::{Reason, Structure};
use crate::testing::{BASE, SIZE};

over_each_transport! {
    a_queue_size_that_is_not_allowed_needs_a_reset,
    an_area_outside_the_pool_needs_a_reset,
    a_refusal_during_service_stops_the_device_until_it_is_reset,
    the_configuration_reads_as_zeros_while_the_device_needs_a_reset,
    a_reset_clears_everything,
}

/// 2.7: "always a power of 2", at most what is offered.
fn a_queue_size_that_is_not_allowed_needs_a_reset<T: Transport>() {
    let mut bench = Bench::<T>::new();
    for (refusals, size) in (1..).zip([0, 3, 15, 17, 32, 0x8000, 0xffff]) {
        bench.restart(11);
        bench.set_up_queue(0);
        bench.transport.set_queue_size(0, size);
        bench.transport.enable_queue(0);
        assert!(!bench.transport.queue_enabled(0));
        bench.assert_needs_reset(11, refusals);
    }
    bench.assert_works_after_reset();
}

/// No area outside the pool is ever used; the driver is told, and can start again.
fn an_area_outside_the_pool_needs_a_reset<T: Transport>() {
    let structures = [Structure::DescriptorTable, Structure::AvailableRing, Structure::UsedRing];
    for (area, structure) in structures.into_iter().enumerate() {
        for address in [0, BASE - 16, BASE + SIZE - 16, BASE + SIZE, BASE + (1 << 32), u64::MAX - 15] {
            let mut bench = Bench::<T>::new();
            bench.restart(11);
            bench.set_up_queue(1);
            bench.transport.set_area(1, area, address);
            let before = bench.memory.image();
            bench.transport.enable_queue(1);
            assert!(!bench.transport.queue_enabled(1));
            bench.assert_needs_reset(11, 1);
            let (refusal, count) = bench.refusals().first[0];
            assert_eq!(
                (refusal.queue, refusal.structure, refusal.address, count),
                (1, structure, address, 1)
            );
            // A driver that goes on nevertheless gets nothing, on no queue.
            bench.set_up_queue(0);
            bench.transport.enable_queue(0);
            bench.transport.set_status(15);
            assert_eq!(bench.transport.status(), 15 | 64);
            assert_eq!((bench.request(0), bench.request(1)), (vec![], vec![]));
            assert!(!bench.take_calls().iter().any(|call| matches!(call, Call::Start(_))));
            let used = usize::try_from(bench.drivers[0].layout.used_ring - BASE).unwrap();
            assert!(before[used..used + 134] == bench.memory.image()[used..used + 134]);
            bench.assert_works_after_reset();
            assert_eq!(bench.refusals().total, 1);
        }
    }
}

/// 2.1.2: DEVICE_NEEDS_RESET, then a notification; what was served before the bad chain is used.
fn a_refusal_during_service_stops_the_device_until_it_is_reset<T: Transport>() {
    for queue in [0u16, 1] {
        let mut bench = Bench::<T>::started();
        let driver = &mut bench.drivers[usize::from(queue)];
        driver.request(&[], &[7]);
        driver.chain(&[Desc::writable(BASE + SIZE - 1, 2)]);
        driver.request(&[], &[9]);
        let last = bench.memory.read(BASE + SIZE - 1, 1);
        bench.notify(queue);
        assert_eq!(bench.transport.status(), 15 | 64);
        // The used buffer, too, is told.
        assert_eq!(bench.transport.take_interrupts(), (true, true));
        assert_eq!(bench.drivers[usize::from(queue)].take_used(), [(0, 7)]);
        assert_eq!(bench.memory.read(BASE + SIZE - 1, 1), last);
        let expected = Refusal {
            queue,
            structure: Structure::WritableBuffer,
            address: BASE + SIZE - 1,
            length: 2,
            reason: Reason::CrossesEnd,
        };
        assert_eq!(bench.refusals().first, [(expected, 1)]);
        // No further service, on any queue; no further refusals either.
        bench.take_calls();
        assert_eq!((bench.request(0), bench.request(1)), (vec![], vec![]));
        assert_eq!(bench.take_calls(), []);
        assert_eq!(bench.transport.take_interrupts(), (false, false));
        assert_eq!(bench.refusals().total, 1);
        bench.assert_works_after_reset();
        assert_eq!(bench.refusals().total, 1, "the record outlives the reset");
    }
}

/// 2.5.1, 4.1.4.3.1: what was read before and after differs, so the generation does.
fn the_configuration_reads_as_zeros_while_the_device_needs_a_reset<T: Transport>() {
    let mut bench = Bench::<T>::started();
    let config = |bench: &Bench<T>| {
        let mut data = [0xaa; 12];
        bench.transport.read_config(0, &mut data);
        data
    };
    let (working, generation) = (config(&bench), bench.transport.config_generation());
    assert_eq!(working, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0]);
    bench.drivers[0].offer(0xffff);
    bench.notify(0);
    bench.assert_needs_reset(15, 1);
    assert_eq!(config(&bench), [0; 12]);
    let broken = bench.transport.config_generation();
    assert_ne!(broken, generation);
    bench.transport.reset();
    assert_eq!(config(&bench), working);
    assert_ne!(bench.transport.config_generation(), broken);
    // A reset of a device that does not need one changes nothing.
    let generation = bench.transport.config_generation();
    bench.transport.reset();
    assert_eq!(bench.transport.config_generation(), generation);
}

/// 2.1.2, with everything set that can be.
fn a_reset_clears_everything<T: Transport>() {
    let mut bench = Bench::<T>::started();
    for _ in 0..3 {
        assert_eq!(bench.request(0), [(u32::from(bench.drivers[0].avail - 1), 4)]);
        bench.drivers[1].offer(9);
        bench.notify(1);
        bench.transport.set_status(15 | 64 | 128);
        assert_eq!(bench.transport.status(), 15 | 64 | 128);
        bench.assert_works_after_reset();
    }
}
