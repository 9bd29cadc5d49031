// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine description of a configuration. Everything that comes later reads it.

use cvmm_arch::native::{cpu, layout};
use cvmm_devices::power;
use cvmm_devices::virtio::pci::layout::BAR_SIZE;
use cvmm_firmware::{Machine, Pool, PoolId, SleepRegisters, SystemDevices, Transport, VirtioDevice};

use crate::config::{MachineConfig, TransportKind};
use crate::{Error, Result};

/// Lays out the machine that `config` asks for.
///
/// # Errors
/// The pool has no place in memory.
pub fn describe(config: &MachineConfig) -> Result<Machine> {
    let memory = layout::memory(config.mem);
    let pool = layout::place_pool(&memory, &[], config.pool.size, config.pool.base)
        .map_err(|error| Error::argument(&config.pool.option, error))?;
    // Each transport has places of its own.
    let (mut mmio, mut pci) = (0.., 0..);
    let virtio = config.devices.iter().map(|device| {
        let transport = match device.transport {
            TransportKind::Mmio => mmio
                .next()
                .and_then(layout::virtio_mmio)
                .map(|(window, interrupt)| Transport::Mmio { window, interrupt }),
            TransportKind::Pci => pci
                .next()
                .and_then(|index| layout::virtio_pci(index, BAR_SIZE))
                .map(|(device, bar)| Transport::Pci { device, bar }),
        };
        let transport = transport
            .ok_or_else(|| Error::argument(&device.option, "the machine has no room for another device"))?;
        Ok(VirtioDevice { name: device.name.clone(), transport, pool: PoolId(0) })
    });
    let virtio = virtio.collect::<Result<Vec<_>>>()?;
    let on_pci = |device: &VirtioDevice| matches!(device.transport, Transport::Pci { .. });
    let pci = virtio.iter().any(on_pci).then(layout::pci_host);
    Ok(Machine {
        virtio,
        memory,
        pools: vec![Pool { name: config.pool.name.clone(), range: pool }],
        cpus: cpu::apic_ids(config.cpus),
        local_apic: layout::local_apic(),
        io_apic: layout::io_apic(),
        system: SystemDevices {
            uart: (layout::UART, layout::UART_PIN),
            power: layout::POWER,
            power_off_value: power::POWER_OFF,
            reset_value: power::RESET,
            sleep: SleepRegisters {
                window: layout::SLEEP,
                type_off: power::SLEEP_TYPE_OFF,
                reset_value: power::ACPI_RESET,
            },
            pvpanic: layout::PVPANIC,
        },
        pci,
        bootargs: config.cmdline.clone(),
    })
}
