// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Machines: a grid of the usual ones, and random ones.

use cvmm_firmware::{
    Interrupt, IoApic, Machine, Pool, PoolId, Range, SystemDevices, Transport, VirtioDevice,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every combination of device count, CPU count, memory above 4 GiB and pool count.
pub fn grid() -> Vec<Machine> {
    let mut machines = Vec::new();
    for devices in 0..=8 {
        for cpus in 1..=8 {
            for high_memory in [false, true] {
                for pools in [1, 3] {
                    machines.push(machine(devices, cpus, high_memory, pools));
                }
            }
        }
    }
    machines
}

/// A usual machine. All numbers that stand for different things differ, so none can be taken for another.
pub fn machine(devices: u32, cpus: u32, high_memory: bool, pools: u16) -> Machine {
    let mut memory = vec![Range::fixed(0, 512 * MIB)];
    if high_memory {
        memory = vec![Range::fixed(0, 3 * GIB), Range::fixed(4 * GIB, 2 * GIB + 6 * MIB)];
    }
    let pool = |index: u16| {
        let base = 64 * MIB + u64::from(index) * 32 * MIB;
        // The last pool of a large machine is above 4 GiB: its address needs both cells.
        let base = if high_memory && index == 2 { 4 * GIB + base } else { base };
        Pool { name: format!("pool{index}"), range: Range::fixed(base, u64::from(index + 1) * 8 * MIB) }
    };
    let device = |index: u32| VirtioDevice {
        name: format!("blk{index}"),
        transport: Transport::Mmio {
            window: Range::fixed(0xd000_0000 + u64::from(index) * 0x1000, 0x200),
            interrupt: Interrupt(23 - index),
        },
        // Neighbours are in different pools, and not in the order of the pools.
        pool: PoolId(pools - 1 - u16::try_from(index).unwrap() % pools),
    };
    Machine {
        memory,
        pools: (0..pools).map(pool).collect(),
        cpus: (0..cpus).collect(),
        local_apic: Range::fixed(0xfee0_0000, 0x1000),
        io_apic: IoApic { window: Range::fixed(0xfec0_0000, 0x400), pins: 24 },
        system: system(0xc100_0000, 5),
        virtio: (0..devices).map(device).collect(),
        bootargs: "console=ttyS0 reboot=k panic=-1".to_owned(),
    }
}

fn system(base: u64, uart_pin: u32) -> SystemDevices {
    SystemDevices {
        uart: (Range::fixed(base, 8), Interrupt(uart_pin)),
        power: Range::fixed(base + 0x1000, 4),
        power_off_value: 0x5555,
        reset_value: 0x7777,
        pvpanic: Range::fixed(base + 0x2000, 2),
    }
}

prop_compose! {
    /// A machine with nothing usual about it: sparse APIC identifiers, windows and pools anywhere, any command line.
    pub fn any_machine()(
        low_chunks in 32u64..384,
        high_chunks in 0u64..1 << 17,
        pool_at in vec((0u64..u64::MAX, 1u64..4), 1..6),
        apic_ids in btree_set(0u32..255, 1..16),
        boot_cpu in any::<prop::sample::Index>(),
        pins in 24u32..240,
        pin_order in Just((0..24u32).collect::<Vec<_>>()).prop_shuffle(),
        pools_of_devices in vec(any::<prop::sample::Index>(), 0..16),
        // In page frames: below the I/O APIC, or above all memory.
        first_frame in prop_oneof![0xd_0000u64..0xe_0000, 0x2000_0000u64..0x7_0000_0000],
        stride in 1u64..16,
        (power_off_value, reset_value) in any::<(u32, u32)>(),
        bootargs in "[ -~]{0,200}",
    ) -> Machine {
        // 8 MiB chunks of memory; a pool of at most 3 of them has every fourth chunk to begin at.
        let chunk = 8 * MIB;
        let mut memory = vec![Range::fixed(0, low_chunks * chunk)];
        memory.extend(Range::new(4 * GIB, high_chunks * chunk));
        let (low_places, high_places) = (low_chunks / 4, high_chunks / 4);
        let mut pools: Vec<Pool> = Vec::new();
        for (place, chunks) in pool_at {
            let place = place % (low_places + high_places);
            let base = match place.checked_sub(low_places) {
                None => place * 4 * chunk,
                Some(place) => 4 * GIB + place * 4 * chunk,
            };
            let range = Range::fixed(base, chunks * chunk);
            if !pools.iter().any(|pool| pool.range.overlaps(&range)) {
                pools.push(Pool { name: format!("pool{}", pools.len()), range });
            }
        }

        let mut cpus: Vec<u32> = apic_ids.into_iter().collect();
        let boot_cpu = boot_cpu.index(cpus.len());
        cpus.swap(0, boot_cpu);

        let page = 0x1000;
        let mut next_window = first_frame * page;
        let mut virtio = Vec::new();
        for (index, pool) in pools_of_devices.iter().enumerate() {
            virtio.push(VirtioDevice {
                name: format!("net{index}"),
                transport: Transport::Mmio {
                    window: Range::fixed(next_window, 0x200),
                    interrupt: Interrupt(pins - 1 - pin_order[index]),
                },
                pool: PoolId(u16::try_from(pool.index(pools.len())).unwrap()),
            });
            next_window += stride * page;
        }

        let mut system = system(0xc800_0000, pins - 1 - pin_order[23]);
        (system.power_off_value, system.reset_value) = (power_off_value, reset_value);
        Machine {
            memory,
            pools,
            cpus,
            local_apic: Range::fixed(0xfee0_0000, 0x1000),
            io_apic: IoApic { window: Range::fixed(0xfec0_0000, 0x1000), pins },
            system,
            virtio,
            bootargs,
        }
    }
}
