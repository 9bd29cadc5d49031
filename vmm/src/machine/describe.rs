// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine description of a configuration. Everything that comes later reads it.

use cvmm_arch::native::layout::PoolError;
use cvmm_arch::native::{cpu, layout};
use cvmm_devices::power;
use cvmm_devices::virtio::pci::layout::BAR_SIZE;
use cvmm_firmware::{
    Binding, Machine, Pool, PoolId, Range, SleepRegisters, SystemDevices, Transport, VirtioDevice,
};

use crate::config::{DeviceConfig, MachineConfig, PoolConfig, TransportKind};
use crate::{Error, Result};

/// Lays out the machine that `config` asks for.
///
/// # Errors
/// A pool or a device's memory has no place.
pub fn describe(config: &MachineConfig) -> Result<Machine> {
    let memory = layout::memory(config.mem);
    let pools = pools(config, &memory)?;
    // Each transport has places of its own.
    let (mut mmio, mut pci) = (0.., 0..);
    let mut memory_end = None;
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
        let pool = PoolId(u16::try_from(device.pool).map_err(|error| Error::vmm("pools", error))?);
        let profile = config.spec.profile;
        let binding = if profile.device_memory && matches!(transport, Transport::Pci { .. }) {
            let size = config.pools[device.pool].size;
            let bar =
                layout::pci_memory(size, memory_end, BAR_SIZE).ok_or_else(|| no_memory(device, size))?;
            memory_end = Some(bar.base());
            Binding::OnDevice(bar)
        } else if profile.dma_default && !device.pool_is_named {
            Binding::Default
        } else {
            Binding::Reference
        };
        Ok(VirtioDevice { name: device.name.clone(), transport, pool, binding })
    });
    let virtio = virtio.collect::<Result<Vec<_>>>()?;
    let on_pci = |device: &VirtioDevice| matches!(device.transport, Transport::Pci { .. });
    let pci = virtio.iter().any(on_pci).then(layout::pci_host);
    Ok(Machine {
        virtio,
        memory,
        pools,
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

fn no_memory(device: &DeviceConfig, size: u64) -> Error {
    let size = size >> 20;
    let reason = format!(
        "with --spec rfc a PCI device has memory of its own, as large as its pool; {size}M more do not fit into the 256M \
         for BARs; use a smaller pool"
    );
    Error::argument(&device.option, reason)
}

/// Places the pools.
fn pools(config: &MachineConfig, memory: &[Range]) -> Result<Vec<Pool>> {
    let ranges = place_pools(&config.pools, memory).map_err(|(pool, error)| {
        let more_memory = match error {
            PoolError::TooLarge { .. } => more_memory(config),
            _ => String::new(),
        };
        Error::argument(&pool.option, format!("{error}{more_memory}"))
    })?;
    let pool = |(pool, range): (&PoolConfig, Range)| {
        let dma_default = pool.default && config.spec.profile.dma_default;
        Pool { name: pool.name.clone(), range, dma_default }
    };
    Ok(config.pools.iter().zip(ranges).map(pool).collect())
}

/// The places of `pools`, or the first that has none. Those whose place the user chose are placed before the others.
fn place_pools<'p>(
    pools: &'p [PoolConfig],
    memory: &[Range],
) -> std::result::Result<Vec<Range>, (&'p PoolConfig, PoolError)> {
    let mut order: Vec<_> = pools.iter().enumerate().collect();
    order.sort_by_key(|(_, pool)| pool.base.is_none());
    let mut placed: Vec<(usize, Range)> = Vec::new();
    for (index, pool) in order {
        let others: Vec<_> = placed.iter().map(|(_, range)| *range).collect();
        let range = layout::place_pool(memory, &others, pool.size, pool.base);
        placed.push((index, range.map_err(|error| (pool, error))?));
    }
    placed.sort_by_key(|(index, _)| *index);
    Ok(placed.into_iter().map(|(_, range)| range).collect())
}

/// Says with how much memory the pools would fit.
fn more_memory(config: &MachineConfig) -> String {
    let fit = |mem: u64| place_pools(&config.pools, &layout::memory(mem)).is_ok();
    let units = |mem: u64| mem / layout::POOL_ALIGN;
    let (mut too_little, mut enough) = (units(config.mem), units(layout::MAX_MEMORY));
    if !fit(layout::MAX_MEMORY) {
        return format!("; a guest has at most {}G of memory, which is too little", layout::MAX_MEMORY >> 30);
    }
    while enough - too_little > 1 {
        let middle = too_little.midpoint(enough);
        *if fit(middle * layout::POOL_ALIGN) { &mut enough } else { &mut too_little } = middle;
    }
    format!("; use --mem {}M or more", (enough * layout::POOL_ALIGN) >> 20)
}
