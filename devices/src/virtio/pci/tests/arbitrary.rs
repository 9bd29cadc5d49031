// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any sequence of accesses to configuration space, BAR and ports of a running device: nothing panics, what is
//! read-only stays, no message goes elsewhere, and the device works after a reset.

use proptest::prelude::*;

use super::*;
use crate::testing::pci::{read, write};

#[derive(Clone, Debug)]
enum Place {
    Config(u64),
    Bar(u64),
    Ports(u64),
    Anywhere(u64),
}

#[derive(Clone, Debug)]
struct Access {
    place: Place,
    len: usize,
    /// `None` reads.
    value: Option<u64>,
}

fn access() -> impl Strategy<Value = Access> {
    let bar = prop_oneof![
        4 => 0u64..0x40,
        1 => 0x1000u64..0x1004,
        1 => 0x2000u64..0x2010,
        2 => (0u64..4).prop_map(|queue| 0x3000 + 4 * queue),
        3 => (0u64..16).prop_map(|word| 0x4000 + 4 * word),
        1 => 0x6000u64..0x6010,
        1 => 0u64..0x8010,
    ];
    let place = prop_oneof![
        4 => prop_oneof![1 => 0u64..0x100, 1 => (0u64..0x30).prop_map(|word| 4 * word)].prop_map(Place::Config),
        6 => bar.prop_map(Place::Bar),
        2 => (0xcf8u64..0xd00).prop_map(Place::Ports),
        1 => any::<u64>().prop_map(Place::Anywhere),
    ];
    let value = prop_oneof![
        4 => any::<u64>(),
        4 => 0u64..16,
        2 => Just(u64::MAX),
        2 => Just(0xfee0_0000),
        1 => 0u64..0x7000,
        1 => (0u64..0x40).prop_map(|word| 0x8000_0800 + 4 * word),
    ];
    let len = prop_oneof![2 => Just(1usize), 3 => Just(2), 4 => Just(4), 1 => Just(8)];
    (place, len, prop::option::weighted(0.85, value)).prop_map(|(place, len, value)| Access {
        place,
        len,
        value,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn nothing_panics_and_what_is_read_only_stays(accesses in prop::collection::vec(access(), 0..150)) {
        let mut bench = Bench::<PciMsix>::started();
        let driver = bench.transport.0.clone();
        let machine = driver.machine.clone();
        // Command and status, BAR, interrupt line, MSI-X control, and the access capability from its bar on.
        let access = driver.access.at;
        let fixed = |at: &u64| {
            let changes = [0x04..0x08, 0x10..0x18, 0x3c..0x3d, driver.msix + 3..driver.msix + 4, access + 4..access + 20];
            !changes.iter().any(|range| range.contains(at))
        };
        let header = || (0..0x100).filter(fixed).map(|at| driver.config_read(at, 1)).collect::<Vec<_>>();
        let before = header();
        for Access { place, len, value } in &accesses {
            let (bus, address) = match place {
                Place::Config(offset) => (&machine.memory, driver.ecam(*offset)),
                Place::Bar(offset) => (&machine.memory, driver.bar().wrapping_add(*offset)),
                Place::Ports(port) => (&machine.ports, *port),
                Place::Anywhere(address) => (&machine.memory, *address),
            };
            match value {
                Some(value) => write(bus, address, *len, *value),
                None => _ = read(bus, address, *len),
            }
            bench.events.run();
        }
        prop_assert_eq!(header(), before);
        for (_, message) in driver.slot().take_routes() {
            prop_assert!((0xfee0_0000..=0xfeef_ffff).contains(&message.address));
        }
        driver.set_command(0);
        driver.move_bar(0xc000_8000);
        driver.set_command(MEMORY | BUS_MASTER);
        driver.set_msix(MSIX_ENABLE | FUNCTION_MASK);
        (0..driver.vectors).for_each(|vector| driver.set_entry(vector, 0xfee0_0000, 0x20, false));
        driver.set_msix(MSIX_ENABLE);
        bench.memory.clear();
        bench.transport.reset();
        bench.assert_works_after_reset();
    }
}
