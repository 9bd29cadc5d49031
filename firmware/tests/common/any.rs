// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random machines.

use cvmm_firmware::{
    Binding, Interrupt, IoApic, Machine, PciHost, Pool, PoolId, Range, Transport, VirtioDevice,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use super::usual::system;

const PAGE: u64 = 0x1000;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Pins of a machine, counted from its last one: those of the virtio-mmio devices come first.
const PINS: u32 = 24;
const MAX_DEVICES: usize = 16;
const FIRST_PCI_LINE: usize = 16;
const UART_PIN: usize = 23;

prop_compose! {
    /// RAM, and pools anywhere in it: in chunks of 8 MiB, up to 3 GiB below 4 GiB and up to 1 TiB above.
    fn memory_and_pools()(
        low_chunks in 32u64..384,
        high_chunks in 0u64..1 << 17,
        pool_at in vec((0u64..u64::MAX, 1u64..4), 1..6),
        default in option::of(any::<Index>()),
    ) -> (Vec<Range>, Vec<Pool>) {
        let chunk = 8 * MIB;
        let mut memory = vec![Range::fixed(0, low_chunks * chunk)];
        memory.extend(Range::new(4 * GIB, high_chunks * chunk));
        // A pool of at most 3 chunks has every fourth chunk to begin at.
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
                pools.push(Pool { name: format!("pool{}", pools.len()), range, dma_default: false });
            }
        }
        if let Some(default) = default {
            default.get_mut(&mut pools).dma_default = true;
        }
        (memory, pools)
    }
}

prop_compose! {
    /// Sparse APIC identifiers, the boot processor's anywhere among them.
    fn cpus()(
        apic_ids in btree_set(prop_oneof![0u32..260, any::<u32>().prop_map(|id| id.min(u32::MAX - 1))], 1..16),
        boot_cpu in any::<Index>(),
    ) -> Vec<u32> {
        let mut cpus: Vec<u32> = apic_ids.into_iter().collect();
        let boot_cpu = boot_cpu.index(cpus.len());
        cpus.swap(0, boot_cpu);
        cpus
    }
}

/// A window of whole MiB: of `least` to `most`, aligned to 1 MiB, either in low device memory or above all RAM. `low` and
/// `high` are the first address and the number of MiB there.
fn window(
    size: std::ops::RangeInclusive<u64>,
    low: (u64, u64),
    high: (u64, u64),
) -> impl Strategy<Value = Range> {
    (size, any::<bool>(), any::<u64>()).prop_map(move |(size, is_low, at)| {
        let (base, length) = if is_low { low } else { high };
        Range::fixed(base + at % (length - size + 1) * MIB, size * MIB)
    })
}

prop_compose! {
    /// A host bridge whose windows are anywhere; its lines are set later.
    fn pci_host()(
        ecam in window(1..=1, (0xe100_0000, 128), (1 << 47, 1 << 20)),
        memory in window(1..=100, (0xc000_0000, 128), (1 << 48, 1 << 20)),
        config_port in 0u64..0xfff8 / 8,
    ) -> PciHost {
        PciHost { ecam, memory, config_ports: Range::fixed(config_port * 8, 8), lines: [Interrupt(0); 4] }
    }
}

prop_compose! {
    /// A machine with nothing usual about it: identifiers, windows, pins and pools anywhere, any command line.
    pub fn any_machine()(
        (memory, pools) in memory_and_pools(),
        cpus in cpus(),
        pins in PINS..240,
        pin_order in Just((0..PINS).collect::<Vec<_>>()).prop_shuffle(),
        pci in option::of(pci_host()),
        devices in vec((any::<Index>(), any::<bool>(), any::<bool>()), 0..MAX_DEVICES),
        numbers in Just((1..=31u8).collect::<Vec<_>>()).prop_shuffle(),
        // In page frames: below the I/O APIC, or above all memory.
        first_frame in prop_oneof![0xd_0000u64..0xe_0000, 0x2000_0000u64..0x7_0000_0000],
        stride in 1u64..16,
        system_base in prop_oneof![Just(0xc800_0000), Just(1 << 49)],
        (power_off_value, reset_value) in any::<(u32, u32)>(),
        (type_off, acpi_reset_value) in (0u8..8, any::<u8>()),
        bootargs in "[ -~]{0,200}",
    ) -> Machine {
        let pin = |index: usize| Interrupt(pins - 1 - pin_order[index]);
        let pci = pci.map(|host| PciHost { lines: [0, 1, 2, 3].map(|line| pin(FIRST_PCI_LINE + line)), ..host });
        let mut virtio = Vec::new();
        for (index, (pool, on_pci, names_pool)) in devices.iter().enumerate() {
            let place = u64::try_from(index).unwrap();
            let transport = match pci {
                Some(host) if *on_pci => Transport::Pci {
                    device: numbers[index],
                    bar: Range::fixed(host.memory.base() + place * 0x8000, 0x8000),
                },
                _ => Transport::Mmio {
                    window: Range::fixed((first_frame + place * stride) * PAGE, 0x200),
                    interrupt: pin(index),
                },
            };
            let pool = PoolId(u16::try_from(pool.index(pools.len())).unwrap());
            let binding = match *names_pool || !pools[usize::from(pool.0)].dma_default {
                true => Binding::Reference,
                false => Binding::Default,
            };
            virtio.push(VirtioDevice { name: format!("net{index}"), transport, pool, binding });
        }

        let mut system = system(system_base, pin(UART_PIN).0);
        (system.power_off_value, system.reset_value) = (power_off_value, reset_value);
        (system.sleep.type_off, system.sleep.reset_value) = (type_off, acpi_reset_value);
        Machine {
            memory,
            pools,
            cpus,
            local_apic: Range::fixed(0xfee0_0000, 0x1000),
            io_apic: IoApic { window: Range::fixed(0xfec0_0000, 0x1000), pins },
            system,
            pci,
            virtio,
            bootargs,
        }
    }
}
