// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whatever a driver does, in whatever order: it sees the same device over each transport.

use proptest::prelude::*;

use super::*;
use crate::testing::{BASE, Mmio, PciIntx, PciMsix, SIZE};

/// What a driver may do.
#[derive(Clone, Debug)]
enum Act {
    Reset,
    Status(u8),
    Features(u32, u32),
    Accept(u64),
    SetUp(u16),
    Size(u16, u16),
    Area(u16, usize, u64),
    Enable(u16),
    Request(u16, u32),
    /// A descriptor chain that may be anything.
    Chain(u16, u64, u32, u16),
    Notify(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let queue = || prop_oneof![8 => 0u16..2, 1 => 2u16..5];
    let address = prop_oneof![4 => BASE..BASE + SIZE, 1 => any::<u64>(), 1 => Just(BASE + SIZE - 16)];
    let area = (queue(), 0usize..3, address.clone().prop_map(|address| address & !15));
    prop_oneof![
        1 => Just(Act::Reset),
        1 => any::<u8>().prop_filter("that is Reset", |status| *status != 0).prop_map(Act::Status),
        6 => prop_oneof![Just(1), Just(3), Just(11), Just(15), Just(128)].prop_map(Act::Status),
        1 => (0u32..3, any::<u32>()).prop_map(|(select, bits)| Act::Features(select, bits)),
        2 => prop_oneof![Just(FEATURES), Just(REQUIRED), Just(REQUIRED | 1 << 29)].prop_map(Act::Accept),
        3 => queue().prop_map(Act::SetUp),
        1 => (queue(), prop_oneof![Just(2u16), Just(8), any::<u16>()])
            .prop_map(|(queue, size)| Act::Size(queue, size)),
        1 => area.prop_map(|(queue, area, address)| Act::Area(queue, area, address)),
        4 => queue().prop_map(Act::Enable),
        3 => (0u16..2, 0u32..100).prop_map(|(queue, len)| Act::Request(queue, len)),
        1 => (0u16..2, address, any::<u32>(), any::<u16>())
            .prop_map(|(queue, address, len, flags)| Act::Chain(queue, address, len, flags)),
        2 => queue().prop_map(Act::Notify),
    ]
}

/// Most of what is drawn from nothing comes to nothing: some sequences begin with a device that works.
fn acts() -> impl Strategy<Value = Vec<Act>> {
    let mut start = vec![Act::Reset, Act::Status(1), Act::Status(3), Act::Accept(FEATURES), Act::Status(11)];
    for queue in [0, 1] {
        start.extend([Act::SetUp(queue), Act::Enable(queue)]);
    }
    start.push(Act::Status(15));
    (0..=start.len(), prop::collection::vec(act(), 0..40))
        .prop_map(move |(length, more)| start[..length].iter().cloned().chain(more).collect())
}

/// All that a driver sees after each step, and what the device was told.
fn run<T: Transport>(acts: &[Act]) -> (Vec<String>, Vec<u8>) {
    let mut bench = Bench::<T>::new();
    let mut seen = Vec::new();
    for act in acts {
        let transport = &bench.transport;
        match *act {
            Act::Reset => transport.reset(),
            Act::Status(status) => transport.set_status(status),
            Act::Features(select, bits) => transport.set_driver_features(select, bits),
            Act::Accept(features) => transport.accept(features),
            Act::SetUp(queue) => match bench.drivers.get(usize::from(queue)) {
                Some(driver) => transport.set_queue(queue, driver.layout),
                None => transport.set_queue(queue, QueueLayout::default()),
            },
            Act::Size(queue, size) => transport.set_queue_size(queue, size),
            Act::Area(queue, area, address) => transport.set_area(queue, area, address),
            Act::Enable(queue) => transport.enable_queue(queue),
            Act::Notify(queue) => transport.notify(queue),
            Act::Request(queue, len) => {
                bench.drivers[usize::from(queue)].request(&[], &[len]);
                bench.transport.notify(queue);
            }
            Act::Chain(queue, addr, len, flags) => {
                bench.drivers[usize::from(queue)].chain(&[Desc { addr, len, flags, next: 1 }]);
                bench.transport.notify(queue);
            }
        }
        bench.events.run();
        let transport = &bench.transport;
        let mut config = [0; 12];
        transport.read_config(0, &mut config);
        seen.push(format!(
            "{act:?}: {:#x} {:?} {:?} {config:?} {} {:?} {:?} {:?}",
            transport.status(),
            [0, 1, 2].map(|queue| transport.queue_enabled(queue)),
            [0, 1, 2].map(|select| transport.device_features(select)),
            transport.config_generation(),
            transport.take_interrupts(),
            bench.take_calls(),
            (bench.layouts(), transport.with_core(|core| (core.driver_features(0), core.driver_features(1)))),
        ));
        seen.push(format!("{:?}", bench.refusals()));
    }
    (seen, bench.memory.image())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn a_device_is_the_same_over_each_transport(acts in acts()) {
        let (seen, image) = run::<Mmio>(&acts);
        for (other, other_image) in [run::<PciMsix>(&acts), run::<PciIntx>(&acts)] {
            prop_assert_eq!(&seen, &other);
            prop_assert!(image == other_image, "the pools differ");
        }
    }
}
