// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device says of its pool: the feature bit, and the registers that name the pool (four-step plan, 3 and 4).

use super::*;
use crate::testing::{BASE, SIZE};

over_each_transport! {
    the_bit_is_offered_if_there_is_one,
    a_driver_that_does_not_know_the_bit_is_refused,
    a_driver_that_does_not_know_the_bit_may_be_allowed,
    the_bit_does_not_replace_access_platform,
    access_platform_can_be_withheld,
    the_bit_changes_nothing_about_what_is_refused,
    the_registers_name_the_pool,
}

const BIT: u8 = 45;

fn says(required: bool) -> RestrictedDma {
    RestrictedDma { feature_bit: Some(BIT), required, names_pool: false, ..RestrictedDma::default() }
}

/// From reset to FEATURES_OK, with these features. Whether it stuck, and what is said if not.
fn negotiate<T: Transport>(bench: &Bench<T>, features: u64) -> Result<Vec<&'static str>, String> {
    bench.transport.reset();
    [1, 3].into_iter().for_each(|status| bench.transport.set_status(status));
    bench.transport.accept(features);
    bench.transport.set_status(11);
    let status = bench.transport.status();
    bench.transport.with_core(|core| {
        let summary = core.summary();
        match status {
            11 => Ok(summary.accepted_names),
            3 => Err(summary.refused_offer.expect("it is said why").to_owned()),
            status => panic!("{status:#x}"),
        }
    })
}

fn the_bit_is_offered_if_there_is_one<T: Transport>() {
    for bit in [None, Some(27), Some(31), Some(44), Some(BIT)] {
        for required in [false, true] {
            let bench = Bench::<T>::saying(RestrictedDma {
                feature_bit: bit,
                required,
                names_pool: false,
                ..RestrictedDma::default()
            });
            let plain = Bench::<T>::new();
            let offer = |bench: &Bench<T>| {
                let [low, high] = [0, 1].map(|select| u64::from(bench.transport.device_features(select)));
                low | high << 32
            };
            assert_eq!(offer(&bench) ^ offer(&plain), bit.map_or(0, |bit| 1 << bit), "{bit:?}");
        }
    }
}

/// Then a driver that accepts the rest is served as far as it stays in the pool, and one that accepts this is refused.
fn access_platform_can_be_withheld<T: Transport>() {
    let withheld = RestrictedDma { withholds_access_platform: true, ..RestrictedDma::default() };
    let bench = Bench::<T>::saying(withheld);
    assert_eq!(bench.transport.device_features(1) & 3, 1, "VERSION_1, and not ACCESS_PLATFORM");
    assert_eq!(negotiate(&bench, feature::VERSION_1).unwrap(), ["VERSION_1"]);
    let why = negotiate(&bench, feature::VERSION_1 | feature::ACCESS_PLATFORM).unwrap_err();
    assert_eq!(why, "the driver accepted bits 0x200000000, which were not offered");
    assert!(negotiate(&bench, feature::INDIRECT_DESC).is_err(), "VERSION_1 is still asked for");
}

/// "so that devices which know they have such a limitation can gracefully decline to operate with a driver which doesn't
/// support it".
fn a_driver_that_does_not_know_the_bit_is_refused<T: Transport>() {
    let mut bench = Bench::<T>::saying(says(true));
    let why = negotiate(&bench, FEATURES).unwrap_err();
    assert_eq!(why, "the driver did not accept RESTRICTED_DMA");
    bench.transport.set_status(15);
    assert_eq!(bench.transport.status(), 3, "it is not driven");
    bench.notify(0);
    assert!(!bench.take_calls().iter().any(|call| *call != Call::Stop));

    let names = negotiate(&bench, FEATURES | 1 << BIT).unwrap();
    assert_eq!(names.last(), Some(&"RESTRICTED_DMA"));
    // Without an offer there is nothing to accept.
    assert!(negotiate(&Bench::<T>::new(), FEATURES | 1 << BIT).is_err());
}

fn a_driver_that_does_not_know_the_bit_may_be_allowed<T: Transport>() {
    for features in [FEATURES, FEATURES | 1 << BIT] {
        let bench = Bench::<T>::saying(says(false));
        let names = negotiate(&bench, features).unwrap();
        assert_eq!(names.contains(&"RESTRICTED_DMA"), features != FEATURES);
    }
}

fn the_bit_does_not_replace_access_platform<T: Transport>() {
    for required in [false, true] {
        let bench = Bench::<T>::saying(says(required));
        let why = negotiate(&bench, (FEATURES | 1 << BIT) & !(1 << 33)).unwrap_err();
        assert_eq!(why, "the driver did not accept ACCESS_PLATFORM");
    }
}

/// Accepted, not accepted, not offered: the first address outside the pool is refused all the same.
fn the_bit_changes_nothing_about_what_is_refused<T: Transport>() {
    for (restricted, features) in
        [(says(true), 1 << BIT), (says(false), 1 << BIT), (says(false), 0), (RestrictedDma::default(), 0)]
    {
        let bench = Bench::<T>::saying(restricted);
        negotiate(&bench, FEATURES | features).unwrap();
        bench.set_up_queue(0);
        bench.transport.set_area(0, 2, BASE + SIZE);
        bench.transport.enable_queue(0);
        bench.assert_needs_reset(11, 1);
    }
}

/// From before ACKNOWLEDGE on, and always the same: a driver has to know the pool in order to decide about the bit. Without
/// a bit, none is named.
fn the_registers_name_the_pool<T: Transport>() {
    for (feature_bit, names_pool) in [(Some(BIT), true), (Some(BIT), false), (None, true), (None, false)] {
        let bench = Bench::<T>::saying(RestrictedDma {
            feature_bit,
            required: true,
            names_pool,
            ..RestrictedDma::default()
        });
        let is_named = names_pool && feature_bit.is_some();
        let assert_named = || {
            let named = bench.transport.named_pool().unwrap_or_default();
            assert_eq!(named, if is_named { (BASE, SIZE) } else { (0, 0) }, "{feature_bit:?} {names_pool}");
        };
        assert_named();
        negotiate(&bench, FEATURES | feature_bit.map_or(0, |bit| 1 << bit)).unwrap();
        assert_named();
        bench.transport.reset();
        assert_named();
    }
}
