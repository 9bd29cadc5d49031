// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Identification, features, status, configuration space.

use super::*;

over_each_transport! {
    the_device_says_what_it_is,
    device_features_are_read_32_at_a_time,
    the_configuration_space_is_read_in_any_width,
    a_driver_that_follows_the_specification_gets_a_working_device,
    a_status_out_of_order_has_no_effect,
    only_zero_resets,
    the_report_says_how_far_a_driver_came,
    features_ok_is_refused_for_bits_past_63,
    features_ok_is_refused_for_features_that_do_not_do,
    features_are_frozen_after_features_ok,
    features_are_not_accepted_before_driver,
}

/// Also after a reset, which ends most drivers' lives.
fn the_report_says_how_far_a_driver_came<T: Transport>() {
    let mut bench = Bench::<T>::new();
    let reached = |bench: &Bench<T>| bench.transport.with_core(|core| core.summary().reached.join(" "));
    assert_eq!(reached(&bench), "");
    for (statuses, far) in [
        (&[1][..], "ACKNOWLEDGE"),
        (&[15, 0], "ACKNOWLEDGE"),
        (&[1, 3, 0], "ACKNOWLEDGE DRIVER"),
        (&[1, 129, 0], "ACKNOWLEDGE DRIVER FAILED"),
    ] {
        statuses.iter().for_each(|status| bench.transport.set_status(*status));
        assert_eq!(reached(&bench), far, "{statuses:?}");
    }
    bench.initialise(11);
    assert_eq!(reached(&bench), "ACKNOWLEDGE DRIVER FEATURES_OK FAILED");
    bench.initialise(15);
    assert_eq!(reached(&bench), "ACKNOWLEDGE DRIVER FEATURES_OK DRIVER_OK FAILED");
}

/// Device ids: 5.
fn the_device_says_what_it_is<T: Transport>() {
    assert_eq!(Bench::<T>::new().transport.device_id(), 4);
    assert_eq!([Kind::Net, Kind::Blk, Kind::Rng].map(Kind::device_id), [1, 2, 4]);
}

/// 4.1.4.3.1, 4.2.2: bits `select * 32` and up. Bit 3 is the toy's own; 28: INDIRECT_DESC, 29: EVENT_IDX,
/// 32: VERSION_1, 33: ACCESS_PLATFORM.
fn device_features_are_read_32_at_a_time<T: Transport>() {
    let bench = Bench::<T>::new();
    for (select, bits) in [(0, 1 << 3 | 1 << 28 | 1 << 29), (1, 0b11), (2, 0), (u32::MAX, 0)] {
        assert_eq!(bench.transport.device_features(select), bits, "{select}");
    }
}

/// 4.1.3.1, 4.2.2.2: 8, 16 and 32 bit accesses; 2.5.2: readable before FEATURES_OK. 8 bytes at once is what a compiler
/// makes of a 64-bit field. The toy's space has 10 bytes.
fn the_configuration_space_is_read_in_any_width<T: Transport>() {
    let mut bench = Bench::<T>::new();
    let bytes: Vec<u8> = (1..=10).chain([0; 30]).collect();
    for status in [0, 3, 15] {
        bench.initialise(status);
        let generation = bench.transport.config_generation();
        for len in [1, 2, 4, 8] {
            for at in 0..30 {
                let mut data = vec![0xaa; len];
                bench.transport.read_config(at as u64, &mut data);
                assert_eq!(data, bytes[at..at + len]);
                let inverse: Vec<_> = data.iter().map(|byte| !byte).collect();
                bench.transport.write_config(at as u64, &inverse);
            }
        }
        let mut data = [0; 10];
        bench.transport.read_config(0, &mut data);
        assert_eq!(data, bytes[..10], "writes have no effect");
        assert_eq!(bench.transport.config_generation(), generation);
    }
}

/// 3.1.1, from the reset to the first used buffer.
fn a_driver_that_follows_the_specification_gets_a_working_device<T: Transport>() {
    let mut bench = Bench::<T>::new();
    assert_eq!(bench.transport.status(), 0);
    for (queue, size) in [(0, 16), (1, 8), (2, 0), (0x7fff, 0), (0xffff, 0)] {
        assert_eq!(bench.transport.max_queue_size(queue), size, "{queue}");
        assert!(!bench.transport.queue_enabled(queue));
    }
    bench.initialise(15);
    assert_eq!(bench.take_calls(), [Call::Stop, Call::Start(FEATURES)]);
    for queue in [1, 0] {
        assert_eq!(bench.request(queue), [(0, 4)]);
        assert_eq!(bench.transport.take_interrupts(), (true, false));
        assert_eq!(bench.take_calls(), [Call::Serve(queue)]);
    }
    bench.transport.with_core(|core| {
        let summary = core.summary();
        assert_eq!((summary.accepted, summary.refused_offer), (FEATURES, None));
        let layouts = bench.drivers.iter().map(|driver| driver.layout);
        assert_eq!(summary.queues, (0..).zip(layouts).collect::<Vec<_>>());
    });
    // There are no more queues to notify.
    [2, 3, 0x3ff, 0xffff].into_iter().for_each(|queue| bench.notify(queue));
    assert_eq!(bench.take_calls(), []);
}

