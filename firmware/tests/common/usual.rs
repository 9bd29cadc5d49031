// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A grid of usual machines.

use cvmm_firmware::{
    Binding, Interrupt, IoApic, Machine, PciHost, Pool, PoolId, Range, SleepRegisters, SystemDevices,
    Transport, VirtioDevice,
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Which transport the virtio devices of a machine have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    Mmio,
    Pci,
    /// Turn by turn.
    Both,
}

/// Every combination of device count, transport, CPU count, memory above 4 GiB and pool count; of CPU counts, PCI sees
/// but two.
pub fn grid() -> Vec<Machine> {
    let mut machines = Vec::new();
    for devices in 0..=8 {
        for bus in [Bus::Mmio, Bus::Pci, Bus::Both] {
            for cpus in if bus == Bus::Mmio { 1..=8 } else { 2..=3 } {
                for high_memory in [false, true] {
                    for pools in [1, 3] {
                        machines.push(machine(devices, bus, cpus, high_memory, pools));
                    }
                }
            }
        }
    }
    machines
}

/// A usual machine. All numbers that stand for different things differ, so none can be taken for another.
pub fn machine(devices: u32, bus: Bus, cpus: u32, high_memory: bool, pools: u16) -> Machine {
    let mut memory = vec![Range::fixed(0, 512 * MIB)];
    if high_memory {
        memory = vec![Range::fixed(0, 3 * GIB), Range::fixed(4 * GIB, 2 * GIB + 6 * MIB)];
    }
    let pool = |index: u16| {
        let base = 64 * MIB + u64::from(index) * 32 * MIB;
        // The last pool of a large machine is above 4 GiB: its address needs more than 32 bits.
        let base = if high_memory && index == 2 { 4 * GIB + base } else { base };
        let range = Range::fixed(base, u64::from(index + 1) * 8 * MIB);
        Pool { name: format!("pool{index}"), range, dma_default: pools > 1 && index == 1 }
    };
    let host = PciHost {
        ecam: Range::fixed(0xe000_0000, MIB),
        config_ports: Range::fixed(0xcf8, 8),
        memory: Range::fixed(0xc200_0000, 16 * MIB),
        lines: [44, 46, 43, 47].map(Interrupt),
    };
    let transport = |index: u32| match (bus, index % 2) {
        (Bus::Mmio, _) | (Bus::Both, 0) => Transport::Mmio {
            window: Range::fixed(0xd000_0000 + u64::from(index) * 0x1000, 0x200),
            interrupt: Interrupt(23 - index),
        },
        // Not in the order of the command line, and up to the last of the bus.
        _ => Transport::Pci {
            device: u8::try_from(31 - index * 3).unwrap(),
            bar: Range::fixed(host.memory.base() + u64::from(index) * 0x8000, 0x8000),
        },
    };
    let device = |index: u32| VirtioDevice {
        name: format!("blk{index}"),
        transport: transport(index),
        // Neighbours are in different pools, and not in the order of the pools.
        pool: PoolId(pools - 1 - u16::try_from(index).unwrap() % pools),
        // Of three pools the second is the default one: half of its devices name it all the same.
        binding: if pools == 3 && [1, 4].contains(&(index % 12)) {
            Binding::Default
        } else {
            Binding::Reference
        },
    };
    Machine {
        memory,
        pools: (0..pools).map(pool).collect(),
        cpus: (0..cpus).collect(),
        local_apic: Range::fixed(0xfee0_0000, 0x1000),
        io_apic: IoApic { window: Range::fixed(0xfec0_0000, 0x400), pins: 48 },
        system: system(0xc100_0000, 5),
        pci: (bus != Bus::Mmio).then_some(host),
        virtio: (0..devices).map(device).collect(),
        bootargs: "console=ttyS0 reboot=k panic=-1".to_owned(),
    }
}

/// The devices that every machine has, with their windows from `base` on.
pub fn system(base: u64, uart_pin: u32) -> SystemDevices {
    SystemDevices {
        uart: (Range::fixed(base, 8), Interrupt(uart_pin)),
        power: Range::fixed(base + 0x1000, 4),
        power_off_value: 0x5555,
        reset_value: 0x7777,
        sleep: SleepRegisters { window: Range::fixed(base + 0x1010, 3), type_off: 5, reset_value: 0xa7 },
        pvpanic: Range::fixed(base + 0x2000, 2),
    }
}
