// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Machines: a grid of usual ones, and random ones. Numbers that stand for different things differ.

use cvmm_firmware::{
    Binding, Interrupt, IoApic, Machine, PciHost, Pool, PoolId, Range, SleepRegisters, SystemDevices,
    Transport, VirtioDevice,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PAGE: u64 = 0x1000;

/// Where the devices of a machine are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buses {
    Mmio,
    Pci,
    Mixed,
}

/// What a machine of the grid has.
#[derive(Clone, Copy, Debug)]
pub struct Usual {
    pub buses: Buses,
    /// How many of each kind: blk, net, rng.
    pub of_each: u8,
    pub cpus: u32,
    pub high_memory: bool,
    pub pools: u16,
}

/// Every combination.
pub fn grid() -> Vec<Usual> {
    let mut grid = Vec::new();
    for buses in [Buses::Mmio, Buses::Pci, Buses::Mixed] {
        for of_each in 0..=8 {
            for cpus in 1..=8 {
                for high_memory in [false, true] {
                    for pools in [1, 3] {
                        grid.push(Usual { buses, of_each, cpus, high_memory, pools });
                    }
                }
            }
        }
    }
    grid
}

impl Usual {
    /// The machine.
    pub fn machine(&self) -> Machine {
        let Self { of_each, cpus, high_memory, pools, .. } = *self;
        let mut memory = vec![Range::fixed(0, 512 * MIB)];
        if high_memory {
            memory = vec![Range::fixed(0, 3 * GIB), Range::fixed(4 * GIB, 2 * GIB + 6 * MIB)];
        }
        let pool = |index: u16| {
            // Not in ascending order; the last of a large machine is above 4 GiB.
            let base = 256 * MIB - u64::from(index) * 32 * MIB;
            let base = if high_memory && index == 2 { 4 * GIB + base } else { base };
            let dma_default = pools > 1 && index == 1;
            let range = Range::fixed(base, u64::from(index + 1) * 8 * MIB);
            Pool { name: format!("pool{index}"), range, dma_default }
        };
        let mut virtio = Vec::new();
        for kind in ["blk", "net", "rng"] {
            for number in 0..of_each {
                let index = u8::try_from(virtio.len()).expect("few devices");
                let transport = self.transport(index);
                let on_pci = matches!(transport, Transport::Pci { .. });
                let bar = Range::fixed(0xc800_0000 + u64::from(index) * 2 * MIB, 2 * MIB);
                virtio.push(VirtioDevice {
                    name: format!("{kind}{number}"),
                    transport,
                    // Neighbours are in different pools, and not in the order of the pools.
                    pool: PoolId(pools - 1 - u16::from(index) % pools),
                    // Of three pools the second is the default one: half of its devices name it all the same.
                    binding: match (pools, index % 12) {
                        (3, 1 | 4) => Binding::Default,
                        (_, 5) if on_pci => Binding::OnDevice(bar),
                        _ => Binding::Reference,
                    },
                });
            }
        }
        let on_pci = virtio.iter().any(|device| matches!(device.transport, Transport::Pci { .. }));
        let lines = [60, 61, 62, 63].map(Interrupt);
        let pci = PciHost {
            ecam: Range::fixed(0xe000_0000, MIB),
            config_ports: Range::fixed(0xcf8, 8),
            memory: Range::fixed(0xc000_0000, 256 * MIB),
            lines,
        };
        Machine {
            memory,
            pools: (0..pools).map(pool).collect(),
            cpus: (0..cpus).collect(),
            local_apic: Range::fixed(0xfee0_0000, PAGE),
            io_apic: IoApic { window: Range::fixed(0xfec0_0000, 0x400), pins: 64 },
            system: SystemDevices {
                uart: (Range::fixed(0xd100_0000, 8), Interrupt(4)),
                power: Range::fixed(0xd100_1000, 4),
                power_off_value: 0x5555,
                reset_value: 0x7777,
                sleep: SleepRegisters { window: Range::fixed(0xd100_1010, 3), type_off: 5, reset_value: 6 },
                pvpanic: Range::fixed(0xd100_2000, 2),
            },
            pci: on_pci.then_some(pci),
            virtio,
            bootargs: "console=ttyS0 panic=-1".to_owned(),
        }
    }

    fn transport(&self, index: u8) -> Transport {
        let number = u64::from(index);
        let on_pci = match self.buses {
            Buses::Mmio => false,
            Buses::Pci => true,
            Buses::Mixed => index % 2 == 1,
        };
        if on_pci {
            // Not in ascending order.
            let bar = Range::fixed(0xc000_0000 + (number + 1) * 0x8000, 0x8000);
            Transport::Pci { device: 31 - index, bar }
        } else {
            let window = Range::fixed(0xd000_0000 + number * PAGE, 0x200);
            Transport::Mmio { window, interrupt: Interrupt(5 + u32::from(index)) }
        }
    }
}

/// Windows of random machines are in places of 16 MiB, one in each: 60 from 3 GiB on, others above all memory.
const PLACE: u64 = 16 * MIB;
const LOW_PLACES: u64 = 60;
const HIGH: u64 = 1 << 40;

prop_compose! {
    /// A place for a window: a number of its own, and whether that is below 4 GiB.
    fn places()(order in Just((0..LOW_PLACES).collect::<Vec<_>>()).prop_shuffle(),
                is_high in vec(any::<bool>(), usize::try_from(LOW_PLACES).expect("few")),
                stride in 1u64..1 << 20) -> Vec<u64> {
        let high = |number: u64| HIGH + number * stride * PLACE;
        let low = |number: u64| 3 * GIB + number * PLACE;
        let pairs = order.into_iter().zip(is_high);
        pairs.map(|(number, is_high)| if is_high { high(number) } else { low(number) }).collect()
    }
}

