// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any sequence of accesses to memory and ports: nothing panics, what is read-only stays, and BARs answer where the
//! registers say.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Access {
    port: bool,
    address: u64,
    /// `None` reads.
    value: Option<u64>,
    len: usize,
}

fn access() -> impl Strategy<Value = Access> {
    let register = prop_oneof![4 => 0u64..0x40, 1 => 0u64..0x1000];
    let memory = prop_oneof![
        6 => (0u64..4, register).prop_map(|(device, offset)| ECAM + (device << 15) + offset),
        2 => (0u64..1 << 20).prop_map(|offset| ECAM + offset),
        2 => 0xc000_0000u64..0xc000_4000,
        1 => any::<u64>(),
        1 => (0u64..16).prop_map(|back| u64::MAX - back),
    ];
    let value = prop_oneof![
        4 => any::<u64>(),
        3 => Just(u64::MAX),
        3 => Just(MEMORY_ENABLED),
        3 => (0u64..4, 0u64..0x40).prop_map(|(device, register)| address(0, device, 0, register)),
    ];
    let len = prop_oneof![1 => Just(1), 2 => Just(2), 4 => Just(4usize), 1 => Just(8)];
    (any::<bool>(), memory, 0xcf8u64..0xd00, prop::option::weighted(0.8, value), len).prop_map(
        |(port, memory, at, value, len)| Access { port, address: if port { at } else { memory }, value, len },
    )
}

const MEMORY_ENABLED: u64 = 2;

/// Bits of a function's first 64 bytes that may change: command, BAR 0 and 1, interrupt line. The rest are not there.
fn writable(offset: usize) -> u64 {
    match offset {
        0x04 => 0x06,
        0x05 => 0x04,
        0x11 => 0xf0,
        0x12..0x18 | 0x3c => 0xff,
        _ => 0,
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_what_is_read_only_stays(accesses in prop::collection::vec(access(), 0..200)) {
        let bench = Bench::new(&[1, 2]);
        let bytes = |device| (0..0x100).map(|at| bench.ecam(device, 0, at, 1)).collect::<Vec<_>>();
        let before = [0, 1, 2].map(bytes);
        for Access { port, address, value, len } in &accesses {
            let bus = if *port { &bench.ports } else { &bench.memory };
            match value {
                Some(value) => write(bus, *address, *len, *value),
                None => _ = read(bus, *address, *len),
            }
        }
        for (device, before) in (0u64..).zip(&before) {
            for (offset, (old, new)) in before.iter().zip(bytes(device)).enumerate() {
                let mask = if device == 0 { 0 } else { writable(offset) };
                prop_assert_eq!((old ^ new) & !mask, 0, "device {}, {:#x}", device, offset);
            }
        }
        for device in [1, 2] {
            let base = bench.ecam(device, 0, 0x14, 4) << 32 | bench.ecam(device, 0, 0x10, 4) & !0xf;
            let enabled = bench.ecam(device, 0, 4, 2) & MEMORY_ENABLED != 0;
            // Over the registers the registers win; over another function, either.
            let covered = (ECAM - 0x1000..ECAM + (1 << 20)).contains(&base);
            if enabled && !covered {
                let answer = read(&bench.memory, base, 1);
                prop_assert!([1, 2].contains(&answer), "{:#x}: {}", base, answer);
            }
        }
    }
}