/// 2.1.1: a driver sets bits in the order of 3.1.1, clears none, and may set FAILED. What is none of these has no effect.
fn a_status_out_of_order_has_no_effect<T: Transport>() {
    let mut bench = Bench::<T>::new();
    for from in [0u8, 1, 3, 11, 15] {
        let next = [(0, 1), (1, 3), (3, 11), (11, 15)].iter().find(|step| step.0 == from).map(|step| step.1);
        for written in (1..=0xff).filter(|written| *written != 64 && Some(written & !64) != next) {
            bench.restart(from);
            bench.transport.set_status(written);
            let expected = if written & !64 == from | 128 { from | 128 } else { from };
            assert_eq!(bench.transport.status(), expected, "{from:#x} -> {written:#x}");
        }
    }
}

/// 4.1.4.3.1, 4.2.2: "Writing zero (0x0) to this register triggers a device reset"; DEVICE_NEEDS_RESET alone is not
/// zero.
fn only_zero_resets<T: Transport>() {
    let mut bench = Bench::<T>::new();
    for from in [1, 3, 11, 15] {
        bench.restart(from);
        bench.transport.set_status(64);
        assert_eq!(bench.transport.status(), from);
        bench.transport.set_status(0);
        assert_eq!(bench.transport.status(), 0);
    }
}

/// 2.2.1: a driver must not accept what was not offered, and no bit past 63 is.
fn features_ok_is_refused_for_bits_past_63<T: Transport>() {
    for select in [2, u32::MAX] {
        let bench = Bench::<T>::new();
        [0, 1, 3].into_iter().for_each(|status| bench.transport.set_status(status));
        bench.transport.accept(REQUIRED);
        bench.transport.set_driver_features(select, 1);
        bench.transport.set_status(11);
        assert_eq!(bench.transport.status(), 3);
        // 2.4: a reset forgets that, too.
        bench.transport.reset();
        [0, 1, 3].into_iter().for_each(|status| bench.transport.set_status(status));
        bench.transport.accept(REQUIRED);
        bench.transport.set_status(11);
        assert_eq!(bench.transport.status(), 11);
    }
}

/// 2.2.2, 6.1 (VERSION_1: a device MAY fail to operate further without it; ACCESS_PLATFORM likewise).
fn features_ok_is_refused_for_features_that_do_not_do<T: Transport>() {
    let bad = [
        0,
        FEATURES & !(1 << 32),
        FEATURES & !(1 << 33),
        INDIRECT_DESC,
        FEATURES | 1,
        FEATURES | 1 << 27,
        FEATURES | 1 << 34,
        FEATURES | 1 << 63,
    ];
    let bench = Bench::<T>::new();
    for (features, accepted) in bad.map(|features| (features, false)).into_iter().chain([(FEATURES, true)]) {
        [0, 1, 3].into_iter().for_each(|status| bench.transport.set_status(status));
        bench.transport.accept(features);
        bench.transport.set_status(11);
        assert_eq!(bench.transport.status(), if accepted { 11 } else { 3 }, "{features:#x}");
        let refused = bench.transport.with_core(|core| core.summary().refused_offer.is_some());
        assert_eq!(refused, !accepted);
        if !accepted {
            bench.transport.set_status(15);
            assert_eq!(bench.transport.status(), 3);
        }
    }
    assert!(!bench.take_calls().iter().any(|call| matches!(call, Call::Start(_))));
}

/// 3.1.1, step 5: "The driver MUST NOT accept new feature bits after this step." 2.2: renegotiation needs a reset.
fn features_are_frozen_after_features_ok<T: Transport>() {
    let mut bench = Bench::<T>::new();
    bench.initialise(11);
    bench.transport.accept(REQUIRED);
    bench.transport.set_status(15);
    bench.transport.accept(0);
    assert_eq!(bench.take_calls().last(), Some(&Call::Start(FEATURES)));
    // ... and are not remembered over a reset.
    [0, 1, 3, 11].into_iter().for_each(|status| bench.transport.set_status(status));
    assert_eq!(bench.transport.status(), 3);
}

/// 3.1.1, step 4: features are accepted after DRIVER.
fn features_are_not_accepted_before_driver<T: Transport>() {
    let bench = Bench::<T>::new();
    for status in [0, 1] {
        bench.transport.set_status(status);
        bench.transport.accept(FEATURES);
    }
    [3, 11].into_iter().for_each(|status| bench.transport.set_status(status));
    assert_eq!(bench.transport.status(), 3);
}