prop_compose! {
    /// RAM and pools in it, anywhere, in any order, whole pages.
    fn memory()(
        low in 8 * MIB / PAGE..=3 * GIB / PAGE,
        high in prop_oneof![Just(0), 1u64..64 * GIB / PAGE],
        wanted in vec((any::<u64>(), 1u64..8 * MIB / PAGE), 1..6),
        default in option::of(any::<prop::sample::Index>()),
    ) -> (Vec<Range>, Vec<Pool>) {
        let memory: Vec<_> =
            [Range::new(0, low * PAGE), Range::new(4 * GIB, high * PAGE)].into_iter().flatten().collect();
        let mut pools: Vec<Pool> = Vec::new();
        for (place, size) in wanted {
            let page = place % (low + high);
            let base = if page < low { page * PAGE } else { 4 * GIB + (page - low) * PAGE };
            let ram = memory.iter().find(|ram| (ram.base()..ram.end()).contains(&base)).expect("it is memory");
            let range = Range::fixed(base, (size * PAGE).min(ram.end() - base));
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

/// How a random device is reached.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    on_pci: bool,
    names_pool: bool,
    pool: prop::sample::Index,
    offset: u64,
    size: u64,
}

prop_compose! {
    fn wanted()(on_pci in any::<bool>(), names_pool in any::<bool>(), pool in any::<prop::sample::Index>(), offset in 0u64..0x1000, size in 0x100u64..0x2000)
        -> Wanted {
        Wanted { on_pci, names_pool, pool, offset: offset * 4, size }
    }
}

prop_compose! {
    fn cpus()(apic_ids in btree_set(prop_oneof![0u32..300, 0u32..u32::MAX], 1..12), first in any::<prop::sample::Index>())
        -> Vec<u32> {
        let mut cpus: Vec<_> = apic_ids.into_iter().collect();
        let first = first.index(cpus.len());
        cpus.swap(0, first);
        cpus
    }
}

prop_compose! {
    fn system()(
        (power_off_value, reset_value) in any::<(u32, u32)>(),
        (type_off, acpi_reset_value) in (0u8..8, any::<u8>()),
        offsets in any::<[u16; 4]>(),
        at in places(),
        pin in Just(0),
    ) -> (SystemDevices, Vec<u64>) {
        let mut places = at.into_iter();
        let mut next = |offset: u16, size| Range::fixed(places.next().expect("room") + u64::from(offset) * 8, size);
        let system = SystemDevices {
            uart: (next(offsets[0], 8), Interrupt(pin)),
            power: next(offsets[1], 4),
            power_off_value,
            reset_value,
            sleep: SleepRegisters { window: next(offsets[2], 3), type_off, reset_value: acpi_reset_value },
            pvpanic: next(offsets[3], 2),
        };
        (system, places.collect())
    }
}

prop_compose! {
    /// A machine with nothing usual about it.
    pub fn any_machine()(
        (memory, pools) in memory(),
        cpus in cpus(),
        (mut system, places) in system(),
        devices in vec(wanted(), 0..24),
        numbers in Just((1..32u8).collect::<Vec<_>>()).prop_shuffle(),
        pins in 32u32..240,
        pin_order in Just((0..32u32).collect::<Vec<_>>()).prop_shuffle(),
        has_pci in any::<bool>(),
        pci_memory in (1u64..=16, 0u64..16),
        config_ports in (0u64..0xff00, 1u64..256),
        (local_apic, io_apic) in (0x30u64..0x40, 0x20u64..0x30),
        bootargs in "[ -~]{0,120}",
    ) -> Machine {
        let mut places = places.into_iter();
        let mut place = || places.next().expect("a place for each window");
        let mut lines = pin_order.into_iter().map(|pin| Interrupt(pins - 1 - pin));
        let mut line = || lines.next().expect("a line for each device");
        system.uart.1 = line();
        let (megabytes, offset) = pci_memory;
        let host = PciHost {
            ecam: Range::fixed(place(), MIB),
            config_ports: Range::fixed(config_ports.0, config_ports.1),
            memory: Range::fixed(place() + offset.min(16 - megabytes) * MIB, megabytes * MIB),
            lines: [line(), line(), line(), line()],
        };
        let mut virtio = Vec::new();
        for (index, (wanted, device)) in devices.iter().zip(numbers).enumerate() {
            let transport = if wanted.on_pci {
                let bar = Range::fixed(host.memory.base() + u64::from(device) * 0x8000, 0x8000);
                Transport::Pci { device, bar }
            } else {
                Transport::Mmio { window: Range::fixed(place() + wanted.offset, wanted.size), interrupt: line() }
            };
            let pool = PoolId(u16::try_from(wanted.pool.index(pools.len())).expect("few pools"));
            let binding = match wanted.names_pool || !pools[usize::from(pool.0)].dma_default {
                true => Binding::Reference,
                false => Binding::Default,
            };
            virtio.push(VirtioDevice { name: format!("net{index}"), transport, pool, binding });
        }
        let on_pci = virtio.iter().any(|device| matches!(device.transport, Transport::Pci { .. }));
        Machine {
            memory,
            pools,
            cpus,
            // Neither in a place of another window: they begin at 0xfc00_0000.
            local_apic: Range::fixed(0xfc00_0000 + local_apic * MIB, PAGE),
            io_apic: IoApic { window: Range::fixed(0xfc00_0000 + io_apic * MIB, 0x400), pins },
            system,
            pci: (has_pci || on_pci).then_some(host),
            virtio,
            bootargs,
        }
    }
}
